"""The pad layer: seven styles of sustained chords, one function each."""

from __future__ import annotations

from collections.abc import Iterator

from latentscore.synth.context import Style
from latentscore.synth.notes import Bar, Note, held
from latentscore.synth.theory import Chord, near, scale_pitch, spread_semitones, voice
from latentscore.synth.voices import Wave


def _voiced(bar: Bar, chord: Chord, center: float) -> list[int]:
    """Return the pitches of the chord in the layout of the harmony style, ascending, with the smallest movement from the
    previous chord."""
    piece, role = bar.piece, bar.section.role
    before = bar.memory.get("voicing", ())
    center += {"departure": 4, "breath": -3}.get(role, 0) + 2.0 * piece.light
    pitches = voice(chord, piece.key, bar.config.harmony_style, center, before)  # type: ignore[arg-type]
    bar.memory["voicing"] = pitches
    # Dense pieces double the lowest voices an octave above, most in sections with the role height.
    doubled = max(bar.config.density - 4 + {"height": 1, "opening": -1, "breath": -2}.get(role, 0), 0)
    above = [pitch + 12 for pitch in pitches[:doubled]]
    return sorted({*pitches, *(p for p in above if p - 1 not in pitches and p + 1 not in pitches)})


def _spread(pitches: list[int], width: float) -> Iterator[tuple[int, float]]:
    """Yield each pitch with a pan position: low pitches in the middle, higher ones alternately further out."""
    for number, pitch in enumerate(pitches):
        yield pitch, (0.0 if number == 0 else width * (-1) ** number * number / len(pitches))


def warm_slow(bar: Bar) -> Iterator[Note]:
    """Soft chords in close position whose filter opens slowly."""
    for at, length, chord in held(bar):
        for pitch, pan in _spread(_voiced(bar, chord, 58), 0.6):
            yield bar.note(at, length, pitch, 0.72, pan)


def dark_sustained(bar: Bar) -> Iterator[Note]:
    """The chord in a low and narrow position, like a muffled organ."""
    for at, length, chord in held(bar):
        for pitch, pan in _spread(_voiced(bar, chord, 49), 0.35):
            yield bar.note(at, length, pitch, 0.74, pan)


def cinematic(bar: Bar) -> Iterator[Note]:
    """Strings: the chord, its root an octave down, and a high octave that enters late."""
    for at, length, chord in held(bar):
        pitches = _voiced(bar, chord, 57)
        root = near(bar.piece.key + chord.root, 43)
        yield bar.note(at, length, root - 12 if {root - 1, root + 1} & set(pitches) else root, 0.7)
        for pitch, pan in _spread(pitches, 0.9):
            yield bar.note(at, length, pitch, 0.68, pan)
        top = max(pitch for pitch in pitches if all(abs(pitch + 12 - other) != 1 for other in pitches)) + 12
        yield bar.note(at + length / 4, length * 3 / 4, top, 0.6, 0.4, "high")


def thin_high(bar: Bar) -> Iterator[Note]:
    """A thin sound two octaves up."""
    for at, length, chord in held(bar):
        for pitch, pan in _spread(_voiced(bar, chord, 77)[-3:], 0.8):
            yield bar.note(at, length, pitch, 0.66, pan)


def ambient_drift(bar: Bar) -> Iterator[Note]:
    """Each voice fades in and out independently."""
    for at, length, chord in held(bar):
        for pitch, pan in _spread(_voiced(bar, chord, 61), 1.0):
            late = length * 0.35 * float(bar.rng.random())
            lasts = min(length * (0.75 + 0.4 * float(bar.rng.random())), length - late)
            yield bar.note(at + late, lasts, pitch, 0.72, pan)


def stacked_fifths(bar: Bar) -> Iterator[Note]:
    """Fifths on fifths from the chord's root: open, neither light nor dark."""
    for at, length, chord in held(bar):
        root = near(bar.piece.key + chord.root, 44)
        scale, degree = chord.scale, chord.degrees[0]
        count = min(len(chord.tones), 4)
        fifths = [root + scale_pitch(scale, degree + 4 * n) - chord.root for n in range(count)]
        # A fifth that is a semitone away from the third or the root is left out.
        triad = [root + tone - chord.root for tone in chord.tones[:3]]
        pitches = [pitch for pitch in fifths if all((pitch - tone) % 12 not in (1, 11) for tone in triad)]
        for pitch, pan in _spread(pitches, 0.8):
            yield bar.note(at, length, pitch, 0.7, pan)
        # Chord tones, so that harmony style and mode stay audible.
        for pitch in _voiced(bar, chord, 62)[1:3]:
            if all(abs(pitch - other) > 1 for other in pitches):
                yield bar.note(at, length, pitch, 0.55, 0.2, "color")


def bright_open(bar: Bar) -> Iterator[Note]:
    """The chord spread over two octaves with a clear top."""
    for at, length, chord in held(bar):
        close = _voiced(bar, chord, 60)
        opened = spread_semitones([*close[::2], *(p + 12 for p in close[1::2]), close[0] + 24], 66)
        for pitch, pan in _spread(list(opened), 1.0):
            yield bar.note(at, length, pitch, 0.66, pan)


def _pad(shape: str, cutoff_hz: float, *envelope: float, **more: float) -> Wave:
    """Return a pad's sound without tremolo, because the layer's filter provides the movement."""
    return Wave(shape, cutoff_hz, *envelope, sway=0.0, **more)  # type: ignore[arg-type]


STYLES = {
    "warm_slow": Style(
        warm_slow, {"main": _pad("saw", 900, 0.9, 4.0, 0.85, 1.6, unison=3, cents=9, spread=0.6, track=0.2)}
    ),
    "dark_sustained": Style(
        dark_sustained, {"main": _pad("organ", 450, 0.5, 4.0, 0.95, 1.4, unison=2, cents=5, spread=0.3, track=0.1)}
    ),
    "cinematic": Style(
        cinematic,
        {
            "main": _pad("strings", 1900, 0.6, 4.0, 0.9, 1.2, 3, 14, 0.8, vibrato_cents=7, vibrato_hz=5.4),
            "high": _pad("strings", 3000, 1.2, 4.0, 0.9, 1.5, 2, 16, 0.9, vibrato_cents=9, vibrato_hz=5.7),
        },
    ),
    "thin_high": Style(thin_high, {"main": _pad("glass", 6000, 0.8, 4.0, 0.9, 1.8, 2, 6, 0.8)}),
    "ambient_drift": Style(
        ambient_drift, {"main": _pad("hollow", 1500, 1.8, 6.0, 0.9, 2.6, 3, 17, 1.0, vibrato_cents=5, vibrato_hz=0.4)}
    ),
    "stacked_fifths": Style(
        stacked_fifths,
        {
            "main": _pad("square", 1100, 0.45, 4.0, 0.85, 1.2, 2, 8, 0.7),
            "color": _pad("square", 1300, 0.9, 4.0, 0.85, 1.2, 2, 8, 0.7),
        },
    ),
    "bright_open": Style(bright_open, {"main": _pad("saw", 3800, 0.3, 3.0, 0.8, 1.0, 3, 12, 1.0)}),
}
