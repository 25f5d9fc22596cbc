"""What a sound needs to know to be rendered, and what a style is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np

from latentscore.synth.notes import Bar, Note, Piece
from latentscore.synth.signal import Stereo

# What attack does to a rise time: a factor, and the least it may be in seconds.
_ATTACKS = {"soft": (4.0, 0.07), "medium": (1.0, 0.014), "sharp": (0.2, 0.002)}
_SHOT_ATTACK_SECONDS = {"soft": 0.055, "medium": 0.009, "sharp": 0.0012}
_MOTIONS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_EDGE = {"soft": 0.55, "medium": 1.0, "sharp": 1.7}


@dataclass(frozen=True)
class RenderContext:
    """What sounds need to know about where they are played."""

    piece: Piece
    sample_rate: int
    loops: dict[tuple[object, ...], Stereo] = field(default_factory=dict)
    """Loops of this render's held chords: the same note in the same colour is made once."""

    @cached_property
    def open(self) -> float:
        """What brightness multiplies cutoffs with: 1/4 to 4 between very dark and very bright."""
        return 2.0 ** (5.0 * (self.piece.config.brightness - 0.5))

    @cached_property
    def seconds_per_beat(self) -> float:
        return 60.0 / self.piece.bpm

    def rise(self, seconds: float) -> float:
        """A sound's own rise time as the attack field has it, in frames."""
        factor, least = _ATTACKS[self.piece.config.attack]
        return max(seconds * factor, least) * self.sample_rate

    @cached_property
    def edge(self) -> float:
        """What the attack field multiplies the brightness of a beginning with."""
        return _EDGE[self.piece.config.attack]

    @cached_property
    def looseness(self) -> float:
        """What motion multiplies detuning with: chords beat slowly when static and fast when chaotic."""
        return 0.15 + 1.45 * self.piece.config.motion

    def wobble(self, own: tuple[float, float], sway: float) -> tuple[float, float]:
        """Depth and hertz of tremolo: a sound's own, or the motion field's if that is deeper."""
        depth, hz = movement(self.piece.config.motion)
        return (sway * depth, hz) if sway * depth > own[0] else own

    @cached_property
    def shot_attack_seconds(self) -> float:
        return _SHOT_ATTACK_SECONDS[self.piece.config.attack]

    def frame(self, beat: float) -> int:
        return round(beat * self.seconds_per_beat * self.sample_rate)

    def frames(self, seconds: float) -> int:
        return max(round(seconds * self.sample_rate), 1)


class Sound(Protocol):
    """Anything that can add its notes to a stereo buffer at a gain."""

    def add(self, out: Stereo, notes: Sequence[Note], gain: float, context: RenderContext) -> None: ...


@dataclass(frozen=True)
class Style:
    """A label of a style field: what it plays in one bar, and what that sounds like."""

    play: Callable[[Bar], Iterable[Note]]
    sounds: Mapping[str, Sound]


@lru_cache(maxsize=64)
def movement(motion: float) -> tuple[float, float]:
    """Depth (0 to 1) and rate (hertz) of slow movement for the motion field."""
    rate = math.exp(float(np.interp(motion, _MOTIONS, np.log((0.06, 0.08, 0.45, 1.1, 2.7, 6.0, 6.5)))))
    return float(np.interp(motion, _MOTIONS, (0.0, 0.0, 0.45, 0.62, 0.74, 0.87, 0.9))), rate
