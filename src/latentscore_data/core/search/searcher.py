"""Searches on one scoring service: the surrogate that they share, fitted once, and the guide."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np

from latentscore import random_config
from latentscore.seeds import digest, rng_for
from latentscore_data.core.base.display import say
from latentscore_data.core.base.settings import SearchSettings
from latentscore_data.core.scoring.service import ScoringService
from latentscore_data.core.scoring.types import EmbeddingScorer, Vectors
from latentscore_data.core.search.space import Codes, Floats, encode
from latentscore_data.core.search.surrogate import (
    BOUNDS,
    MOST_DIMENSIONS,
    START,
    SURROGATE_VERSION,
    Surrogate,
)
from latentscore_data.core.search.vibe_search import Found, VibeSearch

SEARCH_VERSION = 1
"""Raised when the same rows, settings and scores would be searched otherwise."""
NO_VIBE = "music"
"""What the configs are scored against whose vectors alone are wanted."""
FEWEST = 60
"""Configs below which a surrogate is not fitted."""
MOST = 2000
"""Configs that a surrogate is fitted on at most."""

Config = Mapping[str, Any]


def one_thread() -> AbstractContextManager[Any]:
    """Linear algebra in one thread while a search runs: its matrices are small, renderers use the cores, and sums then have
    the same last digits whatever the number of cores."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")


class Searcher:
    """Makes the searches of a run. ``guide`` is the first scorer of the service; it is what they maximise.

    Run it inside :func:`one_thread`.
    """

    def __init__(self, service: ScoringService, settings: SearchSettings, known: Sequence[Config] = ()) -> None:
        self.service, self.settings = service, settings
        self._known = known
        self._ready = False
        self._lock = threading.Lock()
        self.guide = service.scorers[0]
        self.surrogate: Surrogate | None = None
        self.r2: float | None = None
        """The surrogate's R2 on configs that it had not seen; None where none was fitted."""

    def prepare(self) -> None:
        """Fit the surrogate, once, on the known configs and on random ones, rendering those that the cache does not hold.

        Which configs are used depends on the arguments alone, so that a run that was killed goes on as it began.
        """
        with self._lock:
            if not self._ready and isinstance(self.guide, EmbeddingScorer) and self.settings.surrogate_renders:
                self._fit(self.guide)
            self._ready = True

    def is_fitted(self) -> bool:
        """True when :meth:`prepare` would take about a second: the cache holds the vectors and the weights."""
        if not isinstance(self.guide, EmbeddingScorer) or not self.settings.surrogate_renders:
            return True
        configs = self._configs()
        held = self._held(self.guide, configs)
        return len(held) == len(configs) and self._kept_weights(*_fitted_on(held)) is not None

    def _configs(self) -> list[Config]:
        """What the surrogate is fitted on; R2 is measured on the last ones."""
        rng = rng_for("surrogate", self.settings.seed)
        configs: list[Config] = [random_config(rng).model_dump() for _ in range(self.settings.surrogate_renders)]
        configs = [*configs, *self._known][:MOST]
        return [configs[at] for at in rng.permutation(len(configs))]

    def _held(self, guide: EmbeddingScorer, configs: Sequence[Config]) -> list[tuple[Config, Vectors]]:
        """The configs whose vectors are in the cache, with these."""
        found = ((config, self.service.vector(guide, config)) for config in configs)
        return [(config, vector) for config, vector in found if vector is not None]

    def _fit(self, guide: EmbeddingScorer) -> None:
        configs = self._configs()
        missing = sum(self.service.vector(guide, config) is None for config in configs)
        if missing > FEWEST:
            kept = (
                "the cache keeps them" if self.service.keeps_vectors else "a workspace (lsdata vibes) would keep them"
            )
            say(f"search: rendering {missing} configs to fit the surrogate; {kept}")
        self.service.score_all((NO_VIBE, config) for config in configs)
        held = self._held(guide, configs)
        if len(held) < FEWEST:
            say(f"search: no surrogate, because only {len(held)} configs have vectors ({FEWEST} are needed)")
            return
        fitted = self._fitted(*_fitted_on(held))
        self.r2 = fitted.r2
        if fitted.r2 >= self.settings.surrogate_min_r2:
            self.surrogate = fitted
            return
        say(
            f"search: no surrogate, because its R2 of {fitted.r2:.2f} is below search.surrogate_min_r2 "
            f"({self.settings.surrogate_min_r2:g})"
        )

    def _fitted(self, codes: Codes, vectors: Vectors) -> Surrogate:
        """The surrogate of these configs and vectors; its weights are fitted once and kept in the score cache."""
        weights = self._kept_weights(codes, vectors)
        fitted = Surrogate.fit(codes, vectors.astype(float), weights)
        if weights is None:
            self.service.cache.keep_vector(*_place(codes, vectors), fitted.weights.astype(np.float32))
        return fitted

    def _kept_weights(self, codes: Codes, vectors: Vectors) -> Floats | None:
        """The fitted logarithms in the cache, shape (dimensions, 36); None for those that no fit leads to."""
        shape = min(vectors.shape[1], MOST_DIMENSIONS), len(START)
        known = self.service.cache.vector(*_place(codes, vectors), size=shape[0] * shape[1])
        if known is None:
            return None
        weights, (low, high) = known.astype(float).reshape(shape), np.array(BOUNDS).T
        return weights if ((weights >= low) & (weights <= high)).all() else None

    def search(self, vibe: str, model: Sequence[Config], held: Sequence[str] = ()) -> VibeSearch:
        """The search for one vibe, from its valid payloads. ``held`` are fields that cost as much to change as those that the
        vibe names; their labels are those of the first payload."""
        self.prepare()
        vector = partial(self.service.vector, self.guide) if isinstance(self.guide, EmbeddingScorer) else None
        return VibeSearch(vibe, model, self.guide, self.settings, self.surrogate, vector, held)

    def run(self, vibe: str, model: Sequence[Config]) -> Found:
        """Search to the end, now."""
        search = self.search(vibe, model)
        while payloads := search.ask():
            search.tell(self.service.score_all((vibe, payload) for payload in payloads))
        return search.found


def _fitted_on(held: Sequence[tuple[Config, Vectors]]) -> tuple[Codes, Vectors]:
    return encode([config for config, _ in held]), np.stack([vector for _, vector in held])


def _place(codes: Codes, vectors: Vectors) -> tuple[str, str]:
    """Kind and key of a surrogate's weights in the score cache."""
    return f"surrogate-{SURROGATE_VERSION}", digest(codes.tobytes().hex(), vectors.tobytes().hex())
