"""What the words of an English text ask for, read from where their vectors lie between the poles of a few axes.

The axes and their seeds are data (``axes.toml``). A word's value on an axis comes from a ridge regression of the seeds'
vectors on their poles, so that words near no seed read as nothing. "Not" turns a word around, "very" and "slightly" make it
more or less, and what comes "before" is only half there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentscore.labels import FIELDS, Label
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
"""Raised when the same seeds and numbers would read a text otherwise."""

DEAD_ZONE = 0.5
"""Standard deviations (over common words) that a word must lie off the middle of an axis before it counts."""
SEED = 1.5
"""What a seed reads at least on its own axis."""
MOST = 3.5
"""What one word reads at most."""
SQUASH = 2.5
"""Standard deviations beyond the dead zone at which an axis reads tanh(1)."""
RIDGE, WIDTH = 3.0, 0.4
"""How smooth the regression is, and 1 less the cosine at which two words have 1/e in common."""
BACKGROUND_STEP = 24
"""Every so manieth common word stands for those that say nothing."""
COMMON = slice(1000, 13_000)
"""Tokens that stand for common words: the vocabulary is ordered by frequency, after marks and letters."""
STRENGTHS = {"not": -1.0, "more": 1.5, "little": 0.5}
TIMES = {"before": (0.0, 0.4), "after": (-0.6, 0.5)}
"""What has not happened yet, and what is over: how much of its speed, energy and crowd is there, and how much of the rest."""
LEAD, YIELD = 1.4, 0.25
"""How far a word must lie off the middle to overrule a later one of its phrase, and how much of that one is left."""
MOST_PIECES = 2
"""Pieces of the vocabulary in a word that is read: the sum of more says little about the whole."""
GENRE = 0.5
"""How much of a word that describes a genre counts."""


@dataclass(frozen=True)
class Axis:
    """A scale between two poles, and what it asks of the config's fields."""

    name: str
    low: tuple[str, ...]
    high: tuple[str, ...]
    moves: Mapping[str, float]
    at_low: Mapping[str, Label]
    at_high: Mapping[str, Label]


@dataclass(frozen=True)
class Reading:
    """What a text asks for."""

    axes: Mapping[str, float] = field(default_factory=dict)
    """-1 (low pole) to 1 (high pole), the largest first; axes that the text says nothing about are left out."""
    words: tuple[str, ...] = ()
    """The words it was read from, in their order."""
    vector: Vector | None = None
    """The direction of the text's words, unit length, denied words turned around; None for a text without words."""
    foreign: bool = False
    """True for a language other than English, of which nothing is read."""


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
    """-1, 0 or 1 on each axis for the base form of each seed; a seed of several words stands as it is written."""
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
    """Changes when the same text might be read otherwise: a hash of the tables, the numbers above and the word vectors."""
    numbers = (VERSION, DEAD_ZONE, SEED, MOST, SQUASH, RIDGE, WIDTH, BACKGROUND_STEP, MOST_PIECES, GENRE, LEAD, YIELD)
    return digest(*numbers, STRENGTHS, TIMES, SAME, *map(table_text, TABLES), embedder().fingerprint)


# --- words on the axes -----------------------------------------------------------------------------------------------


def _kernel(vectors: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """How near unit vectors lie to each other, shape (vectors, points): 1 for the same one."""
    return np.exp((vectors @ points.T - 1.0) / WIDTH)


@cache
def _scale() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(points of shape (seeds and common words, dim), their weights (points, axes), mean and deviation of common words).

    A kernel ridge regression of the seeds on their poles, and of common words on nothing.
    """
    seeds = list(dict.fromkeys(seed for axis in axes() for seed in (*axis.low, *axis.high)))
    common = embedder().token_vectors[COMMON].astype(np.float64)
    common /= np.linalg.norm(common, axis=1, keepdims=True)
    points = np.vstack([embedder().embed(seeds).astype(np.float64), common[::BACKGROUND_STEP]])
    wanted = np.zeros((len(points), len(axes())))
    wanted[: len(seeds)] = [poles()[root(seed)] for seed in seeds]
    weights = np.linalg.solve(_kernel(points, points) + RIDGE * np.eye(len(points)), wanted).astype(np.float64)
    values = _kernel(common[1::BACKGROUND_STEP], points) @ weights
    return points, weights, values.mean(axis=0), values.std(axis=0)


@lru_cache(maxsize=1 << 16)
def word_values(word: str) -> tuple[float, ...]:
    """Where a word (lower case) lies on each axis, in standard deviations beyond the dead zone; 0 for words that ask for nothing."""
    if (word in word_list("small") and word not in poles()) or not _is_readable(word):
        return (0.0,) * len(axes())
    points, weights, mean, deviation = _scale()
    form = word if " " in word or embedder().pieces(word) == 1 else root(word)
    standard = (_kernel(embedder().embed([form]).astype(np.float64), points)[0] @ weights - mean) / deviation
    # Linear algebra differs in the last digits with the number of threads; scores do not.
    standard = np.round(standard, 9)
    values = np.sign(standard) * np.maximum(0.0, np.abs(standard) - DEAD_ZONE)
    pole = poles().get(root(word), np.zeros(len(axes())))
    values = np.where(pole, pole * np.maximum(pole * values, SEED), values)
    return tuple(np.clip(values, -MOST, MOST).tolist())


def _is_readable(word: str) -> bool:
    """True for a seed or a word of one or two tokens."""
    return root(word) in poles() or (any(map(str.isalpha, word)) and 1 <= embedder().pieces(root(word)) <= MOST_PIECES)


def says_something(word: str) -> bool:
    """True for a word that lies clearly to one side of some axis."""
    return max(map(abs, word_values(word.lower()))) > 0.5


# --- texts -----------------------------------------------------------------------------------------------------------


def read(text: str) -> Reading:
    """What a text asks for."""
    return read_rest(text, frozenset())


@lru_cache(maxsize=4096)
def read_rest(text: str, named: frozenset[int]) -> Reading:
    """What a text asks for beside the tokens at the places ``named``, which are taken for said already."""
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
    """A word with a meaning of its own, and how much it counts: less than 0 where the text denies it.

    In one ``phrase`` an earlier word overrules a later one ("a joyful funeral"). ``time`` is "" or one of ``TIMES``.
    """

    word: str
    strength: float
    time: str
    phrase: int


def _in_time(values: NDArray[np.float64], time: str) -> NDArray[np.float64]:
    """What is there of a word's values before or after what it names."""
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
    """How many tokens the longest seed of several words has that begins at a place; 0 where none does."""
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
    """True for a name that is another word too: it counts alone, or before a noun of music."""
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
    """What the genres that a text names usually have; the last one counts where two differ."""
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
    """The word for each pole that a text leans to, the strongest first."""
    by_name = {axis.name: axis for axis in axes()}
    for name, value in reading.axes.items():
        if abs(value) > 0.2:
            yield (by_name[name].high if value > 0 else by_name[name].low)[0]


def colors_in(words: Sequence[str]) -> list[str]:
    """Colours that words name outright, as #RRGGBB."""
    colors = table("axes.toml")["colors"]
    return [colors[word] for word in words if word in colors]
