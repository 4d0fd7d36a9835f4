"""All that is held of one person, wherever it is held."""
