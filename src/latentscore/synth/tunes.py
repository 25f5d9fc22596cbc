"""The melody layer: ten styles, with the parameters of the engine and the instrument of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from latentscore.synth.context import Sound, Style
from latentscore.synth.melody import Manner, melody
from latentscore.synth.notes import Bar, Note
from latentscore.synth.shots import electric_piano, harp, kalimba, marimba, vibraphone
from latentscore.synth.theory import scale_pitch
from latentscore.synth.voices import Shot, Wave


def _arch(x: float) -> float:
    return 0.3 + 0.45 * math.sin(math.pi * x)


def _wander(x: float) -> float:
    return 0.5 + 0.3 * math.sin(math.tau * 1.5 * x)


PROCEDURAL = Manner(_wander, pull=0.6)
CONTEMPLATIVE = Manner(lambda x: 0.55 - 0.2 * x, ladder="five", pull=1.5, notes=0.75, hold=1.25, grid=2)
RISING = Manner(lambda x: x, pull=2.5, hold=0.95)
FALLING = Manner(lambda x: 1.0 - x, pull=2.5, hold=1.1)
MINIMAL = Manner(lambda x: 0.42, ladder="cell", pull=1.2, notes=0.8, hold=0.5, grid=2)
ORNAMENTAL = Manner(_arch, pull=0.7, notes=0.8, hold=0.9)
ARP = Manner(lambda x: 0.5 + 0.45 * math.sin(math.tau * 4 * x), ladder="chord", pull=2.0, notes=1.35, hold=0.6)
LAMENT = Manner(lambda x: 0.4 - 0.25 * x, ladder="lament", notes=0.75, hold=1.1, grid=2)
CALL = Manner(lambda x: 0.62, ladder="call", hold=0.8)
RESPONSE = Manner(lambda x: 0.28, ladder="call", hold=0.9)
HEROIC = Manner(lambda x: 0.25 + 0.6 * x**0.7, ladder="horn", pull=1.6, notes=0.85, hold=0.95, grid=2)


def plain(manner: Manner) -> Callable[[Bar], Iterator[Note]]:
    """Return a style that plays the engine's notes unchanged."""

    def play(bar: Bar) -> Iterator[Note]:
        return melody(bar, manner)

    play.__doc__ = "The engine's notes as they come."
    return play


def contemplative_minor(bar: Bar) -> Iterator[Note]:
    """Each longer note begins with its upper neighbour (appoggiatura)."""
    for note in melody(bar, LAMENT):
        if note.length >= 0.6:
            above = _neighbour(bar, note.pitch, 1, note.at - bar.start)
            late = min(note.length * 0.3, 0.42 * bar.piece.bpm / 60.0)
            yield note._replace(length=late, pitch=above, velocity=note.velocity + 0.08)
            yield note._replace(start=note.start + late, at=note.at + late, length=note.length * 0.8)
        else:
            yield note


def ornamental(bar: Bar) -> Iterator[Note]:
    """Grace notes before long notes and turns inside them."""
    for number, note in enumerate(melody(bar, ORNAMENTAL)):
        if note.length < 0.52:
            yield note
            continue
        at = note.at - bar.start
        above, below = _neighbour(bar, note.pitch, 1, at), _neighbour(bar, note.pitch, -1, at)
        turn = (above, note.pitch, below) if number % 2 else (below, above)
        quick = 0.11
        for place, pitch in enumerate(turn):
            shift = place * quick
            yield note._replace(start=note.start + shift, at=note.at + shift, length=quick, pitch=pitch, velocity=0.55)
        shift = len(turn) * quick
        yield note._replace(start=note.start + shift, at=note.at + shift, length=max(note.length - shift, 0.2))


def call_response(bar: Bar) -> Iterator[Note]:
    """A high voice on the left and a low one on the right alternate every half bar."""
    calling = bar.index % 2 == 0
    for note in melody(bar, CALL if calling else RESPONSE):
        yield note._replace(pan=-0.6 if calling else 0.6, sound="main" if calling else "answer")


def heroic(bar: Bar) -> Iterator[Note]:
    """Broad chord tones, loud, with a quick pick-up before the longer ones."""
    for note in melody(bar, HEROIC):
        loud = note._replace(velocity=min(note.velocity + 0.15, 1.0))
        if note.length >= 0.8 and note.start > bar.start:
            fourth = _neighbour(bar, note.pitch, -3, note.at - bar.start)
            yield loud._replace(start=note.start - 0.25, at=note.at - 0.25, length=0.2, pitch=fourth, velocity=0.6)
        yield loud


def _neighbour(bar: Bar, pitch: float, steps: int, at: float) -> float:
    """The pitch so many scale steps away, ``at`` beats into the bar."""
    relative, scale = round(pitch) - bar.piece.key, bar.chord(at).scale
    near = range(7 * (relative // 12) - 1, 7 * (relative // 12) + 8)
    degree = min(near, key=lambda n: (abs(scale_pitch(scale, n) - relative), n))
    return float(bar.piece.key + scale_pitch(scale, degree + steps))


def _one(sound: Sound) -> dict[str, Sound]:
    return {"main": sound}


STYLES = {
    "procedural": Style(
        plain(PROCEDURAL), _one(Wave("triangle", 2600, 0.02, 0.8, 0.6, 0.25, bite=0.3, vibrato_cents=6, sway=0.4))
    ),
    "contemplative": Style(plain(CONTEMPLATIVE), _one(Shot(electric_piano))),
    "rising": Style(plain(RISING), _one(Shot(kalimba))),
    "falling": Style(plain(FALLING), _one(Shot(harp))),
    "minimal": Style(plain(MINIMAL), _one(Shot(marimba))),
    "ornamental": Style(
        ornamental, _one(Wave("flute", 3000, 0.025, 1.0, 0.85, 0.12, bite=0.2, vibrato_cents=14, sway=0.3))
    ),
    "arp_melody": Style(
        plain(ARP), _one(Wave("saw", 1700, 0.004, 0.22, 0.15, 0.18, 2, 10, 0.5, bite=0.8, bite_seconds=0.09))
    ),
    "contemplative_minor": Style(
        contemplative_minor, _one(Wave("reed", 1500, 0.05, 1.5, 0.8, 0.3, vibrato_cents=5, sway=0.3))
    ),
    "call_response": Style(
        call_response,
        {"main": Shot(vibraphone), "answer": Wave("reed", 1900, 0.03, 0.8, 0.7, 0.2, bite=0.3, vibrato_cents=6)},
    ),
    "heroic": Style(
        heroic, _one(Wave("brass", 1900, 0.045, 0.7, 0.75, 0.2, 2, 7, 0.3, bite=0.6, bite_seconds=0.3, vibrato_cents=6))
    ),
}
