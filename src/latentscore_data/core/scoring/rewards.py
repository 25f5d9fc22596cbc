"""The GRPO reward and its parts: format, schema, audio and title.

Each part is a separate function with values in [0, 1]; the reward is their weighted sum minus a penalty. No part is a
precondition of another: an answer that is almost JSON has a small reward, so that there is always a gradient.

    reward = 0.15 format + 0.30 schema + 0.45 audio + 0.10 title - 0.10 penalty     (weights are settings)

With ``grpo.scale_rewards = "group"`` the trainer standardizes each part within its group before it weights it
(``core/training/grpo.py``), so there a weight is that of a standard deviation.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np

from latentscore.config import (
    PALETTE_COUNT,
    TITLE_MAX_CHARS,
    TITLE_MAX_WORDS,
    MusicConfigPrompt,
    MusicConfigPromptPayload,
    Palette,
)
from latentscore.forms import JSON, LABELS, AnswerForm, labels_of
from latentscore.json_search import JsonObject
from latentscore.labels import FIELDS
from latentscore_data.core.base.payloads import Payload
from latentscore_data.core.base.settings import GrpoSettings
from latentscore_data.core.scoring.candidate_validation import fits

FENCED = 0.6
"""Format value of an answer that is JSON inside a Markdown fence."""

MOST_UNPARSED = 0.3
"""Maximum format value of an answer that is not JSON."""

WHOLE_ANSWER_CHARS = 1200
"""Length of a short complete answer, relative to which an incomplete answer is measured."""

UNKNOWN_KEY_COST = 0.05
LEAST_PLAYABLE = 0.05
"""Minimum audio value of a config that can be rendered."""

LARGEST_REWARD = 1e15
"""The trainer squares rewards in float32, whose largest value is 3e38."""

PARTS = ("format", "schema", "audio", "title", "penalty")

ScorePairs = Callable[[Sequence[tuple[str, Mapping[str, Any]]]], Sequence[float | None]]
"""(vibe, config) pairs -> a score for each; NaN if the scorer gave none, None if the config cannot be rendered."""

Similarity = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""Pairs of texts -> their similarities."""


class Parsed(NamedTuple):
    """A parsed answer: its format value, and ``data``, its JSON object or None."""

    format: float
    data: Payload | None


def read_answer(text: str) -> Parsed:
    """Return the format value and the object of an answer.

    The value is 1 for one JSON object and nothing else, 0.6 for one in a Markdown fence, otherwise up to 0.3, depending on the
    position of the first syntax error.
    """
    bare = text.strip()
    data, reached = _load(bare)
    if data is not None:
        return Parsed(1.0, data)
    inside, _ = _load(_inside_fence(bare))
    if inside is not None:
        return Parsed(FENCED, inside)
    return Parsed(MOST_UNPARSED * min(reached / max(len(bare), WHOLE_ANSWER_CHARS), 1.0), None)


def read_line(line: str) -> Parsed:
    """Return the format value of a line of labels, and a payload with its config only.

    The value is 1 for one word per field, separated by single spaces; otherwise up to 0.3, depending on the number of words.
    """
    words = line.strip().split(" ")
    data = {"config": labels_of(line)}
    if len(words) == len(FIELDS):
        return Parsed(1.0, data)
    return Parsed(MOST_UNPARSED * min(len(words), len(FIELDS)) / max(len(words), len(FIELDS)), data)


def _inside_fence(text: str) -> str:
    """Return the content of a Markdown fence if the text is one; otherwise an empty text.

    It uses no regular expression, because a long malformed answer could take one minutes.
    """
    if not (text.startswith("```") and text.endswith("```")):
        return ""
    language, _, inside = text[3:-3].partition("\n")
    language = language.rstrip()
    return inside.strip() if not language or (language.isascii() and language.isalpha()) else ""


def _load(text: str) -> tuple[Payload | None, int]:
    """Return (the object, 0), or (None, the position of the first syntax error)."""
    if not text.startswith("{"):
        return None, 0
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return None, error.pos
    except (ValueError, RecursionError):
        return None, 0
    return data, 0


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def schema_part(data: Mapping[str, Any] | None, palette_count: int = PALETTE_COUNT) -> float:
    """Return the share of the fields and palettes that are present and valid, minus 0.05 for each unknown key; at least 0."""
    if data is None:
        return 0.0
    raw_config, raw_palettes = data.get("config"), data.get("palettes")
    config: JsonObject = raw_config if isinstance(raw_config, dict) else {}
    palettes: list[Any] = raw_palettes if isinstance(raw_palettes, list) else []
    valid = sum(name in config and _is_label(config[name], spec.labels) for name, spec in FIELDS.items())
    low, high = config.get("register_min_oct"), config.get("register_max_oct")
    if type(low) is int and type(high) is int and high in FIELDS["register_max_oct"].labels and low > high:
        valid -= 1
    valid += sum(fits(Palette, palette) for palette in palettes[:palette_count])
    unknown = len(set(data) - set(MusicConfigPromptPayload.model_fields)) + len(set(config) - set(FIELDS))
    unknown += max(len(palettes) - palette_count, 0)
    return max(valid / (len(FIELDS) + palette_count) - UNKNOWN_KEY_COST * unknown, 0.0)


