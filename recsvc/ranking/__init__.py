"""From what is known of a person and a page to a list: proposed, scored, varied, filled."""
