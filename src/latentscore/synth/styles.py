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
        "drone": -4.4,
        "sustained": -7.4,
        "pulsing": -3.8,
        "walking": 0.4,
        "fifth_drone": -7.3,
        "sub_pulse": -5.9,
        "octave": -5.7,
        "arp_bass": -5.1,
    },
    "pad": {
        "warm_slow": -9.3,
        "dark_sustained": -9.3,
        "cinematic": -10.4,
        "thin_high": -8.1,
        "ambient_drift": -8.9,
        "stacked_fifths": -8.3,
        "bright_open": -9.7,
    },
    "melody": {
        "procedural": -4.8,
        "contemplative": 0.1,
        "rising": 2.2,
        "falling": 10.9,
        "minimal": 3.8,
        "ornamental": -5.8,
        "arp_melody": -0.1,
        "contemplative_minor": -6.9,
        "call_response": -2.0,
        "heroic": -6.4,
    },
    "rhythm": {
        "minimal": 3.6,
        "heartbeat": 3.4,
        "soft_four": -4.8,
        "hats_only": 6.0,
        "electronic": -6.3,
        "kit_light": 1.4,
        "kit_medium": -4.3,
        "military": -3.9,
        "tabla_essence": -2.9,
        "brush": 5.2,
    },
    "texture": {
        "shimmer": 0.1,
        "shimmer_slow": -3.7,
        "vinyl_crackle": 14.6,
        "breath": 9.5,
        "stars": 2.1,
        "glitch": 2.3,
        "noise_wash": 14.6,
        "crystal": 3.4,
        "pad_whisper": 14.3,
    },
    "accent": {
        "bells": 5.9,
        "pluck": 12.7,
        "chime": 1.0,
        "bells_dense": 0.7,
        "blip": 9.6,
        "blip_random": 8.8,
        "brass_hit": -7.5,
        "wind": 12.7,
        "arp_accent": 0.3,
        "piano_note": 4.4,
    },
}
"""Decibels that bring each style to the place of its layer in the mix; printed by ``benchmarks/levels.py``."""


def style_of(layer: str, label: str) -> Style:
    """The style behind a label of a style field."""
    return STYLES[layer][label]
