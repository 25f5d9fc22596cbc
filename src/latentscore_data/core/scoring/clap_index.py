"""Texts and rendered sounds in CLAP's joint space, for the baseline that looks up the nearest sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.clap import ClapScorer
from latentscore_data.core.scoring.renderer import LocalRenderer, Render
from latentscore_data.core.scoring.service import ScoringService, config_of

Floats = NDArray[np.float32]


class ClapIndex:
    """CLAP vectors of texts and of rendered payloads; those of sounds come from the score cache if they were embedded before.

    Raises :class:`MissingError` where CLAP cannot run.
    """

    def __init__(self, settings: ScoringSettings, cache: ScoreCache, render: Render | None = None) -> None:
        self._clap = ClapScorer(settings, cache)
        self._settings, self._cache, self._render = settings, cache, render
        self.fingerprint = f"{self._clap.embedding_fingerprint}:{settings.seconds:g}:{settings.seed}"

    def texts(self, vibes: Sequence[str]) -> Floats:
        """Return unit vectors, shape (vibes, dim)."""
        return self._clap.embed_texts(vibes)

    def sounds(self, payloads: Sequence[Mapping[str, Any]]) -> Floats:
        """Return unit vectors of the rendered payloads, shape (payloads, dim); zeros for a payload without a sound."""
        with ScoringService(
            [self._clap], self._settings, self._cache, make_renderer=partial(LocalRenderer, render=self._render)
        ) as service:
            service.score_all((str(payload.get("title", "")), payload) for payload in payloads)
            keys = [service.sound_key(config_of(payload)) for payload in payloads]
        found = [self._cache.vector(self._clap.embedding_fingerprint, key) for key in keys]
        dim = next((len(vector) for vector in found if vector is not None), 1)
        return np.stack([np.zeros(dim, dtype=np.float32) if vector is None else vector for vector in found])
