"""Config to score, score to layers, layers to a mix, mix to a finished piece."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latentscore.audio import Audio
from latentscore.config import MusicConfig, MusicConfigPrompt, parse_config
from latentscore.errors import InvalidConfigError
from latentscore.jit import announced
from latentscore.loudness import integrated_lufs, lufs_of_rows
from latentscore.synth import space
from latentscore.synth.bass import SUB
from latentscore.synth.context import RenderContext, movement
from latentscore.synth.notes import LAYERS, Piece
from latentscore.synth.score import Score, closing_beat, compose
from latentscore.synth.signal import Stereo, sweep_stereo
from latentscore.synth.styles import LEVELS_DB, style_of
from latentscore.version import RENDERER_VERSION

TARGET_LUFS = -16.0
CEILING = 10.0 ** (-1.2 / 20.0)
"""A little under the -1 dBFS that is promised, for what four times oversampling does not see."""

SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 600.0
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
HIGHEST_SEED = 2**64 - 1

Group = tuple[tuple[str, ...], float, float]

# Layers that share the way to echo and reverb are mixed as one: (layers, reverb send, echo send).
GROUPS: tuple[Group, ...] = (
    (("bass", "rhythm"), 0.25, 0.12),
    (("pad", "texture"), 0.5, 0.2),
    (("melody", "accent"), 0.5, 0.6),
)

SUB_GAIN = 10.0 ** (-10.5 / 20.0)

TARGET_LUFS_OF = {"bass": -25.0, "pad": -25.5, "melody": -23.0, "rhythm": -26.0, "texture": -29.0, "accent": -26.0}
"""How loud each layer is on its own when density brings it forward; ``styles.LEVELS_DB`` takes every style there."""

_BACKGROUND_DB = -12.0
"""Against its place, a layer that density leaves in the background: quiet, never mute."""


def render(
    config: MusicConfig | MusicConfigPrompt,
    seconds: float,
    seed: int = 0,
    sample_rate: int = 48_000,
    stems: bool = False,
) -> Audio:
    """The piece that a config, a seed and a length stand for: always the same bytes for the same four arguments.

    ``seconds`` from 0.5 to 600, ``sample_rate`` from 8 to 192 kHz, ``seed`` of up to 64 bits. The result is stereo at
    -16 LUFS with a true peak under -1 dBFS. With ``stems``, ``Audio.stems`` holds each layer with its echo and reverb,
    by name; they add up to the mix before tone, loudness and limiter. ``Audio.tags`` holds what the piece was made from.

    Raises :class:`InvalidConfigError` that names the field, "seconds", "sample_rate" or "seed".
    """
    numbers, seconds, seed, sample_rate = _checked(config, seconds, seed, sample_rate)
    tags = {
        "config": parse_config(dict(config)).model_dump(), "seed": seed, "seconds": seconds, "renderer": RENDERER_VERSION,
    }  # fmt: skip
    with announced("compiling the sound loops, once on this machine (about ten seconds) ..."):
        score = compose(numbers, seconds, seed)
        context = RenderContext(score.piece, sample_rate)
        mixed = mix_layers(score, context, GROUPS)
        parts = {}
        if stems:
            for layers, reverb, echo in GROUPS:
                for layer in layers:
                    stem = mix_layers(score, context, [((layer,), reverb, echo)])
                    parts[layer] = Audio(np.ascontiguousarray(stem.T), sample_rate)
        space.bus(mixed, numbers, sample_rate)
        return Audio(finish(mixed, sample_rate), sample_rate, parts, tags)


def _checked(
    config: MusicConfig | MusicConfigPrompt, seconds: float, seed: int, sample_rate: int
) -> tuple[MusicConfig, float, int, int]:
    """The arguments in Python's own numbers: those of numpy wrap around and lose digits in the arithmetic to come."""
    if not isinstance(config, MusicConfig | MusicConfigPrompt):
        raise InvalidConfigError("config", f"a MusicConfig or MusicConfigPrompt is needed, not {type(config).__name__}")
    # Once more: model_copy and model_construct make configs that nobody has looked at.
    config = parse_config(dict(config))
    if isinstance(config, MusicConfigPrompt):
        config = config.to_config()
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | np.floating | np.integer):
        raise InvalidConfigError("seconds", f"a number is needed, not {type(seconds).__name__}")
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise InvalidConfigError("seconds", f"a number from {SHORTEST_SECONDS} to {LONGEST_SECONDS:g} is needed")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, int | np.integer):
        raise InvalidConfigError("sample_rate", "a whole number of hertz is needed")
    if not LOWEST_RATE <= int(sample_rate) <= HIGHEST_RATE:
        raise InvalidConfigError("sample_rate", f"a number from {LOWEST_RATE} to {HIGHEST_RATE} Hz is needed")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) <= HIGHEST_SEED:
        raise InvalidConfigError("seed", "a whole number from 0 to 2**64 - 1 is needed")
    return config, float(seconds), int(seed), int(sample_rate)


