"""Audio in blocks: several vibes one after the other, endless pieces, and streams that are changed during playback."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore.api.answers import ANSWERABLE, Answer, Given, is_payload, to_update
from latentscore.api.models import Model
from latentscore.api.runtime import answer
from latentscore.audio import Audio, Metadata, format_for, make_folder, write_blocks
from latentscore.config import MusicConfig, MusicConfigUpdate
from latentscore.errors import InvalidConfigError
from latentscore.files import user_path
from latentscore.labels import beats_per_minute
from latentscore.playback import play_blocks
from latentscore.synth.engine import checked_config, checked_frames, checked_span
from latentscore.synth.notes import Piece
from latentscore.synth.render import finish
from latentscore.synth.space import STEP
from latentscore.synth.stream import MOST_BARS, Stream, predicted_lufs
from latentscore.vibe_map import VibeMap

Block = NDArray[np.float32]

RATE = 48_000
BLOCK_FRAMES = 12_288
"""Frames per block: a quarter of a second at 48 kHz, and a multiple of the engine's block."""
TRACK_SECONDS = 60.0
TRANSITION_SECONDS = 5.0
CLOSING_SECONDS = 4.0
"""Maximum length of the fade-out at the end of a stream."""
LEAST_SECONDS = 0.001
"""Length of the shortest stream, in seconds."""
LAST_SECONDS = 10.0
"""Length of the last item of a live source before the fade-out, in seconds."""


@dataclass(frozen=True)
class Track:
    """A part of a stream: what it plays, its length in seconds, and the length in seconds of the cross-fade into it."""

    content: Given | Answer | MusicConfigUpdate
    seconds: float = TRACK_SECONDS
    transition: float = TRANSITION_SECONDS
    name: str | None = None

    def __post_init__(self) -> None:
        for field in ("seconds", "transition"):
            object.__setattr__(self, field, checked_span(field, getattr(self, field)))


Item = Given | Answer | Track | MusicConfigUpdate

ONE_ITEM = (*ANSWERABLE, bytes, Track, MusicConfigUpdate)
"""Types of a single item, although some of them are iterable."""


@dataclass(frozen=True)
class Playlist:
    """A list of tracks to stream, render or play."""

    tracks: tuple[Track, ...]

    def __init__(self, tracks: Iterable[Item]) -> None:
        if isinstance(tracks, ONE_ITEM) or not isinstance(tracks, Iterable):
            raise InvalidConfigError("tracks", f"must be a list of items, not {type(tracks).__name__}")
        object.__setattr__(self, "tracks", tuple(one if isinstance(one, Track) else Track(one) for one in tracks))

    def stream(self, **options: Any) -> AudioStream:
        """Return a stream of the tracks; ``options`` are those of :func:`stream`."""
        return stream(*self.tracks, **options)

    def render(self, **options: Any) -> Audio:
        """Return all tracks as one audio, normalized to -16 LUFS as by :func:`latentscore.render`; a stream can only
        predict its loudness."""
        played = self.stream(**options).collect()
        return replace(played, samples=finish(np.ascontiguousarray(played.samples.T), played.sample_rate))

    def play(self, **options: Any) -> None:
        """Play all tracks. Raises :class:`AudioError` without the extra ``play`` or a device."""
        self.stream(**options).play()


