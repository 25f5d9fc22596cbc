"""Nearest neighbours in the starter set: the configs that were written for vibes similar to a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from latentscore.labels import FIELDS, Label
from latentscore.meaning.fitted import fitted
from latentscore.meaning.reading import Reading, Vector, read, reading_fingerprint
from latentscore.meaning.sentence import embedder
from latentscore.seeds import digest
from latentscore.vibe_map import starter_lines, starter_pairs

NEIGHBOURS = 40
SPREAD = 0.15
"""Difference in cosine at which a neighbour's weight falls to 1/e."""

USUAL = 0.7
"""Factor on a label's share in the whole set that is subtracted from its votes; otherwise the most frequent label always wins."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest pairs to a text, sorted by similarity, with weights that add up to 1."""

    pairs: tuple[Mapping[str, Any], ...] = ()
    weights: tuple[float, ...] = ()

    def votes(self, field: str) -> dict[Label, float]:
        """Return the weight of each label of a field; for fields without an order, minus its share in the whole set."""
        usual = USUAL if self.pairs and not FIELDS[field].ordered else 0.0
        votes = {label: -usual * share for label, share in _shares(field).items()}
        for pair, weight in zip(self.pairs, self.weights, strict=True):
            votes[pair["config"][field]] += weight
        return votes


def starter_fingerprint() -> str:
    """Return a hash of the pairs, the number of neighbours and their weights."""
    return digest(NEIGHBOURS, SPREAD, USUAL, *starter_lines())


@cache
def _pairs() -> tuple[tuple[Mapping[str, Any], ...], Vector]:
    """Return the pairs whose vibes have a vector, and their vectors, float32 of shape (pairs, dim)."""
    vectors = fitted("pairs", pairs_fingerprint())
    if vectors is None:
        vectors = pair_vectors()
    pairs, known = starter_pairs(), np.flatnonzero(vectors.any(axis=1))
    return tuple(pairs[at] for at in known), vectors[known]


def pairs_fingerprint() -> str:
    """Return a hash of everything that determines the vectors of the pairs."""
    return digest(reading_fingerprint(), *starter_lines())


def pair_vectors() -> Vector:
    """Return the vector of each pair's vibe, float32 of shape (pairs, dim); 0 for a vibe without a vector."""
    vectors = [read(pair["vibe"]).vector for pair in starter_pairs()]
    return np.stack([np.zeros(embedder().dim, dtype=np.float32) if v is None else v for v in vectors])


@cache
def _shares(field: str) -> dict[Label, float]:
    labels = [pair["config"][field] for pair in _pairs()[0]]
    return {label: labels.count(label) / len(labels) for label in FIELDS[field].labels}


def neighbours(reading: Reading) -> Neighbours:
    """Return the starter pairs nearest to a text; none for a text without words or in another language."""
    if reading.vector is None:
        return Neighbours()
    pairs, vectors = _pairs()
    cosines = (vectors * reading.vector).sum(axis=1)
    nearest = np.argsort(-cosines, kind="stable")[:NEIGHBOURS]
    weights = np.exp((cosines[nearest] - cosines[nearest[0]]) / SPREAD)
    return Neighbours(tuple(pairs[at] for at in nearest), tuple((weights / weights.sum()).tolist()))
