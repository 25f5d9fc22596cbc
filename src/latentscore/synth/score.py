"""Composition: converts a config to notes in beats, layer by layer and bar by bar."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from latentscore.config import MusicConfig
from latentscore.synth.form import BEATS_PER_BAR, LAYERS, STREAMS
from latentscore.synth.notes import Bar, Note, Piece
from latentscore.synth.styles import style_of
from latentscore.synth.theory import near

SHORT_CLOSING_SECONDS, LONG_CLOSING_SECONDS = 0.95, 4.0
"""Minimum and maximum length of the ending of a piece, in seconds; pieces of up to 12 s have the shorter one."""


@dataclass(frozen=True)
class Score:
    """A whole piece: the notes of each bar, those of the ending, and the :class:`Piece` they belong to."""

    piece: Piece
    bars: Sequence[Mapping[str, Sequence[Note]]]
    closing: Mapping[str, Sequence[Note]]

    @cached_property
    def layers(self) -> Mapping[str, Sequence[Note]]:
        """The notes of each layer, sorted by start, followed by those of the ending."""
        return {
            layer: [*sorted(note for bar in self.bars for note in bar[layer]), *self.closing.get(layer, ())]
            for layer in LAYERS
        }

    @property
    def notes(self) -> list[Note]:
        return sorted(note for notes in self.layers.values() for note in notes)


class Composer:
    """Composes a piece bar by bar, for any length.

    Bars must be requested in order, from any bar on. The state between bars is bounded. A note may begin up to half a
    beat and 0.1 s before its bar, so compose one bar ahead of playback.
    """

    def __init__(self, piece: Piece):
        self.piece = piece
        self._memories: dict[str, dict[str, object]] = {layer: {} for layer in LAYERS}

    def bar(self, index: int) -> dict[str, list[Note]]:
        """The notes of one bar by layer, each in the order of its style. A layer that rests has none."""
        return {layer: self._layer(layer, index) for layer in LAYERS}

    def branch(self, piece: Piece) -> Composer:
        """Return a composer that continues with another piece from the next bar on: layers keep their state and start their
        held notes again."""
        composer = Composer(piece)
        composer._memories = copy.deepcopy(self._memories)
        for memory in composer._memories.values():
            memory.pop("last", None)
        return composer

    def _layer(self, layer: str, index: int) -> list[Note]:
        if not self.piece.form.plays(layer, index):
            return []
        memory = self._memories[layer]
        style = style_of(layer, getattr(self.piece.config, layer))
        bar = Bar(self.piece, layer, index, memory)
        played = perform(self.piece, layer, index, style.play(bar))
        memory["last"] = index
        return _within(self.piece, layer, index, played)


def _within(piece: Piece, layer: str, index: int, notes: list[Note]) -> list[Note]:
    """Return the notes, cut where the layer begins to rest."""
    ends = [b for b in range(index + 1, index + 4) if not piece.form.plays(layer, b)]
    if not ends:
        return notes
    end = float(ends[0] * BEATS_PER_BAR)
    return [n if n.start + n.length <= end else n._replace(length=max(end - n.start, 0.1)) for n in notes]


def compose(config: MusicConfig, seconds: float, seed: int = 0) -> Score:
    """Compose a piece of ``seconds`` seconds: all notes that begin before its ending, and those of the ending."""
    piece = Piece(config, seconds, seed)
    closing = closing_beat(piece)
    composer = Composer(piece)
    # One more bar, for notes that are played before their bar.
    bars = [
        {layer: [n for n in notes if n.start < closing - 1e-9] for layer, notes in composer.bar(index).items()}
        for index in range(math.ceil(max(closing, 0.001) / BEATS_PER_BAR) + 1)
    ]
    last = {layer: max((note for bar in bars for note in bar[layer]), default=None) for layer in ("bass", "melody")}
    home = close(piece, last)
    if piece.seconds > 20.0:
        # The drums that beat until then end on the first stroke of their bar.
        before = closing - BEATS_PER_BAR
        strokes = [note for note in bars[int(before / BEATS_PER_BAR)]["rhythm"] if note.at == before]
        home["rhythm"] = [note._replace(start=note.start + BEATS_PER_BAR, at=closing) for note in strokes]
    return Score(piece, bars, home)


def closing_beat(piece: Piece) -> float:
    """Return the beat at which the ending of a piece begins.

    From 20 s on it is a bar line, and from 45 s on that of an even bar, where all held notes end.
    """
    lasts = min(SHORT_CLOSING_SECONDS + 0.07 * max(piece.seconds - 12.0, 0.0), LONG_CLOSING_SECONDS, piece.seconds / 2)
    beat = piece.beats - lasts * piece.bpm / 60.0
    grid = next((grid for least, grid in ((45.0, 8), (20.0, 4), (12.0, 1)) if piece.seconds > least), 0)
    return float(math.floor(beat / grid) * grid) if grid else beat


def close(piece: Piece, last: Mapping[str, Note | None]) -> dict[str, list[Note]]:
    """Return the ending of a piece: the home chord of the pad, from the closing beat to the end.

    In pieces of more than 12 s, bass and melody also move to the home note from their ``last`` notes. Earlier notes are
    not changed, so a piece equals the beginning of any longer one until its ending.
    """
    at = closing_beat(piece)
    length = piece.beats - at
    home = 48 + piece.key
    tones = (home - 12, home, home + piece.scale[4], home + 12 + piece.scale[2])
    closing = {
        "pad": [
            Note(at, length, float(p), 0.62, pan, "main", at) for p, pan in zip(tones, (0, -0.3, 0.3, 0), strict=True)
        ]
    }
    if piece.seconds > 12.0:
        for layer, velocity in (("bass", 0.66), ("melody", 0.58)):
            note = last[layer]
            if note and note.start + note.length < at + 0.5:
                pitch = _home_near(piece, layer, note.pitch)
                closing[layer] = [Note(at, length, pitch, velocity, note.pan, "main", at)]
    return closing


def _home_near(piece: Piece, layer: str, pitch: float) -> float:
    """The home note nearest to a pitch, within the melody's register for the melody."""
    if layer != "melody":
        return float(near(piece.key, pitch))
    octaves = range(piece.config.register_min_oct, piece.config.register_max_oct + 1)
    return float(min((12 * (octave + 1) + piece.key for octave in octaves), key=lambda home: abs(home - pitch)))