class AudioStream(Stream):
    """An iterator of audio blocks, float32 of shape (frames, 2), that plays answers one after the other.

    A track begins at the first bar line after the previous one has played for its seconds, with a cross-fade of about
    its ``transition``. ``seconds`` is the length of the stream, with a fade-out; without it the last track is endless.

    ``update``, ``next`` and ``stop`` may be called at any time and from any thread; only one thread may read. The first
    two take effect at the next bar line that is at least 0.65 s ahead. They answer a text and measure the new sound,
    which takes up to half a second. ``async for block in stream`` reads in a thread of the event loop's executor.
    """

    def __init__(
        self,
        tracks: Sequence[tuple[Answer, float, float]],
        seconds: float | None,
        seed: int,
        sample_rate: int,
        block_frames: int = BLOCK_FRAMES,
        find: Callable[[Given | Answer], Answer] = answer,
    ) -> None:
        self._find = find
        self.answers = [found for found, _, _ in tracks]
        super().__init__(self.answers[0].config, seed, sample_rate, block_frames)
        ends = np.cumsum([length for _, length, _ in tracks]) * self.sample_rate
        self._coming = [(round(ends[at - 1]), tracks[at][0], tracks[at][2]) for at in range(1, len(tracks))]
        self._total = None if seconds is None else round(seconds * self.sample_rate)
        self.total_seconds = seconds

    def read(self, frames: int) -> Block:
        """Return the next ``frames`` frames, float32 of shape (frames, 2); fewer only at the end."""
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
        """Execute the commands that are due, and return how many frames may be read before the next one is."""
        at = self.position
        while self._coming and self._coming[0][0] <= at:
            _, found, transition = self._coming.pop(0)
            super().next(found.config, bars=bars_of(transition, self.config))
        due = [self._coming[0][0]] if self._coming else []
        if self._total is not None:
            # At least two engine blocks, of which one may have been rendered already.
            fade = max(round(min(CLOSING_SECONDS * self.sample_rate, self._total / 4)), 2 * STEP)
            closing = max(self._total - fade, 0)
            if at < closing:
                due.append(closing)
            else:
                # Frames that were rendered already cannot be faded; the fade ends with the audio.
                self.stop(max(self._total - self._made, 1) / self.sample_rate)
        return min(due, default=2**62) - at if due else 2**62

    def update(self, config: Given | Answer | MusicConfigUpdate, bars: float | None = None) -> None:
        """Continue with another config at the same position of the piece; reverb tails are kept.

        A :class:`MusicConfigUpdate` or a mapping of fields changes the current config, or the one of an earlier command
        that waits for its bar line, so updates add up. Everything else is answered as by :func:`stream` and replaces
        what waits. A large change cross-fades with equal power over 1 to 4 bars, or over ``bars`` (0 to 64); after a
        small one, held notes decay within a bar. Raises the errors of :func:`render`.
        """
        if isinstance(config, MusicConfigUpdate) or (isinstance(config, Mapping) and not is_payload(config)):
            self._change_by(to_update(config), bars)
        else:
            super().update(self._find(config).config, bars)

    def _change_by(self, update: MusicConfigUpdate, bars: float | None) -> None:
        waiting = self._change
        changed = update.apply(self.config if waiting is None else waiting.piece.config)
        if waiting is not None and waiting.restarts:
            # Measured first, because the waiting piece may begin in this time; restarting it would be audible.
            predicted_lufs(Piece(checked_config(changed), math.inf, waiting.piece.seed))
            if self._change is waiting:
                super().next(changed, waiting.bars if bars is None else bars, waiting.piece.seed)
                return
        super().update(changed, bars)

    def next(self, config: Given | Answer, bars: float = 4, seed: int | None = None) -> None:
        """Begin another piece, with an equal-power cross-fade over ``bars`` (0 to 64) bars of the current one.

        ``config`` is answered as by :func:`stream`; without ``seed`` the piece has the seed of the current
        one. Raises the errors of :func:`render`.
        """
        super().next(self._find(config).config, bars, seed)

    async def __aiter__(self) -> AsyncIterator[Block]:
        """Yield the blocks of the rest of the stream without blocking the event loop."""
        while len(block := await asyncio.to_thread(self.read, self.block_frames)):
            yield block

    def end_at(self, seconds: float) -> None:
        """Fade out and end ``seconds`` after the beginning of the stream."""
        self.total_seconds = seconds
        self._total = round(seconds * self.sample_rate)

    def collect(self, seconds: float | None = None) -> Audio:
        """Return the rest of the stream, or the next ``seconds``, as audio. Raises :class:`InvalidConfigError` for an
        endless stream without ``seconds``, and for one that has ended."""
        samples = np.concatenate(list(self._rest(seconds)))
        reasons = "\n".join(found.reasons for found in self.answers if found.reasons)
        joined = replace(self.answers[0], title=self._title, reasons=reasons)
        metadata = Metadata(**vars(joined), seed=self.seed, seconds=len(samples) / self.sample_rate)
        return Audio(samples, self.sample_rate, tags={"title": metadata.title}, metadata=metadata)

    def _rest(self, seconds: float | None) -> Iterator[Block]:
        """Return an iterator of the rest of the stream, or of its next ``seconds``. Raises as :meth:`collect`."""
        if seconds is None and self._total is None and self._ends is None:
            raise InvalidConfigError("seconds", "this stream has no end; give the number of seconds to collect")
        frames = 2**62 if seconds is None else round(checked_span("seconds", seconds) * self.sample_rate)
        first = self.read(min(frames, self.block_frames))
        if frames and not len(first):
            raise InvalidConfigError("stream", "it has ended and has no more audio; create a new one")
        return self._after(first, frames - len(first))

    def _after(self, block: Block, frames: int) -> Iterator[Block]:
        yield block
        while frames > 0 and len(block := self.read(min(frames, self.block_frames))):
            yield block
            frames -= len(block)

    @property
    def _title(self) -> str:
        return " / ".join(dict.fromkeys(found.title for found in self.answers))

    def save(self, path: Path | str, seconds: float | None = None) -> Path:
        """Write what :meth:`collect` gives, in constant memory, so that it can last for hours. Raises as
        :meth:`collect`, and :class:`AudioError`."""
        path = user_path(path)
        format_for(path, self.sample_rate)
        blocks = self._rest(seconds)
        make_folder(path)
        write_blocks(path, blocks, self.sample_rate, {"title": self._title})
        return path

    def play(self) -> None:
        """Play to the end, or until interrupted. Raises :class:`AudioError` without the extra ``play`` or an audio device."""
        play_blocks(self, self.sample_rate)

    def __repr__(self) -> str:
        length = "without an end" if self.total_seconds is None else f"{self.total_seconds:.1f} s"
        return f"AudioStream({', '.join(repr(found.title) for found in self.answers)}, {length}, {self.sample_rate} Hz)"


