"""Sound in blocks: several vibes one after the other, one without an end, and a stream that is steered while it plays."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore.answers import Answer, Given
from latentscore.audio import Audio, Metadata
from latentscore.config import MusicConfig, MusicConfigPrompt, MusicConfigPromptPayload, MusicConfigUpdate
from latentscore.errors import InvalidConfigError
from latentscore.labels import beats_per_minute
from latentscore.models import Model
from latentscore.playback import play_blocks
from latentscore.runtime import answer_for
from latentscore.synth.engine import checked_frames, checked_span
from latentscore.synth.render import finish
from latentscore.synth.space import STEP
from latentscore.synth.stream import MOST_BARS, Stream
from latentscore.vibe_map import VibeMap

Block = NDArray[np.float32]

RATE = 48_000
BLOCK_FRAMES = 12_288
"""A quarter of a second at 48 kHz, and a whole number of the engine's steps."""
TRACK_SECONDS = 60.0
TRANSITION_SECONDS = 5.0
CLOSING_SECONDS = 4.0
"""How long a stream with an end fades out, at most."""
LEAST_SECONDS = 0.001
"""The shortest stream."""
LAST_SECONDS = 10.0
"""How long the last item of a live source sounds before the stream fades out."""


@dataclass(frozen=True)
class Track:
    """A part of a stream: what it plays, for how many seconds, and how long the cross-fade into it takes."""

    content: Given | Answer | MusicConfigUpdate
    seconds: float = TRACK_SECONDS
    transition: float = TRANSITION_SECONDS
    name: str | None = None

    def __post_init__(self) -> None:
        for field in ("seconds", "transition"):
            object.__setattr__(self, field, checked_span(field, getattr(self, field)))


Item = Given | Answer | Track | MusicConfigUpdate

ONE_ITEM = (
    str,
    bytes,
    Mapping,
    MusicConfig,
    MusicConfigPrompt,
    MusicConfigPromptPayload,
    Answer,
    Track,
    MusicConfigUpdate,
)
"""What is one thing to play, though some of it can be iterated over."""


@dataclass(frozen=True)
class Playlist:
    """Tracks in their order."""

    tracks: tuple[Track, ...]

    def __init__(self, tracks: Iterable[Item]) -> None:
        if isinstance(tracks, ONE_ITEM) or not isinstance(tracks, Iterable):
            raise InvalidConfigError("tracks", f"a list of items is needed, not {type(tracks).__name__}")
        object.__setattr__(self, "tracks", tuple(one if isinstance(one, Track) else Track(one) for one in tracks))

    def stream(self, **options: Any) -> AudioStream:
        """The tracks one after the other; ``options`` are those of :func:`stream`."""
        return stream(*self.tracks, **options)

    def render(self, **options: Any) -> Audio:
        """All tracks as one sound, at the loudness of :func:`latentscore.render`: a stream can only predict its own."""
        played = self.stream(**options).collect()
        return replace(played, samples=finish(np.ascontiguousarray(played.samples.T), played.sample_rate))

    def play(self, **options: Any) -> None:
        """Play all tracks. Raises :class:`AudioError` without the extra ``play`` or a device."""
        self.stream(**options).play()


