"""The rhythm layer: ten patterns and their drums, one function each.

A pattern has one character per sixteenth: a letter is a stroke, a capital letter a loud one, a dot a rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from latentscore.synth import shots
from latentscore.synth.context import Style
from latentscore.synth.notes import Bar, Note
from latentscore.synth.voices import Air, Shot


def _pattern(bar: Bar, sound: str, line: str, pitch: float = 60.0, pan: float = 0.0) -> Iterator[Note]:
    """Yield the strokes of ``line``, sixteen characters: X loud, x medium, o soft, a dot for none. Soft strokes are played
    only in dense pieces."""
    for slot, sign in enumerate(line):
        if sign == "." or (sign == "o" and not bar.full):
            continue
        velocity = {"X": 0.92, "x": 0.72, "o": 0.46}[sign]
        # Strokes vary in strength; the field human controls how much.
        yield bar.note(slot / 4, 0.25, pitch, velocity * float(bar.rng.uniform(0.96, 1.0)), pan, sound)


def _syncopated(bar: Bar, sound: str, pitch: float = 60.0) -> Iterator[Note]:
    """Yield extra strokes between the beats, in proportion to syncopation."""
    for slot in (3, 6, 7, 10, 14):
        if bar.rng.random() < 0.85 * bar.config.syncopation:
            yield bar.note(slot / 4, 0.25, pitch, 0.6, 0.1, sound)


def _fill(bar: Bar) -> bool:
    """Whether this bar ends a phrase."""
    return bar.index % bar.config.phrase_len_bars == bar.config.phrase_len_bars - 1


def none(bar: Bar) -> Iterator[Note]:
    """Silence."""
    return iter(())


def minimal(bar: Bar) -> Iterator[Note]:
    """A soft stroke on one, a distant click on three, a tick between them."""
    yield from _pattern(bar, "kick", "X...............")
    yield from _pattern(bar, "tick", "....X.......X...", pan=-0.3)
    yield from _pattern(bar, "click", "........X.....x." if bar.index % 2 else "........X.......", pan=0.35)
    yield from _syncopated(bar, "click")


def heartbeat(bar: Bar) -> Iterator[Note]:
    """Lub-dub, twice a bar."""
    yield from _pattern(bar, "lub", "X.......X.......")
    yield from _pattern(bar, "dub", "..x.......x.....")
    yield from _syncopated(bar, "dub")


def soft_four(bar: Bar) -> Iterator[Note]:
    """A muffled kick on every beat, and an open hi-hat after each."""
    yield from _pattern(bar, "kick", "X...x...X...x...")
    yield from _pattern(bar, "hat", "..x...x...x...x.", pan=0.3)
    yield from _syncopated(bar, "hat")


def hats_only(bar: Bar) -> Iterator[Note]:
    """Closed hats in eighths and an open one before the next bar."""
    yield from _pattern(bar, "hat", "X.x.x.x.X.x.x...", pan=0.25)
    yield from _pattern(bar, "hat", ".o...o...o...o..", pan=-0.25)
    yield from _pattern(bar, "open", "..............x.", pan=0.25)
    yield from _syncopated(bar, "hat")


def electronic(bar: Bar) -> Iterator[Note]:
    """A long kick, claps on two and four, drum-machine hats."""
    yield from _pattern(bar, "kick", "X.....x...X....." if bar.index % 2 else "X.....x...x..o..")
    yield from _pattern(bar, "clap", "....X.......X...", pan=-0.1)
    yield from _pattern(bar, "hat", "x.x.x.x.x.x.xoxo", pan=0.4)
    yield from _syncopated(bar, "hat")


def kit_light(bar: Bar) -> Iterator[Note]:
    """A small kit played quietly: kick, rim, ride."""
    yield from _pattern(bar, "kick", "x.........x.....")
    yield from _pattern(bar, "rim", "....x.......x...", pan=-0.2)
    yield from _pattern(bar, "ride", "x...x.o.x...x.o.", 81.0, pan=0.4)
    yield from _syncopated(bar, "rim")


def kit_medium(bar: Bar) -> Iterator[Note]:
    """The whole kit, with a fill over the toms at the end of each phrase."""
    yield from _pattern(bar, "kick", "X.....x.x.X.....")
    yield from _pattern(bar, "snare", "....X.......X..." if not _fill(bar) else "....X...........", pan=-0.1)
    yield from _pattern(bar, "hat", "x.x.x.x.x.x.x.x." if not _fill(bar) else "x.x.x.x.x.......", pan=0.35)
    yield from _syncopated(bar, "snare")
    if _fill(bar):
        for slot, pitch, pan in (
            (10, 52, -0.4),
            (11, 52, -0.4),
            (12, 48, 0.0),
            (13, 48, 0.0),
            (14, 43, 0.4),
            (15, 43, 0.4),
        ):
            yield bar.note(slot / 4, 0.25, pitch, 0.75, pan, "tom")


def military(bar: Bar) -> Iterator[Note]:
    """A march on a field drum: strokes, and a roll into every second bar."""
    yield from _pattern(bar, "kick", "X.......X.......")
    yield from _pattern(bar, "snare", "X..xx.x.X..xxxxx" if bar.index % 2 == 0 else "X..xx.x.X.......", pan=-0.15)
    yield from _syncopated(bar, "snare")
    if bar.index % 2:
        for stroke in range(12):
            yield bar.note(2.5 + stroke / 8, 0.1, 60.0, 0.42 + 0.035 * stroke, -0.15, "snare")


def tabla_essence(bar: Bar) -> Iterator[Note]:
    """Two drums: ringing and closed strokes on the right, strokes with a pitch bend on the left."""
    tuned = 60.0 + bar.piece.key if bar.piece.key < 6 else 48.0 + bar.piece.key
    yield from _pattern(bar, "bayan", "X.....x...X....." if bar.index % 2 else "X.........X..x..", tuned - 12, pan=-0.4)
    yield from _pattern(bar, "dayan", "X..x..x.x..x.x..", tuned, pan=0.35)
    yield from _pattern(bar, "closed", "..x.o..x..x.o.xo", tuned, pan=0.35)
    yield from _syncopated(bar, "dayan", tuned)


def brush(bar: Bar) -> Iterator[Note]:
    """Brushes: a circle on the snare for every two beats, taps on two and four."""
    for half in (0.0, 2.0):
        yield bar.note(half, 1.9, 96.0, 0.7, 0.15 - 0.15 * half, "swirl")
    yield from _pattern(bar, "tap", "....X..o....X.o.", pan=-0.1)
    yield from _pattern(bar, "kick", "o.......o.......")
    yield from _syncopated(bar, "tap")


_SWIRL = Air(((0, 0.0, 0.7), (0.25, 0.9, 1.0), (0.6, 0.5, 1.4), (1.0, 0.0, 0.8)), resonance=0.6, level=0.16)


def _drums(**made: object) -> Mapping[str, Shot]:
    return {name: Shot(make, attack=0.25, tuning=1.0) for name, make in made.items()}  # type: ignore[arg-type]


STYLES = {
    "none": Style(none, {}),
    "minimal": Style(minimal, _drums(kick=shots.soft_kick, click=shots.click, tick=shots.hat)),
    "heartbeat": Style(heartbeat, _drums(lub=shots.lub, dub=shots.dub)),
    "soft_four": Style(soft_four, _drums(kick=shots.soft_kick, hat=shots.open_hat)),
    "hats_only": Style(hats_only, _drums(hat=shots.hat, open=shots.open_hat)),
    "electronic": Style(electronic, _drums(kick=shots.deep_kick, clap=shots.clap, hat=shots.electronic_hat)),
    "kit_light": Style(kit_light, _drums(kick=shots.soft_kick, rim=shots.rim, ride=shots.ride)),
    "kit_medium": Style(kit_medium, _drums(kick=shots.kick, snare=shots.snare, hat=shots.hat, tom=shots.tom)),
    "military": Style(military, _drums(kick=shots.soft_kick, snare=shots.field_snare)),
    "tabla_essence": Style(tabla_essence, _drums(bayan=shots.bayan, dayan=shots.dayan, closed=shots.dayan_closed)),
    "brush": Style(brush, {**_drums(kick=shots.soft_kick, tap=shots.brush_tap), "swirl": _SWIRL}),
}
