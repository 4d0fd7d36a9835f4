"""Who may ask: keys, customer tokens, and the keys that both are checked with."""
