"""What the words of an English text ask for, read from where their vectors lie between the poles of a few axes.

The axes and their seeds are data (``axes.toml``). A word's value on an axis comes from a ridge regression of the seeds'
vectors on their poles, so that words near no seed read as nothing. "Not" turns a word around, "very" and "slightly" make it
more or less, and what comes "before" is only half there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore.embed import WordVectorEmbedder
from latentscore.labels import FIELDS, Label
from latentscore.seeds import digest

Vector = NDArray[np.float32]

PACKAGE = "latentscore.meaning"
VERSION = 1
"""Raised when the same seeds and numbers would read a text otherwise."""

DEAD_ZONE = 0.7
"""Standard deviations (over common words) that a word must lie off the middle of an axis before it counts."""
SEED = 1.5
"""What a seed reads at least on its own axis."""
SQUASH = 2.2
"""Standard deviations beyond the dead zone at which an axis reads tanh(1)."""
RIDGE, BACKGROUND = 8.0, 0.3
COMMON = slice(1000, 13_000)
"""Tokens that stand for common words: the vocabulary is ordered by frequency, after marks and letters."""
STRENGTHS = {"not": -1.0, "more": 1.5, "little": 0.5, "before": 0.3}
STRESS = 1.4
"""How much more what comes after "but" counts."""
MOST_PIECES = 2
REACH = 2
"""Words without a meaning of their own over which "not" and "very" reach."""


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
def _data() -> Mapping[str, Any]:
    return tomllib.loads(files(PACKAGE).joinpath("axes.toml").read_text(encoding="utf-8"))


@cache
def _list(section: str, name: str) -> frozenset[str]:
    return frozenset(_data()[section][name].split())


@cache
def axes() -> tuple[Axis, ...]:
    """The axes of this package, in the order of their file."""
    return tuple(_axis(name, table) for name, table in _data()["axes"].items())


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
def seeds() -> frozenset[str]:
    """The single words among the seeds of all axes."""
    return frozenset(seed for axis in axes() for seed in (*axis.low, *axis.high) if " " not in seed)


def _labels(pairs: str) -> dict[str, Label]:
    split = (pair.split("=") for pair in pairs.split())
    return {name: next(la for la in FIELDS[name].labels if str(la).lower() == text) for name, text in split}


def reading_fingerprint() -> str:
    """Changes when the same text might be read otherwise: a hash of the seeds, the numbers above and the word vectors."""
    seeds_file = files(PACKAGE).joinpath("axes.toml").read_text(encoding="utf-8")
    numbers = (VERSION, DEAD_ZONE, SEED, SQUASH, RIDGE, BACKGROUND, STRENGTHS, STRESS, REACH, MOST_PIECES)
    return digest(*numbers, seeds_file, embedder().fingerprint)


# --- words on the axes -----------------------------------------------------------------------------------------------


@cache
def embedder() -> WordVectorEmbedder:
    """The package's word vectors, loaded once."""
    return WordVectorEmbedder()