class AudioStream(Stream):
    """An iterator of blocks of sound, float32 of shape (frames, 2), that plays answers one after the other.

    A track begins at the first bar line after the one before has sounded for its seconds, cross-faded over about its
    ``transition``. ``seconds`` ends the stream there, faded out; without it the last track goes on without an end.
    ``update``, ``next`` and ``stop`` of :class:`Stream` work at any time.
    """

    def __init__(
        self,
        tracks: Sequence[tuple[Answer, float, float]],
        seconds: float | None,
        seed: int = 0,
        sample_rate: int = RATE,
        block_frames: int = BLOCK_FRAMES,
    ) -> None:
        self.answers = [found for found, _, _ in tracks]
        super().__init__(self.answers[0].config, seed, sample_rate, block_frames)
        ends = np.cumsum([length for _, length, _ in tracks]) * self.sample_rate
        self._coming = [(round(ends[at - 1]), tracks[at][0], tracks[at][2]) for at in range(1, len(tracks))]
        self._total = None if seconds is None else round(seconds * self.sample_rate)
        self.total_seconds = seconds

    def read(self, frames: int) -> Block:
        """The next ``frames`` frames, shape (frames, 2); fewer only at the end."""
        blocks: list[Block] = []
        frames = checked_frames("frames", frames)
        if self._total is not None:
            frames = min(frames, self._total - self.position)
        while frames > 0:
            wait = self._command()
            block = super().read(min(frames, wait))
            blocks.append(block)
            frames -= len(block)
            if not len(block):
                break
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks or [np.zeros((0, 2), np.float32)])

    def _command(self) -> int:
        """Give the commands that are due; how many frames may be read before the next one is."""
        at = self.position
        while self._coming and self._coming[0][0] <= at:
            _, found, transition = self._coming.pop(0)
            self.next(found.config, bars=bars_of(transition, self.config))
        due = [self._coming[0][0]] if self._coming else []
        if self._total is not None:
            # At least two steps, of which one may have been made already.
            fade = max(round(min(CLOSING_SECONDS * self.sample_rate, self._total / 4)), 2 * STEP)
            closing = max(self._total - fade, 0)
            if at < closing:
                due.append(closing)
            else:
                # Frames that are made already cannot be faded any more: the fade ends where the sound does.
                self.stop(max(self._total - self._made, 1) / self.sample_rate)
        return min(due, default=2**62) - at if due else 2**62

    def end_at(self, seconds: float) -> None:
        """Fade out and end so many seconds after the beginning."""
        self.total_seconds = seconds
        self._total = round(seconds * self.sample_rate)

    def collect(self, seconds: float | None = None) -> Audio:
        """The whole sound, or the next ``seconds``. Raises :class:`InvalidConfigError` for a stream without an end."""
        if seconds is None and self._total is None:
            raise InvalidConfigError("seconds", "this stream has no end; say how many seconds of it to take")
        frames = 2**62 if seconds is None else round(checked_span("seconds", seconds) * self.sample_rate)
        blocks: list[Block] = []
        while frames > 0 and len(block := self.read(min(frames, self.block_frames))):
            blocks.append(block)
            frames -= len(block)
        samples = np.concatenate(blocks) if blocks else np.zeros((0, 2), np.float32)
        first = self.answers[0]
        titles = dict.fromkeys(found.title for found in self.answers)
        metadata = Metadata(
            " / ".join(titles), first.config, self.seed, len(samples) / self.sample_rate, first.answered_by,
            "\n".join(found.reasons for found in self.answers if found.reasons), first.palettes, first.text,
        )  # fmt: skip
        return Audio(samples, self.sample_rate, tags={"title": metadata.title}, metadata=metadata)

    def save(self, path: Path | str, seconds: float | None = None) -> Path:
        """Write what :meth:`collect` gives."""
        return self.collect(seconds).save(path)

    def play(self) -> None:
        """Play to the end, or until it is interrupted. Raises :class:`AudioError` without the extra or a device."""
        play_blocks(self, self.sample_rate)

    def __repr__(self) -> str:
        length = "without an end" if self.total_seconds is None else f"{self.total_seconds:.1f} s"
        return f"AudioStream({', '.join(repr(found.title) for found in self.answers)}, {length}, {self.sample_rate} Hz)"


def bars_of(seconds: float, config: MusicConfig) -> float:
    """How many bars of a piece so many seconds are, at most the longest cross-fade."""
    return min(seconds * beats_per_minute(config.tempo) / 240.0, MOST_BARS)


