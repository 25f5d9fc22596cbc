"""All styles by layer and label: the six tables in one."""

from collections.abc import Mapping

from latentscore.synth import accents, bass, drums, pads, textures, tunes
from latentscore.synth.context import Style

STYLES: Mapping[str, Mapping[str, Style]] = {
    "bass": bass.STYLES,
    "pad": pads.STYLES,
    "melody": tunes.STYLES,
    "rhythm": drums.STYLES,
    "texture": textures.STYLES,
    "accent": accents.STYLES,
}

LEVELS_DB: Mapping[str, Mapping[str, float]] = {
    "bass": {
        "drone": -4.5,
        "sustained": -7.8,
        "pulsing": -3.9,
        "walking": 0.1,
        "fifth_drone": -7.5,
        "sub_pulse": -6.2,
        "octave": -5.8,
        "arp_bass": -5.3,
    },
    "pad": {
        "warm_slow": -9.0,
        "dark_sustained": -9.3,
        "cinematic": -10.4,
        "thin_high": -8.9,
        "ambient_drift": -8.9,
        "stacked_fifths": -8.6,
        "bright_open": -10.0,
    },
    "melody": {
        "procedural": -5.3,
        "contemplative": -0.4,
        "rising": 1.6,
        "falling": 10.3,
        "minimal": 3.2,
        "ornamental": -6.1,
        "arp_melody": -0.7,
        "contemplative_minor": -7.0,
        "call_response": -2.4,
        "heroic": -6.7,
    },
    "rhythm": {
        "minimal": 1.0,
        "heartbeat": 0.6,
        "soft_four": -7.6,
        "hats_only": 1.6,
        "electronic": -10.3,
        "kit_light": -3.0,
        "kit_medium": -8.8,
        "military": -8.3,
        "tabla_essence": -8.3,
        "brush": 0.8,
    },
    "texture": {
        "shimmer": -2.2,
        "shimmer_slow": -6.3,
        "vinyl_crackle": 12.7,
        "breath": 7.6,
        "stars": -0.9,
        "glitch": -0.3,
        "noise_wash": 12.5,
        "crystal": -0.1,
        "pad_whisper": 12.1,
    },
    "accent": {
        "bells": 3.0,
        "pluck": 9.7,
        "chime": -1.4,
        "bells_dense": -2.0,
        "blip": 7.1,
        "blip_random": 6.0,
        "brass_hit": -11.0,
        "wind": 10.2,
        "arp_accent": -3.2,
        "piano_note": 3.4,
    },
}
"""Decibels that bring each style to the place of its layer in the mix; printed by ``benchmarks/levels.py``."""


def style_of(layer: str, label: str) -> Style:
    """The style behind a label of a style field."""
    return STYLES[layer][label]
