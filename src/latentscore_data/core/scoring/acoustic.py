"""The scorer ``acoustic``, which needs no weights: it compares measurements of the sound with the values of the vibe's
words.

What it can: tell a bright from a dark piece, fast from slow, full from bare, vast from dry, calm from wild, wide from narrow,
smooth from rough, deep from light, and a little of glad from sad, when the vibe says so in common English words.

What it cannot: it reads words by where their vectors lie (``latentscore.meaning``), and musical terms by name.
It does not understand irony or other languages, nor which instrument plays, nor whether the music is good. A vibe that
asks for nothing gets 0 from every candidate, and says so (``words`` is 0). It measures a mix, so a shaker counts as brightness and a long
reverb as fullness. Use CLAP where weights can be had; use this to get going, offline, and as a second opinion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from latentscore import Audio
from latentscore.labels import FIELDS, Label
from latentscore.meaning.lexicon import parse_vibe
from latentscore.meaning.reading import poles, reading_fingerprint
from latentscore.meaning.sentence import is_foreign, root
from latentscore.seeds import digest
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.scoring import descriptors
from latentscore_data.core.scoring.deps import ScorerDeps, ScorerKind
from latentscore_data.core.scoring.types import Outcome, Score, Scorer, Vectors

AXES: dict[str, dict[str, float]] = {
    "speed": {"attack": 1.0, "activity": 1.0, "mod_rate": 0.8, "decay": 0.5, "pulse": 0.4},
    "light": {"high_share": 1.0, "centroid": 0.6, "flatness": 0.4, "filled": 0.4},
    "crowd": {"fullness": 1.0, "activity": 0.8, "bandwidth": 0.6, "filled": 0.4, "attack": 0.3, "gaps": -0.3},
    "room": {"drop": -1.0, "decay": -1.0, "width": 1.0, "attack": -0.4},
    "width": {"width": 1.0},
    "energy": {"activity": 1.0, "attack": 0.8, "mod_rate": 0.8, "drop": 0.5, "decay": 0.4},
    "rough": {"activity": 0.8, "flatness": 0.8, "filled": 0.8, "attack": 0.5, "loudness_range": -0.3},
    "depth": {"centroid": -1.0, "low_share": 0.8, "high_share": -0.6},
    "mood": {"majorness": 1.0},
}
"""Weights of the descriptors' standard scores for each axis."""

NAMED: dict[str, tuple[str, tuple[Label, ...]]] = {
    "tempo": ("speed", FIELDS["tempo"].labels),
    "brightness": ("light", FIELDS["brightness"].labels),
    "density": ("crowd", FIELDS["density"].labels),
    "space": ("room", FIELDS["space"].labels),
    "stereo": ("width", FIELDS["stereo"].labels),
    "grain": ("rough", FIELDS["grain"].labels),
    "depth": ("depth", FIELDS["depth"].labels),
    "mode": ("mood", ("minor", "dorian", "mixolydian", "major")),
}
"""For each field that a vibe can name: the axis that its label decides, and the labels from -1 to 1."""

TYPICAL: dict[str, tuple[float, float]] = {
    "activity": (-1.38, 0.276),
    "attack": (8.57, 1.42),
    "mod_rate": (1.02, 0.408),
    "pulse": (0.38, 0.123),
    "decay": (6.94, 0.285),
    "drop": (9.41, 2.16),
    "gaps": (0.0861, 0.0704),
    "loudness_range": (18.0, 5.42),
    "centroid": (8.39, 0.754),
    "bandwidth": (1.67, 0.326),
    "flatness": (-25.6, 7.75),
    "low_share": (-5.72, 3.26),
    "high_share": (-16.0, 5.48),
    "fullness": (3.79, 0.307),
    "filled": (0.53, 0.114),
    "width": (-17.9, 17.5),
    "majorness": (0.00189, 0.0922),
    "movement": (3.16, 0.599),
}
"""Mean and standard deviation of each descriptor over random configs, 10 s; benchmarks/scoring.py --calibrate prints them."""


