"""Values of English words on a few axes, such as mood and speed, from their word vectors.

The axes and their seeds are data (``axes.toml``). A word's value on an axis comes from a kernel ridge regression of the
poles on the seeds' vectors, so words that are not similar to any seed have values near 0. "Not" inverts a word, "very"
and "slightly" scale it, and words after "before" are reduced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentscore.labels import FIELDS, Label
from latentscore.meaning.fitted import fitted
from latentscore.meaning.sentence import (
    DENIALS,
    SAME,
    TABLES,
    Phrase,
    Token,
    embedder,
    is_foreign,
    root,
    sentence,
    table,
    table_text,
    tokens,
    word_list,
)
from latentscore.seeds import digest

Vector = NDArray[np.float32]

VERSION = 3
"""Raised when the same seeds and numbers give other values."""

DEAD_ZONE = 0.5
"""Minimum distance of a word from the middle of an axis, in standard deviations over common words."""
SEED = 1.5
"""Minimum value of a seed on its own axis."""
MOST = 3.5
"""Maximum value of one word."""
SQUASH = 2.5
"""Standard deviations beyond the dead zone at which an axis has the value tanh(1)."""
RIDGE, WIDTH = 3.0, 0.4
"""Regularization of the regression, and the kernel width: 1 minus the cosine at which the kernel is 1/e."""
BACKGROUND_STEP = 24
"""Every 24th common word is a background word with the value 0."""
COMMON = slice(1000, 13_000)
"""Tokens of common words; the vocabulary is ordered by frequency, after marks and letters."""
STRENGTHS = {"not": -1.0, "more": 1.5, "little": 0.5}
TIMES = {"before": (0.0, 0.4), "after": (-0.6, 0.5)}
"""Factors for events that have not happened yet and for past ones: on speed, energy and crowd, and on the other axes."""
LEAD, YIELD = 1.4, 0.25
"""Minimum distance of a word from the middle to overrule a later word of its phrase, and the factor on that word."""
MOST_PIECES = 2
"""Maximum number of vocabulary pieces in a word; the sum of more pieces has little meaning."""
GENRE = 0.5
"""Factor on words that describe a genre."""


@dataclass(frozen=True)
class Axis:
    """A scale between two poles, and its effects on config fields."""

    name: str
    low: tuple[str, ...]
    high: tuple[str, ...]
    moves: Mapping[str, float]
    at_low: Mapping[str, Label]
    at_high: Mapping[str, Label]


@dataclass(frozen=True)
class Reading:
    """The values of a text on the axes."""

    axes: Mapping[str, float] = field(default_factory=dict)
    """-1 (low pole) to 1 (high pole), sorted by size; axes with the value 0 are omitted."""
    words: tuple[str, ...] = ()
    """The words with a value, in their order."""
    vector: Vector | None = None
    """The normalized sum of the words' vectors, negated words with a negative sign; None for a text without words."""
    foreign: bool = False
    """True for a language other than English; the axes are then empty."""


@cache
def axes() -> tuple[Axis, ...]:
    """The axes of this package, in the order of their file."""
    return tuple(_axis(name, table) for name, table in table("axes.toml")["axes"].items())


def _axis(name: str, table: Mapping[str, str]) -> Axis:
    return Axis(
        name,
        low=tuple(table["low"].split(", ")),
        high=tuple(table["high"].split(", ")),
        moves={
            field: float(weight)
            for field, weight in (pair.split() for pair in table.get("moves", "").split(", ") if pair)
        },
        at_low=_labels(table.get("at_low", "")),
        at_high=_labels(table.get("at_high", "")),
    )


@cache
def poles() -> Mapping[str, NDArray[np.float64]]:
    """Return -1, 0 or 1 on each axis for the base form of each seed; seeds of several words are not reduced to base forms."""
    found: dict[str, NDArray[np.float64]] = {}
    for at, axis in enumerate(axes()):
        for sign, seeds in ((-1.0, axis.low), (1.0, axis.high)):
            for seed in seeds:
                found.setdefault(root(seed), np.zeros(len(axes())))[at] = sign
    return found


@cache
def _seed_phrases() -> Mapping[Phrase, str]:
    """The seeds of several words by their words."""
    return {tuple(token.text for token in tokens(seed)): seed for seed in poles() if " " in seed}


def _labels(pairs: str) -> dict[str, Label]:
    split = (pair.split("=") for pair in pairs.split())
    return {name: next(la for la in FIELDS[name].labels if str(la).lower() == text) for name, text in split}


def reading_fingerprint() -> str:
    """Return a hash of everything that determines a reading: the tables, the numbers above and the word vectors."""
    numbers = (VERSION, DEAD_ZONE, SEED, MOST, SQUASH, RIDGE, WIDTH, BACKGROUND_STEP, MOST_PIECES, GENRE, LEAD, YIELD)
    return digest(*numbers, STRENGTHS, TIMES, SAME, *map(table_text, TABLES), embedder().fingerprint)


# --- words on the axes -----------------------------------------------------------------------------------------------


