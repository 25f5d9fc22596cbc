"""Randomness that depends on what is worked on, never on what ran before: the functions of :mod:`latentscore.seeds`."""

from latentscore.seeds import digest, rng_for, seed_for, unit_hash

__all__ = ["digest", "rng_for", "seed_for", "unit_hash"]
