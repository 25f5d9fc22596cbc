"""Rendering and scoring of ``configs`` and ``bench``, done on Modal in shards.

The containers run what would run here: each has a studio of its own. What they heard comes back and goes into this
machine's score cache, so that the same rows are written as always, and nothing is rendered twice.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from latentscore_data.core.base.errors import InputError, VerificationError
from latentscore_data.core.base.settings import ModalSettings, ScoringSettings, Settings
from latentscore_data.core.compute.entrypoints import shards_of, unpack
from latentscore_data.core.compute.modal import map_on_modal
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.registry import scorer_names
from latentscore_data.core.scoring.service import (
    MakeService,
    ScoredRender,
    ScoringService,
    _Pair,
    current_renderer_version,
)
from latentscore_data.core.scoring.types import EmbeddingScorer, Score, Scorer, Unscored

Say = Callable[[str], None]

GATHER_SECONDS = 0.25
"""What is asked for within so long of each other goes out together."""


def remote_blocker(scoring: ScoringSettings) -> str | None:
    """Why the scorers of the settings cannot listen on Modal, or None when they can."""
    for name in scorer_names(scoring):
        if name.partition(":")[0] == "judge":
            return f"{name} needs your key, which stays on this machine"
        if name == "clap":
            if scoring.clap_backend != "transformers":
                return f"the {scoring.clap_backend} backend of clap is not in the containers"
            if Path(scoring.clap_model).exists():
                return f"the CLAP weights {scoring.clap_model} are on this machine, and Modal does not see them"
        elif name != "acoustic":
            return f"{name} is code on this machine, which Modal does not see"
    return None


def scoring_on_modal(settings: Settings, say: Say, *, keep_flac: bool = False) -> MakeService:
    """Makes the :class:`ModalScoringService` of a stage. Raises :class:`InputError` for scorers that must listen here."""
    require_remote_scorers(settings.scoring)
    return partial(ModalScoringService, modal=settings.train.modal, say=say, keep_flac=keep_flac)


def require_remote_scorers(scoring: ScoringSettings) -> None:
    """Raise :class:`InputError` for scorers that must listen here."""
    if (reason := remote_blocker(scoring)) is not None:
        raise InputError(reason, "take --scorer acoustic or --scorer clap, or --on local")


class ModalScoringService(ScoringService):
    """A studio whose sounds are made in Modal's containers; what the cache knows is answered here, as in any studio.

    Pairs that are asked for at about the same time go out together, one item per sound, so ask for :attr:`at_once` of
    them. Audio comes back as the page's :class:`Clip`. After ``timeout_hours`` from the first shard on, nothing more is
    done there. Raises, through the hearings, what a shard raised, and :class:`VerificationError` when the containers'
    scorers or renderer are not those of this machine.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        settings: ScoringSettings,
        cache: ScoreCache | Path | None = None,
        *,
        modal: ModalSettings,
        say: Say,
        keep_flac: bool = False,
    ) -> None:
        super().__init__(scorers, settings, cache)
        self.at_once = modal.shard_rows * modal.max_containers
        scoring = settings.model_dump(mode="json", exclude={"workers"})
        self._common = {"scoring": {**scoring, "scorers": [scorer.name for scorer in scorers]}, "keep_flac": keep_flac}
        self._modal, self._say = modal, say
        self._deadline: float | None = None
        self._error: Exception | None = None
        self._sent: set[str] = set()
        self._wave: list[tuple[str, _Pair]] = []
        self._outbox: queue.SimpleQueue[tuple[str, _Pair] | None] = queue.SimpleQueue()
        self._sending = threading.Thread(target=self._send_waves, name="sending", daemon=True)
        self._sending.start()

    def close(self) -> None:
        self._outbox.put(None)
        # When all is heard, the app is still being left. What is under way when a second Ctrl-C ends the run is not waited
        # for: Modal ends it with this process.
        heard = all(pair.future.done() for _, pair in self._wave)
        self._sending.join(timeout=60 if heard else 1)
        super().close()

    def _render(self, key: str, pair: _Pair) -> None:
        self._outbox.put((key, pair))

    def _send_waves(self) -> None:
        while (first := self._outbox.get()) is not None:
            self._wave = [first, *self._gather_more()]
            try:
                if self._error is not None:
                    raise self._error
                self._send(self._wave)
            except Exception as error:  # everyone who still waits must learn of it, and nothing more is sent
                self._error = error
                for _, pair in self._wave:
                    if not pair.future.done():
                        pair.future.set_exception(error)

    def _gather_more(self) -> Iterable[tuple[str, _Pair]]:
        while True:
            try:
                item = self._outbox.get(timeout=GATHER_SECONDS)
            except queue.Empty:
                return
            if item is None:
                self._outbox.put(None)
                return
            yield item

    def _send(self, wave: Sequence[tuple[str, _Pair]]) -> None:
        sounds: dict[str, list[_Pair]] = {}
        for key, pair in wave:
            if key in self._sent and not pair.want_audio and self._was_heard(key):
                # Another row asked for the same sound a moment ago, so it can be compared here.
                self.submit(pair.vibe, pair.config).add_done_callback(lambda done, of=pair: _pass_on(done, of))
            else:
                sounds.setdefault(key, []).append(pair)
        if not sounds:
            return
        self._sent |= sounds.keys()
        if self._deadline is None:
            self._deadline = time.time() + self._modal.timeout_hours * 3600
        items = [
            {
                "config": dict(pairs[0].config),
                "vibes": list(dict.fromkeys(pair.vibe for pair in pairs)),
                "clip": any(pair.want_audio for pair in pairs),
            }
            for pairs in sounds.values()
        ]
        shards = shards_of(items, self._modal.shard_rows, {**self._common, "deadline": self._deadline}, "sounds")
        waiting, heard = iter(sounds.values()), 0
        for text in map_on_modal("score_shard", shards, self._modal, self._deadline):
            part = json.loads(text)
            self._verify(part)
            self._cache.merge(part["cache"])
            for scored_renders in part["sounds"]:
                heard += 1
                self._arrived(
                    next(waiting), {vibe: unpack(scored_render) for vibe, scored_render in scored_renders.items()}
                )
            self._say(f"Modal: {heard} of {len(items)} sounds")

    def _was_heard(self, key: str) -> bool:
        embedders = [scorer for scorer in self.scorers if isinstance(scorer, EmbeddingScorer)]
        return all(self._cache.vector(scorer.embedding_fingerprint, key) is not None for scorer in embedders)

    def _verify(self, part: dict[str, Any]) -> None:
        here = {scorer.name: scorer.fingerprint for scorer in self.scorers}
        if part["fingerprints"] != here or part["renderer"] != current_renderer_version():
            raise VerificationError(
                "the scorers on Modal are not those of this machine", "lsdata train check; or --on local"
            )

    def _arrived(self, pairs: Sequence[_Pair], scored_renders: dict[str, ScoredRender]) -> None:
        counts = self.counts
        counts.renders += 1
        counts.render_seconds += max(scored_render.render_seconds or 0.0 for scored_render in scored_renders.values())
        for scored_render in scored_renders.values():
            counts.score_seconds += scored_render.score_seconds
            for name, outcome in scored_render.outcomes.items():
                if isinstance(outcome, Score):
                    counts.scored[name] += 1
                    if "penalty" in outcome.parts:
                        counts.penalised[name] += outcome.parts["penalty"] > 0
        for pair in pairs:
            scored_render = scored_renders[pair.vibe]
            for outcome in scored_render.outcomes.values():
                if isinstance(outcome, Unscored):
                    counts.unscored[outcome.reason] += 1
            pair.future.set_result(scored_render)


def _pass_on(done: Any, pair: _Pair) -> None:
    error = done.exception()
    if error is not None:
        pair.future.set_exception(error)
    else:
        pair.future.set_result(done.result())