def _is_label(value: Any, labels: Sequence[Any]) -> bool:
    # In Python True == 1, but a switch is not a number.
    return any(type(value) is type(label) and value == label for label in labels)


def playable(data: Mapping[str, Any] | None) -> Payload | None:
    """Return the config of an answer if it is completely valid, otherwise None. The rest of the answer may be invalid."""
    config = (data or {}).get("config")
    return cast(JsonObject, config) if isinstance(config, dict) and fits(MusicConfigPrompt, config) else None


def audio_part(score: float | None, low: float, high: float) -> float:
    """Map a scorer's value from ``low``..``high`` (its 5th and 95th percentile on the data) to 0.05..1.

    0 for an answer that cannot be rendered (``None``), 0.05 if the scorer had no value for it.
    """
    if score is None:
        return 0.0
    if not math.isfinite(score):
        return LEAST_PLAYABLE
    if high <= low:
        share = float(score >= high)
    else:
        share = min(max((score - low) / (high - low), 0.0), 1.0)
    return LEAST_PLAYABLE + (1.0 - LEAST_PLAYABLE) * share


def title_of(data: Mapping[str, Any] | None) -> str:
    """Return a title of one to six words, or an empty text."""
    title = (data or {}).get("title")
    if not isinstance(title, str) or len(title) > TITLE_MAX_CHARS or not 1 <= len(title.split()) <= TITLE_MAX_WORDS:
        return ""
    return title


def title_part(title: str, vibe: str, similarity: float) -> float:
    """Return the similarity of title and vibe, times the share of the title's word pairs that are not copied from the vibe."""
    if not title or not math.isfinite(similarity):
        return 0.0
    return min(max(similarity, 0.0), 1.0) * (1.0 - copied_share(title, vibe))


def copied_share(title: str, vibe: str) -> float:
    """Return the share of the title's word pairs that are in the vibe; for a title of one word, of its words."""
    words, source = _words(title), _words(vibe)
    if not words:
        return 1.0
    size = min(2, len(words))
    mine, theirs = _ngrams(words, size), set(_ngrams(source, size))
    return sum(gram in theirs for gram in mine) / len(mine)


def penalty_part(text: str, data: Mapping[str, Any] | None, longest_chars: int) -> float:
    """Return the penalty for equal colours in a palette, excess length and repetition, in total in [0, 1]."""
    return min(_equal_colors(data) + min(max(len(text) / longest_chars - 1, 0.0), 1.0) + _repetition(text, data), 1.0)


def _equal_colors(data: Mapping[str, Any] | None) -> float:
    """Return the share of colours that repeat an earlier colour of their palette."""
    palettes = (data or {}).get("palettes")
    repeats = total = 0
    for palette in palettes[:PALETTE_COUNT] if isinstance(palettes, list) else []:
        colors = palette.get("colors") if isinstance(palette, dict) else None
        codes = [
            str(color["hex"]).upper() for color in colors or [] if isinstance(color, dict) and "hex" in color
        ] if isinstance(colors, list) else []  # fmt: skip
        repeats += len(codes) - len(set(codes))
        total += len(codes)
    return repeats / total if total else 0.0


def _repetition(text: str, data: Mapping[str, Any] | None) -> float:
    """Return the share of repeated word triples, in ``thinking`` or, for an answer that is not JSON, in the whole text."""
    said = data.get("thinking") if data is not None else text
    grams = _ngrams(_words(said), 3) if isinstance(said, str) else []
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]


@dataclass(frozen=True)
class Calibration:
    """Percentiles of a scorer's values on the data, and the maximum answer length."""

    scorer: str
    low: float
    high: float
    longest_chars: int
    values: int = 0
    """Number of scores that ``low`` and ``high`` were measured on."""


