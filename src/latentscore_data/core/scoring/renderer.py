"""What a rendering process does with one config: play it, look whether it is sound, and listen to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import latentscore
from latentscore import Audio, InvalidConfigError, parse_config
from latentscore_data.core.scoring.types import Unscored, Vectors

SAMPLE_RATE = 48_000
SILENCE_PEAK = 10 ** (-60 / 20)
"""A piece whose loudest sample is below -60 dBFS is silent."""

Render = Callable[..., Audio]
"""``latentscore.render`` or something that is called like it: ``render(config, seconds=, seed=, sample_rate=)``."""

Listener = Callable[[Audio], "Vectors"]


@dataclass(frozen=True)
class Rendered:
    """One played config: the vectors of the listeners by name, the audio where it was asked for, or why there is none."""

    seconds: float
    vectors: dict[str, Vectors] = field(default_factory=dict)
    audio: Audio | None = None
    failure: Unscored | None = None


def make_renderer(render: Render | None) -> Callable[..., Rendered]:
    """Called once in each rendering process; ``None`` stands for ``latentscore.render``."""
    if render is None:
        render = latentscore.render
    play = render

    def work(
        config: Mapping[str, Any], seconds: float, seed: int, embedders: Mapping[str, Listener], want_audio: bool
    ) -> Rendered:
        started = time.perf_counter()
        try:
            audio = play(parse_config(config), seconds=seconds, seed=seed, sample_rate=SAMPLE_RATE)
        except InvalidConfigError as error:
            return Rendered(time.perf_counter() - started, failure=Unscored("config", str(error)))
        except Exception as error:
            failure = Unscored("render", f"the renderer failed: {type(error).__name__}: {error}"[:300])
            return Rendered(time.perf_counter() - started, failure=failure)
        took = time.perf_counter() - started
        failure = sound_failure(audio)
        if failure is not None:
            return Rendered(took, failure=failure, audio=audio if want_audio else None)
        vectors = {name: embed(audio) for name, embed in embedders.items()}
        return Rendered(took, vectors, audio if want_audio else None)

    return work


def sound_failure(audio: Audio) -> Unscored | None:
    """Why the audio cannot be scored: it is empty, not finite or silent. None when it is sound."""
    if not len(audio.samples):
        return Unscored("sound", "the audio is empty")
    peak = float(np.abs(audio.samples).max())
    if not np.isfinite(peak):
        return Unscored("sound", "the audio is not finite")
    if peak < SILENCE_PEAK:
        return Unscored("sound", "the audio is silent")
    return None
