"""Diversity of the answers and the vibes, compared with random configs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentscore import FIELDS
from latentscore_data.core.base.settings import CheckSettings
from latentscore_data.core.checks.types import Finding

FEW_WINNERS = 20
"""With fewer winners than this, entropies depend mostly on the number of winners."""


def check_diversity(labels: NDArray[np.uint8], settings: CheckSettings) -> list[Finding]:
    """Measure the label entropy of each field, the share of distinct configs, and the share of label pairs that occur.

    ``labels`` has the shape (winners, fields). An entropy is a share of the largest possible one, log2 of the number of
    labels.
    """
    if len(labels) < FEW_WINNERS:
        return [Finding("diversity", "winners", f"{len(labels):,}: too few to measure")]
    sizes = [len(spec.labels) for spec in FIELDS.values()]
    shares = {
        name: _entropy_bits(np.bincount(labels[:, at], minlength=sizes[at])) / np.log2(sizes[at])
        for at, name in enumerate(FIELDS)
    }
    low = sorted((name for name in shares if shares[name] < settings.min_entropy), key=shares.__getitem__)
    mean = float(np.mean(list(shares.values())))
    distinct = len(np.unique(labels, axis=0)) / len(labels)
    seen, chance = _pairs(labels, sizes)
    return [
        Finding("diversity", "label entropy, mean over fields", f"{mean:.2f} of 1"),
        Finding(
            "diversity",
            "fields with almost no variation",
            ", ".join(f"{name} {shares[name]:.2f}" for name in low) or "none",
            "fault" if low else "ok",
            f"entropy {settings.min_entropy:g}",
        ),
        Finding("diversity", "distinct winning configs", f"{distinct:.1%}"),
        Finding("diversity", "pairs of labels that occur", f"{seen:.1%} (random configs: {chance:.1%})"),
    ]


def _entropy_bits(counts: NDArray[np.intp]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _pairs(labels: NDArray[np.uint8], sizes: list[int]) -> tuple[float, float]:
    """Return the share of the label pairs of two fields that occur, and its expectation for random configs."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    together = np.zeros((starts[-1], starts[-1]), dtype=np.int64)
    for block in np.array_split(labels, max(1, len(labels) // 4096)):
        hot = np.zeros((len(block), starts[-1]), dtype=np.float32)
        hot[np.arange(len(block))[:, None], block + starts[:-1]] = 1.0
        together += (hot.T @ hot).astype(np.int64)
    field_of = np.repeat(np.arange(len(sizes)), sizes)
    between = field_of[:, None] < field_of[None, :]
    chance = 1.0 / np.repeat(sizes, sizes)
    expected = 1.0 - (1.0 - chance[:, None] * chance[None, :]) ** len(labels)
    return float((together[between] > 0).mean()), float(expected[between].mean())


def vendi_score(vectors: NDArray[np.float32]) -> float:
    """Return the effective number of different items among unit vectors of shape (n, dim), from 1 to min(n, dim).

    It is the exponential of the entropy of the eigenvalues of the cosine matrix over n (Friedman and Dieng 2023). The
    (dim, dim) matrix that is used here has the same nonzero eigenvalues.
    """
    values = np.linalg.eigvalsh(vectors.T.astype(np.float64) @ vectors / len(vectors))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))
