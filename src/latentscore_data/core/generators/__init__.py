"""What the benchmark compares: from a random config to a model, each behind the same small protocol."""
