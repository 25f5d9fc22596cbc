"""A renderer and scorers for tests of the studio. Module-level functions, because worker processes import them by name."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latentscore import Audio, MusicConfig, MusicConfigPrompt
from latentscore_data.core.scoring.types import Outcome, Score


def render_by_root(
    config: MusicConfig | MusicConfigPrompt, seconds: float, seed: int = 0, sample_rate: int = 48_000
) -> Audio:
    """A tone whose loudness is the config's echo; some roots misbehave: d silent, e NaN, f raises, g dies, a hangs."""
    root = config.root
    if root == "f":
        raise ValueError("no sound today")
    if root == "g":
        os._exit(3)
    if root == "a":
        time.sleep(60)
    return _tone({"d": 0.0, "e": np.nan}.get(root, 0.1 + 0.5 * _number(config)), seconds, sample_rate)


def render_by_echo(
    config: MusicConfig | MusicConfigPrompt, seconds: float, seed: int = 0, sample_rate: int = 48_000
) -> Audio:
    """The same tone, and no root misbehaves."""
    return _tone(0.1 + 0.5 * _number(config), seconds, sample_rate)


def render_slowly(
    config: MusicConfig | MusicConfigPrompt, seconds: float, seed: int = 0, sample_rate: int = 48_000
) -> Audio:
    """The same tone, half a second later."""
    time.sleep(0.5)
    return render_by_echo(config, seconds, seed, sample_rate)


def _tone(level: float, seconds: float, sample_rate: int) -> Audio:
    tone = np.sin(2 * np.pi * 220 * np.arange(int(seconds * sample_rate)) / sample_rate).astype(np.float32)
    return Audio(np.stack([tone, tone], axis=1) * np.float32(level), sample_rate)


def _number(config: MusicConfig | MusicConfigPrompt) -> float:
    numbers = config.to_config() if isinstance(config, MusicConfigPrompt) else config
    return float(numbers.echo)


class LoudnessScorer:
    """The louder the better. Remembers what it was asked."""

    name = "loudness"
    fingerprint = "loudness-1"

    def __init__(self, name: str = "loudness", sign: float = 1.0) -> None:
        self.name, self.fingerprint, self.sign = name, f"{name}-1", sign
        self.vibes: list[str] = []

    def score(
        self, vibes: Sequence[str], audios: Sequence[Audio], configs: Sequence[Mapping[str, Any]] = ()
    ) -> Sequence[Outcome]:
        self.vibes += vibes
        return [Score(self.sign * float(np.abs(audio.samples).max()), {"level": 1.0}) for audio in audios]


class PeakEmbedder:
    """An embedding scorer that listens in this process: the vector is (peak, seconds)."""

    name = "peak"
    fingerprint = "peak-1"
    embedding_fingerprint = "peak-ear-1"
    embed_in_worker = None

    def __init__(self) -> None:
        self.embedded = 0
        self.compared = 0

    def score(
        self, vibes: Sequence[str], audios: Sequence[Audio], configs: Sequence[Mapping[str, Any]] = ()
    ) -> Sequence[Outcome]:
        return self.compare(vibes, np.stack(self.embed(audios)))

    def prepare(self) -> None: ...

    def embed(self, audios: Sequence[Audio]) -> list[np.ndarray]:
        self.embedded += len(audios)
        return [np.array([np.abs(audio.samples).max(), audio.seconds], dtype=np.float32) for audio in audios]

    def compare(self, vibes: Sequence[str], vectors: np.ndarray) -> Sequence[Outcome]:
        self.compared += len(vibes)
        return [Score(float(vector[0])) for vector in vectors]


class OddScorer:
    """Gives back whatever it was told to give for a vibe: exceptions are raised."""

    name = "odd"
    fingerprint = "odd-1"

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def score(
        self, vibes: Sequence[str], audios: Sequence[Audio], configs: Sequence[Mapping[str, Any]] = ()
    ) -> Sequence[Any]:
        found = [self.answers[vibe] for vibe in vibes]
        for answer in found:
            if isinstance(answer, Exception):
                raise answer
        return found
