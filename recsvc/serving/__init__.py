"""Processes: how a worker starts, what it holds and keeps fresh, what it does beside answering."""
