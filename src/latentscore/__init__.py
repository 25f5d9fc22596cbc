"""Render music from a sentence or from a config of labels.

Importing the package does not import numpy or numba: each module is imported when one of its names is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latentscore.errors import AudioError, InvalidConfigError, LatentScoreError, MapError, ModelError
from latentscore.version import RENDERER_VERSION

if TYPE_CHECKING:
    from latentscore.api.answers import Answer
    from latentscore.api.compat import SAMPLE_RATE, RenderHooks, Streamable, StreamHooks, prefetch, save_wav
    from latentscore.api.runtime import answer, arender, render
    from latentscore.api.streaming import AudioStream, LiveStream, Playlist, Track, astream, live, stream
    from latentscore.audio import Audio, Metadata, read_audio, write_audio
    from latentscore.config import (
        MusicConfig,
        MusicConfigPrompt,
        MusicConfigPromptPayload,
        MusicConfigUpdate,
        Palette,
        PaletteColor,
        Step,
        convert_config,
        parse_config,
        parse_payload,
        random_config,
        schema_hash,
    )
    from latentscore.labels import FIELDS
    from latentscore.loudness import integrated_lufs, true_peak
    from latentscore.synth.excerpt import render_excerpt
    from latentscore.synth.midi import write_midi
    from latentscore.synth.notes import LAYERS
    from latentscore.synth.score import Score, compose
    from latentscore.synth.stream import Stream
    from latentscore.vibe_map import Match, VibeMap, load_map, lookup, starter_map, starter_pairs

_NAMES = {
    "api.answers": "Answer",
    "audio": "Audio Metadata read_audio write_audio",
    "config": "MusicConfig MusicConfigPrompt MusicConfigPromptPayload MusicConfigUpdate Step Palette PaletteColor "
    "convert_config parse_config parse_payload random_config schema_hash",
    "labels": "FIELDS",
    "loudness": "integrated_lufs true_peak",
    "api.compat": "answer render arender stream astream live prefetch save_wav RenderHooks StreamHooks SAMPLE_RATE Streamable Track",
    "api.streaming": "Playlist AudioStream LiveStream",
    "synth.score": "Score compose",
    "synth.excerpt": "render_excerpt",
    "synth.stream": "Stream",
    "synth.notes": "LAYERS",
    "synth.midi": "write_midi",
    "vibe_map": "Match VibeMap load_map lookup starter_map starter_pairs",
}
"""What comes from which module when it is first asked for."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "FIELDS",
    "LAYERS",
    "RENDERER_VERSION",
    "SAMPLE_RATE",
    "Answer",
    "Audio",
    "AudioError",
    "AudioStream",
    "InvalidConfigError",
    "LatentScoreError",
    "LiveStream",
    "MapError",
    "Match",
    "Metadata",
    "ModelError",
    "MusicConfig",
    "MusicConfigPrompt",
    "MusicConfigPromptPayload",
    "MusicConfigUpdate",
    "Palette",
    "PaletteColor",
    "Playlist",
    "RenderHooks",
    "Score",
    "Step",
    "Stream",
    "StreamHooks",
    "Streamable",
    "Track",
    "VibeMap",
    "answer",
    "arender",
    "astream",
    "compose",
    "convert_config",
    "integrated_lufs",
    "live",
    "load_map",
    "lookup",
    "parse_config",
    "parse_payload",
    "prefetch",
    "random_config",
    "read_audio",
    "render",
    "render_excerpt",
    "save_wav",
    "schema_hash",
    "starter_map",
    "starter_pairs",
    "stream",
    "true_peak",
    "write_audio",
    "write_midi",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(f"latentscore.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'latentscore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
