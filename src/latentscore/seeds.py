"""Hashes, seeds and random generators that depend only on their arguments, never on earlier calls."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def digest(*parts: object) -> str:
    """Return the SHA-256 (hex) of the parts; the boundaries between parts are included."""
    # The order of a set differs between processes, so it is sorted.
    named = (str(sorted(part) if isinstance(part, set | frozenset) else part) for part in parts)
    text = "".join(f"{len(part)}:{part}" for part in named)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def seed_for(*parts: object) -> int:
    """Return a 63-bit seed derived from the parts."""
    return int(digest(*parts)[:16], 16) >> 1


def unit_hash(*parts: object) -> float:
    """Return a pseudo-random number in [0, 1) derived from the parts."""
    return int(digest(*parts)[:13], 16) / 16**13


def rng_for(*parts: object) -> np.random.Generator:
    """Return a random generator with a seed derived from the parts."""
    import numpy as np

    return np.random.default_rng(seed_for(*parts))
