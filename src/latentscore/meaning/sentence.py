"""Tokenization of English texts: base forms of words, set phrases replaced by simple words, negations applied to all
members of lists."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from latentscore.embed import WordVectorEmbedder

PACKAGE = "latentscore.meaning"
TABLES = ("words.toml", "lexicon.toml", "axes.toml")

Phrase = tuple[str, ...]


class Token(NamedTuple):
    """A word and its base form, or a mark: "," (pause), ":" (is) or "." (end of a clause)."""

    text: str
    root: str

    @property
    def is_mark(self) -> bool:
        return not self.text[0].isalnum()


@cache
def table_text(name: str) -> str:
    """Return the text of one of the package's tables."""
    return files(PACKAGE).joinpath(name).read_text(encoding="utf-8")


@cache
def table(name: str) -> Mapping[str, Any]:
    return tomllib.loads(table_text(name))


@cache
def embedder() -> WordVectorEmbedder:
    """The package's word vectors, loaded once."""
    return WordVectorEmbedder()


@cache
def word_list(name: str) -> frozenset[str]:
    """Return a list of words with a role in a sentence: ``small`` (function words), ``not``, ``more`` and so on."""
    return frozenset(table("words.toml")[name].split())


# --- base forms ------------------------------------------------------------------------------------------------------

LONGEST_WORD = 30
SAME = 0.45
"""The cosine from which a word without its ending counts as the same word (slower, slow; not number, numb)."""


@lru_cache(maxsize=1 << 16)
def root(word: str) -> str:
    """Return the base form of a word, by its vector (drums, slower, happiness); typing errors in words of the tables
    are corrected.

    Several words are their own base form.
    """
    if len(word) > LONGEST_WORD:
        return word
    for base in _bases(word):
        whole = embedder().pieces(base) == 1 or base in _known()
        if whole and (embedder().pieces(word) > 1 or _cosine(word, base) >= SAME):
            return root(base)
    if embedder().pieces(word) == 1 or word in _known() or not word.isalpha() or len(word) < 4:
        return word
    # The vocabulary has it only in pieces: a plural, a typing error, or an unknown word.
    if word.endswith("s") and word[:-1] in _known():
        return word[:-1]
    near = {w for shorter in (word, *_deletions(word)) for w in _slips().get(shorter, ()) if _is_slip(word, w)}
    slip = min(near, key=lambda w: (abs(len(w) - len(word)), w), default=None)
    return word if slip is None else root(slip)


def _cosine(one: str, other: str) -> float:
    here, there = embedder().embed([one, other])
    return float(here @ there)


@cache
def _endings() -> Sequence[Sequence[str]]:
    return [ending.split("/") for ending in table("words.toml")["endings"].split()]


def _bases(word: str) -> Iterator[str]:
    if word.endswith(("ss", "us", "is")):
        return
    for ending, instead in _endings():
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            base = word[: -len(ending)] + instead
            if len(base) > 2:
                yield base
            if not instead and len(base) > 3 and base[-1] == base[-2]:
                yield base[:-1]


@cache
def _known() -> frozenset[str]:
    """Return the words of all tables."""
    return frozenset(re.findall(r"[a-z]{3,}", " ".join(map(table_text, TABLES)).lower()))


@cache
def _slips() -> Mapping[str, list[str]]:
    """Return the longer words of the tables, indexed by their forms with one letter removed."""
    found: dict[str, list[str]] = defaultdict(list)
    for word in sorted(word for word in _known() if len(word) >= 4):
        for shorter in {word, *_deletions(word)}:
            found[shorter].append(word)
    return found


def _deletions(word: str) -> Iterator[str]:
    return (word[:at] + word[at + 1 :] for at in range(len(word)))


def _is_slip(typed: str, meant: str) -> bool:
    """Return True for two swapped letters, or one missing or extra letter; in long words also for one wrong letter."""
    same_length = len(typed) == len(meant)
    return typed[0] == meant[0] and (not same_length or sorted(typed) == sorted(meant) or len(typed) >= 7)


def _parts(word: str) -> Sequence[str]:
    """Return the two parts of a compound (sunkissed), if both are in the vocabulary and the compound is not."""
    if len(word) > LONGEST_WORD or embedder().pieces(word) < 2 or root(word) != word or word in _known():
        return (word,)
    cuts = ((word[:at], word[at:]) for at in range(3, len(word) - 3))
    whole = [parts for parts in cuts if embedder().pieces(parts[0]) == embedder().pieces(parts[1]) == 1]
    # Rare words have long vectors, so the shortest sum is the split into the most common words.
    return min(whole, key=lambda parts: max(np.linalg.norm(embedder().sum_of(part)) for part in parts), default=(word,))


