"""What customers decide for themselves, and what the system thinks of them and asks them."""
