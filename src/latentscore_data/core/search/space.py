"""The search space: configs as arrays of label indices, sampling, crossover and mutation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore.labels import FIELDS, Label

Codes = NDArray[np.int8]
"""Configs of shape (configs, 34): for each field, the index of its label in ``FIELDS[name].labels``."""

Floats = NDArray[np.float64]

NAMES = tuple(FIELDS)
SIZES = tuple(len(spec.labels) for spec in FIELDS.values())
ORDERED = tuple(spec.ordered for spec in FIELDS.values())
STARTS = tuple(np.cumsum((0, *SIZES))[:-1].tolist())
"""The index of each field's first label among the 185 labels of all fields."""
LABELS = sum(SIZES)
LOW, HIGH = NAMES.index("register_min_oct"), NAMES.index("register_max_oct")


def encode(configs: Sequence[Mapping[str, Any]]) -> Codes:
    """Return configs of labels as codes, shape (configs, 34)."""
    rows = [[spec.labels.index(config[name]) for name, spec in FIELDS.items()] for config in configs]
    return np.array(rows, dtype=np.int8).reshape(len(rows), len(NAMES))


def decode(code: Codes) -> dict[str, Label]:
    """Return one row of codes, shape (34,), as a config of labels."""
    return {name: spec.labels[int(at)] for (name, spec), at in zip(FIELDS.items(), code, strict=True)}


def in_order(codes: Codes) -> Codes:
    """Swap registers in place where the lower one is not first, as a valid config requires; return the codes."""
    low, high = np.minimum(codes[:, LOW], codes[:, HIGH]), np.maximum(codes[:, LOW], codes[:, HIGH])
    codes[:, LOW], codes[:, HIGH] = low, high
    return codes


def one_hot(codes: Codes) -> Floats:
    """Return the one-hot encoding of all fields, shape (configs, 185)."""
    table = np.zeros((len(codes), LABELS))
    table[np.arange(len(codes))[:, None], codes + np.array(STARTS)] = 1.0
    return table


def drawn(chances: Floats, count: int, rng: np.random.Generator) -> Codes:
    """Return ``count`` configs with labels sampled by ``chances``, shape (185,), whose sum per field is 1."""
    codes = np.empty((count, len(NAMES)), dtype=np.int8)
    for at, (start, size) in enumerate(zip(STARTS, SIZES, strict=True)):
        edges = np.cumsum(chances[start : start + size])
        codes[:, at] = np.minimum(np.searchsorted(edges, rng.random(count) * edges[-1], side="right"), size - 1)
    return in_order(codes)


def uniform() -> Floats:
    """Return uniform probabilities within each field, shape (185,)."""
    return np.concatenate([np.full(size, 1.0 / size) for size in SIZES])


def mixed(parents: Codes, count: int, chances: Floats, rng: np.random.Generator, moves: float = 2.0) -> Codes:
    """Return ``count`` children: half of them are crossed from two parents, then about ``moves`` fields of each are
    sampled again by ``chances``."""
    first, second = (parents[rng.integers(len(parents), size=count)] for _ in range(2))
    take = (rng.random((count, len(NAMES))) < 0.3) & (rng.random(count) < 0.5)[:, None]
    children = np.where(take, second, first).astype(np.int8)
    again = rng.random(children.shape) < moves / len(NAMES)
    children = np.where(again, drawn(chances, count, rng), children).astype(np.int8)
    return in_order(children)


def keys(codes: Codes) -> list[bytes]:
    """Return a hashable key for each config."""
    return [code.tobytes() for code in np.ascontiguousarray(codes)]
