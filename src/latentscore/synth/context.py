"""The render context of a sound, the cache of rendered sounds, and the definition of a style."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latentscore.synth.notes import Bar, Note, Piece
from latentscore.synth.signal import BLOCK, Stereo

# The effect of attack on a rise time: a factor, and the minimum in seconds.
_ATTACKS = {"soft": (4.0, 0.07), "medium": (1.0, 0.014), "sharp": (0.15, 0.002)}
_SHOT_ATTACK_SECONDS = {"soft": 0.055, "medium": 0.009, "sharp": 0.0012}
_MOTIONS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_EDGE = {"soft": 0.5, "medium": 1.0, "sharp": 1.9}
_PUNCH = {"soft": 0.0, "medium": 0.0, "sharp": 1.3}


KEPT_BYTES = 12 * 2**20
"""Maximum size of the cache of rendered sounds, in bytes."""


class Kept:
    """Cache of rendered sounds that may be needed again, such as loops of held chords and hits. The least recently used are
    dropped."""

    def __init__(self) -> None:
        self._sounds: OrderedDict[object, NDArray[np.float32]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: object) -> NDArray[np.float32] | None:
        """Return the sound of a key and mark it as recently used; None if it is not cached."""
        with self._lock:
            sound = self._sounds.get(key)
            if sound is not None:
                self._sounds.move_to_end(key)
            return sound

    def keep(self, key: object, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cache a sound and return it."""
        with self._lock:
            self._sounds[key] = sound
            self._bytes += sound.nbytes
            while self._bytes > KEPT_BYTES and len(self._sounds) > 1:
                self._bytes -= self._sounds.popitem(last=False)[1].nbytes
        return sound


@dataclass(eq=False)
class RenderContext:
    """Values that sounds need for rendering: sample rate, tempo, position and the fields that change timbre."""

    piece: Piece
    sample_rate: int
    origin: int = 0
    """The frame of the piece at which the buffer for notes begins."""

    kept: Kept = field(default_factory=Kept)
    takes: dict[object, int] = field(default_factory=dict)
    """How often each sound that has several takes has been played."""

    def take(self, sound: object, count: int) -> int:
        """Return the next take of a sound; ``count`` takes are played in rotation."""
        if count == 1:
            return 0
        played = self.takes.get(sound, 0)
        self.takes[sound] = (played + 1) % count
        return played

    @cached_property
    def open(self) -> float:
        """The factor of brightness on cutoff frequencies, 0.51 (very dark) to 1.9 (very bright); a light mode raises it a little."""
        return 2.0 ** (2.4 * (self.piece.config.brightness - 0.5) + 0.3 * self.piece.light)

    @cached_property
    def seconds_per_beat(self) -> float:
        return 60.0 / self.piece.bpm

    def rise(self, seconds: float) -> float:
        """Return a sound's rise time, in frames, changed by the attack field."""
        factor, least = _ATTACKS[self.piece.config.attack]
        return max(seconds * factor, least) * self.sample_rate

    @cached_property
    def edge(self) -> float:
        """The factor of the attack field on the brightness of an onset."""
        return _EDGE[self.piece.config.attack]

    @cached_property
    def punch(self) -> float:
        """How much louder a note is at its onset."""
        return _PUNCH[self.piece.config.attack]

    @cached_property
    def looseness(self) -> float:
        """The factor of motion on detuning: chords beat slowly if static and fast if chaotic."""
        return 0.15 + 1.45 * self.piece.config.motion

    def wobble(self, own: tuple[float, float], sway: float) -> tuple[float, float]:
        """Depth and hertz of tremolo: a sound's own, or the motion field's if that is deeper."""
        depth, hz = movement(self.piece.config.motion)
        return (sway * depth, hz) if sway * depth > own[0] else own

    def drift(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the drift of one voice of a held chord, as arguments of ``signal.add_loop``; each voice has another
        drift.

        Level by up to 5 dB with a period of 11 to 29 s, tuning by up to 2.7 cents for 5 to 12 s in one direction. The
        depth grows with motion.
        """
        a, b, c, d = ((seed >> (6 * n)) % 61 / 60.0 for n in range(4))
        block_seconds = BLOCK / self.sample_rate
        depth = min(0.12 + 0.6 * self.piece.config.motion, 0.45)
        swell = np.array([depth, math.tau * block_seconds / (11.0 + 18.0 * a), math.tau * b])
        per_frame = round(10 + 20 * (1.0 - self.piece.config.motion))
        reach = round((5.0 + 7.0 * c) / (block_seconds * per_frame))
        return swell, np.array([per_frame, reach, round(2 * d * per_frame * reach)])

    @cached_property
    def shot_attack_seconds(self) -> float:
        return _SHOT_ATTACK_SECONDS[self.piece.config.attack]

    def frame(self, beat: float) -> int:
        """The frame of the piece at a beat."""
        return round(beat * self.seconds_per_beat * self.sample_rate)

    def place(self, beat: float) -> int:
        """Return the frame of a beat in the buffer for notes; an earlier beat gives its first frame."""
        return max(self.frame(beat) - self.origin, 0)

    def frames(self, seconds: float) -> int:
        return max(round(seconds * self.sample_rate), 1)


class Sound(Protocol):
    """Anything that can add its notes to a stereo buffer at a gain."""

    def add(self, out: Stereo, notes: Sequence[Note], gain: float, context: RenderContext) -> None: ...


@dataclass(frozen=True)
class Style:
    """A label of a style field: the function that composes a bar, and its sounds."""

    play: Callable[[Bar], Iterable[Note]]
    sounds: Mapping[str, Sound]


@lru_cache(maxsize=64)
def movement(motion: float) -> tuple[float, float]:
    """Depth (0 to 1) and rate (hertz) of slow movement for the motion field."""
    rate = math.exp(float(np.interp(motion, _MOTIONS, np.log((0.06, 0.08, 0.55, 1.4, 2.8, 6.0, 6.5)))))
    return float(np.interp(motion, _MOTIONS, (0.0, 0.0, 0.62, 0.76, 0.85, 0.94, 0.95))), rate
