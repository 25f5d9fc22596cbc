"""The prior of a search: probabilities of labels, and the costs of unlikely ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentscore.labels import FIELDS, Label
from latentscore.meaning.lexicon import parse_vibe
from latentscore_data.core.search.space import LABELS, NAMES, SIZES, STARTS, Codes, Floats, encode, one_hot, uniform

MODEL_SHARE, MAP_SHARE = 0.6, 0.3
"""Shares of the model's candidates and of the map's neighbours in the probabilities of labels; the rest is uniform."""


@dataclass(frozen=True)
class Prior:
    """Probabilities (``chances``) and costs of labels, each of shape (185,).

    ``named`` are the fields that the vibe names, with the labels that agree with it.
    """

    chances: Floats
    costs: Floats
    named: Mapping[str, frozenset[Label]]

    def cost(self, codes: Codes) -> Floats:
        """Return the cost of each config, shape (configs,), in units of the guide's score; 0 for the likeliest one."""
        return one_hot(codes) @ self.costs


def make_prior(
    vibe: str,
    model: Sequence[Mapping[str, Any]],
    neighbours: Sequence[Mapping[str, Any]],
    keep: float,
    near: float,
    held: Mapping[str, frozenset[Label]] | None = None,
) -> Prior:
    """Return the prior of a vibe from the configs of its candidates and of its map neighbours.

    A label that contradicts a named field costs ``keep``. So does one in a ``held`` field, which comes with the labels
    that are free. A config whose labels neither the candidates nor the neighbours have costs ``near``.
    """
    named = {**named_fields(vibe, model), **(held or {})}
    chances = np.zeros(LABELS)
    for configs, share in ((model, MODEL_SHARE), (neighbours, MAP_SHARE)):
        if configs:
            chances += share * one_hot(encode(configs)).mean(axis=0)
    chances += (1.0 - chances[: SIZES[0]].sum()) * uniform()
    costs = np.zeros(LABELS)
    for name, start, size in zip(NAMES, STARTS, SIZES, strict=True):
        field = slice(start, start + size)
        smooth = _smoothed(chances[field]) if FIELDS[name].ordered else chances[field]
        costs[field] = near * (1.0 - smooth / smooth.max()) / len(NAMES)
        if name in named:
            broken = np.array([label not in named[name] for label in FIELDS[name].labels])
            costs[field] = keep * broken
            chances[field] = np.where(broken, chances[field] * max(0.0, 1.0 - keep), chances[field])
            chances[field] /= chances[field].sum()
    return Prior(chances, costs, named)


def _smoothed(chances: Floats) -> Floats:
    """Return probabilities of ordered labels plus half of those of their neighbours."""
    return chances + 0.5 * (np.pad(chances, (1, 0))[:-1] + np.pad(chances, (0, 1))[1:])


def named_fields(vibe: str, model: Sequence[Mapping[str, Any]] = ()) -> dict[str, frozenset[Label]]:
    """Return the fields that a vibe names explicitly, with the labels that agree with it: that of its words, and that
    of the majority of the model's candidates."""
    found: dict[str, frozenset[Label]] = {}
    for name, label in parse_vibe(vibe).fields.items():
        given = [config[name] for config in model]
        agreed = {one for one in given if 2 * given.count(one) > len(given)}
        found[name] = frozenset({label} | agreed)
    return found


def share_kept(config: Mapping[str, Any], named: Mapping[str, frozenset[Label]]) -> float | None:
    """Return the share of the named fields in which the config agrees with the vibe; None if the vibe names none."""
    return sum(config[name] in labels for name, labels in named.items()) / len(named) if named else None
