"""The scoring service: renders each config once and scores the same sound with every scorer."""

from __future__ import annotations

import json
import logging
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from pydantic import InstanceOf

from latentscore import RENDERER_VERSION, Audio
from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.closing import Closing
from latentscore_data.core.base.errors import LsdataError, OutputError
from latentscore_data.core.base.loop import NotAttempted
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.base.workers import WorkerFailure
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.clips import Clip
from latentscore_data.core.scoring.registry import close, prepare
from latentscore_data.core.scoring.renderer import (
    BATCH,
    SAMPLE_RATE,
    LocalRenderer,
    MakeRenderer,
    Rendered,
    RenderRequest,
    embedders_of,
)
from latentscore_data.core.scoring.types import EmbeddingScorer, Outcome, Score, Scorer, Unscored, Vectors

log = logging.getLogger(__name__)

T = TypeVar("T")

Payload = Mapping[str, Any]

WAIT_SECONDS = 0.5
"""Seconds that an incomplete batch waits for sounds that are being rendered."""


@dataclass(frozen=True)
class ScoredRender:
    """The result for one (vibe, payload): for each scorer, in order, a score or the reason why there is none.

    ``render_seconds`` is None if nothing was rendered; ``score_seconds`` is this pair's share of its batch. ``failure`` is the
    reason if there is no sound. ``audio`` is set if it was requested and the config could be rendered; a remote service
    returns a ``clip`` instead.
    """

    outcomes: dict[str, Outcome]
    render_seconds: float | None = None
    score_seconds: float = 0.0
    failure: Unscored | None = None
    audio: InstanceOf[Audio] | None = None
    clip: Clip | None = None

    def score(self, scorer: str) -> Score | None:
        outcome = self.outcomes.get(scorer)
        return outcome if isinstance(outcome, Score) else None

    def unscored(self, scorer: str) -> Unscored | None:
        outcome = self.outcomes.get(scorer)
        return outcome if isinstance(outcome, Unscored) else None


@dataclass
class Counts:
    """Counts of the service's work, and in ``cached_*`` of the work that the cache saved."""

    renders: int = 0
    render_seconds: float = 0.0
    embedded: Counter[str] = field(default_factory=lambda: Counter())
    """Number of embedded sounds, by scorer."""
    scored: Counter[str] = field(default_factory=lambda: Counter())
    """Number of computed scores, by scorer."""
    score_seconds: float = 0.0
    cached_vectors: int = 0
    cached_scores: int = 0
    penalised: Counter[str] = field(default_factory=lambda: Counter())
    """Number of scores with a penalty above 0 among their parts, by scorer."""
    unscored: Counter[str] = field(default_factory=lambda: Counter())
    """Number of missing scores by reason; each pair and scorer counts once."""

    def to_dict(self) -> JsonObject:
        return {
            "renders": self.renders,
            "render_seconds": round(self.render_seconds, 3),
            "listened": dict(self.embedded),
            "scored": dict(self.scored),
            "score_seconds": round(self.score_seconds, 3),
            "cached_vectors": self.cached_vectors,
            "cached_scores": self.cached_scores,
            "penalty_share": {name: round(n / self.scored[name], 4) for name, n in self.penalised.items()},
            "unscored": dict(self.unscored),
        }


@dataclass
class _Pair:
    """One (vibe, payload) that is being scored."""

    vibe: str
    config: Mapping[str, Any]
    want_audio: bool
    future: Future[ScoredRender] = field(default_factory=lambda: Future())
    vectors: dict[str, Vectors] = field(default_factory=lambda: {})
    outcomes: dict[str, Outcome] = field(default_factory=lambda: {})
    sound: _RenderJob | None = None
    score_seconds: float = 0.0

    def __post_init__(self) -> None:
        # The future cannot be cancelled (as asyncio does if a task ends early), because other pairs may need its sound.
        self.future.set_running_or_notify_cancel()


