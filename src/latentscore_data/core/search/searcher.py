"""Searches that share one scoring service, its guide, and a surrogate that is fitted once."""

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
"""Incremented if the same rows, settings and scores would give another search."""
NO_VIBE = "music"
"""Vibe for configs that are scored only for their vectors."""
FEWEST = 60
"""Smallest number of configs that a surrogate is fitted on."""
MOST = 2000
"""Largest number of configs that a surrogate is fitted on."""

Config = Mapping[str, Any]


def one_thread() -> AbstractContextManager[Any]:
    """Limit linear algebra to one thread. The matrices are small, renderers use the cores, and sums have the same last
    digits on any number of cores."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")


class Searcher:
    """Makes the searches of a run. They maximize the score of the ``guide``, the first scorer of the service.

    Use it inside :func:`one_thread`.
    """

    def __init__(self, service: ScoringService, settings: SearchSettings, known: Sequence[Config] = ()) -> None:
        self.service, self.settings = service, settings
        self._known = known
        self._ready = False
        self._lock = threading.Lock()
        self.guide = service.scorers[0]
        self.surrogate: Surrogate | None = None
        self.r2: float | None = None
        """The surrogate's R2 on held-out configs; None without a surrogate."""

    def prepare(self) -> None:
        """Fit the surrogate once, on the known configs and on random ones. Configs that are not in the cache are
        rendered.

        The choice of configs depends only on the arguments, so that a resumed run fits the same surrogate.
        """
        with self._lock:
            if not self._ready and isinstance(self.guide, EmbeddingScorer) and self.settings.surrogate_renders:
                self._fit(self.guide)
            self._ready = True

    def is_fitted(self) -> bool:
        """Whether the cache has the vectors and the weights, so that :meth:`prepare` takes about a second."""
        if not isinstance(self.guide, EmbeddingScorer) or not self.settings.surrogate_renders:
            return True
        configs = self._configs()
        held = self._held(self.guide, configs)
        return len(held) == len(configs) and self._kept_weights(*_fitted_on(held)) is not None

    def _configs(self) -> list[Config]:
        """Return the configs that the surrogate is fitted on; R2 is measured on the last ones."""
        rng = rng_for("surrogate", self.settings.seed)
        configs: list[Config] = [random_config(rng).model_dump() for _ in range(self.settings.surrogate_renders)]
        configs = [*configs, *self._known][:MOST]
        return [configs[at] for at in rng.permutation(len(configs))]

    def _held(self, guide: EmbeddingScorer, configs: Sequence[Config]) -> list[tuple[Config, Vectors]]:
        """Return the configs whose vectors are in the cache, with the vectors."""
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
        """Return the surrogate of these configs and vectors. Its weights are fitted once and cached."""
        weights = self._kept_weights(codes, vectors)
        fitted = Surrogate.fit(codes, vectors.astype(float), weights)
        if weights is None:
            self.service.cache.keep_vector(*_place(codes, vectors), fitted.weights.astype(np.float32))
        return fitted

    def _kept_weights(self, codes: Codes, vectors: Vectors) -> Floats | None:
        """Return the cached logarithms, shape (dimensions, 36); None without any within the bounds."""
        shape = min(vectors.shape[1], MOST_DIMENSIONS), len(START)
        known = self.service.cache.vector(*_place(codes, vectors), size=shape[0] * shape[1])
        if known is None:
            return None
        weights, (low, high) = known.astype(float).reshape(shape), np.array(BOUNDS).T
        return weights if ((weights >= low) & (weights <= high)).all() else None

    def search(self, vibe: str, model: Sequence[Config], held: Sequence[str] = (), seed: int = 0) -> VibeSearch:
        """Return a search for one vibe from its valid payloads, fitting the surrogate if needed.

        A change of a field in ``held`` from its label in the first payload costs as much as one of a named field. Another
        ``seed`` renders other configs.
        """
        self.prepare()
        vector = partial(self.service.vector, self.guide) if isinstance(self.guide, EmbeddingScorer) else None
        settings = self.settings.model_copy(update={"seed": self.settings.seed + seed})
        return VibeSearch(vibe, model, self.guide, settings, self.surrogate, vector, held)

    def run(self, vibe: str, model: Sequence[Config]) -> Found:
        """Run the whole search."""
        search = self.search(vibe, model)
        while payloads := search.ask():
            search.tell(self.service.score_all((vibe, payload) for payload in payloads))
        return search.found


def _fitted_on(held: Sequence[tuple[Config, Vectors]]) -> tuple[Codes, Vectors]:
    return encode([config for config, _ in held]), np.stack([vector for _, vector in held])


def _place(codes: Codes, vectors: Vectors) -> tuple[str, str]:
    """Return kind and key of a surrogate's weights in the score cache."""
    return f"surrogate-{SURROGATE_VERSION}", digest(codes.tobytes().hex(), vectors.tobytes().hex())
