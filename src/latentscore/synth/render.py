"""Render a config: score, mix, loudness normalization and limiter; or a loop."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from latentscore.audio import Audio
from latentscore.config import MusicConfig, MusicConfigPrompt, parse_config
from latentscore.errors import InvalidConfigError
from latentscore.jit import announced
from latentscore.loudness import Meter, integrated_lufs, lufs_of_energies, lufs_of_rows
from latentscore.synth import space
from latentscore.synth.context import RenderContext
from latentscore.synth.engine import (
    CEILING,
    COMPILING,
    GROUPS,
    TARGET_LUFS,
    checked_config,
    checked_rate,
    checked_seconds,
    checked_seed,
    checked_threads,
    mix_layers,
)
from latentscore.synth.form import BEATS_PER_BAR, SECTION_BARS
from latentscore.synth.notes import Note, Piece
from latentscore.synth.score import Composer, Score, compose
from latentscore.synth.signal import Stereo
from latentscore.synth.space import STEP
from latentscore.synth.stream import LEAD_SECONDS, Part
from latentscore.version import RENDERER_VERSION


def render(
    config: MusicConfig | MusicConfigPrompt,
    seconds: float,
    seed: int = 0,
    sample_rate: int = 48_000,
    stems: bool = False,
    loop: bool = False,
    threads: int = 1,
) -> Audio:
    """Render a config; the same config, length, seed and rate always give the same bytes.

    ``seconds`` is 0.5 to 600, ``sample_rate`` is 8,000 to 192,000 Hz, ``seed`` has up to 64 bits. The result is stereo
    at -16 LUFS with a true peak below -1 dBFS. With ``stems``, ``Audio.stems`` holds each layer with its echo and
    reverb, by name; the stems add up to the mix before tone, loudness and limiter. ``Audio.tags`` holds the arguments.

    With ``loop``, the result is a loop of whole bars, with a length as close to ``seconds`` as possible, that repeats
    without a seam and has no opening and no ending.

    With ``threads=2`` a piece is rendered on two threads, which is faster if a second core is free; loops and stems
    always use one thread.

    Raises :class:`InvalidConfigError`, which names the field, "seconds", "sample_rate", "seed", "stems" or "threads".
    """
    numbers, seconds = checked_config(config), checked_seconds(seconds)
    sample_rate, seed, threads = checked_rate(sample_rate), checked_seed(seed), checked_threads(threads)
    if loop and stems:
        raise InvalidConfigError("stems", "stems are not available with loop")
    tags = {
        "config": parse_config(dict(config)).model_dump(), "seed": seed, "seconds": seconds, "renderer": RENDERER_VERSION,
    }  # fmt: skip
    with announced(COMPILING):
        if loop:
            return Audio(_loop(numbers, seconds, seed, sample_rate), sample_rate, tags={**tags, "loop": True})
        score = compose(numbers, seconds, seed)
        samples = _played(score, sample_rate, threads)
        # The stems are mixed in the memory that the mix was made in.
        return Audio(samples, sample_rate, _stems(score, sample_rate) if stems else {}, tags)


def _played(score: Score, sample_rate: int, threads: int) -> NDArray[np.float32]:
    """A score from its notes to its loudness, shape (frames, 2)."""
    bus, meter, energies = space.Bus(score.piece.config, sample_rate), Meter(sample_rate), []

    def to_bus(mixed: Stereo, at: int, frames: int) -> None:
        bus.apply(mixed, at, frames)
        energies.append(meter.energies_until(mixed, at + frames))

    mixed = mix_layers(score, RenderContext(score.piece, sample_rate), GROUPS, threads, to_bus)
    return finish(mixed, sample_rate, lufs_of_energies(np.concatenate(energies)))


def _stems(score: Score, sample_rate: int) -> dict[str, Audio]:
    parts = {}
    for layers, reverb, echo in GROUPS:
        for layer in layers:
            stem = mix_layers(score, RenderContext(score.piece, sample_rate), [((layer,), reverb, echo)])
            parts[layer] = Audio(np.ascontiguousarray(stem.T), sample_rate)
    return parts


def finish(mixed: Stereo, rate: int, before: float | None = None) -> NDArray[np.float32]:
    """Normalize to the target loudness and limit the peaks; if the limiter lowers the loudness, repeat with more gain.

    Takes shape (2, frames) and returns (frames, 2). ``before`` is the loudness in LUFS, if it is known.
    """
    before = lufs_of_rows(mixed, rate) if before is None else before
    if not math.isfinite(before):
        return np.ascontiguousarray(mixed.T)
    out = np.empty((mixed.shape[1], 2), np.float32)
    gain_db = TARGET_LUFS - before
    for _ in range(5):
        least = space.limit(mixed, out, 10.0 ** (gain_db / 20.0), CEILING)
        if least > 0.9:
            break
        missing = TARGET_LUFS - integrated_lufs(out, rate)
        if abs(missing) < 0.1:
            break
        gain_db += min(1.3 * missing, 9.0)
    return out


# --- loops --------------------------------------------------------------------------------------------------------

LONGEST_TAIL_SECONDS = 20.0


class _Round:
    """Composes the same ``bars`` bars repeatedly, from the first bar after the opening on."""

    def __init__(self, piece: Piece, bars: int):
        self.piece = piece
        composer = Composer(piece)
        end = float((SECTION_BARS + bars) * BEATS_PER_BAR)
        self._bars = [
            {
                layer: [_ended(note, end) for note in notes]
                for layer, notes in composer.bar(SECTION_BARS + number).items()
            }
            for number in range(bars)
        ]

    def bar(self, index: int) -> dict[str, list[Note]]:
        """The notes of one bar by layer."""
        turn, number = divmod(index - SECTION_BARS, len(self._bars))
        later = float(turn * len(self._bars) * BEATS_PER_BAR)
        # The written position is kept, so that noise is the same in every repetition.
        return {
            layer: [note._replace(start=note.start + later) for note in notes]
            for layer, notes in self._bars[number].items()
        }


def _ended(note: Note, end: float) -> Note:
    return note if note.start + note.length <= end else note._replace(length=max(end - note.start, 0.1))


def _loop(config: MusicConfig, seconds: float, seed: int, sample_rate: int) -> NDArray[np.float32]:
    """Return one repetition of a loop, shape (frames, 2), after as many repetitions as the reverb needs to reach its
    level.

    Movement that does not repeat with the bars (the pad's filter, the reverb's modulation) is cross-faded at the end to
    the audio before the beginning.
    """
    piece = Piece(config, math.inf, seed)
    bar_seconds = BEATS_PER_BAR * 60.0 / piece.bpm
    bars = _loop_bars(seconds / bar_seconds)
    turns = 1 + math.ceil(_tail_seconds(config, piece) / (bars * bar_seconds))
    first = SECTION_BARS - (turns - 1) * bars
    part = Part(_Round(piece, bars), first, math.ceil(LEAD_SECONDS * sample_rate), 0, sample_rate)
    begin, end = part.line_of(SECTION_BARS), part.line_of(SECTION_BARS + bars)
    fade = min(round(bar_seconds * sample_rate), (end - begin) // 4)
    kept = np.zeros((2, fade + end - begin), np.float32)
    for here in range(0, end, STEP):
        step = part.play()
        skipped = max(begin - fade - here, 0)
        there = here + skipped - (begin - fade)
        if skipped < STEP:
            piece_of = step[:, skipped : skipped + kept.shape[1] - there]
            kept[:, there : there + piece_of.shape[1]] = piece_of
    before, turn = kept[:, :fade], kept[:, fade:]
    share = np.linspace(0.0, 1.0, fade, endpoint=False, dtype=np.float32)
    turn[:, -fade:] = (1.0 - share) * turn[:, -fade:] + share * before
    # The limiter must process both ends together.
    around = min(sample_rate, turn.shape[1])
    wrapped = np.concatenate([turn[:, -around:], turn, turn[:, :around]], axis=1)
    return np.ascontiguousarray(finish(wrapped, sample_rate)[around:-around])


def _loop_bars(bars: float) -> int:
    """Return the number of bars of a loop: whole, and if it is long enough a multiple of 4, or at least even."""
    grid = 4 if bars >= 6 else 2 if bars >= 1.5 else 1
    return max(round(bars / grid), 1) * grid


def _tail_seconds(config: MusicConfig, piece: Piece) -> float:
    """Return the maximum length of a note in seconds, with reverb and echo down to -60 dB."""
    feedback = space.echo_feedback(config.echo)
    repeats = math.log(1e-3) / math.log(feedback) if feedback > 0 else 1.0
    echo = 0.75 * 60.0 / piece.bpm * repeats
    return min(max(space.reverb_seconds(config.space), echo) + 9.0, LONGEST_TAIL_SECONDS)
