"""Rendering and scoring of ``configs`` and ``bench`` on a remote executor, in shards.

Each shard runs a scoring service of its own. Scores and vectors are returned to this machine's score cache, so that the
rows are those of a local run, and nothing is rendered twice.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future

from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import VerificationError
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.compute.entrypoints import unpack
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.executor import Executor
from latentscore_data.core.scoring.renderer import Rendered, RenderRequest
from latentscore_data.core.scoring.service import ScoredRender, current_renderer_version
from latentscore_data.core.scoring.types import Scorer

Say = Callable[[str], None]

GATHER_SECONDS = 0.25
"""Requests at most this many seconds apart are sent together."""


class RemoteRenderer:
    """Renders and scores on a remote executor, and stores the results in this machine's score cache.

    Requests at about the same time are sent together, one item per sound, so callers should submit :attr:`at_once` of them.
    Audio is returned as a :class:`Clip`. The futures raise the errors of shards, and :class:`VerificationError` if the
    scorers or the renderer there differ from those of this machine.
    """

    scores = True

    def __init__(
        self,
        scorers: Sequence[Scorer],
        settings: ScoringSettings,
        cache: ScoreCache,
        *,
        executor: Executor,
        say: Say,
        keep_flac: bool,
    ) -> None:
        self.workers, self.at_once = executor.workers, executor.at_once
        scoring = settings.model_dump(mode="json", exclude={"workers"})
        self._common = {"scoring": {**scoring, "scorers": [scorer.name for scorer in scorers]}, "keep_flac": keep_flac}
        self._fingerprints = {scorer.name: scorer.fingerprint for scorer in scorers}
        self._cache, self._executor, self._say = cache, executor, say
        self._wave_rows = executor.map_rows
        self._error: Exception | None = None
        self._sent: set[Future[Rendered]] = set()
        self._outbox: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._gathering = threading.Lock()
        self._sending = [
            threading.Thread(target=self._send_waves, name=f"sending-{i}", daemon=True)
            for i in range(executor.maps_at_once)
        ]
        for thread in self._sending:
            thread.start()

    def submit(self, request: RenderRequest) -> Future[Rendered]:
        future: Future[Rendered] = Future()
        self._outbox.put((request, future))
        return future

    def release(self) -> None:
        """Do nothing: rendered sounds are not kept in this machine's memory."""

    def close(self) -> None:
        self._outbox.put(None)
        # After the last result, the executor still closes its connections. Do not wait for work that a second Ctrl-C
        # interrupts: it ends with this process.
        arrived = all(future.done() for future in list(self._sent))
        until = time.monotonic() + (60 if arrived else 1)
        for thread in self._sending:
            thread.join(timeout=max(0.0, until - time.monotonic()))

    def _send_waves(self) -> None:
        while wave := self._next_wave():
            self._sent.update(future for _, future in wave)
            try:
                if self._error is not None:
                    raise self._error
                self._send(wave)
            except Exception as error:  # all waiting callers get the error, and nothing more is sent
                self._error = error
                for _, future in wave:
                    if not future.done():
                        future.set_exception(error)
            self._sent.difference_update(future for _, future in wave)

    def _next_wave(self) -> list[_Waiting]:
        """Return the requests for one call of the executor, without those that were cancelled; empty at the end. One thread
        gathers at a time, so that waves are full."""
        with self._gathering:
            while (first := self._outbox.get()) is not None:
                more = itertools.islice(self._gather_more(), self._wave_rows and self._wave_rows - 1)
                wave = [one for one in (first, *more) if one[1].set_running_or_notify_cancel()]
                if wave:
                    return wave
            self._outbox.put(None)
            return []

    def _gather_more(self) -> Iterator[_Waiting]:
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
        items = [
            {
                "config": dict(waiting[0][0].config),
                "vibes": list(dict.fromkeys(vibe for request, _ in waiting for vibe in list(request.vibes))),
                "clip": any(request.want_audio for request, _ in waiting),
            }
            for waiting in sounds.values()
        ]
        waiting, arrived = iter(sounds.values()), 0
        for part in self._executor.map("score_shard", "sounds", items, self._common):
            self._verify(part)
            self._cache.merge(part["cache"])
            for scored in part["sounds"]:
                arrived += 1
                rendered = _rendered({vibe: unpack(one) for vibe, one in scored.items()})
                for _, future in next(waiting):
                    future.set_result(rendered)
            if self._wave_rows is None:
                self._say(f"{self._executor.name}: {arrived} of {len(items)} sounds")

    def _verify(self, part: JsonObject) -> None:
        here = {"renderer": current_renderer_version(), **self._fingerprints}
        there = {"renderer": part["renderer"], **part["fingerprints"]}
        if differing := [name for name in here if there.get(name) != here[name]]:
            raise VerificationError(
                f"the {' and the '.join(differing)} on {self._executor.name} differ from this machine",
                "install lsdata again there, or --on here",
            )


_Waiting = tuple[RenderRequest, "Future[Rendered]"]


def _rendered(scored: Mapping[str, ScoredRender]) -> Rendered:
    """Return one sound with its scores by vibe. A sound that could not be rendered has the same failure for each vibe."""
    first = next(iter(scored.values()))
    return Rendered(
        max(one.render_seconds or 0.0 for one in scored.values()),
        failure=first.failure,
        clip=next((one.clip for one in scored.values() if one.clip is not None), None),
        scores={vibe: (one.outcomes, one.score_seconds) for vibe, one in scored.items()},
    )
