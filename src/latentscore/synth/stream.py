"""Endless music: blocks of audio from a config, with changes at bar lines."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latentscore.config import MusicConfig, MusicConfigPrompt
from latentscore.errors import InvalidConfigError
from latentscore.jit import announced
from latentscore.loudness import Meter, lufs_of_energies
from latentscore.synth import engine, space
from latentscore.synth.context import RenderContext
from latentscore.synth.form import BEATS_PER_BAR, LAYERS
from latentscore.synth.notes import Note, Piece
from latentscore.synth.score import Composer
from latentscore.synth.signal import Stereo
from latentscore.synth.space import STEP

LEAD_SECONDS = 0.65
"""A bar is composed this many seconds before its bar line, because notes may begin half a beat and 0.1 s before their bar."""

EXCERPT_BARS = (2, 12, 20, 28, 36)
EXCERPT_RATE = 12_000
EXCERPT_STEPS = 6 * EXCERPT_RATE // STEP + 1
"""Blocks rendered in advance to predict the loudness of a piece."""

MINUTE_HOPS = 600
CORRECTION_DB_A_SECOND = 0.1

MOST_BARS = 64
"""Maximum length of a cross-fade, in bars."""

MOST_PARTS = 4
"""Maximum number of pieces that sound at once, from the current one to the oldest with a reverb tail."""

SILENCE = 1e-5
"""A part that has ended is dropped below this peak (-100 dBFS)."""

_COMMON_GROUND = ("tempo", "root", "mode", "harmony_style", "chord_change_bars", "chord_extensions", "chromatic_prob")
"""Fields that must be equal in two configs that sound together without a cross-fade."""


@dataclass(frozen=True)
class Fade:
    """An equal-power fade between 0 and 1 (a quarter of a sine), in frames of the stream."""

    begin: int
    frames: int
    falls: bool

    @property
    def end(self) -> int:
        return self.begin + self.frames

    def gains(self, position: int, frames: int) -> NDArray[np.float32]:
        """Return one gain for each of the next frames. The squares of a fade-in and a fade-out add up to 1."""
        share = np.clip((position + np.arange(frames) - self.begin) / max(self.frames, 1), 0.0, 1.0)
        return np.sin(0.5 * np.pi * (1.0 - share if self.falls else share)).astype(np.float32)


class BarByBar(Protocol):
    """Protocol: composes the bars of a piece in order."""

    piece: Piece

    def bar(self, index: int) -> Mapping[str, Sequence[Note]]: ...


class Part:
    """One config in a stream, with its own room and bus; it composes one bar ahead.

    ``line`` is the frame of the stream at which bar ``bar`` begins, ``position`` the first frame that is rendered.
    """

    def __init__(self, composer: BarByBar, bar: int, line: int, position: int, sample_rate: int, gain: float = 1.0):
        piece = composer.piece
        self._composer = composer
        self.bar = bar
        self.gain = gain
        self.fade_in: Fade | None = None
        self.fade_out: Fade | None = None
        self.end_fade: Fade | None = None
        """Fades out the sound with its reverb if too many parts sound."""

        self.is_last = False
        """Whether no more bars are composed."""

        self.peak = 0.0

        context = RenderContext(piece, sample_rate)
        # The frame of the stream at which the piece began, or would have begun.
        self._offset = line - context.frame(bar * BEATS_PER_BAR)
        context.origin = position - self._offset
        self._context = context
        self._lead = context.frames(LEAD_SECONDS)
        self._player = engine.Player(context, reach(piece, sample_rate) + STEP, engine.GROUPS)
        self._bus = space.Bus(piece.config, sample_rate)
        self._position = position

    @property
    def line(self) -> int:
        """The frame of the stream at which the next uncomposed bar begins."""
        return self.line_of(self.bar)

    @property
    def bar_frames(self) -> int:
        """Frames of one bar."""
        return self.line_of(self.bar + 1) - self.line

    def line_of(self, bar: int) -> int:
        """The frame of the stream at which a bar begins."""
        return self._context.frame(bar * BEATS_PER_BAR) + self._offset

    @property
    def is_due(self) -> bool:
        """Whether the next bar must be composed before the next step."""
        return self._position + STEP > self.line - self._lead

    def play(self) -> Stereo:
        """The next ``STEP`` frames, shape (2, STEP), at the part's gain; composes what they need."""
        while self.is_due and not self.is_last and not self._has_faded:
            self._player.add(self._composer.bar(self.bar))
            self.bar += 1
        return self._take()

    def _take(self) -> Stereo:
        here = self._position
        gains = None
        for fade in (self.fade_in, self.fade_out):
            if fade is not None and here + STEP > fade.begin and (fade.falls or here < fade.end):
                gains = fade.gains(here, STEP) if gains is None else gains * fade.gains(here, STEP)
        if self._has_faded:
            self._player.clear()
        mixed = self._player.take(STEP, gains)
        self._bus.apply(mixed)
        mixed *= np.float32(self.gain)
        if self.end_fade is not None:
            mixed *= self.end_fade.gains(here, STEP)
        self._position += STEP
        self.peak = float(np.abs(mixed).max())
        return mixed

    @property
    def has_ended(self) -> bool:
        """Whether the part is silent from now on."""
        if self.end_fade is not None and self._position >= self.end_fade.end:
            return True
        return self._has_faded and self.peak < SILENCE

    @property
    def _has_faded(self) -> bool:
        return self.fade_out is not None and self._position >= self.fade_out.end