def stream(
    *items: Item | Sequence[Item],
    seconds: float | None = None,
    transition: float | None = None,
    seed: int = 0,
    sample_rate: int = RATE,
    block_frames: int = BLOCK_FRAMES,
    update: MusicConfigUpdate | Mapping[str, Any] | None = None,
    map: VibeMap | str | Path | None = None,
    model: Model | None = None,
) -> AudioStream:
    """A stream of the items, each a text, a payload, a config, a mapping, a :class:`Track`, or a change of the config before it.

    ``seconds`` is the length of the whole, shared evenly by items that are no tracks; ``transition`` is how many seconds the
    cross-fades of such items take. One item without ``seconds`` plays without an end; several take 60 s each. Every item is
    answered before this returns, as :func:`render` answers it. Raises what :func:`render` raises.
    """
    flat: list[Item] = []
    for item in items:
        flat += item if isinstance(item, list | tuple) else [item]  # type: ignore[list-item]
    if not flat:
        raise InvalidConfigError("items", 'give at least one, such as stream("rain on a tin roof")')
    if seconds is not None:
        seconds = checked_span("seconds", seconds, LEAST_SECONDS)
    named = sum(one.seconds for one in flat if isinstance(one, Track))
    loose = sum(not isinstance(one, Track) for one in flat)
    share = TRACK_SECONDS if seconds is None or not loose else max(seconds - named, 0.0) / loose
    fade = TRANSITION_SECONDS if transition is None else transition
    tracks = [one if isinstance(one, Track) else Track(one, share, fade) for one in flat]
    if seconds is None and (len(flat) > 1 or named):
        seconds = sum(track.seconds for track in tracks)
    answers: list[Answer] = []
    for track in tracks:
        if not isinstance(track.content, MusicConfigUpdate):
            answers.append(answer_for(track.content, update, map, model))
        elif answers:
            answers.append(answers[-1].updated(track.content))
        else:
            raise InvalidConfigError("items", "the first item must be something to play")
    parts = [(found, track.seconds, track.transition) for found, track in zip(answers, tracks, strict=True)]
    return AudioStream(parts, seconds, seed, sample_rate, block_frames)


async def astream(*items: Item | Sequence[Item], **options: Any) -> AsyncIterator[Block]:
    """The blocks of :func:`stream` without blocking the event loop."""
    playing = await asyncio.to_thread(stream, *items, **options)
    while len(block := await asyncio.to_thread(playing.read, playing.block_frames)):
        yield block


# --- steered while it plays ------------------------------------------------------------------------------------------

LiveSource = Iterable[Item] | AsyncIterable[Item]

_END = object()