# --- tokens ----------------------------------------------------------------------------------------------------------


@cache
def numbers() -> Mapping[str, str]:
    """Number words as digits."""
    return {word: str(number) for number, word in enumerate(table("words.toml")["numbers"].split(), start=1)}


_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*#?|[,.;!?:=()\n—–]")
_MARKS = {",": ",", "(": ",", ")": ",", ":": ":", "=": ":"}
_DROPPED = frozenset(("a", "an", "the", "that", "which"))
"""Words that are ignored when matching phrases, in the tables and in texts."""
DENIALS = frozenset(("no", "not", "never", "without", "neither"))
_LIST_ENDS = frozenset(("or", "nor", "and", "but", "yet", "with", "only", "just", *DENIALS))
MOST_WORDS = 4
"""Maximum number of words in one member of a list."""


@cache
def _phrases() -> Sequence[tuple[re.Pattern[str], str]]:
    pairs = (line.split(" = ") for line in table("words.toml")["phrases"].strip().split("\n"))
    return [(re.compile(rf"\b{said}\b"), meant) for said, meant in pairs]


@lru_cache(maxsize=4096)
def sentence(text: str) -> tuple[Token, ...]:
    """Return the tokens of a text, in lower case, in linear time for any content."""
    text = re.sub(r"(?<!ca)n't\b|(?<=can)'t\b", " not", text.lower().replace("’", "'"))
    text = re.sub(r"[-_/]", " ", text.replace("♯", "#").replace("♭", " flat"))
    for said, meant in _phrases():
        text = said.sub(meant, text)
    return tuple(_spread_denials(tokens(text)))


def tokens(text: str) -> list[Token]:
    """Return words and marks, in lower case, without further processing."""
    found: list[Token] = []
    for match in map(str, _TOKEN.findall(text)):
        if not match[0].isalnum():
            mark = _MARKS.get(match, ".")
            if not found or found[-1].text != mark:
                found.append(Token(mark, mark))
        elif match not in _DROPPED:
            word = numbers().get(match, match.removesuffix("'s"))
            if word.endswith("est") and not root(word).endswith("est"):
                found.append(Token("most", "most"))
            parts = _parts(word)
            # "Windowless", where the vocabulary does not hold it whole, is "no window".
            parts = ("no", *parts[:-1]) if len(parts) > 1 and parts[-1] == "less" else parts
            found += [Token(part, root(part)) for part in parts]
    return found


def roots(text: str) -> Phrase:
    return tuple(token.root for token in tokens(text.lower().replace("-", " ")))


def _spread_denials(said: Sequence[Token]) -> Iterator[Token]:
    """Repeat a negation before each member of the following list: "no drums, bells or brass"."""
    joints: dict[int, Token] = {}
    for at, token in enumerate(said):
        if token.text in DENIALS:
            denial = Token("not", "not") if token.text == "neither" else token
            joints.update(dict.fromkeys(_joints(said, at + 1), denial))
            token = denial
        if at in joints:
            if at + 1 not in joints:
                yield joints[at]
        else:
            yield token


def _joints(said: Sequence[Token], at: int) -> list[int]:
    """Return the positions of the commas and conjunctions of the negated list that begins at ``at``; it ends with "or", or
    joins two words with "and"."""
    end = _member(said, at)
    found, listed = [], 0
    while end < len(said) and end > at:
        joint = [end] if said[end].text in (",", "or", "nor") else []
        if joint and said[end].text == "," and end + 1 < len(said) and said[end + 1].text in ("or", "nor"):
            joint.append(end + 1)
        at = end + len(joint)
        end = _member(said, at)
        if not joint or end == at:
            break
        found += joint
        if said[joint[-1]].text != ",":
            listed = len(found)
    if not found and end < len(said) and said[end].text == "and":
        after = _member(said, end + 1)
        if end - at <= 2 and after == end + 2 and (after == len(said) or said[after].is_mark):
            return [end]
    return found[:listed]


def _member(said: Sequence[Token], at: int) -> int:
    """Return the end of the list member that begins at ``at``."""
    end = at
    while end < len(said) and end - at < MOST_WORDS and not said[end].is_mark and said[end].text not in _LIST_ENDS:
        end += 1
    return end


def is_foreign(text: str) -> bool:
    """Return True if most of a text is in another script, or its function words are those of another language."""
    letters = [letter for letter in text if letter.isalpha()]
    if sum(ord(letter) > 0x24F for letter in letters) * 2 > len(letters):
        return True
    words = re.findall(r"[^\W\d_]+", text.lower())
    other, english = (sum(word in word_list(name) for word in words) for name in ("foreign", "english"))
    return other > english and (other >= 2 or other * 3 >= len(words) > 1)
