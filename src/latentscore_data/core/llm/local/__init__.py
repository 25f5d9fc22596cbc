"""Local models with constrained decoding."""
