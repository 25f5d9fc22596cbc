"""What a table of scores may claim: means with intervals, paired tests, and the smallest difference it could see.

Rows of one text are not independent (five wordings of one scene say the same thing), so everything here is resampled
by source document. Plain arrays in, small records out; randomness is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MIN_DOCUMENTS = 8
"""Below this many source documents an interval or a p-value says more about the draw than about the generators."""

EXACT_UP_TO_DOCUMENTS = 13
"""Up to here all 2^n sign patterns are tried; beyond, a random sample of them."""


@dataclass(frozen=True)
class Estimate:
    """A mean over rows. ``low`` and ``high`` are None, and ``reason`` says why, where no interval can be trusted."""

    mean: float
    low: float | None
    high: float | None
    rows: int
    documents: int
    reason: str = ""


@dataclass(frozen=True)
class Difference(Estimate):
    """Mean paired difference to the baseline on the same rows; ``p`` is two-sided, ``p_holm`` corrected by :func:`holm`."""

    p: float | None = None
    p_holm: float | None = None


def too_few(documents: int) -> str:
    """Why only means are given, or an empty string when there are enough documents."""
    if documents >= MIN_DOCUMENTS:
        return ""
    return f"only {documents} source document{'' if documents == 1 else 's'}: means only below {MIN_DOCUMENTS}"


def estimate(
    values: ArrayLike, documents: Sequence[str], rng: np.random.Generator, *, resamples: int = 4000
) -> Estimate:
    """Mean of the rows with a 95 % bootstrap interval that resamples whole documents."""
    sums, counts = _by_document(values, documents)
    mean = float(sums.sum() / counts.sum())
    reason = too_few(len(sums))
    if reason:
        return Estimate(mean, None, None, int(counts.sum()), len(sums), reason)
    low, high = _cluster_interval(sums, counts, rng, resamples)
    return Estimate(mean, low, high, int(counts.sum()), len(sums))


def paired_difference(
    values: ArrayLike,
    baseline: ArrayLike,
    documents: Sequence[str],
    rng: np.random.Generator,
    *,
    resamples: int = 4000,
) -> Difference:
    """Difference to a baseline on the same rows in the same order, tested by flipping the sign of whole documents."""
    differences = np.asarray(values, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    found = estimate(differences, documents, rng, resamples=resamples)
    p = None if found.reason else sign_flip_p(differences, documents, rng)
    return Difference(**asdict(found), p=p)


def sign_flip_p(
    differences: ArrayLike, documents: Sequence[str], rng: np.random.Generator, *, flips: int = 10_000
) -> float:
    """Two-sided p-value of a mean difference of zero.

    Under the null the sign of each document's summed difference is arbitrary. All patterns are tried for up to
    13 documents; otherwise ``flips`` random ones, and the observed pattern counts as one of them (Phipson and
    Smyth 2010), so the p-value is never zero.
    """
    sums, _ = _by_document(differences, documents)
    n = len(sums)
    exact = n <= EXACT_UP_TO_DOCUMENTS
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = rng.choice([-1.0, 1.0], size=(flips, n))
    observed = abs(sums.sum())
    # Equal sums differ in the last digits when they are added in another order.
    as_extreme = int((np.abs(signs @ sums) >= observed - 1e-9 * max(1.0, np.abs(sums).sum())).sum())
    return as_extreme / len(signs) if exact else (as_extreme + 1) / (flips + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979): the chance of one false claim among all of them stays below the level."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted


def detectable_difference(differences: ArrayLike, documents: Sequence[str]) -> float | None:
    """The smallest true mean difference that a paired test on this many documents would find with a power of 80 %.

    From the noncentral t distribution with (documents - 1) degrees of freedom and the cluster-robust standard error of
    the mean; None below 8 documents.
    """
    n = len(set(documents))
    if too_few(n):
        return None
    return _detectable_shift(n) * cluster_standard_error(differences, documents)


def _detectable_shift(n: int) -> float:
    """The noncentrality at which a two-sided t test at 5 % with n - 1 degrees of freedom reaches a power of 80 %."""
    freedom = n - 1
    from scipy import optimize, stats

    critical = stats.t.ppf(0.975, freedom)

    def missing(shift: float) -> float:
        found = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
        return float(found) - 0.8

    return float(optimize.brentq(missing, 1e-3, 8.0))  # type: ignore[arg-type]


def cluster_standard_error(values: ArrayLike, documents: Sequence[str]) -> float:
    """Standard error of the row mean when rows of a document go together (linearised ratio of sums)."""
    sums, counts = _by_document(values, documents)
    n = len(sums)
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / counts.sum())


def shuffled_partners(documents: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64] | None:
    """For each row the index of a row of another document, or None where there is only one document.

    A permutation where no document holds more than half of the rows; otherwise partners are drawn with repetition.
    """
    _, codes = np.unique(np.asarray(documents), return_inverse=True)
    sizes = np.bincount(codes)
    if len(sizes) < 2:
        return None
    n = len(codes)
    if sizes.max() * 2 > n:
        return np.array([rng.choice(np.flatnonzero(codes != code)) for code in codes], dtype=np.int64)
    # Rows in document order, moved on by the largest document's size: nobody meets their own document.
    order = np.lexsort((rng.random(n), rng.permutation(len(sizes))[codes]))
    partners = np.empty(n, dtype=np.int64)
    partners[order] = np.roll(order, int(sizes.max()))
    return partners


def best_of(scores: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The highest known score of each row's candidates: the ceiling."""
    return [max((score for score in row if score is not None), default=None) for row in scores]


def _by_document(values: ArrayLike, documents: Sequence[str]) -> tuple[Floats, Floats]:
    """Sum and count of the rows of each document, both of shape (documents,)."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) != len(documents) or len(array) == 0:
        raise ValueError(f"one value per row is needed: {array.shape} values for {len(documents)} rows")
    if not np.isfinite(array).all():
        raise ValueError("values must be finite: a failed row takes the floor score")
    _, codes = np.unique(np.asarray(documents), return_inverse=True)
    sums: Floats = np.bincount(codes, weights=array).astype(np.float64)
    counts: Floats = np.bincount(codes).astype(np.float64)
    return sums, counts


def _cluster_interval(sums: Floats, counts: Floats, rng: np.random.Generator, resamples: int) -> tuple[float, float]:
    n = len(sums)
    picks = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    means = (picks @ sums) / (picks @ counts)
    # A plain percentile interval is too narrow for few documents; Hesterberg's (2015) widened tails mend that.
    from scipy import stats

    tail = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf((1 - 0.95) / 2, n - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def describe(values: ArrayLike, bins: Sequence[float] | None = None) -> dict[str, object]:
    """Quartiles, ends and a histogram of scores, for drawing."""
    array = np.asarray(values, dtype=np.float64)
    counts, edges = np.histogram(array, bins=24 if bins is None else np.asarray(bins))
    quantiles = np.quantile(array, [0.05, 0.25, 0.5, 0.75, 0.95])
    return {
        "quantiles": [float(q) for q in quantiles],
        "histogram": [int(c) for c in counts],
        "edges": [float(e) for e in edges],
    }
