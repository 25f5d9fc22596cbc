"""The functions of :mod:`latentscore.seeds`: randomness that depends only on the arguments, never on earlier calls."""

from latentscore.seeds import digest, rng_for, seed_for, unit_hash

__all__ = ["digest", "rng_for", "seed_for", "unit_hash"]
