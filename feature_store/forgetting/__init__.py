"""Forgetting people: what is kept of it, on the server, in every file, and the receipts."""
