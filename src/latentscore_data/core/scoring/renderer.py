"""Rendering candidates: the protocol of renderers, the renderer for this machine, and the work of its processes.

A renderer converts a config to sound and, for scorers that support it, to vectors. A remote renderer may also score.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

import latentscore
from latentscore import Audio, InvalidConfigError, parse_config
from latentscore.installed import available_cores
from latentscore_data.core.base.display import say
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.base.workers import WorkerPool
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.clips import Clip
from latentscore_data.core.scoring.types import EmbeddingScorer, Outcome, Scorer, Unscored, Vectors

SAMPLE_RATE = 48_000

BATCH = 16
"""Sounds passed to a scorer at once; a scorer with a model may split them into smaller batches."""

SLOW_START_SECONDS = 4.0
SLOW_START = (
    "starting the renderers; the first start on a machine compiles the sound loops, which takes about ten seconds"
)
"""Printed if there is no sound after ``SLOW_START_SECONDS``."""

SILENCE_PEAK = 10 ** (-60 / 20)
"""A piece whose loudest sample is below -60 dBFS is silent."""

Render = Callable[..., Audio]
"""``latentscore.render``, or a function with the same arguments: ``render(config, seconds=, seed=, sample_rate=)``."""

Embed = Callable[[Audio], Vectors]


@dataclass(frozen=True)
class Rendered:
    """One rendered config: vectors by scorer, and the audio (or a clip of it) if requested; or the failure.

    ``scores`` holds (outcomes by scorer, seconds) by vibe, from a renderer that also scores.
    """

    seconds: float
    vectors: dict[str, Vectors] = field(default_factory=dict)
    audio: Audio | None = None
    failure: Unscored | None = None
    clip: Clip | None = None
    scores: Mapping[str, tuple[dict[str, Outcome], float]] = field(default_factory=dict)


@dataclass(frozen=True)
class RenderRequest:
    """A config to render. ``key`` identifies its sound. ``vibes`` are compared with it; more may be added until it is sent."""

    key: str
    config: Mapping[str, Any]
    vibes: list[str]
    want_audio: bool


class Renderer(Protocol):
    """Renders configs, several at once."""

    workers: int
    """Number of configs that are rendered at the same time."""
    at_once: int
    """Number of requests that keep it busy and still fit in memory."""
    scores: bool
    """True if it also scores what it renders."""

    def submit(self, request: RenderRequest) -> Future[Rendered]:
        """Return the future of the rendered config. A config that cannot be rendered is a failure in its result. The future
        raises :class:`WorkerFailure` for a process that failed, and :class:`LsdataError` for an error that ends the run."""
        ...

    def release(self) -> None:
        """Report that one rendered config is scored, so that its memory can be reused."""
        ...

    def close(self) -> None:
        """End the work; requests that have not started are cancelled."""
        ...


MakeRenderer = Callable[[Sequence[Scorer], ScoringSettings, ScoreCache], Renderer]
"""Makes the renderer of a scoring service, which closes it."""


class LocalRenderer:
    """Renders in ``settings.workers`` processes of one thread each. ``render`` replaces ``latentscore.render``."""

    at_once = 24
    scores = False

    def __init__(
        self,
        scorers: Sequence[Scorer],
        settings: ScoringSettings,
        cache: ScoreCache,
        *,
        render: Render | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        self.workers = settings.workers or available_cores()
        self._seconds, self._seed = settings.seconds, settings.seed
        self._embedders = embedders_of(scorers)
        # Sending 10 s of sound between processes takes milliseconds, so it is sent only if a scorer here needs the samples.
        self._needs_audio = len(self._embedders) < len(scorers)
        # Rendered sounds wait in memory until they are scored; this keeps their number small.
        self._slots = threading.BoundedSemaphore(2 * BATCH + self.workers)
        self._pool = WorkerPool(
            make_worker,
            (render,),
            count=self.workers,
            timeout_seconds=timeout_seconds or 60 + 2 * settings.seconds,
            preload=["latentscore_data.core.scoring.preload"],
            slots=self._slots,
        )
        self._slow_start = threading.Timer(SLOW_START_SECONDS, say, [SLOW_START])
        self._slow_start.daemon = True

    def submit(self, request: RenderRequest) -> Future[Rendered]:
        if not self._slow_start.is_alive() and not self._slow_start.finished.is_set():
            self._slow_start.start()
        send_audio = request.want_audio or self._needs_audio
        future = self._pool.submit(dict(request.config), self._seconds, self._seed, self._embedders, send_audio)
        future.add_done_callback(lambda _: self._slow_start.cancel())
        return future

    def release(self) -> None:
        self._slots.release()

    def close(self) -> None:
        self._slow_start.cancel()
        self._pool.close()


def embedders_of(scorers: Sequence[Scorer]) -> dict[str, Embed]:
    """Return the functions that embed a sound in the process that rendered it, by scorer; not all scorers have one."""
    return {
        scorer.name: scorer.embed_in_worker
        for scorer in scorers
        if isinstance(scorer, EmbeddingScorer) and scorer.embed_in_worker is not None
    }


def make_worker(render: Render | None) -> Callable[..., Rendered]:
    """Return the function for the calls of a rendering process; ``None`` stands for ``latentscore.render``."""
    if render is None:
        # There is already one process per core.
        render = partial(latentscore.render, threads=1)
    play = render

    def work(
        config: Mapping[str, Any], seconds: float, seed: int, embedders: Mapping[str, Embed], want_audio: bool
    ) -> Rendered:
        started = time.perf_counter()
        try:
            audio = play(parse_config(config), seconds=seconds, seed=seed, sample_rate=SAMPLE_RATE)
        except InvalidConfigError as error:
            return Rendered(time.perf_counter() - started, failure=Unscored("config", str(error)))
        except Exception as error:
            failure = Unscored("render", f"the renderer failed: {type(error).__name__}: {error}"[:300])
            return Rendered(time.perf_counter() - started, failure=failure)
        took = time.perf_counter() - started
        failure = sound_failure(audio)
        if failure is not None:
            return Rendered(took, failure=failure, audio=audio if want_audio else None)
        vectors = {name: embed(audio) for name, embed in embedders.items()}
        return Rendered(took, vectors, audio if want_audio else None)

    return work


def sound_failure(audio: Audio) -> Unscored | None:
    """Return why the audio cannot be scored (empty, not finite or silent); None if it can."""
    if not len(audio.samples):
        return Unscored("sound", "the audio is empty")
    peak = float(np.abs(audio.samples).max())
    if not np.isfinite(peak):
        return Unscored("sound", "the audio is not finite")
    if peak < SILENCE_PEAK:
        return Unscored("sound", "the audio is silent")
    return None
