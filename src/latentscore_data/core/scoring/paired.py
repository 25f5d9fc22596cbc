"""The paired comparison of a scorer's scores on the same rows, with a bootstrap interval over source documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentscore.seeds import rng_for

FEW_DOCUMENTS = 8
"""With fewer source documents than this there is no interval, and the mean difference decides."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Paired:
    """A scorer's means before and after on the same rows: ``start`` and ``found``.

    ``low`` and ``high`` are the 95 % interval of the mean difference (bootstrap over source documents); None below
    :data:`FEW_DOCUMENTS`.
    """

    scorer: str
    start: float
    found: float
    low: float | None
    high: float | None
    rows: int

    @property
    def difference(self) -> float:
        return self.found - self.start

    @property
    def better(self) -> bool:
        """Whether ``found`` has a higher mean, and the interval, if there is one, excludes zero."""
        return self.difference > 0 and (self.low is None or self.low > 0)

    def in_words(self) -> str:
        interval = "" if self.low is None else f" [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.scorer} {self.start:.3f} -> {self.found:.3f} ({self.difference:+.3f}{interval})"


def compared(scorer: str, pairs: Sequence[tuple[str, float, float]]) -> Paired | None:
    """Return a scorer's means over rows of (source document, score before, score after); None without rows."""
    if not pairs:
        return None
    starts, founds = (np.array([pair[at] for pair in pairs]) for at in (1, 2))
    low, high = interval(founds - starts, [pair[0] for pair in pairs])
    return Paired(scorer, float(starts.mean()), float(founds.mean()), low, high, len(pairs))


def interval(differences: Any, documents: Sequence[str]) -> tuple[float | None, float | None]:
    """Return the 95 % bootstrap interval of the mean difference over whole documents; (None, None) below
    :data:`FEW_DOCUMENTS`."""
    names = sorted(set(documents))
    if len(names) < FEW_DOCUMENTS:
        return None, None
    place = {name: at for at, name in enumerate(names)}
    at = np.array([place[name] for name in documents])
    sums, counts = np.bincount(at, differences, len(names)), np.bincount(at, minlength=len(names))
    drawn = rng_for("search judge", len(names)).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
