"""The bootstrap interval of a mean over rows, where whole source documents are resampled, because rows of one document are not
independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MIN_DOCUMENTS = 8
"""Fewer source documents than this get neither intervals nor p-values: these would depend on the draw of documents."""


def by_document(values: ArrayLike, documents: Sequence[str]) -> tuple[Floats, Floats]:
    """Return the sum and the number of the rows of each document, both of shape (documents,).

    ``values`` and ``documents`` have one entry per row. Raises :class:`ValueError` for values that are not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) != len(documents) or len(array) == 0:
        raise ValueError(f"one value per row is needed: {array.shape} values for {len(documents)} rows")
    if not np.isfinite(array).all():
        raise ValueError("values must be finite: a failed row gets the floor score")
    _, codes = np.unique(np.asarray(documents), return_inverse=True)
    sums: Floats = np.bincount(codes, weights=array).astype(np.float64)
    counts: Floats = np.bincount(codes).astype(np.float64)
    return sums, counts


def cluster_interval(sums: Floats, counts: Floats, rng: np.random.Generator, resamples: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean of the rows, from the values of :func:`by_document` of at least
    :data:`MIN_DOCUMENTS` documents."""
    n = len(sums)
    picks = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    means = (picks @ sums) / (picks @ counts)
    low, high = np.quantile(means, interval_tails(n))
    return float(low), float(high)


def interval_tails(documents: int) -> tuple[float, float]:
    """Return the quantiles of a bootstrap distribution that bound the 95 % interval.

    A percentile interval is too narrow for few documents; Hesterberg's (2015) wider tails correct this.
    """
    from scipy import stats

    tail = float(stats.norm.cdf(np.sqrt(documents / (documents - 1)) * stats.t.ppf((1 - 0.95) / 2, documents - 1)))
    return tail, 1 - tail
