"""What the commands of ``recsvc`` do; ``recsvc/cli.py`` names them and their options."""
