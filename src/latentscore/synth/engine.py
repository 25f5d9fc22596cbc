"""Render notes to layers, and mix the layers with echo and reverb; validation of render arguments."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore.config import MusicConfig, MusicConfigPrompt, MusicConfigUpdate, parse_config
from latentscore.errors import InvalidConfigError
from latentscore.synth import space
from latentscore.synth.bass import SUB
from latentscore.synth.context import RenderContext, movement
from latentscore.synth.lanes import Lane, run_lanes
from latentscore.synth.notes import LAYERS, Note, Piece
from latentscore.synth.score import Score, closing_beat
from latentscore.synth.signal import Stereo, ramp_stereo, sine, sweep_stereo
from latentscore.synth.styles import LEVELS_DB, style_of

COMPILING = "compiling the sound loops that are new on this machine, once (up to ten seconds) ..."

TARGET_LUFS = -16.0
CEILING = 10.0 ** (-1.2 / 20.0)
"""Slightly below the documented -1 dBFS, because four times oversampling underestimates true peaks."""

SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 600.0
LONGEST_SPAN_SECONDS = 10_000_000.0
"""Maximum time for an argument of a stream: 116 days."""

MOST_FRAMES = 2**27
"""Maximum frames of a stream's block, 1 GiB of samples."""

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
HIGHEST_SEED = 2**64 - 1

Group = tuple[tuple[str, ...], float, float]

# Layers with the same sends are mixed as one group: (layers, reverb send, echo send).
GROUPS: tuple[Group, ...] = (
    (("bass", "rhythm"), 0.25, 0.12),
    (("pad",), 0.5, 0.2),
    (("melody",), 0.5, 0.6),
    (("texture", "accent"), 0.7, 0.5),
)

SUB_GAIN = 10.0 ** (-18.0 / 20.0)

TARGET_LUFS_OF = {"bass": -26.0, "pad": -25.8, "melody": -24.5, "rhythm": -26.5, "texture": -26.5, "accent": -25.7}
"""Target loudness of each layer alone, in the foreground; ``styles.LEVELS_DB`` levels every style to it."""

_BACKGROUND_DB = -6.0
"""Level, relative to its target, of a layer that density puts in the background."""


def checked_config(config: MusicConfig | MusicConfigPrompt) -> MusicConfig:
    """Return a config of numbers. Raises :class:`InvalidConfigError` for anything else than a config."""
    if not isinstance(config, MusicConfig | MusicConfigPrompt):
        given = "must be a MusicConfig or MusicConfigPrompt, not "
        if isinstance(config, MusicConfigUpdate):
            raise InvalidConfigError("config", f"{given}MusicConfigUpdate; its apply(config) returns a changed config")
        hint = "; answer(text).config is the config of a text" if isinstance(config, str) else ""
        raise InvalidConfigError("config", f"{given}{type(config).__name__}{hint}")
    # Validated again, because model_copy and model_construct skip validation.
    config = parse_config(dict(config))
    return config.to_config() if isinstance(config, MusicConfigPrompt) else config


# Arguments are converted to Python numbers, because numpy's overflow and lose precision in later arithmetic.


def checked_seconds(seconds: float) -> float:
    """Return the validated length of a render, in seconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | np.floating | np.integer):
        raise InvalidConfigError("seconds", f"must be a number, not {type(seconds).__name__}")
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        longer = "; for a longer piece, use stream(...).save(file)" if seconds > LONGEST_SECONDS else ""
        raise InvalidConfigError("seconds", f"must be a number from {SHORTEST_SECONDS} to {LONGEST_SECONDS:g}{longer}")
    return float(seconds)


def checked_span(field: str, seconds: float, least: float = 0.0) -> float:
    """A time in seconds from ``least`` to :data:`LONGEST_SPAN_SECONDS`, which the argument ``field`` gave."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | np.floating | np.integer):
        raise InvalidConfigError(field, f"must be a number of seconds, not {type(seconds).__name__}")
    if not least <= seconds <= LONGEST_SPAN_SECONDS:
        raise InvalidConfigError(field, f"must be a number of seconds from {least:g} to {LONGEST_SPAN_SECONDS:g}")
    return float(seconds)


def checked_frames(field: str, frames: int, least: int = 0) -> int:
    """A number of frames from ``least`` to :data:`MOST_FRAMES`, which the argument ``field`` gave."""
    if isinstance(frames, bool) or not isinstance(frames, int | np.integer) or not least <= int(frames) <= MOST_FRAMES:
        raise InvalidConfigError(field, f"must be a whole number of frames from {least} to {MOST_FRAMES}")
    return int(frames)


