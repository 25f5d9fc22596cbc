"""Splits (train, validation, GRPO, test), and the leakage between test rows and training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latentscore.seeds import rng_for, unit_hash
from latentscore_data.core.base.rows import Split
from latentscore_data.core.base.settings import SplitsSettings
from latentscore_data.core.vibes.dedupe import farthest_points, nearest_similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAKAGE_ROWS = 2000
"""Largest number of TEST rows in the leakage report."""


@dataclass(frozen=True)
class Draw:
    """The split of each unit, and the units that are in a split only because it would have been empty."""

    splits: dict[str, Split]
    filled: dict[str, Split]


def draw_splits(
    units: Sequence[str],
    vectors: NDArray[np.float32],
    settings: SplitsSettings,
    filled: Mapping[str, Split] | None = None,
) -> Draw:
    """Draw a split for each unit: a source, or a row with ``split_by = "row"``. ``vectors`` has one row per unit.

    TEST and SFT-Val depend only on a hash of seed and name, so adding units moves no unit out of them (but if all units
    are in them, one is moved to SFT-Train). GRPO gets the most different of the other units (farthest-point sampling),
    SFT-Train the rest. TEST or SFT-Val, if it would be empty, gets the unit with the smallest hash. ``filled`` are these
    units of an earlier draw, which keep their split.
    """
    hashes = {unit: unit_hash(settings.seed, unit, "split") for unit in units}
    splits: dict[str, Split] = {}
    for unit, u in hashes.items():
        if u < settings.test:
            splits[unit] = "TEST"
        elif u < settings.test + settings.val:
            splits[unit] = "SFT-Val"
    still_filled: dict[str, Split] = {unit: split for unit, split in (filled or {}).items() if unit in hashes}
    splits.update(still_filled)
    if len(units) > 1 and len(splits) == len(units) and "SFT-Train" not in splits.values():
        # All units are in TEST or SFT-Val: one is moved to training, if possible none of an earlier draw.
        new = [unit for unit in units if unit not in still_filled]
        largest = max(new or units, key=lambda unit: (hashes[unit], unit))
        still_filled[largest] = splits[largest] = "SFT-Train"
    shares: tuple[tuple[Split, float], ...] = (("TEST", settings.test), ("SFT-Val", settings.val))
    for split, share in shares:
        free = [unit for unit in units if unit not in splits]
        # One unit is left for training, unless there is only one.
        if share > 0 and split not in splits.values() and free and (len(free) > 1 or len(units) == 1):
            taken = min(free, key=lambda unit: (hashes[unit], unit))
            splits[taken] = still_filled[taken] = split
    left = [at for at, unit in enumerate(units) if unit not in splits]
    wanted = max(round(settings.grpo * len(units)), 1) if settings.grpo > 0 else 0
    for at in farthest_points(vectors[left], min(wanted, max(len(left) - 1, 0))):
        splits[units[left[at]]] = "GRPO"
    for unit in units:
        splits.setdefault(unit, "SFT-Train")
    return Draw({unit: splits[unit] for unit in units}, still_filled)


def mean_vectors(vectors: NDArray[np.float32], groups: NDArray[np.intp], count: int) -> NDArray[np.float32]:
    """Return the normalized mean vector of each group, shape (count, dim). ``groups`` has the group of each row."""
    sums = np.zeros((count, vectors.shape[1]), dtype=np.float32)
    # In blocks: np.add.at on all rows would copy them.
    for start in range(0, len(vectors), 4096):
        np.add.at(sums, groups[start : start + 4096], vectors[start : start + 4096])
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    norms[norms == 0] = 1.0
    return sums / norms


@dataclass(frozen=True)
class Leakage:
    """The similarity of TEST to SFT-Train and GRPO: the cosines of TEST rows to their nearest training rows."""

    test_rows: int
    measured: int
    mean_nearest: float | None
    highest: float | None
    share_above_threshold: float | None
    share_same_source: float | None
    """Share of TEST rows whose source also has training rows."""


def leakage(
    vectors: NDArray[np.float32],
    splits: NDArray[np.str_],
    sources: NDArray[np.intp],
    threshold: float,
    seed: int,
) -> Leakage:
    """Measure the leakage of rows with these unit vectors (n, dim), splits (n,) and source numbers (n,)."""
    test = np.flatnonzero(splits == "TEST")
    train = np.flatnonzero((splits == "SFT-Train") | (splits == "GRPO"))
    total = len(test)
    if total > LEAKAGE_ROWS:
        test = np.sort(rng_for(seed, "leakage").choice(test, LEAKAGE_ROWS, replace=False))
    if not len(test) or not len(train):
        return Leakage(total, 0, None, None, None, None)
    nearest = nearest_similarity(vectors[test], vectors[train])
    shared = np.isin(sources[test], sources[train])
    return Leakage(
        total,
        len(test),
        round(float(nearest.mean()), 4),
        round(float(nearest.max()), 4),
        round(float((nearest >= threshold).mean()), 4),
        round(float(shared.mean()), 4),
    )
