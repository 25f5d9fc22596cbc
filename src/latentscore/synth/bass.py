"""The bass layer: eight styles, one function each."""

from __future__ import annotations

from collections.abc import Iterator

from latentscore.synth.context import Style
from latentscore.synth.notes import Bar, Note, held
from latentscore.synth.shots import bass_string
from latentscore.synth.theory import near
from latentscore.synth.voices import Shot, Wave

CENTER = 40
"""Around E2: low, but audible on small loudspeakers."""


def _home(bar: Bar) -> int:
    return near(bar.piece.key, CENTER)


def _root(bar: Bar, at: float = 0.0) -> int:
    return near(bar.piece.key + bar.chord(at).root, CENTER)


def _spans(bar: Bar) -> Iterator[tuple[float, float, int]]:
    """Yield (begin, length, root) of each chord inside this bar, in beats; a longer chord begins again in each bar."""
    at = 0.0
    while at < 4.0 - 1e-6:
        chord = bar.chord(at)
        end = min(chord.end - bar.start, 4.0)
        yield at, end - at, _root(bar, at)
        at = end


def drone(bar: Bar) -> Iterator[Note]:
    """The home note under all chords, played again every two bars before it has decayed."""
    if bar.index % 2 == 0 or bar.enters:
        yield bar.note(0, 8.2 - 4 * (bar.index % 2), _home(bar), 0.8)


def sustained(bar: Bar) -> Iterator[Note]:
    """The root of each chord, held until the next, and struck again every two bars."""
    for at, length, chord in held(bar):
        yield bar.note(at, length, near(bar.piece.key + chord.root, CENTER), 0.8)


def pulsing(bar: Bar) -> Iterator[Note]:
    """Even eighths on the root, the beat a little stronger."""
    for eighth in range(8):
        yield bar.note(eighth / 2, 0.32, _root(bar, eighth / 2), 0.82 if eighth % 2 == 0 else 0.62)


def walking(bar: Bar) -> Iterator[Note]:
    """A quarter note on each beat: root, chord tones, and a step that leads to the next root."""
    chord = bar.chord()
    root = _root(bar)
    tones = [root + tone - chord.root for tone in chord.tones[:3]]
    middle = [tones[1], tones[2]] if bar.rng.random() < 0.6 else [tones[2], tones[1]]
    target = near(bar.piece.key + bar.piece.chord_at(bar.start + 4).root, CENTER)
    lead = target + (1 if middle[-1] > target else -1) * (1 if bar.rng.random() < 0.3 else 2)
    for beat, pitch in enumerate([root, *middle, lead]):
        pitch = _root(bar, beat) if bar.chord(beat).start == bar.start + beat else pitch
        yield bar.note(beat, 0.9, pitch, 0.84 if beat % 2 == 0 else 0.74)


def fifth_drone(bar: Bar) -> Iterator[Note]:
    """Home note and its fifth, slightly apart in time."""
    if bar.index % 2 == 0 or bar.enters:
        length = 8.2 - 4 * (bar.index % 2)
        yield bar.note(0, length, _home(bar), 0.74)
        yield bar.note(0.12, length - 0.12, _home(bar) + 7, 0.78, sound="fifth")


def sub_pulse(bar: Bar) -> Iterator[Note]:
    """Very low, round pulses."""
    for beat in range(4):
        yield bar.note(
            beat, 0.55, _root(bar, beat) - 12 + (12 if _root(bar, beat) < 36 else 0), 0.9 if beat in (0, 2) else 0.72
        )


def octave(bar: Bar) -> Iterator[Note]:
    """Root and octave in turn, eighths."""
    for eighth in range(8):
        yield bar.note(eighth / 2, 0.4, _root(bar, eighth / 2) + 12 * (eighth % 2), 0.8 if eighth % 2 == 0 else 0.66)


def arp_bass(bar: Bar) -> Iterator[Note]:
    """Root, fifth, octave, tenth and back, eighths, an octave above the other basses."""
    for eighth, step in enumerate((0, 2, 3, 4, 5, 4, 3, 2)):
        chord = bar.chord(eighth / 2)
        third, fifth = chord.tones[1] - chord.root, chord.tones[2] - chord.root
        rise = (0, third, fifth, 12, 12 + third, 12 + fifth)[step]
        yield bar.note(eighth / 2, 0.45, _root(bar, eighth / 2) + 12 + rise, 0.8 if eighth % 4 == 0 else 0.68)


SUB = Wave("soft", 160, attack=0.03, sustain=1.0, release=0.25, sway=0.0)
"""The sub-bass an octave under every bass, if the field depth is on."""

STYLES = {
    "drone": Style(
        drone, {"main": Wave("saw", 420, attack=0.35, sustain=0.95, release=0.9, unison=2, cents=7, spread=0.3)}
    ),
    "sustained": Style(sustained, {"main": Wave("triangle", 700, attack=0.06, decay=2.5, sustain=0.7, release=0.4)}),
    "pulsing": Style(
        pulsing, {"main": Wave("pulse", 420, attack=0.006, decay=0.15, sustain=0.45, release=0.06, bite=0.5)}
    ),
    "walking": Style(walking, {"main": Shot(bass_string, attack=0.4)}),
    "fifth_drone": Style(
        fifth_drone,
        {
            "main": Wave("reed", 520, attack=0.5, sustain=1.0, release=1.0, unison=2, cents=5, spread=0.4),
            "fifth": Wave("reed", 1100, attack=0.7, sustain=1.0, release=1.0, unison=2, cents=6, spread=0.6),
        },
    ),
    "sub_pulse": Style(
        sub_pulse, {"main": Wave("sine", 300, attack=0.012, decay=0.3, sustain=0.4, release=0.12, sway=0.1)}
    ),
    "octave": Style(
        octave, {"main": Wave("square", 1500, attack=0.005, decay=0.2, sustain=0.5, release=0.07, bite=0.7)}
    ),
    "arp_bass": Style(
        arp_bass, {"main": Wave("saw", 1100, attack=0.004, decay=0.18, sustain=0.3, release=0.1, bite=0.7)}
    ),
}
