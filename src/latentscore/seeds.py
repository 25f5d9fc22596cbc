"""Randomness that depends on what is worked on, never on what ran before."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def digest(*parts: object) -> str:
    """SHA-256 (hex) of the parts, unambiguous about where one ends and the next begins."""
    # A set prints in another order in each process; sorted, it has one name.
    named = (str(sorted(part) if isinstance(part, set | frozenset) else part) for part in parts)
    text = "".join(f"{len(part)}:{part}" for part in named)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def seed_for(*parts: object) -> int:
    """A 63-bit seed for what the parts name."""
    return int(digest(*parts)[:16], 16) >> 1


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that looks random and depends on the parts alone."""
    return int(digest(*parts)[:13], 16) / 16**13


def rng_for(*parts: object) -> np.random.Generator:
    """A generator seeded from what the parts name."""
    import numpy as np

    return np.random.default_rng(seed_for(*parts))
