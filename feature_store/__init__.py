"""What is known: events, users, items, rules, preferences and models.

This package imports neither ``training`` nor ``recsvc``; it is the only one that talks to Redis.
"""
