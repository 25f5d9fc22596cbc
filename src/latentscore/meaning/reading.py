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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentscore.embed import WordVectorEmbedder
from latentscore.labels import FIELDS, Label
from latentscore.seeds import digest

Vector = NDArray[np.float32]

PACKAGE = "latentscore.meaning"
VERSION = 2
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
STRESS = 1.4
"""How much more what comes after "but" counts."""
MOST_PIECES = 2
REACH = 3
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
    reach = (LEAD, YIELD, STRESS, REACH, STRENGTHS, TIMES)
    numbers = (VERSION, DEAD_ZONE, SEED, MOST, SQUASH, RIDGE, WIDTH, BACKGROUND_STEP, MOST_PIECES, *reach)
    return digest(*numbers, seeds_file, embedder().fingerprint)


# --- words on the axes -----------------------------------------------------------------------------------------------


@cache
def embedder() -> WordVectorEmbedder:
    """The package's word vectors, loaded once."""
    return WordVectorEmbedder()


def _kernel(vectors: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """How near unit vectors lie to each other, shape (vectors, points): 1 for the same one."""
    return np.exp((vectors @ points.T - 1.0) / WIDTH)


@cache
def _scale() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(points of shape (seeds and common words, dim), their weights (points, axes), mean and deviation of common words).

    A kernel ridge regression of the seeds on their poles, and of common words on nothing.
    """
    poles: dict[str, NDArray[np.float64]] = {}
    for at, axis in enumerate(axes()):
        for sign, seeds in ((-1.0, axis.low), (1.0, axis.high)):
            for seed in seeds:
                poles.setdefault(seed, np.zeros(len(axes())))[at] = sign
    common = embedder().token_vectors[COMMON].astype(np.float64)
    common /= np.linalg.norm(common, axis=1, keepdims=True)
    points = np.vstack([embedder().embed(list(poles)).astype(np.float64), common[::BACKGROUND_STEP]])
    wanted = np.zeros((len(points), len(axes())))
    wanted[: len(poles)] = list(poles.values())
    weights = np.linalg.solve(_kernel(points, points) + RIDGE * np.eye(len(points)), wanted).astype(np.float64)
    values = _kernel(common[1::BACKGROUND_STEP], points) @ weights
    return points, weights, values.mean(axis=0), values.std(axis=0)


@lru_cache(maxsize=1 << 16)
def word_values(word: str) -> tuple[float, ...]:
    """Where a word lies on each axis, in standard deviations beyond the dead zone; 0 for words that ask for nothing."""
    word = base_form(word)
    if word in _list("words", "small") or not _is_readable(word):
        return (0.0,) * len(axes())
    points, weights, mean, deviation = _scale()
    standard = (_kernel(embedder().embed([word]).astype(np.float64), points)[0] @ weights - mean) / deviation
    # Linear algebra differs in the last digits with the number of threads; scores do not.
    standard = np.round(standard, 9)
    # A word that the vocabulary holds only in pieces is read with less confidence.
    dead = DEAD_ZONE * max(1, embedder().pieces(word))
    values = np.sign(standard) * np.maximum(0.0, np.abs(standard) - dead)
    for at, axis in enumerate(axes()):
        pole = (word in axis.high) - (word in axis.low)
        if pole:
            values[at] = pole * max(pole * values[at], SEED)
    return tuple(np.clip(values, -MOST, MOST).tolist())


_ENDINGS = tuple(
    ending.split("/")
    for ending in [
        "iest/y",
        "ier/y",
        "ies/y",
        "ied/y",
        "ily/y",
        "iness/y",
        "s/",
        "es/",
        "est/",
        "est/e",
        "er/",
        "er/e",
        "ing/",
        "ing/e",
        "ed/",
        "ed/e",
        "ly/",
        "ness/",
        "ful/",
        "ous/",
        "y/",
        "y/e",
    ]
)
"""Endings that leave a word's meaning what it was, and what stands in their place without them."""


@lru_cache(maxsize=1 << 16)
def base_form(word: str) -> str:
    """The seed that a word is a form of (storms, happier), else the form that the vocabulary holds whole, else the word."""
    if word in seeds():
        return word
    bases = [word[: -len(ending)] + instead for ending, instead in _ENDINGS if word.endswith(ending)]
    bases += [base[:-1] for base in bases if base[-2:-1] == base[-1:]]
    bases = [base for base in bases if len(base) > 2]
    if found := next((base for base in bases if base in seeds()), None):
        return found
    if embedder().pieces(word) == 1:
        return word
    return next((base for base in bases if len(base) > 3 and embedder().pieces(base) == 1), word)


def _is_readable(word: str) -> bool:
    """True for a seed or a word of one or two tokens: the sum of more pieces says little about the whole."""
    return word in seeds() or (any(map(str.isalpha, word)) and 1 <= embedder().pieces(word) <= MOST_PIECES)


def word_list(name: str) -> frozenset[str]:
    """A list of the words by which a sentence is read: ``small`` (no meaning of their own here), ``not``, ``more`` and so on."""
    return _list("words", name)


def says_something(word: str) -> bool:
    """True for a word that lies clearly to one side of some axis."""
    return max(map(abs, word_values(word.lower()))) > 0.5


# --- texts -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def read(text: str, ignored: frozenset[str] = frozenset()) -> Reading:
    """What a text asks for. ``ignored`` words (lower case) are taken for said already."""
    if is_foreign(text):
        return Reading(foreign=True)
    total = np.zeros(len(axes()))
    direction = np.zeros(embedder().dim)
    found: list[str] = []
    phrase, lead = -1, np.zeros(len(axes()))
    for said in _weighted(text):
        if said.word in ignored or not _is_readable(base_form(said.word)):
            continue
        if said.phrase != phrase:
            phrase, lead = said.phrase, np.zeros(len(axes()))
        values = said.strength * _presence(said.time) * np.array(word_values(said.word))
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


@cache
def _presence(time: str) -> NDArray[np.float64]:
    """How much of each axis is there, before or after what is named."""
    moving, rest = TIMES.get(time, (1.0, 1.0))
    return np.array([moving if axis.name in ("speed", "energy", "crowd") else rest for axis in axes()])


def _weighted(text: str) -> Iterator[_Said]:
    phrase, stress = 0, 1.0
    for clause in re.findall(r"[^,.;:!?()\n—–]+", plain(text, genres_in_words=True)):
        strength, since, time, phrase = 1.0, 0, "", phrase + 1
        for word in re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", clause):
            kind = next((kind for kind in STRENGTHS if word in _list("words", kind)), None)
            if kind == "not":
                strength, since, phrase = STRENGTHS[kind], 0, phrase + 1
            elif kind == "more" and strength < 0:
                strength *= 0.5  # "not very" says less than "not"
            elif kind:
                strength, since = strength * STRENGTHS[kind], 0
            elif found := next((time for time in TIMES if word in _list("words", time)), None):
                time, phrase = found, phrase + 1
            elif word in ("but", "yet"):
                strength, stress, time, phrase = 1.0, STRESS, "", phrase + 1
            elif word in ("and", "or", "nor", "with"):
                phrase += 1
            elif word in _list("words", "small"):
                since += 1
                if since > REACH:
                    strength = 1.0
            else:
                yield _Said(word, strength * stress, time, phrase)
                strength = 1.0


_DENIES = "no|not|never|without|neither"
_ITEM = rf"(?!(?:or|nor|and|but|yet|with|only|just|{_DENIES})\b)[a-z']+"
_DENIED_LIST = re.compile(
    rf"\b({_DENIES}) ({_ITEM}(?: {_ITEM}){{0,3}}(?:, {_ITEM}(?: {_ITEM})?)*(?:,? n?or {_ITEM}(?: {_ITEM})*)+"
    rf"|{_ITEM}(?: {_ITEM})? and {_ITEM}(?=$|[.,;:!?]))"
)
"""What one "not" denies: all members of a list that ends with "or", two words joined by "and"."""


def plain(text: str, *, genres_in_words: bool = False) -> str:
    """Lower case, without hyphens, set phrases in plain words, and "not" before each member of a list that it denies.

    ``genres_in_words`` puts the words that describe a genre in the place of its name.
    """
    text = re.sub(r"n't\b", " not", text.lower().replace("’", "'")).replace("-", " ")
    for said, meant in _phrases():
        text = said.sub(meant, text)
    for genre in genres() if genres_in_words else ():
        # A denied genre is none of what its words say: "or" makes a list of them. Other words count more.
        text = genre.pattern.sub(" or ".join(f"slightly {word}" for word in genre.words), text)
    text = _DENIED_LIST.sub(_each_denied, text)
    return re.sub(r"'s\b", "", text)


def _each_denied(found: re.Match[str]) -> str:
    denies = "not" if found[1] == "neither" else found[1]
    return f"{denies} " + re.sub(r",? (?:or|nor|and) |, ", f" {denies} ", found[2])


@dataclass(frozen=True)
class Genre:
    """A kind of music by name: the words that describe it, and the labels that it usually has."""

    pattern: re.Pattern[str]
    words: tuple[str, ...]
    labels: Mapping[str, Label]


@cache
def genres() -> tuple[Genre, ...]:
    """The genres of this package, the longer names first."""
    found = []
    for names, row in _data()["genres"].items():
        words, _, labels = row.partition(" | ")
        # A name that is another word too counts alone, or beside a noun of music.
        forms = [
            f"^{name[1:]}$|{name[1:]}(?= (?:{MUSIC})\\b)" if name.startswith("~") else f"{name}s?"
            for name in names.split(", ")
        ]
        found.append(
            Genre(re.compile(rf"\b(?:{'|'.join(forms)})\b(?! (?:{PARTS}))"), tuple(words.split()), _labels(labels))
        )
    return tuple(found)


PARTS = "chords?|harmon|voicings|bass|drums|percussion|brushes|melod|lead"
"""Beside one of these a genre says only how that part is played."""
MUSIC = "music|beats?|tracks?|songs?|grooves?|tunes?|bands?|sounds?|rhythms?|ballads?|party|bar|club"


def genre_labels(text: str) -> dict[str, Label]:
    """What the genres that a text names usually have; the first one counts where two differ."""
    text, labels = plain(text), {}
    for genre in genres():
        found = genre.pattern.search(text)
        if found and not re.search(rf"\b(?:{_DENIES}|less|than|unlike)(?: \w+)? $", text[: found.start()]):
            labels = {**genre.labels, **labels}
            text = genre.pattern.sub("", text)
    return labels


@cache
def _phrases() -> tuple[tuple[re.Pattern[str], str], ...]:
    pairs = (pair.split(" = ") for pair in _data()["words"]["phrases"].strip().split("\n"))
    return tuple((re.compile(rf"\b{said}\b"), meant) for said, meant in pairs)


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
