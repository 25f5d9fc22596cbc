"""The paired comparison of a scorer's scores on the same rows, with a bootstrap interval over source documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latentscore.seeds import rng_for
from latentscore_data.core.scoring.bootstrap import MIN_DOCUMENTS, Floats, by_document, cluster_interval

RESAMPLES = 4000


@dataclass(frozen=True)
class Paired:
    """One scorer's mean scores of the starts and of the found configs, on the same rows.

    ``low`` and ``high`` are the 95 % interval of the mean difference (bootstrap over source documents); None below
    :data:`MIN_DOCUMENTS`, where the sign of the mean difference decides.
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
        """Whether the found configs have a higher mean, and the interval, if there is one, excludes zero."""
        return self.difference > 0 and (self.low is None or self.low > 0)

    def in_words(self) -> str:
        interval = "" if self.low is None else f" [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.scorer} {self.start:.3f} -> {self.found:.3f} ({self.difference:+.3f}{interval})"


def compared(scorer: str, pairs: Sequence[tuple[str, float, float]]) -> Paired | None:
    """Return a scorer's means over rows of (source document, score of the start, score of the found config); None
    without rows."""
    if not pairs:
        return None
    starts, founds = (np.array([pair[at] for pair in pairs]) for at in (1, 2))
    low, high = _interval(founds - starts, [pair[0] for pair in pairs])
    return Paired(scorer, float(starts.mean()), float(founds.mean()), low, high, len(pairs))


def _interval(differences: Floats, documents: Sequence[str]) -> tuple[float | None, float | None]:
    sums, counts = by_document(differences, documents)
    if len(sums) < MIN_DOCUMENTS:
        return None, None
    return cluster_interval(sums, counts, rng_for("search judge", len(sums)), RESAMPLES)
