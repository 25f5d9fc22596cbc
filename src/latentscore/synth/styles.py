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
        "drone": -4.9,
        "sustained": -8.2,
        "pulsing": -4.7,
        "walking": -0.8,
        "fifth_drone": -8.2,
        "sub_pulse": -5.4,
        "octave": -6.8,
        "arp_bass": -6.3,
    },
    "pad": {
        "warm_slow": -10.9,
        "dark_sustained": -11.0,
        "cinematic": -12.1,
        "thin_high": -10.6,
        "ambient_drift": -10.7,
        "stacked_fifths": -10.8,
        "bright_open": -11.7,
    },
    "melody": {
        "procedural": -7.6,
        "contemplative": -2.6,
        "rising": -0.6,
        "falling": 7.8,
        "minimal": 1.1,
        "ornamental": -8.1,
        "arp_melody": -3.1,
        "contemplative_minor": -9.2,
        "call_response": -4.4,
        "heroic": -9.2,
    },
    "rhythm": {
        "minimal": -1.9,
        "heartbeat": -2.7,
        "soft_four": -3.7,
        "hats_only": 3.6,
        "electronic": -6.6,
        "kit_light": -0.5,
        "kit_medium": -6.4,
        "military": -6.2,
        "tabla_essence": -5.3,
        "brush": 2.9,
    },
    "texture": {
        "shimmer": -2.0,
        "shimmer_slow": -6.3,
        "vinyl_crackle": 13.0,
        "breath": 7.9,
        "stars": -2.4,
        "glitch": -2.3,
        "noise_wash": 12.8,
        "crystal": -2.8,
        "pad_whisper": 12.2,
    },
    "accent": {
        "bells": 1.4,
        "pluck": 8.8,
        "chime": -2.1,
        "bells_dense": 1.4,
        "blip": 8.6,
        "blip_random": 7.7,
        "brass_hit": -7.8,
        "wind": 14.8,
        "arp_accent": -0.1,
        "piano_note": -0.4,
    },
}
"""Decibels that bring each style to the place of its layer in the mix; printed by ``benchmarks/levels.py``."""


def style_of(layer: str, label: str) -> Style:
    """The style behind a label of a style field."""
    return STYLES[layer][label]
