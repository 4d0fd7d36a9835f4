"""All that is held of one person, as a document that can be read."""