def reach(piece: Piece, sample_rate: int) -> int:
    """Return the number of frames after the current position at which a note of the next bar can end: 10 to 14 s."""
    beat = 60.0 / piece.bpm
    held, struck = 9.0 * beat + 3.0, 4.5 * beat + 7.0
    return math.ceil((LEAD_SECONDS + max(held, struck)) * sample_rate)


@lru_cache(maxsize=64)
def predicted_lufs(piece: Piece) -> float:
    """Predict the loudness in LUFS of an endless piece before any gain; the rms error against its first two minutes is
    0.85 dB.

    Uses five excerpts of 6 s at a low sample rate, one in the opening and one in each of the next four sections.
    """
    energies = []
    for bar in EXCERPT_BARS:
        line = round(LEAD_SECONDS * EXCERPT_RATE) if bar else 0
        part = Part(Composer(piece), bar, line, 0, EXCERPT_RATE)
        meter = Meter(EXCERPT_RATE)
        hops = np.concatenate([meter.energies(part.play()) for _ in range(EXCERPT_STEPS)])
        # The beginning of an excerpt lacks the tails of earlier notes.
        energies.append(hops[20:])
    return lufs_of_energies(np.concatenate(energies))


def change_bars(old: MusicConfig, new: MusicConfig) -> int:
    """Return the length in bars of the cross-fade for a change of config: 1 to 4, or 0 if the next bar can use the new
    config.

    A change is large if tempo, key or chords change, or if more than two layers get another style.
    """
    clashes = any(getattr(old, name) != getattr(new, name) for name in _COMMON_GROUND)
    layers = sum(getattr(old, layer) != getattr(new, layer) for layer in LAYERS)
    if not clashes and layers <= 2:
        return 0
    return min(1 + layers // 2 + (1 if clashes else 0), 4)


class Leveler:
    """Corrects the loudness of the last minute towards the target, by at most 0.1 dB per second."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._meter = Meter(sample_rate)
        self._energies: deque[float] = deque(maxlen=MINUTE_HOPS)
        self._error = 0.0
        self._db = 0.0

    def apply(self, samples: Stereo) -> None:
        """Change the next ``samples``, shape (2, frames), in place."""
        hops = self._meter.energies(samples)
        self._energies.extend(hops.tolist())
        if len(hops) and len(self._energies) == MINUTE_HOPS:
            lufs = lufs_of_energies(np.array(self._energies))
            self._error = engine.TARGET_LUFS - lufs if math.isfinite(lufs) else 0.0
        most = CORRECTION_DB_A_SECOND * samples.shape[1] / self._rate
        after = self._db + min(max(self._error - self._db, -most), most)
        samples *= (10.0 ** (np.linspace(self._db, after, samples.shape[1]) / 20.0)).astype(np.float32)
        self._db = after


@dataclass(frozen=True)
class Change:
    """A change at the next bar line: a piece that continues at the same position, or ``restarts`` from its beginning, with
    a cross-fade over ``bars`` bars."""

    piece: Piece
    bars: float
    restarts: bool


class Stream(Iterator[NDArray[np.float32]]):
    """Endless music: an iterator of audio blocks, float32 of shape (``block_frames``, 2).

    The audio is that of ``render`` for the same config, seed and rate, but it has no ending, and its gain is predicted
    from excerpts and then corrected slowly. The same seed and the same commands at the same positions give the same
    bytes for any block length. Memory is bounded.

    A command takes effect at the next bar line that is at least 0.65 s and 3072 frames ahead. Of several commands
    before the same bar line, the last one is used.
    """

    def __init__(
        self,
        config: MusicConfig | MusicConfigPrompt,
        seed: int = 0,
        sample_rate: int = 48_000,
        block_frames: int = STEP,
    ):
        """Raises :class:`InvalidConfigError`, which names the field, "seed", "sample_rate" or "block_frames"."""
        piece = Piece(engine.checked_config(config), math.inf, engine.checked_seed(seed))
        self.sample_rate = engine.checked_rate(sample_rate)
        self.block_frames = engine.checked_frames("block_frames", block_frames, 1)
        self.position = 0
        """Number of frames returned so far."""

        self._made = 0
        self._change: Change | None = None
        self._ends: Fade | None = None
        self._leveler = Leveler(self.sample_rate)
        self._limiter = space.Limiter(engine.CEILING)
        self._ready = np.zeros((0, 2), np.float32)
        self._lag = space.Limiter.LAG
        with announced(engine.COMPILING):
            self._composer = Composer(piece)
            self._parts = [Part(self._composer, 0, 0, 0, self.sample_rate, gain_for(piece))]

    @property
    def config(self) -> MusicConfig:
        """The current config."""
        return self._leading.config

    @property
    def _leading(self) -> Piece:
        return self._composer.piece

    @property
    def seed(self) -> int:
        """The seed of the current piece."""
        return self._leading.seed

    @property
    def bar_seconds(self) -> float:
        """The length of a bar of the current piece, in seconds."""
        return 60.0 * BEATS_PER_BAR / self._leading.bpm

    @property
    def seconds(self) -> float:
        """The length of the audio returned so far, in seconds."""
        return self.position / self.sample_rate

    def __next__(self) -> NDArray[np.float32]:
        block = self.read(self.block_frames)
        if not len(block):
            raise StopIteration
        return block

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next ``frames`` frames, float32 of shape (frames, 2); fewer only after :meth:`stop`."""
        frames = engine.checked_frames("frames", frames)
        blocks, count = [self._ready], len(self._ready)
        while count < frames and not self._is_over:
            blocks.append(self._step())
            count += len(blocks[-1])
        ready = np.concatenate(blocks) if len(blocks) > 1 else self._ready
        out, self._ready = ready[:frames], ready[frames:].copy()
        self.position += len(out)
        return out

    def update(self, config: MusicConfig | MusicConfigPrompt, bars: float | None = None) -> None:
        """Continue with another config from the next bar line, at the same position of the piece; reverb tails are
        kept.

        A large change cross-fades with equal power over 1 to 4 bars, or over ``bars``. After a small one, the next bar
        uses the new config and held notes decay within a bar. See :func:`change_bars`.
        """
        piece = Piece(engine.checked_config(config), math.inf, self._leading.seed)
        self._plan(piece, change_bars(self.config, piece.config) if bars is None else bars, restarts=False)

    def next(self, config: MusicConfig | MusicConfigPrompt, bars: float = 4, seed: int | None = None) -> None:
        """Begin another piece at the next bar line, with an equal-power cross-fade over ``bars`` bars of the old one."""
        seed = self._leading.seed if seed is None else engine.checked_seed(seed)
        self._plan(Piece(engine.checked_config(config), math.inf, seed), bars, restarts=True)

    def _plan(self, piece: Piece, bars: float, restarts: bool) -> None:
        if isinstance(bars, bool) or not isinstance(bars, int | float) or not 0 <= bars <= MOST_BARS:
            raise InvalidConfigError("bars", f"must be a number from 0 to {MOST_BARS}")
        predicted_lufs(piece)  # Computed now, so that playback does not wait for it later.
        self._change = Change(piece, bars, restarts)

    def stop(self, seconds: float = 4.0) -> None:
        """Fade out over ``seconds`` from now on, then end the stream."""
        seconds = engine.checked_span("seconds", seconds)
        if self._ends is None:
            self._ends = Fade(self._made, max(round(seconds * self.sample_rate), 1), falls=True)

    @property
    def _is_over(self) -> bool:
        return self._ends is not None and self._made >= self._ends.end + space.Limiter.LAG

    def _step(self) -> NDArray[np.float32]:
        """Render the next block; the first frames of the limiter, its latency, are dropped."""
        if self._change is not None and self._parts[-1].is_due:
            self._begin(self._change)
            self._change = None
        mixed = self._parts[0].play()
        for part in self._parts[1:]:
            mixed += part.play()
        self._leveler.apply(mixed)
        if self._ends is not None:
            mixed *= self._ends.gains(self._made, STEP)
        self._made += STEP
        self._parts = [part for part in self._parts[:-1] if not part.has_ended] + self._parts[-1:]
        made = self._limiter.feed(mixed)[self._lag :]
        self._lag = 0
        if self._ends is not None and self._is_over:
            made = made[: max(len(made) - (self._made - self._ends.end - space.Limiter.LAG), 0)]
        return made

    def _begin(self, change: Change) -> None:
        """Begin a part at the next bar line, and end the current one."""
        old, piece = self._parts[-1], change.piece
        composer = Composer(piece) if change.restarts else self._composer.branch(piece)
        bar = 0 if change.restarts else old.bar
        new = Part(composer, bar, old.line, self._made, self.sample_rate, gain_for(piece))
        frames = round(change.bars * old.bar_frames)
        if frames:
            new.fade_in = Fade(old.line, frames, falls=False)
            old.fade_out = Fade(old.line, frames, falls=True)
        else:
            old.fade_out = Fade(old.line, old.bar_frames, falls=True)
            old.is_last = True
        self._composer = composer
        self._parts.append(new)
        for part in self._parts[:-MOST_PARTS]:
            if part.end_fade is None:
                part.end_fade = Fade(self._made, self.sample_rate, falls=True)


def gain_for(piece: Piece) -> float:
    """Return the predicted gain that brings a piece to the target loudness."""
    lufs = predicted_lufs(piece)
    return 10.0 ** ((engine.TARGET_LUFS - lufs) / 20.0) if math.isfinite(lufs) else 1.0


def stream(
    config: MusicConfig | MusicConfigPrompt, seed: int = 0, sample_rate: int = 48_000, block_frames: int = STEP
) -> Stream:
    """Return an endless stream of audio blocks; see :class:`Stream`."""
    return Stream(config, seed, sample_rate, block_frames)
