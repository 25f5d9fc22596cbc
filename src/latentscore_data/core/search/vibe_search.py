"""The search for one vibe: starts, generations, and all candidates with their origin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from latentscore.config import MusicConfigPrompt
from latentscore.errors import LatentScoreError
from latentscore.meaning.offline import payload_for
from latentscore.meaning.reading import read
from latentscore.meaning.starter import neighbours
from latentscore.seeds import rng_for
from latentscore.vibe_map import Match, VibeMap, load_map
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import SearchSettings
from latentscore_data.core.scoring.service import ScoredRender
from latentscore_data.core.scoring.types import EmbeddingScorer, Score, Scorer, Vectors
from latentscore_data.core.search.method import Method, Prediction
from latentscore_data.core.search.prior import Prior, make_prior
from latentscore_data.core.search.space import Codes, Floats, decode, encode
from latentscore_data.core.search.surrogate import Surrogate

Origin = Literal["model", "map", "search"]
Payload = Mapping[str, Any]


@dataclass
class Found:
    """All candidates of a vibe in the order of rendering: those of the model, of the map, and of the search."""

    prior: Prior
    payloads: list[Payload] = field(default_factory=lambda: [])
    origins: list[Origin] = field(default_factory=lambda: [])
    renders: list[ScoredRender] = field(default_factory=lambda: [])
    gains: list[float] = field(default_factory=lambda: [])
    """The guide's score minus the prior's cost; -inf without a score."""
    incumbents: list[tuple[int, int]] = field(default_factory=lambda: [])
    """(number of renders, index of the best candidate so far) after each batch."""

    def best(self, *origins: Origin) -> int | None:
        """Return the index of the candidate with the largest gain, the first of equals; None without one.

        With ``origins``, only candidates of these origins count.
        """
        gains = [
            (gain, -at)
            for at, (gain, origin) in enumerate(zip(self.gains, self.origins, strict=True))
            if np.isfinite(gain) and (not origins or origin in origins)
        ]
        return -max(gains)[1] if gains else None


class VibeSearch:
    """The state of one search: call :meth:`ask` for payloads, render them, and pass the renders to :meth:`tell`, until
    :meth:`ask` returns none.

    ``model`` are the valid payloads of the vibe's candidates. A change of a field in ``held`` from its label in the
    first of them costs as much as one of a named field. The payloads depend only on the arguments and the scores.
    """

    def __init__(
        self,
        vibe: str,
        model: Sequence[Payload],
        guide: Scorer,
        settings: SearchSettings,
        surrogate: Surrogate | None = None,
        vector: Callable[[Payload], Vectors | None] | None = None,
        held: Sequence[str] = (),
    ) -> None:
        self._vibe, self._guide, self._settings = vibe, guide, settings
        self._surrogate, self._vector = surrogate, vector
        self._near = near_payloads(vibe, settings)
        prior = make_prior(
            vibe, [one["config"] for one in model], [one["config"] for one in self._near], settings.keep, settings.near,
            {name: frozenset({model[0]["config"][name]}) for name in held},
        )  # fmt: skip
        self.found = Found(prior)
        self._method = Method(prior, rng_for("search", settings.seed, vibe))
        self._model = list(model)
        self._waiting: tuple[Codes, list[Payload], Origin] | None = None

    def ask(self) -> list[Payload]:
        """Return the next payloads to render; an empty list at the end."""
        if not self._model and not self._near and self._is_indifferent():
            return []
        codes, payloads, origin = self._next()
        left = max(0, (self._settings.renders or 0) - len(self.found.payloads))
        # All candidates of the model are rendered, whatever the budget: the found config is compared with them.
        count = len(payloads) if origin == "model" else min(left, len(payloads))
        self._waiting = codes[:count], payloads[:count], origin
        return payloads[:count]

    def tell(self, renders: Sequence[ScoredRender]) -> None:
        """Add the renders of the payloads that the last :meth:`ask` returned, in their order."""
        assert self._waiting is not None
        codes, payloads, origin = self._waiting
        scores = np.array([_score(render, self._guide.name) for render in renders])
        self._method.tell(codes, scores)
        self._learn(codes, payloads)
        self.found.payloads += payloads
        self.found.origins.extend(origin for _ in payloads)
        self.found.renders += renders
        self.found.gains = self._method.gains.tolist()
        if (best := self.found.best()) is not None:
            self.found.incumbents.append((len(self.found.gains), best))

    def _learn(self, codes: Codes, payloads: Sequence[Payload]) -> None:
        """Add the renders with a vector to the surrogate."""
        if self._surrogate is None or self._vector is None:
            return
        vectors = [self._vector(payload) for payload in payloads]
        known = [at for at, vector in enumerate(vectors) if vector is not None]
        if known:
            measured = np.stack([cast("Vectors", vectors[at]) for at in known]).astype(float)
            self._surrogate = self._surrogate.with_more(codes[known], measured)

    def _next(self) -> tuple[Codes, list[Payload], Origin]:
        starts: tuple[tuple[list[Payload], Origin], ...] = ((self._model, "model"), (self._near, "map"))
        for waiting, origin in starts:
            if waiting:
                payloads = waiting.copy()
                waiting.clear()
                return encode([one["config"] for one in payloads]), payloads, origin
        if "search" not in self.found.origins and self._settings.chance:
            codes = self._method.chance(self._settings.chance)
        else:
            codes = self._method.ask(self._settings.batch, self._prediction())
        return codes, [self._payload(code) for code in codes], "search"

    def _is_indifferent(self) -> bool:
        """Whether the guide gives all starts the same score, as a scorer does that cannot interpret the vibe."""
        scores = {_score(render, self._guide.name) for render in self.found.renders}
        return len(self.found.renders) > 1 and len(scores) == 1

    def _prediction(self) -> Prediction | None:
        guide, surrogate = self._guide, self._surrogate
        if surrogate is None or not isinstance(guide, EmbeddingScorer):
            return None

        def score(codes: Codes) -> Floats:
            outcomes = guide.compare([self._vibe] * len(codes), surrogate.predict(codes).astype(np.float32))
            return np.array([one.final_score if isinstance(one, Score) else -1.0 for one in outcomes])

        return Prediction(score, surrogate.uncertainty)

    def _payload(self, code: Codes) -> Payload:
        """Return the payload of a found config, with title and palettes of the most similar start."""
        apart = (self._method.codes != code).sum(axis=1)
        starts = [at for at, origin in enumerate(self.found.origins) if origin != "search"]
        config = decode(code)
        parent = self.found.payloads[min(starts, key=lambda at: (apart[at], at))]
        changed = [name for name, label in config.items() if parent["config"][name] != label]
        thinking = f"found by search from “{parent['title']}”, changed: {', '.join(changed)}"
        return {"thinking": thinking[:1000], "title": parent["title"], "config": config, "palettes": parent["palettes"]}


def near_payloads(vibe: str, settings: SearchSettings) -> list[Payload]:
    """Return the payloads of the nearest vibes of the starter set, then of the map in the settings, each the nearest
    first.

    Raises :class:`InputError` for a map that cannot be read or cannot embed the vibe.
    """
    names = ("thinking", "title", "config", "palettes")
    near = neighbours(read(vibe)).pairs[: settings.neighbours]
    found: list[Payload] = [{name: pair[name] for name in names} for pair in near]
    if settings.map is None or not settings.neighbours:
        return found
    try:
        vibe_map = _open_map(settings.map)
        matches = vibe_map.nearest(vibe_map.embed(vibe), settings.neighbours)
        return found + [payload_of(match, f"from the map: {match.vibe}"[:1000]) for match in matches]
    except LatentScoreError as error:
        raise InputError(f"search.map: {error}", "write it with lsdata export map, or leave search.map empty") from None


@cache
def _open_map(path: Path) -> VibeMap:
    return load_map(path)


def payload_of(match: Match, thinking: str) -> dict[str, Any]:
    """Return a row of a map as a payload of labels. The offline model adds a missing title or palettes."""
    config = match.config
    labels = config if isinstance(config, MusicConfigPrompt) else config.to_prompt()
    offline = payload_for(match.vibe, temperature=0.0, seed=0, sample_idx=0)
    palettes = [palette.model_dump(mode="json") for palette in match.palettes or offline.palettes]
    return {
        "thinking": thinking,
        "title": match.title or offline.title,
        "config": labels.model_dump(),
        "palettes": palettes,
    }


def _score(render: ScoredRender, scorer: str) -> float:
    score = render.score(scorer)
    return float("nan") if score is None else score.final_score