def checked_rate(sample_rate: int) -> int:
    """A sample rate in hertz."""
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, int | np.integer):
        raise InvalidConfigError("sample_rate", "must be a whole number of hertz")
    if not LOWEST_RATE <= int(sample_rate) <= HIGHEST_RATE:
        raise InvalidConfigError("sample_rate", f"must be from {LOWEST_RATE} to {HIGHEST_RATE} Hz")
    return int(sample_rate)


def checked_seed(seed: int) -> int:
    """A seed of up to 64 bits."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) <= HIGHEST_SEED:
        raise InvalidConfigError("seed", "must be a whole number from 0 to 2**64 - 1")
    return int(seed)


def checked_threads(threads: int) -> int:
    """Return the number of threads of a render."""
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise InvalidConfigError("threads", "must be a whole number from 1 on; more than 2 have the effect of 2")
    return int(threads)


Step = Callable[[Stereo, int, int], None]
"""A processing step on a mix: the mix, the first frame and the number of frames."""


def mix_layers(
    score: Score, context: RenderContext, groups: Sequence[Group], threads: int = 1, then: Step | None = None
) -> Stereo:
    """Play the layers of each group and mix them with echo, reverb, width and the closing fade; ``then`` comes last.

    The result is written to the first group's buffer if :func:`scratch` keeps it, because new memory costs as much time
    as a filter.

    With two ``threads``, one plays the bars and the other mixes what is complete of the beginning; each takes the other's
    work when it has none. The result is the same.
    """
    piece, rate = score.piece, context.sample_rate
    total = round(piece.seconds * rate)
    dry = scratch((len(groups), 2, total))
    # Other memory is freed as soon as the groups are mixed.
    mixed = dry[0] if dry.nbytes <= _SCRATCH_BYTES else np.empty((2, total), np.float32)
    player = Player(context, total, groups, dry)
    closing_seconds = piece.seconds - closing_beat(piece) * context.seconds_per_beat
    # Tails included, and not longer than half of a short piece.
    fade_frames = min(round(0.9 * closing_seconds * rate), total // 2)
    bars = (*score.bars, score.closing)
    complete = _complete_frames(bars, context, total)

    def play(number: int, bar: int) -> None:
        if bar == 0:
            dry[number] = 0.0
        player.add_group(number, bars[bar])

    def mix(block: int) -> None:
        at, frames = block * MIX_FRAMES, min(MIX_FRAMES, total - block * MIX_FRAMES)
        player.move(at, frames)
        player.mix_into(mixed, at, frames)
        _fade(mixed[:, at : at + frames], at - (total - fade_frames), fade_frames)

    def process(block: int) -> None:
        if then is not None:
            then(mixed, block * MIX_FRAMES, min(MIX_FRAMES, total - block * MIX_FRAMES))

    def is_complete(block: int) -> bool:
        return complete[min(lane.done for lane in playing)] >= min((block + 1) * MIX_FRAMES, total)

    playing = [Lane(partial(play, number), len(bars), 0) for number in range(len(groups))]
    mixing = Lane(mix, math.ceil(total / MIX_FRAMES), 2, is_complete)
    processing = Lane(process, mixing.count, 1, lambda block: block < mixing.done)
    run_lanes([*playing, mixing, processing], threads)
    return mixed


def _complete_frames(bars: Sequence[Mapping[str, Sequence[Note]]], context: RenderContext, total: int) -> list[int]:
    """Return, for each number of bars, the first frames of the piece in which no later bar has a note."""
    complete = [total]
    for bar in reversed(bars[1:]):
        starts = [context.place(note.start) for notes in bar.values() for note in notes]
        complete.append(min([complete[-1], *starts]))
    # No frame is complete before the first bar, which clears the buffers.
    return [0, *reversed(complete)]


MIX_FRAMES = 24 * space.STEP
"""Frames of a piece per call of the room: few calls, each of which waits for the interpreter's lock."""

_SCRATCH_BYTES = 64 * 2**20
_scratch = threading.local()


