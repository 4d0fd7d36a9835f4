"""Why something is shown: in terms of the computation, and in the customer's language."""
