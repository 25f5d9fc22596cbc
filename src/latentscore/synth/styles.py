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
        "drone": -4.8,
        "sustained": -8.4,
        "pulsing": -4.2,
        "walking": -0.1,
        "fifth_drone": -7.7,
        "sub_pulse": -6.3,
        "octave": -6.2,
        "arp_bass": -5.6,
    },
    "pad": {
        "warm_slow": -9.5,
        "dark_sustained": -9.1,
        "cinematic": -10.5,
        "thin_high": -8.5,
        "ambient_drift": -8.9,
        "stacked_fifths": -8.4,
        "bright_open": -9.8,
    },
    "melody": {
        "procedural": -6.6,
        "contemplative": -1.6,
        "rising": 0.5,
        "falling": 8.6,
        "minimal": 2.1,
        "ornamental": -7.2,
        "arp_melody": -1.7,
        "contemplative_minor": -8.2,
        "call_response": -3.7,
        "heroic": -7.4,
    },
    "rhythm": {
        "minimal": 4.7,
        "heartbeat": 1.2,
        "soft_four": -9.5,
        "hats_only": 3.8,
        "electronic": -6.7,
        "kit_light": -0.6,
        "kit_medium": -6.3,
        "military": -5.9,
        "tabla_essence": -2.0,
        "brush": 3.2,
    },
    "texture": {
        "shimmer": -1.0,
        "shimmer_slow": -3.8,
        "vinyl_crackle": 13.6,
        "breath": 8.3,
        "stars": 1.9,
        "glitch": 2.8,
        "noise_wash": 13.4,
        "crystal": 5.4,
        "pad_whisper": 13.0,
    },
    "accent": {
        "bells": 5.6,
        "pluck": 11.4,
        "chime": 1.1,
        "bells_dense": -0.4,
        "blip": 3.9,
        "blip_random": 5.8,
        "brass_hit": -9.1,
        "wind": 10.7,
        "arp_accent": 0.4,
        "piano_note": 6.0,
    },
}
"""Gain in dB that brings each style to the target loudness of its layer; printed by ``benchmarks/levels.py``."""


def style_of(layer: str, label: str) -> Style:
    """The style behind a label of a style field."""
    return STYLES[layer][label]