def scratch(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return memory, of any content, that each thread reuses, because new memory costs more time than clearing it.

    Valid until the next call in the same thread. Memory above 64 MiB is not reused.
    """
    size = math.prod(shape)
    if 4 * size > _SCRATCH_BYTES:
        return np.empty(shape, np.float32)
    if getattr(_scratch, "memory", None) is None or len(_scratch.memory) < size:
        _scratch.memory = np.empty(size, np.float32)
    return _scratch.memory[:size].reshape(shape)


class Player:
    """Renders a piece: takes bars of notes and returns the mix with its room.

    Notes are added to dry buffers of ``frames`` frames and cut at their end. Taking blocks of ``space.STEP`` frames
    gives the same bytes as taking the whole piece. ``dry`` is memory for the buffers, of shape (groups, 2, frames).
    """

    def __init__(
        self, context: RenderContext, frames: int, groups: Sequence[Group], dry: NDArray[np.float32] | None = None
    ):
        self._context = context
        self._layers = [layers for layers, _, _ in groups]
        self._dry = np.zeros((len(groups), 2, frames), np.float32) if dry is None else dry
        self._taken = 0
        piece, rate, origin = context.piece, context.sample_rate, context.origin
        # The pad's filter is applied to its whole buffer, so no other layer may share it.
        movers = {("pad",): Sweep(piece, rate, frames, origin)} | {
            layers: Sway(piece, rate, phase, frames, origin) for layers, phase in _SWAYING.items()
        }
        self._movers = [(number, movers[layers]) for number, layers in enumerate(self._layers) if layers in movers]
        self._room = space.Room(piece.config, context.seconds_per_beat, rate)
        self._sends = [reverb for _, reverb, _ in groups], [echo for _, _, echo in groups]

    def add(self, notes: Mapping[str, Sequence[Note]]) -> None:
        """Add the notes of a bar by layer. Every bar gives its layers' notes in the same order."""
        self._advance()
        for number in range(len(self._layers)):
            self.add_group(number, notes)

    def add_group(self, number: int, notes: Mapping[str, Sequence[Note]]) -> None:
        """Add those notes of a bar that belong to one group."""
        for layer in self._layers[number]:
            if notes.get(layer):
                play_layer(self._dry[number], layer, notes[layer], self._context)

    def take(self, frames: int, gains: NDArray[np.float32] | None = None) -> Stereo:
        """Return the next frames of the mix, shape (2, frames); ``gains``, one per frame, are applied before the room."""
        out = np.empty((2, frames), np.float32)
        left = self._dry[:, :, self._taken :]
        if left.shape[2] < frames:
            self._dry, self._taken = np.zeros((*left.shape[:2], frames), np.float32), 0
            self._dry[:, :, : left.shape[2]] = left
        self.move(self._taken, frames)
        if gains is not None:
            self._dry[:, :, self._taken : self._taken + frames] *= gains
        self.mix_into(out, 0, frames)
        return out

    def move(self, at: int, frames: int) -> None:
        """Move the next ``frames`` frames of the dry layers, which begin ``at`` this frame of their buffers, in place."""
        for number, mover in self._movers:
            mover.apply(self._dry[number], at, frames)

    def mix_into(self, out: Stereo, at: int, frames: int) -> None:
        """Mix the next frames, which have been moved, to the frames of ``out`` from ``at`` on."""
        self._room.mix_into(out, at, self._dry, self._taken, frames, *self._sends)
        self._taken += frames

    def clear(self) -> None:
        """Forget all notes, and free their buffers; only the room rings on."""
        self._dry = self._dry[:, :, :0].copy()

    def _advance(self) -> None:
        """Move what has not been taken to the beginning of the buffers."""
        if not self._taken:
            return
        for row in self._dry.reshape(-1, self._dry.shape[-1]):
            rest = row[self._taken :]
            row[: len(rest)] = rest
            row[len(rest) :] = 0.0
        self._context.origin += self._taken
        self._taken = 0


def play_layer(out: Stereo, layer: str, notes: Sequence[Note], context: RenderContext) -> None:
    """Add notes of one layer, dry, to ``out``."""
    config = context.piece.config
    label = getattr(config, layer)
    gain = 10.0 ** ((LEVELS_DB[layer].get(label, 0.0) + _prominence_db(layer, config.density)) / 20.0)
    for name, sound in style_of(layer, label).sounds.items():
        sound.add(out, [note for note in notes if note.sound == name], gain, context)
    if layer == "bass" and config.depth:
        # The bass an octave lower, but no lower than loudspeakers go.
        deep = [note._replace(pitch=note.pitch - 12 if note.pitch >= 36 else note.pitch) for note in notes]
        SUB.add(out, deep, SUB_GAIN, context)


def _prominence_db(layer: str, density: int) -> float:
    """How density places a layer: bass and pad always carry; each step brings one more layer forward, and those that
    are forward a little further."""
    rank = LAYERS.index(layer)
    if rank < 2:
        return 0.0
    if rank < density:
        return 0.6 * (density - rank - 1) - 2.2
    return _BACKGROUND_DB - 1.2 * (rank - density)


SWEEP_BLOCK = 64
"""Frames between two values of what moves a layer: filter and level."""

Curves = tuple[NDArray[np.floating[Any]], ...]


class Ahead:
    """Curves by block of frames, computed for as long as a buffer lasts and given out as they are needed."""

    def __init__(self, compute: Callable[[int, int], Curves], frames: int, first_frame: int) -> None:
        self._compute = compute
        self._blocks = math.ceil(frames / SWEEP_BLOCK)
        self._frame = first_frame
        self._curves: Curves = ()
        self._at = 0

    def next(self, frames: int) -> Curves:
        """The curves over the next frames."""
        blocks = math.ceil(frames / SWEEP_BLOCK)
        if not self._curves or self._at + blocks > self._blocks:
            self._blocks = max(self._blocks, blocks)
            self._curves, self._at = self._compute(self._frame, self._blocks), 0
        begin, self._at = self._at, self._at + blocks
        self._frame += frames
        # One value more, where the last block ends for what goes from value to value.
        return tuple(curve[begin : begin + blocks + 1] for curve in self._curves)


class Sweep:
    """Tension and motion over the pad: its filter opens and closes, its level swells, its sides drift."""

    def __init__(self, piece: Piece, rate: int, frames: int, first_frame: int = 0):
        self._piece = piece
        self._rate = rate
        self._ahead = Ahead(self._curves, frames, first_frame)
        self._states = np.zeros(6)
        left, right = self._curves(first_frame, 1)[2:]
        self._states[4:] = left[0], right[0]

    def apply(self, out: Stereo, first: int, frames: int) -> None:
        """Change ``frames`` frames of the pad in place, from ``first`` on: those after the last ones."""
        low, high, left, right = self._ahead.next(frames)
        sweep_stereo(out, first, frames, low, high, left, right, 0.8, SWEEP_BLOCK, float(self._rate), self._states)

    def _curves(self, frame: int, blocks: int) -> Curves:
        """Cutoff left and right in hertz, gain left and right, at the end of each of the blocks from ``frame`` on."""
        piece, rate = self._piece, self._rate
        seconds = (frame + (np.arange(blocks) + 1) * SWEEP_BLOCK) / rate
        depth, hertz = movement(piece.config.motion)
        turn = sine(hertz * seconds)
        other = sine(hertz * 0.83 * seconds + 1.0 / math.tau)
        beats = seconds * piece.bpm / 60.0
        first = math.floor(4.0 * beats[0]) / 4.0
        grid = np.arange(first, beats[-1] + 1.0, 0.25)
        tension = np.interp(beats, grid, [piece.tension(beat) for beat in grid.tolist()]).astype(np.float32)
        # Octaves above 4.2 kHz.
        opening = 2.0 * (piece.config.brightness - 0.5) + 0.5 * piece.light + 1.6 * (tension - 0.6)
        cutoff_left = np.clip(4200.0 * np.exp2(opening + 1.8 * depth * turn), 60.0, 0.44 * rate)
        cutoff_right = np.clip(4200.0 * np.exp2(opening + 1.8 * depth * other), 60.0, 0.44 * rate)
        swell = (0.4 + 0.6 * tension) * (1.0 - 0.85 * depth * (0.5 - 0.5 * turn))
        drift = 0.5 * depth * other
        return cutoff_left, cutoff_right, swell * (1 - drift), swell * (1 + drift)


_SWAYING = {("melody",): 2.0, ("texture", "accent"): 4.0, ("texture",): 4.0, ("accent",): 4.0}
"""Groups of layers that motion moves, and the phase at which each begins."""


class Sway:
    """Motion over a group of other layers: their level swells and their sides drift, about half as deep as the pad's."""

    def __init__(self, piece: Piece, rate: int, phase: float, frames: int, first_frame: int = 0):
        depth, self._hertz = movement(piece.config.motion)
        # Room and echo fill fast dips, so those are deeper.
        self._depth = depth * (0.28 + 0.62 * piece.config.motion)
        self._rate = rate
        self._phase = phase
        self._ahead = Ahead(self._curves, frames, first_frame)

    def apply(self, out: Stereo, first: int, frames: int) -> None:
        """Change ``frames`` frames in place, from ``first`` on: those after the last ones."""
        if self._depth > 0.0:
            left, right = self._ahead.next(frames)
            ramp_stereo(out, first, frames, left, right, SWEEP_BLOCK)

    def _curves(self, frame: int, blocks: int) -> Curves:
        """Gain left and right at the beginning of each of the blocks from ``frame`` on, and at the end of the last."""
        seconds = (frame + np.arange(blocks + 1) * SWEEP_BLOCK) / self._rate
        turn = sine(0.91 * self._hertz * seconds + self._phase / math.tau)
        other = sine(0.77 * self._hertz * seconds + 2.0 * self._phase / math.tau)
        # On average the level stays as it is.
        swell = (1.0 - self._depth * (0.5 - 0.5 * turn)) / (1.0 - 0.5 * self._depth)
        drift = 0.65 * self._depth * other
        return swell * (1.0 - drift), swell * (1.0 + drift)


def _fade(samples: Stereo, first: int, length: int) -> None:
    """Fade to zero along a cosine of ``length`` frames, of which ``samples`` begin at frame ``first``; before it they stay
    as they are."""
    skipped = max(-first, 0)
    if skipped < samples.shape[1]:
        turns = np.linspace(0.25, 0.75, length)[first + skipped : first + samples.shape[1]]
        samples[:, skipped:] *= np.float32(0.5) + np.float32(0.5) * sine(turns)