def bars_of(seconds: float, config: MusicConfig) -> float:
    """Return the number of bars in ``seconds`` of a piece, at most that of the longest cross-fade."""
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
    """Return a stream of the items: texts, payloads, configs, mappings, :class:`Track`s, or changes of the previous
    config.

    ``seconds`` is the total length, shared evenly by items that are not tracks; ``transition`` is the length of the
    cross-fades of such items, in seconds. A single item without ``seconds`` is endless; several take 60 s each. All
    items are answered before this returns, as by :func:`render`. Raises the errors of :func:`render`.
    """
    flat: list[Item] = []
    for item in items:
        flat += item if isinstance(item, list | tuple) else [item]  # type: ignore[list-item]
    if not flat:
        raise InvalidConfigError("items", 'at least one is required, such as stream("rain on a tin roof")')
    if seconds is not None:
        seconds = checked_span("seconds", seconds, LEAST_SECONDS)
    named = sum(one.seconds for one in flat if isinstance(one, Track))
    loose = sum(not isinstance(one, Track) for one in flat)
    share = TRACK_SECONDS if seconds is None or not loose else max(seconds - named, 0.0) / loose
    fade = TRANSITION_SECONDS if transition is None else transition
    tracks = [one if isinstance(one, Track) else Track(one, share, fade) for one in flat]
    if seconds is None and (len(flat) > 1 or named):
        seconds = sum(track.seconds for track in tracks)
    find = functools.partial(answer, map=map, model=model, update=update)
    answers: list[Answer] = []
    for track in tracks:
        if not isinstance(track.content, MusicConfigUpdate):
            answers.append(find(track.content))
        elif answers:
            answers.append(answers[-1].updated(track.content))
        else:
            raise InvalidConfigError("items", "the first item must be something to play")
    parts = [(found, track.seconds, track.transition) for found, track in zip(answers, tracks, strict=True)]
    return AudioStream(parts, seconds, seed, sample_rate, block_frames, find)


