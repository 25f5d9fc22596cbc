"""The piece before it sounds: a config becomes notes in beats, layer by layer and bar by bar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latentscore.config import MusicConfig
from latentscore.synth.notes import LAYERS, STREAMS, Bar, Note, Piece
from latentscore.synth.styles import style_of
from latentscore.synth.theory import BEATS_PER_BAR

CLOSING_SECONDS = 0.95
"""How long before the end the closing tone begins."""


@dataclass(frozen=True)
class Score:
    """The whole piece: notes of each layer in order of start, and the plan they were made from."""

    piece: Piece
    layers: Mapping[str, Sequence[Note]]

    @property
    def notes(self) -> list[Note]:
        return sorted(note for notes in self.layers.values() for note in notes)


def compose(config: MusicConfig, seconds: float, seed: int = 0) -> Score:
    """All notes that begin before the piece closes, and the closing tones in its last second."""
    piece = Piece(config, seconds, seed)
    closing = piece.beats - min(CLOSING_SECONDS, seconds / 2) * piece.bpm / 60.0
    layers = {}
    for layer in LAYERS:
        style = style_of(layer, getattr(config, layer))
        memory: dict[str, object] = {}
        notes: list[Note] = []
        # One bar more, for what is played a little before its bar.
        for index in range(math.ceil(max(closing, 0.001) / BEATS_PER_BAR) + 1):
            bar = Bar(piece, layer, index, memory)
            notes += perform(piece, layer, index, style.play(bar))
        layers[layer] = sorted(n for n in notes if n.start < closing - 1e-9)
    layers["pad"] += _closing_chord(piece, closing)
    return Score(piece, layers)


def perform(piece: Piece, layer: str, bar: int, notes: Iterable[Note]) -> list[Note]:
    """Written notes as played: swung, a little early or late, in and out of tune, and as loud as the tension asks."""
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
    played = []
    for note, (late, tune, loud) in zip(written, loose, strict=True):
        start = swung(note.start, swing) + late * human * 0.045 * beats_a_second
        # Tuning is heard in steps of five cents, so equal notes stay equal and are rendered once.
        pitch = note.pitch + round(tune * human * 22 / 5) * 0.05
        velocity = note.velocity * (0.62 + 0.38 * piece.tension(note.start)) * 10 ** (loud * human * 5 / 20)
        played.append(Note(max(start, 0.0), note.length, pitch, min(velocity, 1.0), note.pan, note.sound, note.at))
    return played


def swung(beat: float, swing: float) -> float:
    """Where a written beat is played: the middle of each beat is late by up to a third of it."""
    whole = math.floor(beat)
    part = beat - whole
    middle = 0.5 + swing * 0.21
    return whole + (part * 2 * middle if part < 0.5 else 1.0 - (1.0 - part) * 2 * (1.0 - middle))


def _closing_chord(piece: Piece, at: float) -> list[Note]:
    home = 48 + piece.key
    tones = (home - 12, home, home + piece.scale[4], home + 12 + piece.scale[2])
    length = piece.beats - at
    return [Note(at, length, float(p), 0.62, pan, "main", at) for p, pan in zip(tones, (0, -0.3, 0.3, 0), strict=True)]
