"""The space of the search: configs as arrays of label numbers, and the moves between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore.labels import FIELDS, Label

Codes = NDArray[np.int8]
"""Configs of shape (configs, 34): for each field the number of its label in the order of ``FIELDS[name].labels``."""

Floats = NDArray[np.float64]

NAMES = tuple(FIELDS)
SIZES = tuple(len(spec.labels) for spec in FIELDS.values())
ORDERED = tuple(spec.ordered for spec in FIELDS.values())
STARTS = tuple(np.cumsum((0, *SIZES))[:-1].tolist())
"""Where each field's labels begin among the 185 labels of all fields."""
LABELS = sum(SIZES)
LOW, HIGH = NAMES.index("register_min_oct"), NAMES.index("register_max_oct")


def encode(configs: Sequence[Mapping[str, Any]]) -> Codes:
    """Configs in labels as codes, shape (configs, 34)."""
    rows = [[spec.labels.index(config[name]) for name, spec in FIELDS.items()] for config in configs]
    return np.array(rows, dtype=np.int8).reshape(len(rows), len(NAMES))


def decode(code: Codes) -> dict[str, Label]:
    """One row of codes, shape (34,), as a config in labels."""
    return {name: spec.labels[int(at)] for (name, spec), at in zip(FIELDS.items(), code, strict=True)}


def in_order(codes: Codes) -> Codes:
    """The same configs with the lower register first, as a valid config has them."""
    low, high = np.minimum(codes[:, LOW], codes[:, HIGH]), np.maximum(codes[:, LOW], codes[:, HIGH])
    codes[:, LOW], codes[:, HIGH] = low, high
    return codes


def one_hot(codes: Codes) -> Floats:
    """One column for each label of each field, shape (configs, 185)."""
    table = np.zeros((len(codes), LABELS))
    table[np.arange(len(codes))[:, None], codes + np.array(STARTS)] = 1.0
    return table


def drawn(chances: Floats, count: int, rng: np.random.Generator) -> Codes:
    """``count`` configs whose labels are drawn field by field; ``chances`` of shape (185,) add up to 1 in each field."""
    codes = np.empty((count, len(NAMES)), dtype=np.int8)
    for at, (start, size) in enumerate(zip(STARTS, SIZES, strict=True)):
        edges = np.cumsum(chances[start : start + size])
        codes[:, at] = np.minimum(np.searchsorted(edges, rng.random(count) * edges[-1], side="right"), size - 1)
    return in_order(codes)


def uniform() -> Floats:
    """Every label of a field equally likely, shape (185,)."""
    return np.concatenate([np.full(size, 1.0 / size) for size in SIZES])


def mixed(parents: Codes, count: int, chances: Floats, rng: np.random.Generator, moves: float = 2.0) -> Codes:
    """``count`` children: two parents crossed half of the time, then about ``moves`` fields drawn anew by ``chances``."""
    first, second = (parents[rng.integers(len(parents), size=count)] for _ in range(2))
    take = (rng.random((count, len(NAMES))) < 0.3) & (rng.random(count) < 0.5)[:, None]
    children = np.where(take, second, first).astype(np.int8)
    again = rng.random(children.shape) < moves / len(NAMES)
    children = np.where(again, drawn(chances, count, rng), children).astype(np.int8)
    return in_order(children)


def keys(codes: Codes) -> list[bytes]:
    """A hashable name for each config."""
    return [code.tobytes() for code in np.ascontiguousarray(codes)]