class LiveStream:
    """A stream whose items come from a generator while it plays.

    A thread takes the next item when the one before has come in, so a generator decides by waiting how long each sounds. A
    :class:`MusicConfigUpdate` changes the config that plays; everything else begins another piece. What the source
    raises is raised here.
    """

    def __init__(self, source: LiveSource, transition: float, seed: int, sample_rate: int, options: Mapping[str, Any]):
        self.sample_rate = sample_rate
        self._source, self._options = source, options
        self._transition, self._seed = checked_span("transition", transition), seed
        self._found: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._wanted = threading.Semaphore(1)
        self._closed = False
        self._started = False

    def blocks(self, seconds: float | None = None) -> Iterator[Block]:
        """Blocks of sound, float32 of shape (frames, 2), for ``seconds`` or until the source has ended.

        Waits for the first item only: a later one is taken when it has come. Can be called once. Raises
        :class:`InvalidConfigError` for a source without a first item.
        """
        return self._blocks(seconds, patient=False)

    def _blocks(self, seconds: float | None, patient: bool) -> Iterator[Block]:
        """Blocks of sound; ``patient`` stops the clock of the sound until the source has given its next item."""
        if self._started:
            raise InvalidConfigError("source", "a live stream plays once; make another one")
        self._started = True
        if seconds is not None:
            seconds = checked_span("seconds", seconds, LEAST_SECONDS)
        threading.Thread(target=self._feed, name="latentscore-live", daemon=True).start()
        first = self._raised(self._found.get())
        if first is _END or isinstance(first[0], MusicConfigUpdate):
            raise InvalidConfigError("source", "the first item must be something to play")
        playing = AudioStream([(first[0], 0.0, 0.0)], seconds, self._seed, self.sample_rate)
        current, ready_at = first[0], first[1]
        self._want()
        try:
            while len(block := playing.read(playing.block_frames)):
                yield block
                due = ready_at <= playing.seconds < (seconds or float("inf"))
                if not due or (self._found.empty() and not patient):
                    continue
                item = self._raised(self._found.get())
                if item is _END:
                    if seconds is None:
                        playing.end_at(playing.seconds + LAST_SECONDS)
                    ready_at = float("inf")
                    continue
                what, hold = item
                if isinstance(what, MusicConfigUpdate):
                    current = current.updated(what)
                    playing.update(current.config)
                else:
                    current = what
                    playing.next(current.config, bars=bars_of(self._transition, playing.config))
                ready_at = playing.seconds + max(hold, self._transition)
                self._want()
        finally:
            self.close()

    def collect(self, seconds: float) -> Audio:
        """The first ``seconds`` as one sound, made as fast as it can be.

        Each item sounds for the seconds of its :class:`Track`, at least for the transition; then the next one is waited
        for, and that wait is not heard. So the same items give the same sound, however busy the machine is.
        """
        blocks = list(self._blocks(seconds, patient=True))
        return Audio(np.concatenate(blocks), self.sample_rate)

    def save(self, path: Path | str, seconds: float) -> Path:
        """Write what :meth:`collect` gives."""
        return self.collect(seconds).save(path)

    def play(self, seconds: float | None = None) -> None:
        """Play until the source has ended, for ``seconds``, or until it is interrupted. Raises :class:`AudioError`."""
        play_blocks(self.blocks(seconds), self.sample_rate)

    def close(self) -> None:
        """Take no more items."""
        self._closed = True
        self._wanted.release()

    def _want(self) -> None:
        self._wanted.release()

    def _raised(self, found: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    def _feed(self) -> None:
        try:
            if isinstance(self._source, AsyncIterable):
                asyncio.run(self._feed_async(self._source))
            else:
                for item in self._source:
                    if not self._give(item):
                        return
            self._put(_END)
        except Exception as error:
            self._put(error)

    async def _feed_async(self, source: AsyncIterable[Item]) -> None:
        async for item in source:
            if not await asyncio.to_thread(self._give, item):
                break
        close = getattr(source, "aclose", None)
        if close is not None and inspect.ismethod(close):
            await close()

    def _give(self, item: Item) -> bool:
        """Answer an item and hand it over when it is wanted; False where no more are."""
        hold = 0.0
        if isinstance(item, Track):
            item, hold = item.content, item.seconds
        found = item if isinstance(item, MusicConfigUpdate) else answer_for(item, **self._options)
        self._wanted.acquire()
        return self._put((found, hold))

    def _put(self, found: Any) -> bool:
        while not self._closed:
            try:
                self._found.put(found, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False


def live(
    source: LiveSource,
    *,
    transition: float = TRANSITION_SECONDS,
    seed: int = 0,
    sample_rate: int = RATE,
    update: MusicConfigUpdate | Mapping[str, Any] | None = None,
    map: VibeMap | str | Path | None = None,
    model: Model | None = None,
) -> LiveStream:
    """A stream of what a generator (``def`` or ``async def``) yields: texts, configs, updates, tracks, as they come."""
    if isinstance(source, ONE_ITEM) or not isinstance(source, Iterable | AsyncIterable):
        raise InvalidConfigError("source", f"a generator of items is needed, not {type(source).__name__}; see stream()")
    return LiveStream(source, transition, seed, sample_rate, {"update": update, "map": map, "model": model})