def perform(piece: Piece, layer: str, bar: int, notes: Iterable[Note]) -> list[Note]:
    """Return the notes as played: with swing, humanized timing and tuning, and the loudness of the tension."""
    human, swing = piece.config.human, piece.config.swing
    written = list(notes)
    if not written:
        return written
    if human > 0:
        loose = piece.stream("feel", STREAMS[layer], bar).standard_normal((len(written), 3))
        loose = np.clip(loose, -2.2, 2.2).tolist()
    else:
        loose = [(0.0, 0.0, 0.0)] * len(written)
    beats_a_second = piece.bpm / 60.0
    softest = _softest(piece.config.tempo)
    played = []
    for note, (late, tune, loud) in zip(written, loose, strict=True):
        start = swung(note.start, swing) + late * human * 0.045 * beats_a_second
        # Tuning is quantized to five cents, so that equal notes are rendered only once.
        pitch = note.pitch + round(tune * human * 22 / 5) * 0.05
        velocity = (
            note.velocity * (softest + (1.0 - softest) * piece.tension(note.start)) * 10 ** (loud * human * 5 / 20)
        )
        played.append(Note(max(start, 0.0), note.length, pitch, min(velocity, 1.0), note.pan, note.sound, note.at))
    return played


@lru_cache(maxsize=64)
def _softest(tempo: float) -> float:
    """Return the share of its velocity that a note has without tension; slow pieces have a wider range."""
    return float(np.interp(tempo, (0.3, 0.5), (0.24, 0.36)))


def swung(beat: float, swing: float) -> float:
    """Return the played position of a written beat: the middle of each beat is delayed by up to a third of the beat."""
    whole = math.floor(beat)
    part = beat - whole
    middle = 0.5 + swing * 0.21
    return whole + (part * 2 * middle if part < 0.5 else 1.0 - (1.0 - part) * 2 * (1.0 - middle))
