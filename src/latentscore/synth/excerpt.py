"""Render a few seconds from the middle of a piece, in a tenth of the time of the whole piece, to preview a change."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latentscore.audio import Audio
from latentscore.config import MusicConfig, MusicConfigPrompt
from latentscore.jit import announced
from latentscore.synth import space
from latentscore.synth.context import RenderContext
from latentscore.synth.engine import (
    CEILING,
    COMPILING,
    GROUPS,
    Player,
    checked_config,
    checked_rate,
    checked_seconds,
    checked_seed,
)
from latentscore.synth.notes import Note, Piece
from latentscore.synth.score import compose
from latentscore.synth.stream import gain_for

RING_IN_SECONDS = 4.0
"""Seconds rendered before an excerpt, so that it contains reverb tails and held notes."""


def render_excerpt(
    config: MusicConfig | MusicConfigPrompt,
    seconds: float,
    begin: float,
    length: float,
    seed: int = 0,
    sample_rate: int = 48_000,
) -> Audio:
    """Render approximately what ``render(config, seconds, seed)`` plays from second ``begin`` on: the same notes at the
    same frames.

    The gain is predicted (within 2 dB of the whole piece's), and tails from more than 4 s before are missing. An
    excerpt ends before the ending of the piece. Raises :class:`InvalidConfigError`.
    """
    numbers, seconds = checked_config(config), checked_seconds(seconds)
    rate, seed = checked_rate(sample_rate), checked_seed(seed)
    with announced(COMPILING):
        score = compose(numbers, seconds, seed)
        first = max(round((begin - RING_IN_SECONDS) * rate), 0)
        skipped = max(round(begin * rate) - first, 0)
        frames = min(skipped + round(length * rate), round(seconds * rate) - first)
        context = RenderContext(score.piece, rate, origin=first)
        player = Player(context, max(frames, 0), GROUPS)
        start, end = (frame / rate * score.piece.bpm / 60.0 for frame in (first, first + frames))
        for notes in (*score.bars, score.closing):
            player.add({layer: _within(some, start, end) for layer, some in notes.items()})
        mixed = np.concatenate(
            [player.take(min(space.STEP, frames - at)) for at in range(0, max(frames, 0), space.STEP)]
            or [np.zeros((2, 0), np.float32)],
            axis=1,
        )
        space.bus(mixed, numbers, rate)
        return Audio(_limited(mixed, gain_for(Piece(numbers, math.inf, seed)))[skipped:], rate)


def _within(notes: Sequence[Note], start: float, end: float) -> list[Note]:
    """Return the notes that sound between two beats; notes that began earlier begin at the first beat."""
    found: list[Note] = []
    for note in notes:
        if note.start >= start:
            if note.start < end:
                found.append(note)
        elif note.start + note.length > start + 0.25:
            found.append(note._replace(start=start, length=note.start + note.length - start))
    return found


def _limited(mixed: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
    out = np.empty((mixed.shape[1], 2), np.float32)
    if mixed.shape[1]:
        space.limit(mixed, out, gain, CEILING)
    return out
