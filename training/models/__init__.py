"""The single models: each turns interactions into arrays of the artifact."""