def calibrate(scorer: str, values: Sequence[float], answers: Sequence[str]) -> Calibration:
    """Return the 5th and 95th percentile of a scorer's values, and the maximum answer length (1.25 x the longest reference)."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = np.percentile(finite, [5, 95]) if finite else (0.0, 1.0)
    longest = max((len(answer) for answer in answers), default=WHOLE_ANSWER_CHARS)
    return Calibration(scorer, float(low), float(high), math.ceil(1.25 * longest), len(finite))


@dataclass
class RewardBook:
    """Scores answers in batches and stores the results, because the trainer requests each part of the same answers separately.

    ``score_pairs`` is None if the audio part has no weight; ``similarity`` compares titles with vibes.
    """

    calibration: Calibration
    similarity: Similarity
    score_pairs: ScorePairs | None = None
    form: AnswerForm = JSON
    _known: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict, repr=False)

    def score(self, vibes: Sequence[str], answers: Sequence[str]) -> list[dict[str, float]]:
        """Return all parts of each answer, finite and in [0, 1]."""
        pairs = list(zip(vibes, answers, strict=True))
        new = list(dict.fromkeys(pair for pair in pairs if pair not in self._known))
        if new:
            self._known.update(zip(new, self._score(new), strict=True))
        return [self._known[pair] for pair in pairs]

    def part(self, name: str, vibes: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [parts[name] for parts in self.score(vibes, answers)]

    def _score(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, float]]:
        parsed = [_parsed(answer, self.form.name) for _, answer in pairs]
        sound_scores = self._audio_scores(
            [(vibe, playable(p.data)) for (vibe, _), p in zip(pairs, parsed, strict=True)]
        )
        titles = [title_of(p.data) for p in parsed]
        compared = [(title, vibe) for title, (vibe, _) in zip(titles, pairs, strict=True) if title]
        likeness = iter(self.similarity(compared) if compared else [])
        palette_count = 0 if self.form.name == LABELS.name else PALETTE_COUNT
        scored: list[dict[str, float]] = []
        for (vibe, answer), (form, data), score, title in zip(pairs, parsed, sound_scores, titles, strict=True):
            scored.append(
                {
                    "format": form,
                    "schema": schema_part(data, palette_count),
                    "audio": audio_part(score, self.calibration.low, self.calibration.high),
                    "title": title_part(title, vibe, float(next(likeness))) if title else 0.0,
                    "penalty": penalty_part(answer, data, self.calibration.longest_chars),
                }
            )
        return scored

    def _audio_scores(self, pairs: Sequence[tuple[str, Payload | None]]) -> list[float | None]:
        sounds = [(vibe, config) for vibe, config in pairs if config is not None]
        scores = iter(self.score_pairs(sounds) if self.score_pairs is not None and sounds else [])
        return [next(scores, None) if config is not None else None for _, config in pairs]


@lru_cache(maxsize=4096)
def _parsed(answer: str, form: str) -> Parsed:
    return read_line(answer) if form == LABELS.name else read_answer(answer)


def part_weights(settings: GrpoSettings, form: AnswerForm = JSON) -> dict[str, float]:
    """Return the weight of each part; that of the penalty is negative.

    Completions under the grammar always have the right format, and a line of labels has no title, so these weights are
    added to the audio weight, if that is above 0.
    """
    weights = {"format": settings.format_weight, "schema": settings.schema_weight, "title": settings.title_weight}
    given = [*(("format", "schema") if settings.constrained else ()), *(("title",) if form.name == LABELS.name else ())]
    moved = given if settings.audio_weight > 0 else []
    audio = settings.audio_weight + sum(weights[name] for name in moved)
    kept = {name: 0.0 if name in moved else weight for name, weight in weights.items()}
    return {
        "format": kept["format"],
        "schema": kept["schema"],
        "audio": audio,
        "title": kept["title"],
        "penalty": -settings.penalty_weight,
    }


def total(parts: Mapping[str, float], settings: GrpoSettings) -> float:
    """Return the reward, which is the weighted sum of the parts."""
    return sum(weight * parts[name] for name, weight in part_weights(settings).items())


def finite_rewards(values: Sequence[Any]) -> list[float]:
    """Convert the results of a user's reward function to finite numbers.

    A value that is not a number becomes 1 less than the smallest number; magnitudes are limited to ``LARGEST_REWARD``.
    """
    numbers = [_number(value) for value in values]
    floor = min((number for number in numbers if number is not None), default=0.0) - 1.0
    return [floor if number is None else number for number in numbers]


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    except OverflowError:
        number = LARGEST_REWARD if value > 0 else -LARGEST_REWARD
    return min(max(number, -LARGEST_REWARD), LARGEST_REWARD) if math.isfinite(number) else None