class AcousticScorer:
    """``final = sum(asked * measured) / sum(|asked|)`` over the axes with a value, in [-1, 1].

    ``asked`` is the sum of the vibe's words for a thing (squashed by tanh); ``measured`` is tanh of the weighted standard scores of
    the descriptors that show it. Parts: ``words`` (how many words were known) and ``asked_X``, ``heard_X`` for each thing
    X asked for. The standard scores are taken against random configs of this package's own renderer.
    """

    name = "acoustic"
    embed_in_worker: Callable[[Audio], Vectors] | None = staticmethod(descriptors.describe)

    def __init__(self) -> None:
        self.embedding_fingerprint = digest("acoustic descriptors", descriptors.VERSION, descriptors.NAMES)
        self.fingerprint = (
            "acoustic-" + digest(self.embedding_fingerprint, AXES, NAMED, TYPICAL, reading_fingerprint())[:16]
        )
        means = np.array([TYPICAL[name][0] for name in descriptors.NAMES])
        spreads = np.array([TYPICAL[name][1] for name in descriptors.NAMES])
        self._means, self._spreads = means, spreads
        weights = np.array([[AXES[axis].get(name, 0.0) for name in descriptors.NAMES] for axis in AXES])
        self._weights = weights / np.linalg.norm(weights, axis=1, keepdims=True)

    def score(
        self, vibes: Sequence[str], audios: Sequence[Audio], configs: Sequence[Mapping[str, Any]] = ()
    ) -> Sequence[Outcome]:
        return self.compare(vibes, np.stack(self.embed(audios)))

    def embed(self, audios: Sequence[Audio]) -> list[Vectors]:
        return [descriptors.describe(audio) for audio in audios]

    def compare(self, vibes: Sequence[str], vectors: Vectors) -> Sequence[Outcome]:
        # Limited, so that one extreme measurement does not dominate.
        standard = np.clip((vectors - self._means) / self._spreads, -3.0, 3.0)
        # Row by row, not as one matrix product, whose rounding depends on the batch size; a score must not depend on
        # the batch.
        measured = 0.5 * (standard[:, None, :] * self._weights).sum(axis=2)
        return [
            self._match(vibe, {axis: math.tanh(value) for axis, value in zip(AXES, row, strict=True)})
            for vibe, row in zip(vibes, measured.tolist(), strict=True)
        ]

    @staticmethod
    def _match(vibe: str, measured: Mapping[str, float]) -> Score:
        asked, words = asked_for(vibe)
        weight = sum(abs(value) for value in asked.values())
        if not weight:
            return Score(0.0, {"words": float(len(words))})
        final = sum(value * measured[axis] for axis, value in asked.items()) / weight
        parts = {"words": float(len(words))}
        for axis, value in asked.items():
            parts[f"asked_{axis}"] = value
            parts[f"heard_{axis}"] = measured[axis]
        return Score(final, parts)


def asked_for(vibe: str) -> tuple[dict[str, float], list[str]]:
    """({axis: -1..1} of what a vibe asks for, the words it was read from). Terms that it names overrule its moods."""
    parsed = parse_vibe(vibe)
    asked = {axis: value for axis, value in parsed.reading.axes.items() if axis in AXES}
    # A term that is a seed as well ("bright") is read already, with its degree and what speaks against it.
    terms = {field: words for field, words in parsed.words.items() if field in NAMED}
    named = [field for field, words in terms.items() if not any(root(word) in poles() for word in words.split())]
    for field in named:
        axis, labels = NAMED[field]
        asked[axis] = 2.0 * labels.index(parsed.fields[field]) / (len(labels) - 1) - 1.0
    return asked, list(dict.fromkeys([*(terms[field] for field in named), *parsed.reading.words]))


def nothing_asked(vibe: str) -> str | None:
    """Return why every sound scores 0 against this vibe, in one line with a remedy; None if some word has a value."""
    asked, words = asked_for(vibe)
    if asked:
        return None
    why = (
        f"the words that acoustic knows in this vibe cancel out ({', '.join(words)})"
        if words
        else "it is not in English, the only language of acoustic"
        if is_foreign(vibe)
        else "acoustic knows none of its words"
    )
    return (
        f"{why}, so the first candidate that can be rendered is kept; use other words, or --scorer clap or judge:MODEL"
    )


class AcousticKind(ScorerKind):
    # benchmarks/search.py, over 40 vibes of the starter set
    usual = "a random config gets 0.0 on average, the best of 64 random ones 0.5"

    def make(self, name: str, deps: ScorerDeps) -> Scorer:
        return AcousticScorer()

    def remote_blocker(self, name: str, scoring: ScoringSettings) -> str | None:
        return None
