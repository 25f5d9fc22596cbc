"""Models that answer on this machine, held to a schema while they decode."""
