"""Rendering and scoring of ``configs`` and ``bench``, done on Modal in shards.

The containers run what would run here: each has a scoring service of its own. Scores and vectors come back into this
machine's score cache, so that the same rows are written as always, and nothing is rendered twice.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from latentscore_data.core.base.errors import InputError, VerificationError
from latentscore_data.core.base.settings import ModalSettings, ScoringSettings, Settings
from latentscore_data.core.compute.entrypoints import shards_of, unpack
from latentscore_data.core.compute.modal import map_on_modal
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.registry import scorer_names
from latentscore_data.core.scoring.renderer import MakeRenderer, Rendered, RenderRequest
from latentscore_data.core.scoring.service import (
    ScoredRender,
    current_renderer_version,
)
from latentscore_data.core.scoring.types import Scorer

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


def scoring_on_modal(settings: Settings, say: Say, *, keep_flac: bool = False) -> MakeRenderer:
    """Makes the :class:`ModalRenderer` of a stage. Raises :class:`InputError` for scorers that must run here."""
    require_remote_scorers(settings.scoring)
    return partial(ModalRenderer, modal=settings.train.modal, say=say, keep_flac=keep_flac)


def require_remote_scorers(scoring: ScoringSettings) -> None:
    """Raise :class:`InputError` for scorers that must listen here."""
    if (reason := remote_blocker(scoring)) is not None:
        raise InputError(reason, "take --scorer acoustic or --scorer clap, or --on local")


class ModalRenderer:
    """Renders and scores in Modal's containers. What it returns goes into this machine's score cache.

    Requests that are made at about the same time go out together, one item per sound, so make :attr:`at_once` of them.
    Audio comes back as a :class:`Clip`. After ``timeout_hours`` from the first shard on, nothing more is done there. Raises,
    through the futures, what a shard raised, and :class:`VerificationError` when the containers' scorers or renderer are not
    those of this machine.
    """

    scores = True

    def __init__(
        self,
        scorers: Sequence[Scorer],
        settings: ScoringSettings,
        cache: ScoreCache,
        *,
        modal: ModalSettings,
        say: Say,
        keep_flac: bool = False,
    ) -> None:
        self.workers = modal.max_containers
        self.at_once = modal.shard_rows * modal.max_containers
        scoring = settings.model_dump(mode="json", exclude={"workers"})
        self._common = {"scoring": {**scoring, "scorers": [scorer.name for scorer in scorers]}, "keep_flac": keep_flac}
        self._fingerprints = {scorer.name: scorer.fingerprint for scorer in scorers}
        self._cache, self._modal, self._say = cache, modal, say
        self._deadline: float | None = None
        self._error: Exception | None = None
        self._wave: list[_Waiting] = []
        self._outbox: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._sending = threading.Thread(target=self._send_waves, name="sending", daemon=True)
        self._sending.start()

    def submit(self, request: RenderRequest) -> Future[Rendered]:
        future: Future[Rendered] = Future()
        self._outbox.put((request, future))
        return future

    def release(self) -> None:
        """Nothing waits in this machine's memory."""

    def close(self) -> None:
        self._outbox.put(None)
        # When all of it has arrived, the app is still being left. Work that a second Ctrl-C interrupts is not waited for:
        # Modal ends it with this process.
        arrived = all(future.done() for _, future in self._wave)
        self._sending.join(timeout=60 if arrived else 1)

    def _send_waves(self) -> None:
        while (first := self._outbox.get()) is not None:
            self._wave = [first, *self._gather_more()]
            try:
                if self._error is not None:
                    raise self._error
                self._send(self._wave)
            except Exception as error:  # everyone who still waits must learn of it, and nothing more is sent
                self._error = error
                for _, future in self._wave:
                    if not future.done():
                        future.set_exception(error)

    def _gather_more(self) -> Iterable[_Waiting]:
        while True:
            try:
                item = self._outbox.get(timeout=GATHER_SECONDS)
            except queue.Empty:
                return
            if item is None:
                self._outbox.put(None)
                return
            yield item

    def _send(self, wave: Sequence[_Waiting]) -> None:
        sounds: dict[str, list[_Waiting]] = {}
        for request, future in wave:
            sounds.setdefault(request.key, []).append((request, future))
        if self._deadline is None:
            self._deadline = time.time() + self._modal.timeout_hours * 3600
        items = [
            {
                "config": dict(waiting[0][0].config),
                "vibes": list(dict.fromkeys(vibe for request, _ in waiting for vibe in list(request.vibes))),
                "clip": any(request.want_audio for request, _ in waiting),
            }
            for waiting in sounds.values()
        ]
        shards = shards_of(items, self._modal.shard_rows, {**self._common, "deadline": self._deadline}, "sounds")
        waiting, arrived = iter(sounds.values()), 0
        for text in map_on_modal("score_shard", shards, self._modal, self._deadline):
            part = json.loads(text)
            self._verify(part)
            self._cache.merge(part["cache"])
            for scored in part["sounds"]:
                arrived += 1
                rendered = _rendered({vibe: unpack(one) for vibe, one in scored.items()})
                for _, future in next(waiting):
                    future.set_result(rendered)
            self._say(f"Modal: {arrived} of {len(items)} sounds")

    def _verify(self, part: dict[str, Any]) -> None:
        if part["fingerprints"] != self._fingerprints or part["renderer"] != current_renderer_version():
            raise VerificationError(
                "the scorers on Modal are not those of this machine", "lsdata train check; or --on local"
            )


_Waiting = tuple[RenderRequest, "Future[Rendered]"]


def _rendered(scored: Mapping[str, ScoredRender]) -> Rendered:
    """One sound with its scores by vibe. A sound that could not be made has the same failure for each."""
    first = next(iter(scored.values()))
    return Rendered(
        max(one.render_seconds or 0.0 for one in scored.values()),
        failure=first.failure,
        clip=next((one.clip for one in scored.values() if one.clip is not None), None),
        scores={vibe: (one.outcomes, one.score_seconds) for vibe, one in scored.items()},
    )
