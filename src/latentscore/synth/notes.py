"""What a score is made of: notes in beats, the piece that every layer knows, one bar of one layer.

Everything here is a function of the config, the seed and absolute time, so a longer piece begins with a shorter one,
and each layer draws from its own stream for every bar, so changing one layer leaves the others as they were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from latentscore.config import MusicConfig
from latentscore.labels import beats_per_minute
from latentscore.synth.theory import BEATS_PER_BAR, ROOTS, SCALES, Chord, plan_harmony

LAYERS = ("bass", "pad", "melody", "rhythm", "texture", "accent")
"""The six layers, in the order in which density brings them forward."""

SECTION_BARS = 8
"""How many bars one tension curve spans."""

STREAMS = {name: n for n, name in enumerate((*LAYERS, "harmony", "feel"))}
"""The number of each random stream: its place in the seed's tree."""


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
        seed = np.random.SeedSequence(self.seed, spawn_key=(STREAMS["harmony"],))
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
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(STREAMS[name], *where)))

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
