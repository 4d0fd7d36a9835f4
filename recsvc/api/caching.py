"""What may be kept of answers."""

PERSONAL = {"Cache-Control": "private, no-store"}
"""Of an answer about somebody: not even their own browser keeps it, others may use it too."""
