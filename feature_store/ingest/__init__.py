"""Reading purchases, other events and items out of files of any shape."""
