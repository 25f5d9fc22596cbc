"""All styles by layer and label."""

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
        "warm_slow": -9.6,
        "dark_sustained": -9.2,
        "cinematic": -10.6,
        "thin_high": -8.6,
        "ambient_drift": -9.0,
        "stacked_fifths": -8.6,
        "bright_open": -10.0,
    },
    "melody": {
        "procedural": -4.9,
        "contemplative": 0.0,
        "rising": 2.0,
        "falling": 10.0,
        "minimal": 3.7,
        "ornamental": -5.4,
        "arp_melody": -0.2,
        "contemplative_minor": -6.3,
        "call_response": -2.0,
        "heroic": -5.9,
    },
    "rhythm": {
        "minimal": 4.4,
        "heartbeat": 1.9,
        "soft_four": -9.0,
        "hats_only": 4.3,
        "electronic": -7.3,
        "kit_light": -0.1,
        "kit_medium": -5.8,
        "military": -5.4,
        "tabla_essence": -1.4,
        "brush": 3.7,
    },
    "texture": {
        "shimmer": 0.1,
        "shimmer_slow": -3.7,
        "vinyl_crackle": 14.6,
        "breath": 9.3,
        "stars": 2.1,
        "glitch": 3.3,
        "noise_wash": 14.4,
        "crystal": 5.4,
        "pad_whisper": 14.0,
    },
    "accent": {
        "bells": 6.5,
        "pluck": 14.3,
        "chime": 1.9,
        "bells_dense": 1.2,
        "blip": 6.0,
        "blip_random": 9.0,
        "brass_hit": -8.0,
        "wind": 11.9,
        "arp_accent": 0.8,
        "piano_note": 5.4,
    },
}
"""Gain in dB that brings each style to the target loudness of its layer; printed by ``benchmarks/levels.py``."""


def style_of(layer: str, label: str) -> Style:
    """The style behind a label of a style field."""
    return STYLES[layer][label]