async def astream(*items: Item | Sequence[Item], **options: Any) -> AsyncIterator[Block]:
    """Yield the blocks of :func:`stream` without blocking the event loop, as fast as they are rendered."""
    async for block in await asyncio.to_thread(stream, *items, **options):
        yield block


# --- changed during playback -----------------------------------------------------------------------------------------

LiveSource = Iterable[Item] | AsyncIterable[Item]

_END = object()


class LiveStream:
    """A stream whose items come from a generator during playback.

    A thread requests the next item when the previous one has started, so each item plays until the generator yields the
    next one. A :class:`MusicConfigUpdate` changes the current config; every other item begins another piece. Exceptions
    of the source are raised here.
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
        """Yield audio blocks, float32 of shape (frames, 2), for ``seconds`` or until the source has ended.

        Waits only for the first item; later items are used when they arrive. Can be called once. Raises
        :class:`InvalidConfigError` for a source without items.
        """
        return self._blocks(seconds, patient=False)

    def __iter__(self) -> Iterator[Block]:
        return self.blocks()

    def _blocks(self, seconds: float | None, patient: bool) -> Iterator[Block]:
        """Yield audio blocks; with ``patient``, wait for the source's next item instead of continuing the current one."""
        if self._started:
            raise InvalidConfigError("source", "a live stream can be played only once; create a new one")
        self._started = True
        if seconds is not None:
            seconds = checked_span("seconds", seconds, LEAST_SECONDS)
        threading.Thread(target=self._feed, name="latentscore-live", daemon=True).start()
        first = self._raised(self._found.get())
        if first is _END or isinstance(first[0], MusicConfigUpdate):
            raise InvalidConfigError("source", "the first item must be something to play")
        playing = AudioStream([(first[0], 0.0, 0.0)], seconds, self._seed, self.sample_rate)
        current, ready_at = first[0], first[1]
        self._wanted.release()
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
                self._wanted.release()
        finally:
            self.close()

    def collect(self, seconds: float) -> Audio:
        """Return the first ``seconds`` as audio, rendered as fast as possible.

        Each item lasts for the seconds of its :class:`Track`, and at least for the transition. The time that the source
        takes for the next item is not part of the audio, so the same items always give the same audio.
        """
        blocks = list(self._blocks(seconds, patient=True))
        return Audio(np.concatenate(blocks), self.sample_rate)

    def save(self, path: Path | str, seconds: float) -> Path:
        """Write what :meth:`collect` gives."""
        return self.collect(seconds).save(path)

    def play(self, seconds: float | None = None) -> None:
        """Play for ``seconds``, until the source has ended, or until interrupted. Raises :class:`AudioError`."""
        play_blocks(self.blocks(seconds), self.sample_rate)

    def close(self) -> None:
        """Request no more items from the source."""
        self._closed = True
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
        """Answer an item and pass it on when it is requested; return False if no more items are needed."""
        hold = 0.0
        if isinstance(item, Track):
            item, hold = item.content, item.seconds
        found = item if isinstance(item, MusicConfigUpdate) else answer(item, **self._options)
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
    """Return a stream of the items that a generator (``def`` or ``async def``) yields: texts, configs, updates and tracks."""
    if isinstance(source, ONE_ITEM) or not isinstance(source, Iterable | AsyncIterable):
        raise InvalidConfigError("source", f"must be a generator of items, not {type(source).__name__}; see stream()")
    return LiveStream(source, transition, seed, sample_rate, {"update": update, "map": map, "model": model})
