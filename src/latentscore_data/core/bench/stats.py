"""Statistics of scores: means with intervals, paired tests, and the smallest detectable difference.

Rows of one text are not independent (five wordings of one scene are similar), so whole source documents are resampled.
The functions take arrays with one value per row, and the document of each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentscore_data.core.scoring.bootstrap import MIN_DOCUMENTS, by_document, cluster_interval

EXACT_UP_TO_DOCUMENTS = 13
"""Up to this many documents, all 2^n sign patterns are tested; above, a random sample of them."""


@dataclass(frozen=True)
class Estimate:
    """A mean over rows with its 95 % interval. Without one, ``low`` and ``high`` are None and ``reason`` says why."""

    mean: float
    low: float | None
    high: float | None
    rows: int
    documents: int
    reason: str = ""


@dataclass(frozen=True)
class Difference(Estimate):
    """The mean paired difference to the baseline; ``p`` is two-sided, ``p_holm`` is corrected with :func:`holm`."""

    p: float | None = None
    p_holm: float | None = None


def too_few(documents: int) -> str:
    """Return the reason why there are no intervals, or an empty string with enough documents."""
    if documents >= MIN_DOCUMENTS:
        return ""
    return f"only {documents} source document{'' if documents == 1 else 's'}: means only below {MIN_DOCUMENTS}"


def estimate(
    values: ArrayLike, documents: Sequence[str], rng: np.random.Generator, *, resamples: int = 4000
) -> Estimate:
    """Return the mean of the rows with a 95 % bootstrap interval over whole documents.

    ``values`` and ``documents`` have one entry per row. Raises :class:`ValueError` for values that are not finite.
    """
    sums, counts = by_document(values, documents)
    mean = float(sums.sum() / counts.sum())
    reason = too_few(len(sums))
    if reason:
        return Estimate(mean, None, None, int(counts.sum()), len(sums), reason)
    low, high = cluster_interval(sums, counts, rng, resamples)
    return Estimate(mean, low, high, int(counts.sum()), len(sums))


def paired_difference(
    values: ArrayLike,
    baseline: ArrayLike,
    documents: Sequence[str],
    rng: np.random.Generator,
    *,
    resamples: int = 4000,
) -> Difference:
    """Return the mean difference to a baseline on the same rows, with a sign-flip test over documents."""
    differences = np.asarray(values, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    found = estimate(differences, documents, rng, resamples=resamples)
    p = None if found.reason else sign_flip_p(differences, documents, rng)
    return Difference(**asdict(found), p=p)


def sign_flip_p(
    differences: ArrayLike, documents: Sequence[str], rng: np.random.Generator, *, flips: int = 10_000
) -> float:
    """Return the two-sided p-value of the hypothesis that the mean difference is zero.

    Under this hypothesis the sign of each document's summed difference is arbitrary. Above
    :data:`EXACT_UP_TO_DOCUMENTS`, ``flips`` random sign patterns are tested, and the observed pattern counts as one of
    them (Phipson and Smyth 2010), so the p-value is never zero.
    """
    sums, _ = by_document(differences, documents)
    n = len(sums)
    exact = n <= EXACT_UP_TO_DOCUMENTS
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = rng.choice([-1.0, 1.0], size=(flips, n))
    observed = abs(sums.sum())
    # Equal sums can differ in the last digits, depending on the order of addition.
    as_extreme = int((np.abs(signs @ sums) >= observed - 1e-9 * max(1.0, np.abs(sums).sum())).sum())
    return as_extreme / len(signs) if exact else (as_extreme + 1) / (flips + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values with Holm's step-down correction (1979), which bounds the probability of a false positive."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted


def detectable_difference(differences: ArrayLike, documents: Sequence[str], comparisons: int = 1) -> float | None:
    """Return the smallest true mean difference that a paired test on these documents detects with 80 % power, as one of
    so many ``comparisons`` whose p-values :func:`holm` corrects.

    The first step of the correction multiplies the smallest p-value by ``comparisons``, so a difference is detected in
    any case if its p-value is below 5 % / ``comparisons``. The power is that of a t test with (documents - 1) degrees
    of freedom and the cluster-robust standard error of the mean. None below :data:`MIN_DOCUMENTS` documents, and if
    even the smallest p-value of :func:`sign_flip_p` is too large (8 documents, 7 comparisons).
    """
    n, level = len(set(documents)), 0.05 / comparisons
    if too_few(n) or 2.0 ** (1 - n) >= level:
        return None
    return _detectable_shift(n, level) * cluster_standard_error(differences, documents)


def _detectable_shift(n: int, level: float) -> float:
    """Return the noncentrality at which a two-sided t test of this level with n - 1 degrees of freedom has 80 % power."""
    from scipy import optimize, stats

    freedom = n - 1
    critical = stats.t.ppf(1 - level / 2, freedom)

    # A significant difference of the wrong sign is left out: its probability is below 1e-5.
    return float(
        optimize.brentq(lambda shift: stats.nct.sf(critical, freedom, shift) - 0.8, 1e-3, 3 * critical)  # type: ignore[arg-type]
    )


def cluster_standard_error(values: ArrayLike, documents: Sequence[str]) -> float:
    """Return the standard error of the row mean for rows that are correlated within documents (linearised ratio)."""
    sums, counts = by_document(values, documents)
    n = len(sums)
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / counts.sum())


def shuffled_partners(documents: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64] | None:
    """Return, for each row, the index of a row of another document; None if there is only one document.

    The result is a permutation unless a document has more than half of the rows; then partners are drawn with
    replacement.
    """
    _, codes = np.unique(np.asarray(documents), return_inverse=True)
    sizes = np.bincount(codes)
    if len(sizes) < 2:
        return None
    n = len(codes)
    if sizes.max() * 2 > n:
        return np.array([rng.choice(np.flatnonzero(codes != code)) for code in codes], dtype=np.int64)
    # Rows in document order, rotated by the size of the largest document: no row gets its own document.
    order = np.lexsort((rng.random(n), rng.permutation(len(sizes))[codes]))
    partners = np.empty(n, dtype=np.int64)
    partners[order] = np.roll(order, int(sizes.max()))
    return partners
