"""The form of a piece: its sections, the layers that play in each bar, and the tension of each beat.

Everything is a function of the config, the seed and the bar, so a shorter piece equals the beginning of a longer one,
and streams can be endless. Four sections of eight bars make a cycle; the tension curve sets the order of their roles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal
from zlib import crc32

import numpy as np

from latentscore.config import MusicConfig
from latentscore.labels import beats_per_minute

LAYERS = ("bass", "pad", "melody", "rhythm", "texture", "accent")
"""The six layers, in the order in which density moves them to the foreground."""

STREAMS = {name: n for n, name in enumerate((*LAYERS, "harmony", "feel", "form"))}
"""The number of each random stream: its place in the seed's tree."""

BEATS_PER_BAR = 4

SECTION_BARS = 8
"""How many bars one section has."""

Role = Literal["opening", "statement", "departure", "height", "breath"]

# Roles of the four sections of a cycle. The first section of the piece is its opening; later cycles begin with a
# breath.
_ROLES: dict[str, tuple[Role, Role, Role, Role]] = {
    "arc": ("breath", "statement", "height", "departure"),
    "ramp": ("breath", "departure", "statement", "height"),
    "waves": ("breath", "statement", "departure", "height"),
}

_LONG_BAR_SECONDS = 2.4
"""In slower pieces the bass does not wait for a second bar."""


def stream(seed: int, name: str, *where: int) -> np.random.Generator:
    """The independent random stream of a layer (or "harmony", "feel", "form") at a place, usually a bar."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS[name], *where)))


@dataclass(frozen=True)
class Section:
    """Eight bars: the number of the section, its role, and the layers that rest in it."""

    index: int
    role: Role
    resting: frozenset[str]


@dataclass(frozen=True)
class Form:
    """The sections of a piece. Nothing here depends on the length of the piece."""

    config: MusicConfig
    seed: int

    @cached_property
    def _entries(self) -> dict[str, int]:
        """Return the bar in which each layer enters: the pad and one other layer first, the bass after at most two
        bars.

        The order depends on key and harmony, not on the seed, so all seeds of a config open with the same layers.
        """
        config = self.config
        rng = np.random.default_rng(crc32(f"{config.mode} {config.root} {config.harmony_style} 52".encode()))
        second = ("bass", "melody", "texture", "accent")[int(rng.permutation(4)[0])]
        slow = 60.0 * BEATS_PER_BAR / beats_per_minute(config.tempo) > _LONG_BAR_SECONDS
        return dict.fromkeys(LAYERS, 1) | {"bass": 1 if slow else 2} | {"pad": 0, second: 0}

    def section(self, bar: int) -> Section:
        """The section that a bar belongs to."""
        return _section(self.config.tension_curve, self.config.density, self.seed, bar // SECTION_BARS)

    def plays(self, layer: str, bar: int) -> bool:
        """Return whether a layer plays in a bar; False before the piece."""
        if bar < 0:
            return False
        if bar < SECTION_BARS:
            return bar >= self._entries[layer]
        section = self.section(bar)
        breaks = section.role == "statement" and bar % SECTION_BARS >= SECTION_BARS // 2
        return layer not in section.resting and not (breaks and layer in self._pausing(section.index))

    def _pausing(self, section: int) -> tuple[str, str]:
        """Return the layers that pause in the second half of a statement and enter again in the next section: the drums,
        and texture or accent."""
        return "rhythm", ("texture", "accent")[int(stream(self.seed, "form", 2, section).integers(2))]

    def enters(self, layer: str, bar: int) -> bool:
        """Whether a layer plays in a bar and did not play in the bar before."""
        return self.plays(layer, bar) and not self.plays(layer, bar - 1)

    def tension(self, beat: float) -> float:
        """Intensity from 0.2 to 1 at a beat: the tension curve over each cycle of sections, and smaller over each section."""
        bar = beat / BEATS_PER_BAR
        cycle = (bar / (4 * SECTION_BARS)) % 1.0
        section = (bar / SECTION_BARS) % 1.0
        curve = self.config.tension_curve
        if curve == "arc":
            level = 0.55 * math.sin(math.pi * cycle) ** 1.3 + 0.45 * math.sin(math.pi * section) ** 1.3
        elif curve == "ramp":
            # The last half bar falls back, so that a section does not begin with a step.
            level = 0.55 * _ramp(cycle, 4 * SECTION_BARS) + 0.45 * _ramp(section, SECTION_BARS)
        else:
            level = 0.5 - 0.34 * math.cos(math.tau * 2 * cycle) - 0.16 * math.cos(math.tau * section * SECTION_BARS / 2)
        return (0.2 + 0.8 * level) * self._drive(bar)

    def _drive(self, bar: float) -> float:
        """Return the tension of a phrase at a position, 0 to 1: it rises and falls, more with a stronger cadence."""
        config = self.config
        phrase, place = divmod(bar / config.phrase_len_bars, 1.0)
        if not has_cadence(int(phrase), config.cadence_strength):
            return 1.0
        drive = 0.25 + 0.75 * place / 0.6 if place < 0.6 else math.cos(0.5 * math.pi * (place - 0.6) / 0.4) ** 2
        return 1.0 - config.cadence_strength**2 * (1.0 - drive)


def has_cadence(phrase: int, strength: float) -> bool:
    """Return whether a phrase ends with a cadence: a share of ``strength`` of them, distributed evenly."""
    return dealt(phrase, strength)


def dealt(number: int, share: float) -> bool:
    """Return whether item ``number`` belongs to a share of all items, which is distributed evenly."""
    return math.floor((number + 1) * share + 0.5) > math.floor(number * share + 0.5)


def _ramp(x: float, bars: int) -> float:
    fall = 0.5 / bars
    return x / (1.0 - fall) if x < 1.0 - fall else (1.0 - x) / fall


@lru_cache(maxsize=256)
def _section(tension_curve: str, density: int, seed: int, index: int) -> Section:
    role = "opening" if index == 0 else _ROLES[tension_curve][index % 4]
    return Section(index, role, _resting(density, role, seed, index))


def _resting(density: int, role: Role, seed: int, index: int) -> frozenset[str]:
    """Return the layers that rest in a section: none in a height, more at lower density. Bass or pad always plays."""
    count = {"departure": (8 - density) // 2, "breath": (10 - density) // 2}.get(role, 0)
    order = [LAYERS[int(n)] for n in stream(seed, "form", 1, index).permutation(len(LAYERS))]
    stays = next(layer for layer in order if layer in ("bass", "pad"))
    order.remove(stays)
    return frozenset(order[:count])
