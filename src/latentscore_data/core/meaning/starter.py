"""The starter set's pairs by meaning: which configs people wrote for vibes near to a text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from latentscore.labels import FIELDS, Label
from latentscore_data.core.base.seeds import digest
from latentscore_data.core.meaning.reading import Reading, Vector, read

NEIGHBOURS = 40
SPREAD = 0.15
"""Cosine by which a neighbour must be farther away to count 1/e."""
FAR, NEAR = -0.2, 0.3
"""Cosine of the nearest pair at which its configs say nothing, and at which they are trusted fully."""


USUAL = 0.7
"""Which part of a label's share in the whole set is taken off its votes: else the most frequent choice wins everywhere."""


@dataclass(frozen=True)
class Neighbours:
    """Pairs near to a text, the nearest first, with weights that add up to ``trust`` (0 to 1)."""

    pairs: tuple[Mapping[str, Any], ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def trust(self) -> float:
        return sum(self.weights)

    def votes(self, field: str) -> dict[Label, float]:
        """The weight that the pairs give to each label of a field; for choices, beyond what the whole set gives it."""
        usual = 0.0 if FIELDS[field].ordered else USUAL
        votes = {label: -self.trust * usual * share for label, share in _shares(field).items()}
        for pair, weight in zip(self.pairs, self.weights, strict=True):
            votes[pair["config"][field]] += weight
        return votes

    def colors(self) -> list[str]:
        """The colours of the nearest three pairs' first palettes, the most prominent of each pair first."""
        palettes = [[color["hex"] for color in pair["palettes"][0]["colors"]] for pair in self.pairs[:3]]
        return [color for colors in zip(*palettes, strict=False) for color in colors]


@cache
def _lines() -> tuple[str, ...]:
    folder = files("latentscore").joinpath("starter")
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".jsonl"))
    return tuple(line for name in names for line in folder.joinpath(name).read_text(encoding="utf-8").splitlines())


def starter_fingerprint() -> str:
    """Changes with the pairs, and with how many of them are asked and how they are weighed."""
    return digest(NEIGHBOURS, SPREAD, FAR, NEAR, USUAL, *_lines())


@cache
def _pairs() -> tuple[tuple[Mapping[str, Any], ...], Vector]:
    """The pairs whose vibes can be read, and their vectors, float32 of shape (pairs, dim)."""
    read_pairs = [(pair, read(pair["vibe"]).vector) for pair in map(json.loads, _lines())]
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
    trust = min(max((float(cosines[nearest[0]]) - FAR) / (NEAR - FAR), 0.0), 1.0)
    return Neighbours(tuple(pairs[at] for at in nearest), tuple((trust * weights / weights.sum()).tolist()))


@cache
def vibes() -> tuple[str, ...]:
    """The vibes of the starter set, each once."""
    return tuple(dict.fromkeys(str(pair["vibe"]) for pair in map(json.loads, _lines())))
