"""The starter set's pairs by meaning: which configs people wrote for vibes near to a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from latentscore.labels import FIELDS, Label
from latentscore.meaning.reading import Reading, Vector, read
from latentscore.seeds import digest
from latentscore.vibe_map import starter_lines, starter_pairs

NEIGHBOURS = 40
SPREAD = 0.15
"""Cosine by which a neighbour must be farther away to count 1/e."""

USUAL = 0.7
"""Which part of a label's share in the whole set is taken off its votes: else the most frequent choice wins everywhere."""


@dataclass(frozen=True)
class Neighbours:
    """Pairs near to a text, the nearest first, with weights that add up to 1."""

    pairs: tuple[Mapping[str, Any], ...] = ()
    weights: tuple[float, ...] = ()

    def votes(self, field: str) -> dict[Label, float]:
        """The weight that the pairs give to each label of a field; for choices, beyond what the whole set gives it."""
        usual = USUAL if self.pairs and not FIELDS[field].ordered else 0.0
        votes = {label: -usual * share for label, share in _shares(field).items()}
        for pair, weight in zip(self.pairs, self.weights, strict=True):
            votes[pair["config"][field]] += weight
        return votes


def starter_fingerprint() -> str:
    """Changes with the pairs, and with how many of them are asked and how they are weighed."""
    return digest(NEIGHBOURS, SPREAD, USUAL, *starter_lines())


@cache
def _pairs() -> tuple[tuple[Mapping[str, Any], ...], Vector]:
    """The pairs whose vibes can be read, and their vectors, float32 of shape (pairs, dim)."""
    read_pairs = [(pair, read(pair["vibe"]).vector) for pair in starter_pairs()]
    known = [(pair, vector) for pair, vector in read_pairs if vector is not None]
    return tuple(pair for pair, _ in known), np.stack([vector for _, vector in known])


@cache
def _shares(field: str) -> dict[Label, float]:
    labels = [pair["config"][field] for pair in _pairs()[0]]
    return {label: labels.count(label) / len(labels) for label in FIELDS[field].labels}


def neighbours(reading: Reading) -> Neighbours:
    """The starter pairs that lie nearest to what was read; none for a text without words or in another language."""
    if reading.vector is None:
        return Neighbours()
    pairs, vectors = _pairs()
    cosines = (vectors * reading.vector).sum(axis=1)
    nearest = np.argsort(-cosines, kind="stable")[:NEIGHBOURS]
    weights = np.exp((cosines[nearest] - cosines[nearest[0]]) / SPREAD)
    return Neighbours(tuple(pairs[at] for at in nearest), tuple((weights / weights.sum()).tolist()))