@cache
def _scale() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(weights of shape (dim, axes), mean and standard deviation of common words on each axis)."""
    poles: dict[str, NDArray[np.float64]] = {}
    for at, axis in enumerate(axes()):
        for sign, seeds in ((-1.0, axis.low), (1.0, axis.high)):
            for seed in seeds:
                poles.setdefault(seed, np.zeros(len(axes())))[at] = sign
    seeds = embedder().embed(list(poles)).astype(np.float64)
    common = embedder().token_vectors[COMMON].astype(np.float64)
    common /= np.linalg.norm(common, axis=1, keepdims=True)
    spread = common.T @ common / len(common)
    left = seeds.T @ seeds + BACKGROUND * len(seeds) * spread + RIDGE * np.eye(seeds.shape[1])
    weights = np.linalg.solve(left, seeds.T @ np.array(list(poles.values())))
    values = common @ weights
    return weights, values.mean(axis=0), values.std(axis=0)


@lru_cache(maxsize=1 << 16)
def word_values(word: str) -> tuple[float, ...]:
    """Where a word lies on each axis, in standard deviations beyond the dead zone; 0 for words that ask for nothing."""
    if word in _list("words", "small") or not _is_readable(word):
        return (0.0,) * len(axes())
    weights, mean, deviation = _scale()
    standard = (embedder().embed([word])[0] @ weights - mean) / deviation
    # Linear algebra differs in the last digits with the number of threads; scores do not.
    standard = np.round(standard, 9)
    # A word that the vocabulary holds only in pieces is read with less confidence.
    dead = DEAD_ZONE * max(1, embedder().pieces(word))
    values = np.sign(standard) * np.maximum(0.0, np.abs(standard) - dead)
    for at, axis in enumerate(axes()):
        pole = (word in axis.high) - (word in axis.low)
        if pole:
            values[at] = pole * max(pole * values[at], SEED)
    return tuple(values.tolist())


def _is_readable(word: str) -> bool:
    """True for a seed or a word of one or two tokens: the sum of more pieces says little about the whole."""
    return word in seeds() or (any(map(str.isalpha, word)) and 1 <= embedder().pieces(word) <= MOST_PIECES)


def small_words() -> frozenset[str]:
    """Words that carry a sentence and have no meaning of their own here."""
    return _list("words", "small")


def says_something(word: str) -> bool:
    """True for a word that lies clearly to one side of some axis."""
    return max(map(abs, word_values(word.lower()))) > 0.5


# --- texts -----------------------------------------------------------------------------------------------------------

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|[,.;:!?()\n—–]")


@lru_cache(maxsize=4096)
def read(text: str, ignored: frozenset[str] = frozenset()) -> Reading:
    """What a text asks for. ``ignored`` words (lower case) are taken for said already."""
    if is_foreign(text):
        return Reading(foreign=True)
    total = np.zeros(len(axes()))
    direction = np.zeros(embedder().dim)
    found: list[str] = []
    for word, strength in _weighted(text):
        if word in ignored or not _is_readable(word):
            continue
        values = np.array(word_values(word))
        total += strength * values
        direction += (strength if strength > 0 else 0.5 * strength) * embedder().sum_of(word)
        if np.abs(values).max() > 0.5:
            found.append(word)
    squashed = np.tanh(total / SQUASH)
    order = np.argsort(-np.abs(squashed), kind="stable")
    length = float(np.linalg.norm(direction))
    return Reading(
        {axes()[at].name: float(squashed[at]) for at in order if abs(squashed[at]) > 0.1},
        tuple(dict.fromkeys(found)),
        (direction / length).astype(np.float32) if length else None,
    )


def _weighted(text: str) -> Iterator[tuple[str, float]]:
    """The words with a meaning of their own, each with how much it counts: negative where the text denies it."""
    strength, since, joined, stress = 1.0, 0, 1.0, 1.0
    for word in _WORD.findall(_plain(text)):
        kind = next((kind for kind in STRENGTHS if word in _list("words", kind)), None)
        if kind == "not" or kind == "before":
            strength, since = STRENGTHS[kind], 0
        elif kind:
            strength, since = strength * STRENGTHS[kind], 0
        elif not word[0].isalpha():
            strength = joined = 1.0
        elif word in ("but", "yet"):
            strength, stress = 1.0, STRESS
        elif word in ("or", "nor"):
            strength = joined if joined < 0 else strength
        elif word in _list("words", "small"):
            since += 1
            if since > REACH:
                strength = 1.0
        else:
            yield word, strength * stress
            strength, joined = 1.0, strength


def _plain(text: str) -> str:
    text = re.sub(r"n't\b", " not", text.lower().replace("’", "'")).replace("-", " ")
    for said, meant in _phrases():
        text = said.sub(meant, text)
    return re.sub(r"'s\b", "", text)


@cache
def _phrases() -> tuple[tuple[re.Pattern[str], str], ...]:
    pairs = (pair.split(" = ") for pair in _data()["words"]["phrases"].split(", "))
    return tuple((re.compile(rf"\b{said.strip()}\b"), meant) for said, meant in pairs)


def is_foreign(text: str) -> bool:
    """True for a text that is mostly in another script, or whose small words are those of another language."""
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return False
    if sum(ord(letter) > 0x24F for letter in letters) * 2 > len(letters):
        return True
    words = re.findall(r"[^\W\d_]+", text.lower())
    other = sum(word in _list("languages", "other") for word in words)
    english = sum(word in _list("languages", "english") for word in words)
    return other > english and (other >= 2 or other * 3 >= len(words) > 1)


def pole_words(reading: Reading) -> Iterator[str]:
    """The word for each pole that a text leans to, the strongest first."""
    by_name = {axis.name: axis for axis in axes()}
    for name, value in reading.axes.items():
        if abs(value) > 0.2:
            yield (by_name[name].high if value > 0 else by_name[name].low)[0]


def colors_in(words: Sequence[str]) -> list[str]:
    """Colours that words name outright, as #RRGGBB."""
    return [color for word in words for color in _data()["colors"].get(word, "").split()[:1]]