@dataclass
class _RenderJob:
    """One config and the pairs that wait for its sound. ``request`` is None if the cache contains all that is needed."""

    key: str
    pairs: list[_Pair]
    request: RenderRequest | None = None
    render: Future[Rendered] | None = None
    rendered: Rendered | None = None
    error: BaseException | None = None
    vectors: dict[str, Vectors | Unscored] = field(default_factory=lambda: {})

    def add(self, pair: _Pair) -> None:
        self.pairs.append(pair)
        if self.request is not None and pair.vibe not in self.request.vibes:
            self.request.vibes.append(pair.vibe)

    @property
    def failure(self) -> Unscored | None:
        return self.rendered.failure if self.rendered is not None else None

    @property
    def embeds_here(self) -> bool:
        """True if the sound is new and was not scored by its renderer."""
        return self.rendered is not None and self.rendered.failure is None and not self.rendered.scores


class ScoringService(Closing):
    """Renders payloads and scores them, each only once.

    A sound is identified by (config, seed, seconds, sample rate, renderer version). A sound that was embedded or scored before
    is not rendered again, and a config that several pairs share is rendered once. ``settings.workers`` processes of one thread
    each render; one thread of this process scores in batches. ``cache`` is a :class:`ScoreCache`, the path of one, or None for
    one in memory that is closed with the service. Use it as a context manager::

        with ScoringService(scorers, settings.scoring, workspace.score_cache) as service:
            scored = service.score_one("rain at night", payload)
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        settings: ScoringSettings,
        cache: ScoreCache | Path | None = None,
        *,
        make_renderer: MakeRenderer = LocalRenderer,
        renderer_version: str | None = None,
    ) -> None:
        self.scorers = list(scorers)
        self.counts = Counts()
        self._seconds, self._seed = settings.seconds, settings.seed
        self._version = renderer_version or current_renderer_version()
        self._owns_cache = not isinstance(cache, ScoreCache)
        self._cache = cache if isinstance(cache, ScoreCache) else ScoreCache(cache)
        self._needs_audio_here = len(embedders_of(self.scorers)) < len(self.scorers)
        self._renderer = make_renderer(self.scorers, settings, self._cache)
        self.workers, self.at_once = self._renderer.workers, self._renderer.at_once
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, bool], _RenderJob] = {}
        self._to_score: queue.SimpleQueue[_RenderJob | None] = queue.SimpleQueue()
        self._closed = self._draining = False
        self._scoring = threading.Thread(target=self._score_loop, name="scoring", daemon=True)
        self._scoring.start()

    def submit(self, vibe: str, payload: Payload | None, *, want_audio: bool = False) -> Future[ScoredRender]:
        """Return the future of one pair's scored render; ``payload`` is a whole answer or its config.

        A payload that cannot be rendered gives a reason in the scored render. The future raises only errors that end the run
        (:class:`LsdataError`), bugs, and :class:`NotAttempted` for a sound that is not rendered because of :meth:`drain` or
        :meth:`close`.
        """
        pair = _Pair(vibe, config_of(payload), want_audio)
        if not pair.config:
            self._refuse(pair, Unscored("config", "there is no config"))
            return pair.future
        key = self.sound_key(pair.config)
        with self._lock:
            self._recall(pair, key)
            missing = [scorer for scorer in self.scorers if scorer.name not in pair.outcomes]
            if want_audio or any(scorer.name not in pair.vectors for scorer in missing):
                self._render(key, pair)
            elif missing:
                self._to_score.put(_RenderJob(key, [pair]))
            else:
                self._finish(pair)
        return pair.future

    def score_one(self, vibe: str, payload: Payload | None, *, want_audio: bool = False) -> ScoredRender:
        """Return the scored render of one pair and wait for it."""
        return self.submit(vibe, payload, want_audio=want_audio).result()

    def score_all(self, pairs: Iterable[tuple[str, Payload | None]]) -> list[ScoredRender]:
        """Return the scored renders in the order of the pairs, and wait for them."""
        futures = [self.submit(vibe, payload) for vibe, payload in pairs]
        return [future.result() for future in futures]

    def sound_key(self, config: Mapping[str, Any]) -> str:
        """Return a key of everything that determines the audio of a config."""
        return digest(config_hash(config), self._seed, f"{self._seconds:g}", SAMPLE_RATE, self._version)

    @property
    def cache(self) -> ScoreCache:
        """The cache of vectors and scores."""
        return self._cache

    @property
    def keeps_vectors(self) -> bool:
        """True if the cache is a file, which later runs can use."""
        return self._cache.path is not None

    def vector(self, scorer: EmbeddingScorer, payload: Payload) -> Vectors | None:
        """Return the vector of a payload's sound, shape (dim,); None if it is not in the cache."""
        return self._cache.vector(scorer.embedding_fingerprint, self.sound_key(config_of(payload)))

    def drain(self) -> None:
        """Start no more renders, because the run is stopping. Renders that have begun are finished and scored."""
        with self._lock:
            self._draining = True
            waiting = list(self._waiting.values())
        for job in waiting:
            if job.render is not None:
                job.render.cancel()

    def close(self) -> None:
        """End the worker processes; work that has not started is cancelled."""
        if self._closed:
            return
        self._closed = True
        self._renderer.close()
        self._to_score.put(None)
        self._scoring.join(timeout=60)
        for scorer in self.scorers:
            close(scorer)
        if self._owns_cache:
            self._cache.close()

    def _recall(self, pair: _Pair, key: str) -> None:
        """Read the cached results of the pair."""
        for scorer in self.scorers:
            known = self._cache.score(scorer.fingerprint, key, pair.vibe)
            if known is not None:
                pair.outcomes[scorer.name] = known
                self.counts.cached_scores += 1
            elif isinstance(scorer, EmbeddingScorer):
                vector = self._cache.vector(scorer.embedding_fingerprint, key)
                if vector is not None:
                    pair.vectors[scorer.name] = vector
                    self.counts.cached_vectors += 1

    def _render(self, key: str, pair: _Pair) -> None:
        """Render the pair's config, or add the pair to those that wait for the same sound. The caller holds the lock."""
        if not self._renderer.scores:
            for scorer in self.scorers:
                prepare(scorer)
        slot = (key, pair.want_audio)
        for one in (slot, (key, True)):
            # A pair without audio can wait for a render with audio, but not for one whose scores are known, because that
            # sound may be rendered only for its audio.
            if one in self._waiting and (one == slot or not self._waiting[one].pairs[0].outcomes):
                self._waiting[one].add(pair)
                return
        if self._draining:
            pair.future.set_exception(NotAttempted())
            return
        request = RenderRequest(key, pair.config, [pair.vibe], pair.want_audio)
        job = self._waiting[slot] = _RenderJob(key, [pair], request)
        job.render = self._renderer.submit(request)
        job.render.add_done_callback(lambda done: self._rendered(job, slot, done))

    def _rendered(self, job: _RenderJob, slot: tuple[str, bool], done: Future[Rendered]) -> None:
        """Called in a thread of the renderer."""
        if done.cancelled():
            with self._lock:
                self._waiting.pop(slot, None)
            for pair in job.pairs:
                pair.future.set_exception(NotAttempted())
            return
        error = done.exception()
        if error is None:
            job.rendered = done.result()
        elif not isinstance(error, WorkerFailure):
            job.error = error
        elif error.kind == "start":
            # The error is not caused by a config, so it does not fail individual rows.
            job.error = OutputError(f"a rendering process could not start: {error}", "see lsdata doctor")
        else:
            job.rendered = Rendered(0.0, failure=Unscored("render", f"the renderer failed: {error}"))
        self._to_score.put(job)

    def _score_loop(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                self._score_batch(batch)
            finally:
                for sound in batch:
                    if sound.request is not None:
                        self._renderer.release()

    def _next_batch(self) -> list[_RenderJob] | None:
        """Return up to BATCH sounds: those that are ready, and those that will be within WAIT_SECONDS. None at the end."""
        first = self._to_score.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < BATCH:
            try:
                if self._needs_audio_here and len(self._waiting) > len(batch):
                    sound = self._to_score.get(timeout=WAIT_SECONDS)
                else:
                    sound = self._to_score.get_nowait()
            except queue.Empty:
                break
            if sound is None:
                self._to_score.put(None)
                break
            batch.append(sound)
        return batch

    def _score_batch(self, batch: list[_RenderJob]) -> None:
        started = time.perf_counter()
        pairs: list[_Pair] = []
        try:
            for sound in batch:
                if sound.error is not None:
                    raise sound.error
                if sound.rendered is not None:
                    self.counts.renders += 1
                    self.counts.render_seconds += sound.rendered.seconds
            self._embed([job for job in batch if job.embeds_here])
            pairs = self._gather(batch)
            playable = [pair for pair in pairs if pair.sound is not None and pair.sound.failure is None]
            for scorer in self.scorers:
                self._score(scorer, [pair for pair in playable if scorer.name not in pair.outcomes])
        except Exception as error:  # an LsdataError or a bug ends the run; all waiting callers must receive it
            for pair in pairs or self._gather(batch):
                pair.future.set_exception(error)
            return
        took = time.perf_counter() - started
        self.counts.score_seconds += took
        for pair in pairs:
            pair.score_seconds = took / len(pairs)
            if pair.sound is not None and pair.sound.failure is not None:
                self._refuse(pair, pair.sound.failure)
            else:
                self._finish(pair)

    def _embed(self, sounds: list[_RenderJob]) -> None:
        """Embed each new sound with the embedding scorers, and store the vectors."""
        for scorer in self.scorers:
            if not isinstance(scorer, EmbeddingScorer):
                continue
            # A sound that is rendered again, for another scorer or for its audio, is not embedded again.
            fresh = [sound for sound in sounds if scorer.name not in sound.pairs[0].vectors]
            fresh = [sound for sound in fresh if scorer.name not in sound.pairs[0].outcomes]
            if scorer.embed_in_worker is not None:
                embedded: list[Vectors | Unscored] = [
                    cast("Rendered", sound.rendered).vectors[scorer.name] for sound in fresh
                ]
            else:
                embedded = _each(scorer.name, fresh, lambda some, by=scorer: list(by.embed([_audio(s) for s in some])))
            for sound, vector in zip(fresh, embedded, strict=True):
                self.counts.embedded[scorer.name] += 1
                if not isinstance(vector, Unscored) and not np.isfinite(vector).all():
                    vector = Unscored("scorer", f"{scorer.name} embedded something that is not finite")
                sound.vectors[scorer.name] = vector
                if not isinstance(vector, Unscored):
                    self._cache.keep_vector(scorer.embedding_fingerprint, sound.key, vector)

    def _gather(self, batch: list[_RenderJob]) -> list[_Pair]:
        """Return the pairs that wait for these sounds. Later pairs find the vectors in the cache."""
        with self._lock:
            for slot in [slot for slot, sound in self._waiting.items() if any(sound is done for done in batch)]:
                del self._waiting[slot]
        pairs: list[_Pair] = []
        for sound in batch:
            for pair in sound.pairs:
                pair.sound = sound
                for name, vector in sound.vectors.items():
                    if isinstance(vector, Unscored):
                        pair.outcomes.setdefault(name, vector)
                    else:
                        pair.vectors.setdefault(name, vector)
                if sound.rendered is not None and sound.rendered.scores:
                    self._take_scores(pair, sound.rendered, sound.key)
                pairs.append(pair)
        return pairs

    def _take_scores(self, pair: _Pair, rendered: Rendered, key: str) -> None:
        """Take the renderer's scores. A vibe that was added too late for them is scored here, with the vectors in the cache."""
        if pair.vibe not in rendered.scores:
            self._recall(pair, key)
            return
        outcomes, seconds = rendered.scores[pair.vibe]
        self.counts.score_seconds += seconds
        for name, outcome in outcomes.items():
            pair.outcomes.setdefault(name, outcome)
            self._count(name, outcome)

    def _score(self, scorer: Scorer, pairs: list[_Pair]) -> None:
        """Score the pairs with one scorer and store the results."""

        def judge(some: Sequence[_Pair]) -> Sequence[Outcome]:
            vibes = [pair.vibe for pair in some]
            if isinstance(scorer, EmbeddingScorer):
                return scorer.compare(vibes, np.stack([pair.vectors[scorer.name] for pair in some]))
            audios = [_audio(cast("_RenderJob", pair.sound)) for pair in some]
            return scorer.score(vibes, audios, [pair.config for pair in some])

        for pair, outcome in zip(pairs, _each(scorer.name, pairs, judge), strict=True):
            outcome = _checked(scorer.name, outcome)
            pair.outcomes[scorer.name] = outcome
            self._count(scorer.name, outcome)
            if isinstance(outcome, Score):
                self._cache.keep_score(scorer.fingerprint, cast("_RenderJob", pair.sound).key, pair.vibe, outcome)

    def _count(self, name: str, outcome: Outcome) -> None:
        if isinstance(outcome, Score):
            self.counts.scored[name] += 1
            if "penalty" in outcome.parts:
                self.counts.penalised[name] += outcome.parts["penalty"] > 0

    def _refuse(self, pair: _Pair, failure: Unscored) -> None:
        """Set the failure of all scorers for a pair without a sound."""
        pair.outcomes = {scorer.name: failure for scorer in self.scorers}
        self._finish(pair, failure)

    def _finish(self, pair: _Pair, failure: Unscored | None = None) -> None:
        for outcome in pair.outcomes.values():
            if isinstance(outcome, Unscored):
                self.counts.unscored[outcome.reason] += 1
        rendered = pair.sound.rendered if pair.sound is not None else None
        pair.future.set_result(
            ScoredRender(
                {scorer.name: pair.outcomes[scorer.name] for scorer in self.scorers},
                render_seconds=None if rendered is None else rendered.seconds,
                score_seconds=pair.score_seconds,
                failure=failure,
                audio=rendered.audio if rendered is not None and pair.want_audio else None,
                clip=rendered.clip if rendered is not None and pair.want_audio else None,
            )
        )


def config_of(payload: Payload | None) -> Mapping[str, Any]:
    """Return the config in a payload, or the payload if it is a config; empty if there is none."""
    if not isinstance(payload, Mapping):
        return {}
    config = payload.get("config", payload)
    return config if isinstance(config, Mapping) else {}


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a config's fields, independent of their order."""
    return digest(json.dumps(dict(config), sort_keys=True, separators=(",", ":"), default=str))


def current_renderer_version() -> str:
    """Return the version of the renderer; in another version, the same config may sound different."""
    return str(RENDERER_VERSION)


def _audio(sound: _RenderJob) -> Audio:
    if sound.rendered is None or sound.rendered.audio is None:
        raise AssertionError("a scorer needs audio that was not rendered")
    return sound.rendered.audio


def _each(name: str, items: Sequence[T], judge: Callable[[Sequence[T]], Sequence[Any]]) -> list[Any]:
    """Apply ``judge`` to all items at once; if it raises, to each item alone, so that only the bad item fails."""
    if not items:
        return []
    try:
        results = list(judge(items))
        if len(results) != len(items):
            raise ValueError(f"{len(results)} results for {len(items)} sounds")
        return results
    except LsdataError:
        raise
    except Exception as error:
        if len(items) == 1:
            log.debug("%s failed", name, exc_info=True)
            return [Unscored("scorer", f"{name} failed: {type(error).__name__}: {error}"[:300])]
        return [_each(name, [item], judge)[0] for item in items]


def _checked(name: str, outcome: object) -> Outcome:
    """Return the outcome if it is a score with a finite number; otherwise the reason why not."""
    if isinstance(outcome, Unscored):
        return outcome
    if not isinstance(outcome, Score):
        return Unscored("scorer", f"{name} returned {type(outcome).__name__} instead of a score")
    value = outcome.final_score
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return Unscored("scorer", f"{name} returned {type(value).__name__} instead of a number")
    if not math.isfinite(value):
        return Unscored("scorer", f"{name} returned {value}")
    return Score(float(value), {part: float(x) for part, x in outcome.parts.items() if math.isfinite(x)})
