"""Scales, chords, voicings and the harmony plan. Time is in beats, pitch in MIDI note numbers (60 is middle C)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from latentscore.labels import FIELDS
from latentscore.synth.form import BEATS_PER_BAR, stream

ROOTS = {name: n for n, name in enumerate(FIELDS["root"].labels)}

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}

# Scale degrees of the chords, home being 0: what is heard first and the answer to it. A section goes first, first,
# answer, first.
_AUTO = {
    "major": ((0, 5, 3, 4), (3, 4, 2, 5)),
    "minor": ((0, 5, 3, 6), (5, 6, 0, 0)),
    "dorian": ((0, 3, 0, 6), (2, 3, 6, 0)),
    "mixolydian": ((0, 6, 3, 0), (3, 6, 0, 4)),
}
_LIGHT = {
    "pop": ((0, 4, 5, 3), (5, 3, 0, 4)),
    "jazz": ((1, 4, 0, 5), (2, 5, 1, 4)),
    "cinematic": ((5, 2, 3, 0), (3, 0, 4, 5)),
    "ambient": ((0, 3, 0, 3), (5, 3, 1, 3)),
}
_SHADE = {
    "pop": ((0, 6, 5, 6), (5, 2, 6, 0)),
    "jazz": ((1, 4, 0, 3), (3, 6, 2, 5)),
    "cinematic": ((5, 2, 0, 6), (5, 6, 3, 0)),
    "ambient": ((0, 3, 0, 3), (5, 3, 2, 3)),
}


@dataclass(frozen=True, slots=True)
class Chord:
    """A chord and when it sounds.

    ``tones`` are semitones above the home note in root position, rising: root, third, fifth, and as the extensions ask
    seventh and ninth. ``degrees`` are the same tones as scale degrees.
    """

    start: float
    length: float
    degrees: tuple[int, ...]
    tones: tuple[int, ...]

    @property
    def root(self) -> int:
        return self.tones[0]

    @property
    def end(self) -> float:
        return self.start + self.length


def scale_pitch(scale: Sequence[int], degree: int) -> int:
    """Semitones above the home note of a scale degree; degrees go on through the octaves in both directions."""
    octave, step = divmod(degree, len(scale))
    return 12 * octave + scale[step]


def stack(scale: Sequence[int], degree: int, extensions: str, start: float, length: float) -> Chord:
    """The chord of thirds on a scale degree: three, four or five tones for triads, sevenths or lush."""
    count = {"triads": 3, "sevenths": 4, "lush": 5}[extensions]
    degrees = tuple(degree + 2 * n for n in range(count))
    return Chord(start, length, degrees, tuple(scale_pitch(scale, d) for d in degrees))


@lru_cache(maxsize=1024)
def chord_number(n: int, mode: str, style: str, extensions: str, bars_per_chord: float, seed: int) -> Chord:
    """The ``n``-th chord of the piece, counted from 0: a function of its arguments, so a piece may go on for ever."""
    if style == "auto":
        first, answer = _AUTO[mode]
    else:
        first, answer = (_LIGHT if mode in ("major", "mixolydian") else _SHADE)[style]
    length = bars_per_chord * BEATS_PER_BAR
    progression = answer if (n // 4) % 4 == 2 else first
    degree = progression[n % 4]
    if n % 4 == 2 and n > 4 and stream(seed, "harmony", n).random() < 0.3:
        # Now and then a chord gives way to its relative, so that a minute is not one loop.
        degree = (degree - 2) % 7
    return stack(SCALES[mode], degree, extensions, n * length, length)


def near(pitch_class: int, target: float) -> int:
    """The pitch of that class nearest to ``target``."""
    return round((target - pitch_class) / 12) * 12 + pitch_class


def fold(pitches: Iterable[int], low: int, high: int) -> list[int]:
    """Pitches moved by octaves into [low, high], rising, without repeats; ``high - low`` must be at least 11."""
    folded = set()
    for pitch in pitches:
        while pitch < low:
            pitch += 12
        while pitch > high:
            pitch -= 12
        folded.add(pitch)
    return sorted(folded)


def lead_voices(chord: Chord, key: int, center: float, before: Sequence[int]) -> list[int]:
    """The chord in close position near ``center``, in the inversion that moves least from the pitches before."""
    classes = [(key + tone) % 12 for tone in chord.tones]
    best: list[int] = []
    best_cost = float("inf")
    for turn in range(len(classes)):
        pitches: list[int] = []
        for pitch_class in classes[turn:] + classes[:turn]:
            pitch = near(pitch_class, center - 6) if not pitches else pitches[-1] + 1
            pitch += (pitch_class - pitch) % 12
            pitches.append(pitch)
        drift = abs(sum(pitches) / len(pitches) - center)
        moves = sum(min(abs(p - q) for q in before) for p in pitches) if before else 0
        if (cost := moves + 1.5 * drift) < best_cost:
            best, best_cost = pitches, cost
    return best


def voice(chord: Chord, key: int, style: str, center: float, before: Sequence[int]) -> list[int]:
    """Pitches for the pad as the harmony style would lay them out around ``center``."""
    close = lead_voices(chord, key, center, before)
    root = near(key + chord.root, center - 8)
    upper = [root + tone - chord.root for tone in chord.tones]
    if style == "pop":
        return [*upper, root + 12]
    if style == "jazz":
        # Without the root, which the bass has: third and seventh (or the sixth above a triad) carry the colour.
        guides = upper[1:] if len(upper) > 3 else [*upper[1:], near(upper[0] + 9, center)]
        return fold(guides, int(center) - 6, int(center) + 8)
    if style == "cinematic":
        # Wide: root and fifth below, the third a tenth up, the top doubled.
        return sorted({root - 12, upper[2] - 12, upper[1] + 0, *(p for p in upper[3:]), root + 12})
    if style == "ambient":
        # A second leans on the third, open fifths below: nothing wants to resolve.
        return sorted({root - 12, upper[2] - 12, root, root + 2, *(p for p in upper[2:])})
    return close