def mix_layers(score: Score, context: RenderContext, groups: Sequence[Group]) -> Stereo:
    """Play the layers of each group and mix them with echo, reverb, width and the closing fade."""
    frames = round(score.piece.seconds * context.sample_rate)
    dry = np.zeros((len(groups), 2, frames), np.float32)
    for group, (layers, _, _) in zip(dry, groups, strict=True):
        for layer in layers:
            play_layer(group, layer, score, context)
    return mix_groups(dry, groups, context)


def mix_groups(dry: Stereo, groups: Sequence[Group], context: RenderContext) -> Stereo:
    """The dry sound of groups, shape (groups, 2, frames), in its room and with the closing fade."""
    mixed = space.mix(
        dry, [reverb for _, reverb, _ in groups], [echo for _, _, echo in groups], context.piece.config,
        context.seconds_per_beat, context.sample_rate,
    )  # fmt: skip
    piece = context.piece
    _fade_out(mixed, piece.seconds - closing_beat(piece) * context.seconds_per_beat, context.sample_rate)
    return mixed


def play_layer(out: Stereo, layer: str, score: Score, context: RenderContext) -> None:
    """Add one layer, dry, to ``out``. The pad must come first into its buffer: its filter moves over what is there."""
    piece = score.piece
    style = style_of(layer, getattr(piece.config, layer))
    label = getattr(piece.config, layer)
    gain = 10.0 ** ((LEVELS_DB[layer].get(label, 0.0) + _prominence_db(layer, piece.config.density)) / 20.0)
    notes = score.layers[layer]
    for name, sound in style.sounds.items():
        sound.add(out, [note for note in notes if note.sound == name], gain, context)
    if layer == "bass" and piece.config.depth:
        # The bass an octave lower, but no lower than loudspeakers go.
        deep = [note._replace(pitch=note.pitch - 12 if note.pitch >= 36 else note.pitch) for note in notes]
        SUB.add(out, deep, SUB_GAIN, context)
    if layer == "pad":
        _sweep(out, piece, context.sample_rate)


def _prominence_db(layer: str, density: int) -> float:
    """How density places a layer: bass and pad always carry; each step brings one more layer forward, and those that
    are forward a little further."""
    rank = LAYERS.index(layer)
    if rank < 2:
        return 0.0
    if rank < density:
        return 0.8 * (density - rank - 1) - 1.5
    return _BACKGROUND_DB - 1.5 * (rank - density)


def _sweep(out: Stereo, piece: Piece, rate: int) -> None:
    """Tension and motion over the pad: its filter opens and closes, its level swells, its sides drift."""
    block = 64
    seconds = (np.arange(math.ceil(out.shape[1] / block)) + 1) * block / rate
    depth, hertz = movement(piece.config.motion)
    turn = np.sin(math.tau * hertz * seconds)
    other = np.sin(math.tau * hertz * 0.83 * seconds + 1.0)
    beats = seconds * piece.bpm / 60.0
    grid = np.arange(0.0, beats[-1] + 1.0, 0.25)
    tension = np.interp(beats, grid, [piece.tension(beat) for beat in grid])
    opening = 2.0 ** (2.5 * (piece.config.brightness - 0.5) + 1.6 * (tension - 0.6))
    base = 4200.0 * opening
    cutoff_left = np.clip(base * 2.0 ** (1.8 * depth * turn), 60.0, 0.44 * rate)
    cutoff_right = np.clip(base * 2.0 ** (1.8 * depth * other), 60.0, 0.44 * rate)
    swell = (0.5 + 0.5 * tension) * (1.0 - 0.85 * depth * (0.5 - 0.5 * turn))
    drift = 0.3 * depth * other
    sweep_stereo(out, cutoff_left, cutoff_right, swell * (1 - drift), swell * (1 + drift), 0.8, block, float(rate))


def _fade_out(samples: Stereo, seconds: float, rate: int) -> None:
    """Fade the last nine tenths of ``seconds`` to zero along a cosine, tails included."""
    frames = min(round(0.9 * seconds * rate), samples.shape[1] // 2)
    curve = 0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, frames))
    samples[:, -frames:] *= curve.astype(np.float32)


def finish(mixed: Stereo, rate: int) -> NDArray[np.float32]:
    """To the target loudness under the ceiling; where the limiter takes loudness away, once more with that added.

    Shape (2, frames) to (frames, 2), which is what files and players take.
    """
    before = lufs_of_rows(mixed, rate)
    if not math.isfinite(before):
        return np.ascontiguousarray(mixed.T)
    out = np.empty((mixed.shape[1], 2), np.float32)
    gain_db = TARGET_LUFS - before
    for _ in range(5):
        least = space.limit(mixed, out, 10.0 ** (gain_db / 20.0), CEILING)
        if least > 0.9:
            break
        missing = TARGET_LUFS - integrated_lufs(out, rate)
        if abs(missing) < 0.1:
            break
        gain_db += min(1.3 * missing, 9.0)
    return out
