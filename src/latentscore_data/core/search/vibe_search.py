"""The search for one vibe: starts, generations, and every config with where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from latentscore.config import MusicConfigPrompt
from latentscore.errors import LatentScoreError
from latentscore.meaning.reading import read
from latentscore.meaning.starter import neighbours
from latentscore.seeds import rng_for
from latentscore.vibe_map import Match, VibeMap, load_map, starter_pairs
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import SearchSettings
from latentscore_data.core.scoring.service import ScoredRender
from latentscore_data.core.scoring.types import EmbeddingScorer, Score, Scorer, Vectors
from latentscore_data.core.search.method import Foresight, Method
from latentscore_data.core.search.prior import Prior, make_prior
from latentscore_data.core.search.space import Codes, Floats, decode, encode
from latentscore_data.core.search.surrogate import Surrogate

Origin = Literal["model", "map", "search"]
Payload = Mapping[str, Any]


@dataclass
class Found:
    """Every candidate of a vibe in the order in which they were rendered: the model's, the map's, the search's."""

    prior: Prior
    payloads: list[Payload] = field(default_factory=lambda: [])
    origins: list[Origin] = field(default_factory=lambda: [])
    renders: list[ScoredRender] = field(default_factory=lambda: [])
    gains: list[float] = field(default_factory=lambda: [])
    """The guide's score minus the prior's cost; -inf where there is no score."""
    incumbents: list[tuple[int, int]] = field(default_factory=lambda: [])
    """(renders spent, index of the best candidate so far), once after each batch."""

    def best(self, *origins: Origin) -> int | None:
        """The index of the candidate with the largest gain, the first of equals; of these origins only, if any."""
        gains = [
            (gain, -at)
            for at, (gain, origin) in enumerate(zip(self.gains, self.origins, strict=True))
            if np.isfinite(gain) and (not origins or origin in origins)
        ]
        return -max(gains)[1] if gains else None


class VibeSearch:
    """Ask for payloads to render and tell what came of them, until :meth:`ask` returns none.

    ``model`` are the valid payloads of the vibe's candidates; ``held`` fields cost as much to change from the first of them
    as fields that the vibe names. What is asked for depends on the arguments and on the scores,
    not on time or on what else runs.
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
        """The next payloads to render; an empty list at the end. Tell of them before asking again."""
        if not self._model and not self._near and self._hears_nothing():
            return []
        codes, payloads, origin = self._next()
        left = max(0, (self._settings.renders or 0) - len(self.found.payloads))
        # All of the model's candidates are rendered, whatever the budget: they are what the search must beat.
        count = len(payloads) if origin == "model" else min(left, len(payloads))
        self._waiting = codes[:count], payloads[:count], origin
        return payloads[:count]

    def tell(self, renders: Sequence[ScoredRender]) -> None:
        """What came of the payloads that were asked for, in their order."""
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
        """Let the surrogate know the sounds that have a vector."""
        if self._surrogate is None or self._vector is None:
            return
        vectors = [self._vector(payload) for payload in payloads]
        known = [at for at, vector in enumerate(vectors) if vector is not None]
        if known:
            measured = np.stack([cast("Vectors", vectors[at]) for at in known]).astype(float)
            self._surrogate = self._surrogate.with_more(codes[known], measured)

    def _next(self) -> tuple[Codes, list[Payload], Origin]:
        if self._model:
            payloads, self._model = self._model, []
            return encode([one["config"] for one in payloads]), payloads, "model"
        if self._near:
            payloads, self._near = self._near, []
            return encode([one["config"] for one in payloads]), payloads, "map"
        if "search" not in self.found.origins and self._settings.chance:
            codes = self._method.chance(self._settings.chance)
        else:
            codes = self._method.ask(self._settings.batch, self._foresight())
        return codes, [self._payload(code) for code in codes], "search"

    def _hears_nothing(self) -> bool:
        """True when the guide gives all starts the same score, as a scorer does that reads nothing in the vibe."""
        scores = {_score(render, self._guide.name) for render in self.found.renders}
        return len(self.found.renders) > 1 and len(scores) == 1

    def _foresight(self) -> Foresight | None:
        guide, surrogate = self._guide, self._surrogate
        if surrogate is None or not isinstance(guide, EmbeddingScorer):
            return None

        def score(codes: Codes) -> Floats:
            outcomes = guide.compare([self._vibe] * len(codes), surrogate.predict(codes).astype(np.float32))
            return np.array([one.final_score if isinstance(one, Score) else -1.0 for one in outcomes])

        return Foresight(score, surrogate.doubt)

    def _payload(self, code: Codes) -> Payload:
        """A found config with the title and the colours of the start that it is nearest to."""
        apart = (self._method.codes != code).sum(axis=1)
        starts = [at for at, origin in enumerate(self.found.origins) if origin != "search"]
        config = decode(code)
        parent = self.found.payloads[min(starts, key=lambda at: (apart[at], at))]
        changed = [name for name, label in config.items() if parent["config"][name] != label]
        thinking = f"found by search from “{parent['title']}”, changed: {', '.join(changed)}"
        return {"thinking": thinking[:1000], "title": parent["title"], "config": config, "palettes": parent["palettes"]}


def near_payloads(vibe: str, settings: SearchSettings) -> list[Payload]:
    """The payloads of the nearest vibes of the starter set, and of the map that the settings name, the nearest first.

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
        return found + [_payload_of(match) for match in matches]
    except LatentScoreError as error:
        raise InputError(f"search.map: {error}", "write it with lsdata export map, or leave search.map empty") from None


@cache
def _open_map(path: Path) -> VibeMap:
    return load_map(path)


def _payload_of(match: Match) -> Payload:
    """A row of a map as a payload in labels; what it lacks of title and colours is the starter set's first."""
    words = match.config if isinstance(match.config, MusicConfigPrompt) else match.config.to_prompt()
    colors = [palette.model_dump(mode="json") for palette in match.palettes] or starter_pairs()[0]["palettes"]
    about = {"thinking": f"from the map: {match.vibe}"[:1000], "title": match.title or "Untitled"}
    return {**about, "config": words.model_dump(), "palettes": colors}


def _score(render: ScoredRender, scorer: str) -> float:
    score = render.score(scorer)
    return float("nan") if score is None else score.final_score
