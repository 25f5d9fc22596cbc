"""The piece before it sounds: a config becomes notes in beats.

Everything here is a function of the config, the seed and absolute time, so a longer piece begins with a shorter one,
and each layer draws from its own stream for every bar, so changing one layer leaves the others as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from latentscore.labels import beats_per_minute
from latentscore.synth.theory import BEATS_PER_BAR, ROOTS, SCALES, Chord, plan_harmony

if TYPE_CHECKING:
    from latentscore.config import MusicConfig
    from latentscore.synth.voices import Sound

LAYERS = ("bass", "pad", "melody", "rhythm", "texture", "accent")
"""The six layers, in the order in which density brings them forward."""

SECTION_BARS = 8
"""How many bars one tension curve spans."""

CLOSING_SECONDS = 0.95
"""How long before the end the closing tone begins."""

_STREAMS = {name: n for n, name in enumerate((*LAYERS, "harmony", "feel"))}


class Note(NamedTuple):
    """One event. ``start`` and ``at`` are beats from the beginning: as played, and as written before swing and human
    looseness. ``pitch`` is a MIDI note number whose fraction is detune; ``sound`` names one of the layer's sounds."""

    start: float
    length: float
    pitch: float
    velocity: float
    pan: float
    sound: str
    at: float


@dataclass(frozen=True)
class Style:
    """A label of a style field: what it plays in one bar, and what that sounds like."""

    play: Callable[[Bar], Iterable[Note]]
    sounds: Mapping[str, Sound]


@dataclass(frozen=True)
class Piece:
    """What every layer may know."""

    config: MusicConfig
    seconds: float
    seed: int

    @cached_property
    def bpm(self) -> float:
        return beats_per_minute(self.config.tempo)

    @cached_property
    def beats(self) -> float:
        return self.seconds * self.bpm / 60.0

    @cached_property
    def key(self) -> int:
        """Pitch class of the home note."""
        return ROOTS[self.config.root]

    @cached_property
    def scale(self) -> tuple[int, ...]:
        return SCALES[self.config.mode]

    @cached_property
    def chords(self) -> list[Chord]:
        config = self.config
        seed = np.random.SeedSequence(self.seed, spawn_key=(_STREAMS["harmony"],))
        # Bars are composed whole, so the plan reaches past the end.
        beats = self.beats + 2 * BEATS_PER_BAR
        return plan_harmony(
            config.mode, config.harmony_style, config.chord_extensions, config.chord_change_bars, beats, seed
        )

    def chord_at(self, beat: float) -> Chord:
        length = self.chords[0].length
        return self.chords[min(int((beat + 1e-6) / length), len(self.chords) - 1)]

    def stream(self, name: str, *where: int) -> np.random.Generator:
        """The independent stream of a layer at a place, usually a bar."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_STREAMS[name], *where)))

    def tension(self, beat: float) -> float:
        """Intensity from 0.2 to 1 at a beat, by the tension curve over each section of eight bars."""
        x = (beat / BEATS_PER_BAR / SECTION_BARS) % 1.0
        curve = self.config.tension_curve
        if curve == "arc":
            return 0.25 + 0.75 * math.sin(math.pi * x) ** 1.3
        if curve == "ramp":
            # The last half bar falls back, so that a section does not begin with a step.
            return 0.2 + 0.8 * (x / 0.94 if x < 0.94 else (1.0 - x) / 0.06)
        return 0.6 - 0.4 * math.cos(math.tau * x * SECTION_BARS / 2)

    def presence(self, layer: str) -> float:
        """How far density brings a layer forward, 0 to 1: bass and pad always, one more layer with each step."""
        return 1.0 if LAYERS.index(layer) < self.config.density else 0.0


@dataclass(frozen=True)
class Bar:
    """One bar of one layer: where it is, what sounds there, and the layer's random stream."""

    piece: Piece
    layer: str
    index: int
    memory: dict[str, object] = field(default_factory=dict)
    """Kept from bar to bar within a layer: the last voicing, the melody's position."""

    @property
    def config(self) -> MusicConfig:
        return self.piece.config

    @property
    def start(self) -> float:
        return float(self.index * BEATS_PER_BAR)

    @cached_property
    def rng(self) -> np.random.Generator:
        return self.piece.stream(self.layer, self.index)

    @property
    def full(self) -> bool:
        """Whether density has this layer carry the piece rather than colour it."""
        return self.piece.presence(self.layer) == 1.0

    @cached_property
    def chords(self) -> list[Chord]:
        """Chords that begin in this bar."""
        return [c for c in self.piece.chords if self.start - 1e-6 <= c.start < self.start + BEATS_PER_BAR - 1e-6]

    def chord(self, at: float = 0.0) -> Chord:
        """The chord that sounds ``at`` beats into the bar."""
        return self.piece.chord_at(self.start + at)

    def note(
        self, at: float, length: float, pitch: float, velocity: float = 0.8, pan: float = 0.0, sound: str = "main"
    ) -> Note:
        """A note ``at`` beats into this bar."""
        start = self.start + at
        return Note(start, length, pitch, velocity, pan, sound, start)


@dataclass(frozen=True)
class Score:
    """The whole piece: notes of each layer in order of start, and the plan they were made from."""

    piece: Piece
    layers: Mapping[str, Sequence[Note]]

    @property
    def notes(self) -> list[Note]:
        return sorted(note for notes in self.layers.values() for note in notes)


def style_of(layer: str, label: str) -> Style:
    """The style behind a label of a style field."""
    from latentscore.synth.styles import STYLES

    return STYLES[layer][label]


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
        loose = piece.stream("feel", _STREAMS[layer], bar).standard_normal((len(written), 3))
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