def _kernel(vectors: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the kernel of unit vectors, shape (vectors, points): 1 for equal vectors."""
    return np.exp((vectors @ points.T - 1.0) / WIDTH)


class _Scale(NamedTuple):
    """A kernel ridge regression with the poles as the values of seeds and 0 as the value of common words."""

    points: NDArray[np.float64]
    """The vectors of seeds and common words, shape (points, dim)."""
    weights: NDArray[np.float64]
    """Shape (points, axes)."""
    mean: NDArray[np.float64]
    """The mean value of other common words on each axis."""
    deviation: NDArray[np.float64]
    """The standard deviation of other common words on each axis."""


@cache
def _scale() -> _Scale:
    rows = fitted("axes", reading_fingerprint())
    if rows is None:
        rows = fit_axes()
    return _Scale(_points(), weights=rows[:-2], mean=rows[-2], deviation=rows[-1])


def fit_axes() -> NDArray[np.float64]:
    """Return the weights of the regression, then the mean and the deviation of common words; shape (points + 2, axes)."""
    points = _points()
    wanted = np.zeros((len(points), len(axes())))
    wanted[: len(_seeds())] = [poles()[root(seed)] for seed in _seeds()]
    weights = np.linalg.solve(_kernel(points, points) + RIDGE * np.eye(len(points)), wanted).astype(np.float64)
    values = _kernel(_common(1), points) @ weights
    return np.vstack([weights, values.mean(axis=0), values.std(axis=0)])


def _seeds() -> list[str]:
    return list(dict.fromkeys(seed for axis in axes() for seed in (*axis.low, *axis.high)))


def _points() -> NDArray[np.float64]:
    return np.vstack([embedder().embed(_seeds()).astype(np.float64), _common(0)])


def _common(first: int) -> NDArray[np.float64]:
    """Return the unit vectors of every 24th common word from the one at a place."""
    common = embedder().token_vectors[COMMON][first::BACKGROUND_STEP].astype(np.float64)
    return common / np.linalg.norm(common, axis=1, keepdims=True)


@lru_cache(maxsize=1 << 16)
def word_values(word: str) -> tuple[float, ...]:
    """Return the value of a word (lower case) on each axis, in standard deviations beyond the dead zone; 0 for neutral words."""
    if (word in word_list("small") and word not in poles()) or not _is_readable(word):
        return (0.0,) * len(axes())
    points, weights, mean, deviation = _scale()
    form = word if " " in word or embedder().pieces(word) == 1 else root(word)
    standard = (_kernel(embedder().embed([form]).astype(np.float64), points)[0] @ weights - mean) / deviation
    # Rounded, because the last digits of linear algebra depend on the number of threads.
    standard = np.round(standard, 9)
    values = np.sign(standard) * np.maximum(0.0, np.abs(standard) - DEAD_ZONE)
    pole = poles().get(root(word), np.zeros(len(axes())))
    values = np.where(pole, pole * np.maximum(pole * values, SEED), values)
    return tuple(np.clip(values, -MOST, MOST).tolist())


def _is_readable(word: str) -> bool:
    """True for a seed or a word of one or two tokens."""
    return root(word) in poles() or (any(map(str.isalpha, word)) and 1 <= embedder().pieces(root(word)) <= MOST_PIECES)


def says_something(word: str) -> bool:
    """Return True for a word with a value on some axis."""
    return max(map(abs, word_values(word.lower()))) > 0.5


# --- texts -----------------------------------------------------------------------------------------------------------


def read(text: str) -> Reading:
    """Return the values of a text on the axes."""
    return read_rest(text, frozenset())


@lru_cache(maxsize=4096)
def read_rest(text: str, named: frozenset[int]) -> Reading:
    """Return the values of a text without the tokens at the positions ``named``, which name fields explicitly."""
    if is_foreign(text):
        return Reading(foreign=True)
    total = np.zeros(len(axes()))
    direction = np.zeros(embedder().dim)
    found: list[str] = []
    phrase, lead = -1, np.zeros(len(axes()))
    for said in _weighted(sentence(text), named):
        if said.phrase != phrase:
            phrase, lead = said.phrase, np.zeros(len(axes()))
        values = said.strength * _in_time(np.array(word_values(said.word)), said.time)
        overruled = (values * lead < 0) & (np.abs(lead) >= LEAD)
        lead = np.where(np.abs(values) > np.abs(lead), np.where(overruled, lead, values), lead)
        total += np.where(overruled, YIELD * values, values)
        weight = said.strength if said.strength > 0 else 0.5 * said.strength
        direction += (0.5 if overruled.any() or said.time else 1.0) * weight * embedder().sum_of(said.word)
        if np.abs(values).max() > 0.5:
            found.append(said.word)
    squashed = np.tanh(total / SQUASH)
    order = np.argsort(-np.abs(squashed), kind="stable")
    length = float(np.linalg.norm(direction))
    return Reading(
        {axes()[at].name: float(squashed[at]) for at in order if abs(squashed[at]) > 0.1},
        tuple(dict.fromkeys(found)),
        (direction / length).astype(np.float32) if length else None,
    )


class _Said(NamedTuple):
    """A word with a value, and its factor, which is negative if the word is negated.

    In one ``phrase`` an earlier word overrules a later one ("a joyful funeral"). ``time`` is "" or one of ``TIMES``.
    """

    word: str
    strength: float
    time: str
    phrase: int


def _in_time(values: NDArray[np.float64], time: str) -> NDArray[np.float64]:
    """Return a word's values after "before" or "after"."""
    if not time:
        return values
    moving, rest = TIMES[time]
    moves = np.array([axis.name in ("speed", "energy", "crowd") for axis in axes()])
    return np.where(moves, moving * np.abs(values), rest * values)


def _weighted(said: Sequence[Token], named: frozenset[int]) -> Iterator[_Said]:
    strength, time, phrase, at = 1.0, "", 0, 0
    # "Go!" is all that such a text says.
    small = word_list("small") if any(t.text not in word_list("small") for t in said if not t.is_mark) else frozenset()
    while at < len(said):
        word, here = said[at].text, at
        at += 1
        kind = _role(word)
        if genre := genre_at(said, here):
            at = here + genre.length
            for about in genre.words:
                phrase += 1
                yield _Said(about, GENRE * strength, time, phrase)
            strength, phrase = 1.0, phrase + 1
        elif length := _seed_phrase_length(said, here, named):
            at = here + length
            yield _Said(_seed_phrases()[tuple(token.text for token in said[here:at])], strength, time, phrase)
            strength = 1.0
        elif said[here].is_mark or word in ("but", "yet"):
            strength, time, phrase = 1.0, "", phrase + 1
        elif kind in TIMES:
            time, phrase = kind, phrase + 1
        elif kind == "not":
            strength, phrase = STRENGTHS[kind], phrase + 1
        elif kind:
            # "not very" says less than "not"
            strength *= 0.5 if kind == "more" and strength < 0 else STRENGTHS[kind]
        elif word in ("and", "or", "nor", "with"):
            phrase += 1
        elif word not in small and here not in named and _is_readable(word):
            yield _Said(word, strength, time, phrase)
            strength = 1.0


def _seed_phrase_length(said: Sequence[Token], at: int, named: frozenset[int]) -> int:
    """Return the number of tokens of the longest seed phrase that begins at a position; 0 if there is none."""
    words = tuple(token.text for token in said[at : at + 5])
    lengths = (length for length in range(len(words), 1, -1) if words[:length] in _seed_phrases())
    return next((length for length in lengths if named.isdisjoint(range(at, at + length))), 0)


@cache
def _role(word: str) -> str:
    """Which of the lists of STRENGTHS and TIMES holds a word; "" for other words."""
    return next((role for role in (*STRENGTHS, *TIMES) if word in word_list(role)), "")


# --- genres ----------------------------------------------------------------------------------------------------------


class Genre(NamedTuple):
    """A kind of music by name: the words that describe it, and the labels that it usually has."""

    length: int
    """Tokens of the name."""
    ambiguous: bool
    """True for a name that is also another word: it counts only alone, or before a noun of music."""
    words: tuple[str, ...]
    labels: Mapping[str, Label]


@cache
def genres() -> Mapping[Phrase, Genre]:
    """The genres of this package by the words of their names."""
    found: dict[Phrase, Genre] = {}
    for names, row in table("axes.toml")["genres"].items():
        words, _, labels = row.partition(" | ")
        for name in names.split(", "):
            phrase = tuple(token.text for token in tokens(name.lstrip("~")))
            found[phrase] = Genre(len(phrase), name.startswith("~"), tuple(words.split()), _labels(labels))
    return found


def genre_at(said: Sequence[Token], at: int) -> Genre | None:
    """The genre with the longest name that begins at a place of a text."""
    for length in range(min(4, len(said) - at), 0, -1):
        words, forms = zip(*said[at : at + length], strict=True)
        genre = genres().get(words) or genres().get(forms)
        after = said[at + length].root if genre and at + length < len(said) else ""
        if (
            genre
            and after not in word_list("parts")
            and (not genre.ambiguous or after in word_list("music") or length == len(said))
        ):
            return genre
    return None


def genre_labels(text: str) -> dict[str, Label]:
    """Return the usual labels of the genres that a text names; the last genre has precedence."""
    said, labels, at = sentence(text), dict[str, Label](), 0
    while at < len(said):
        genre = genre_at(said, at)
        if genre and not any(
            token.text in DENIALS or token.text in ("less", "than", "unlike") for token in said[max(0, at - 2) : at]
        ):
            labels |= genre.labels
        at += genre.length if genre else 1
    return labels


def pole_words(reading: Reading) -> Iterator[str]:
    """Yield the name of each pole that a text has a value towards, the strongest first."""
    by_name = {axis.name: axis for axis in axes()}
    for name, value in reading.axes.items():
        if abs(value) > 0.2:
            yield (by_name[name].high if value > 0 else by_name[name].low)[0]


def colors_in(words: Sequence[str]) -> list[str]:
    """Return the colours that the words name, as #RRGGBB."""
    colors = table("axes.toml")["colors"]
    return [colors[word] for word in words if word in colors]
