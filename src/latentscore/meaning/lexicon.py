"""Map English words to config fields: the fields that a vibe names explicitly, and those that its moods imply.

The words are data (``lexicon.toml``). This module matches them: it ignores endings, corrects small typing errors,
interprets negations and intensifiers, and assigns an adjective to the noun beside it ("slow chord changes" is not a
slow tempo).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, NamedTuple

from latentscore.labels import FIELDS, FieldSpec, Label, beats_per_minute
from latentscore.meaning.reading import Reading, colors_in, genre_labels, poles, read_rest
from latentscore.meaning.sentence import Phrase, numbers, root, roots, sentence, table, word_list

REGISTER = "register"
"""A field of the lexicon, not of the config: its labels are pairs of octaves."""


class Mention(NamedTuple):
    """A field that the text names, the requested label, and the confidence (higher is more certain)."""

    field: str
    label: Label
    strength: float
    words: str


@dataclass
class ParsedVibe:
    """Everything that a text specifies about the config."""

    fields: dict[str, Label] = field(default_factory=dict)
    """Explicitly named fields; they have precedence."""
    words: dict[str, str] = field(default_factory=dict)
    """The words by which each field was named."""
    banned: dict[str, set[Label]] = field(default_factory=lambda: defaultdict(set))
    """Labels that the text excludes, if it does not request another label."""
    genre: Mapping[str, Label] = field(default_factory=dict)
    """The usual labels of the named genres; other words may outweigh them."""
    reading: Reading = field(default_factory=Reading)
    """The interpretation of the other words on the axes."""
    colors: list[str] = field(default_factory=list)
    """Explicitly named colours, as #RRGGBB."""


# --- the tables ------------------------------------------------------------------------------------------------------


class Sense(NamedTuple):
    """The meaning of a phrase of the lexicon. ``alone`` is false for words that count only beside a head noun."""

    field: str
    label: Label
    alone: bool


@dataclass(frozen=True)
class Lexicon:
    """The tables, prepared for matching."""

    senses: Mapping[Phrase, tuple[Sense, ...]]
    heads: Mapping[Phrase, tuple[str, ...]]
    degrees: Mapping[tuple[Phrase, str], tuple[Label, ...]]
    alone: Mapping[Phrase, tuple[Sense, ...]]
    """The senses that count without a head noun."""
    exact: Mapping[str, frozenset[str]]
    """Base forms that are other words, and the forms that count: "blinding" for "blind"."""
    longest: int


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@cache
def lexicon() -> Lexicon:
    """The tables of this package, read once."""
    data = table("lexicon.toml")
    senses: dict[Phrase, list[Sense]] = defaultdict(list)
    heads: dict[Phrase, list[str]] = defaultdict(list)
    degrees: dict[tuple[Phrase, str], tuple[Label, ...]] = {}
    exact: dict[str, set[str]] = defaultdict(set)
    for word in _split(data["exact"]):
        exact[root(word)].add(word)

    def add_field(name: str, table: dict[str, str], labels: dict[str, Label]) -> None:
        own_heads = [roots(head) for head in [*_split(table.pop("heads", "")), name.replace("_", " ")]]
        for head in own_heads:
            if name not in heads[head]:
                heads[head].append(name)
        steps = tuple(labels[step] for step in _split(table.pop("degrees", "")))
        degree_heads = [roots(head) for head in _split(table.pop("degree_heads", ""))] or own_heads
        for head in degree_heads if steps else []:
            degrees[head, name] = steps
        for key, label in labels.items():
            phrases = _split(table.get(key, ""))
            if name != REGISTER and not isinstance(label, bool | int):
                phrases.append("~" + key.replace("_", " "))
            for phrase in phrases:
                alone = not phrase.startswith("~")
                key_words = roots(phrase.lstrip("~"))
                known = [s for s in senses[key_words] if s.field == name]
                if known:
                    # A phrase listed both alone and beside a head keeps the stronger meaning, alone.
                    if alone and not known[0].alone:
                        senses[key_words].remove(known[0])
                    else:
                        continue
                senses[key_words].append(Sense(name, label, alone))

    for name, rows in data["fields"].items():
        spec = FIELDS[name]
        add_field(name, dict(rows), {str(label).lower(): label for label in spec.labels})
    register = dict(data["register"])
    add_field(REGISTER, register, {key: key for key in register})

    return Lexicon(
        senses={k: tuple(v) for k, v in senses.items()},
        heads={k: tuple(v) for k, v in heads.items()},
        degrees=degrees,
        alone={k: tuple(s for s in v if s.alone) for k, v in senses.items() if any(s.alone for s in v)},
        exact={base: frozenset(words) for base, words in exact.items()},
        longest=max(map(len, (*senses, *heads))),
    )


# --- explicitly named fields -----------------------------------------------------------------------------------------


class WordClasses(NamedTuple):
    """Roots of the words that connect, deny and grade the terms of a sentence."""

    weak: frozenset[str]
    """Negations that mean a little: "hardly any reverb"."""
    negations: frozenset[str]
    fillers: frozenset[str]
    copulas: frozenset[str]
    breakers: frozenset[str]
    signs: tuple[tuple[frozenset[str], int], ...]
    """Adverbs of degree: those that intensify (1), weaken (-1) and moderate (-2)."""
    degrees: tuple[frozenset[str], ...]
    """Adjectives of degree, from none to extreme."""
    between: frozenset[str]
    """What may stand between a term and the word that grades it."""


def _stems(words: str) -> frozenset[str]:
    return frozenset(map(root, words.split()))


@cache
def word_classes() -> WordClasses:
    """Return the classes. Made at the first text, because roots need the word vectors."""
    weak = _stems("barely hardly scarcely less")
    negations = _stems(" ".join(word_list("not"))) - weak
    fillers = _stems(
        "a an the of any some kind sort its it this that these those and or more quite just only all with sounding like "
        "be style too really please make give me i want would like piece music track song soundscape there"
    )
    copulas = _stems(
        "is are be being been should must stay stays remain remains kept keep set to at : that which sound sounds feel feels "
        "played play plays go goes move moves moving level setting become becomes come comes can will by has have having in on"
    )
    signs = (
        (_stems(" ".join((*word_list("more"), "ultra"))), 1),
        (_stems("slightly somewhat faintly mildly bit little"), -1),
        (_stems("moderately fairly reasonably medium relatively averagely"), -2),
    )
    return WordClasses(
        weak=weak,
        negations=negations,
        fillers=fillers,
        copulas=copulas,
        breakers=_stems(
            ", but while under over through within beneath above behind into across . with without yet against"
        ),
        signs=signs,
        degrees=(
            _stems("no without zero absent lacking none free off missing"),
            _stems(
                "little light slight subtle gentle faint minimal mild low weak soft touch hint bit few barely hardly scarcely small slightly"
            ),
            _stems("moderate medium some average normal mid regular balanced moderately"),
            _stems(
                "strong heavy lots much high big deep plenty pronounced thick considerable many intense heavily strongly lot"
            ),
            _stems("extreme maximal infinite endless huge massive maximum extremely enormous"),
        ),
        between=frozenset().union(copulas, fillers, negations, *(words for words, _ in signs)),
    )


_BESIDE = {"more": "much", "less": "little"}
"""Words of degree only directly before a noun."""

_UNIPOLAR = frozenset(("echo", "swing", "syncopation", "chromatic_prob", "stereo", "human", "motion", "space"))
"""Scales that begin at zero; the others have a neutral middle and two opposite ends."""


def moved(spec: FieldSpec, label: Label, degree: int) -> Label:
    """Return the label after "very" (1), "slightly" (-1) or "moderately" (-2)."""
    if not spec.ordered or not degree:
        return label
    at, last = spec.labels.index(label), len(spec.labels) - 1
    if degree == -2:
        return spec.labels[len(spec.labels) // 2] if last > 1 else label
    if spec.name in _UNIPOLAR:
        return spec.labels[min(at + 1, last) if degree > 0 and at * 2 > last else 1 if degree < 0 and at > 1 else at]
    return spec.labels[min(max(at + (at * 2 > last) - (at * 2 < last), 0), last) if degree > 0 else at]


def opposite(spec: FieldSpec, label: Label) -> Label | None:
    """Return the label after "not", or None if there is none."""
    if spec.kind == "switch":
        return not label
    if "none" in spec.labels and not spec.ordered:
        return "none"
    if not spec.ordered:
        return None
    last = len(spec.labels) - 1
    mirrored = 0 if spec.name in _UNIPOLAR and label != spec.labels[0] else last - spec.labels.index(label)
    # "Not very fast" asks for slow or so, not for the slowest.
    return spec.labels[min(max(mirrored, 1), last - 1) if last > 2 and spec.name not in _UNIPOLAR else mirrored]


class _Reader:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.tables, self.words = lexicon(), word_classes()
        self.tokens = sentence(text)
        self.roots = [token.root for token in self.tokens]
        self.used = [False] * len(self.roots)
        self.mentions: list[Mention] = []
        self.banned: dict[str, set[Label]] = defaultdict(set)

    def read(self) -> None:
        heads = sorted(self._spans(self.tables.heads, [False] * len(self.roots)))
        within = {(first, last) for start, end in heads for first in (start - 1, start) for last in (end, end + 1)}
        head_at = {i for start, end in heads for i in range(start, end)}
        self._alone(lambda start, end: end - start >= 3 or ((start, end) in within and end - start == 2))
        for start, end in heads:
            if not any(self.used[start:end]):
                self._bind(start, end, head_at)
        self._alone(lambda start, end: True)

    def _spans(self, phrases: Mapping[Phrase, Any], taken: list[bool]) -> Iterator[tuple[int, int]]:
        """Yield positions of phrases that are not ``taken``, the longest first, and mark them as taken."""
        for length in range(min(self.tables.longest, len(self.roots)), 0, -1):
            for start in range(len(self.roots) - length + 1):
                end = start + length
                if tuple(self.roots[start:end]) in phrases and not any(taken[start:end]):
                    taken[start:end] = [True] * length
                    yield start, end

    def _alone(self, wanted: Callable[[int, int], bool]) -> None:
        """Interpret phrases without a head noun, at the positions that are ``wanted``."""
        taken = list(self.used)
        for start, end in self._spans(self.tables.alone, taken):
            if wanted(start, end) and self._is_exact(start, end):
                self._mention(self.tables.alone[tuple(self.roots[start:end])], start, end, float(end - start))
            else:
                taken[start:end] = self.used[start:end]

    def _is_exact(self, start: int, end: int) -> bool:
        """Return False for a single word that is another form of one that counts only as it is listed."""
        forms = self.tables.exact.get(self.roots[start]) if end - start == 1 else None
        return forms is None or self.tokens[start].text in forms

    def _before(self, start: int) -> tuple[bool, int]:
        """(negated, +1 intensified / -1 weakened / -2 moderate) by the three words before ``start``."""
        degree = 0
        for at in range(start - 1, max(start - 4, -1), -1):
            word = self.roots[at]
            if self.used[at]:
                break
            if word in self.words.negations | self.words.weak:
                return True, degree
            if found := next((sign for words, sign in self.words.signs if word in words), 0):
                degree = found
            elif word not in self.words.fillers and word != "in":
                break
        return False, degree

    def _bind(self, start: int, end: int, head_at: set[int]) -> None:
        """Interpret the adjectives on both sides of a noun, and its negation, as values of the noun's field."""
        head = tuple(self.roots[start:end])
        bound: set[str] = set()
        at, skipped = start - 1, 0
        while at >= 0 and skipped <= 3 and not self.used[at] and at not in head_at:
            if length := self._modifier(head, range(at, -1, -1), start, bound):
                at -= length
            elif self.roots[at] in self.words.negations:
                self._deny(head, bound, at, end)
                break
            else:
                skipped += self.roots[at] not in self.words.fillers
                at -= 1
        at, skipped, linked = end, 0, False
        while at < len(self.roots) and skipped <= 1 and not self.used[at]:
            word = self.roots[at]
            if (
                word in self.words.breakers
                or (word == "and" and not linked)
                or (at in head_at and not linked and word not in self.words.copulas)
            ):
                break
            if length := self._modifier(head, range(at, len(self.roots)), end, bound):
                at, linked = at + length, True
            else:
                # One word may come between, as in "bass notes leap in octaves".
                skipped += word not in self.words.between
                linked = linked or word in self.words.copulas
                at += 1
        if bound:
            self.used[start:end] = [True] * (end - start)
        elif self.words.negations.isdisjoint(self.roots[max(0, start - 3) : start]):
            # A named instrument or layer is requested.
            for name in self.tables.heads[head]:
                if name != REGISTER and "none" in FIELDS[name].labels:
                    self.banned[name].add("none")

    def _modifier(self, head: Phrase, places: range, near: int, bound: set[str]) -> int:
        """Bind the longest phrase along ``places`` that is a value of one of the head's fields; return its length, or 0."""
        for length in range(min(5, len(places)), 0, -1):
            first, last = min(places[0], places[length - 1]), max(places[0], places[length - 1]) + 1
            phrase = tuple(self.roots[first:last])
            senses = [s for s in self.tables.senses.get(phrase, ()) if s.field in self.tables.heads[head]]
            if not senses and length == 1:
                senses = self._degree(head, _BESIDE.get(phrase[0], phrase[0]) if last == near else phrase[0])
            senses = [s for s in senses if s.field not in bound]
            if senses and not any(self.used[first:last]):
                if self._before(first)[0] and phrase[0] in self.words.degrees[3] | self.words.degrees[4]:
                    # "Not much reverb" is a little, not none.
                    senses = self._degree(head, "little")
                    self.used[first - 1] = True
                bound.update(sense.field for sense in senses)
                self._mention(senses, first, last, 10.0 + length)
                return length
        return 0

    def _degree(self, head: Phrase, word: str) -> list[Sense]:
        """Return the senses of a noun with a degree: "a little echo"."""
        steps = ((name, self.tables.degrees.get((head, name))) for name in self.tables.heads[head])
        level = next(
            (at for at, words in enumerate(self.words.degrees) if word in words and word not in self.words.negations),
            None,
        )
        return [Sense(name, labels[level], False) for name, labels in steps if labels and level is not None][:1]

    def _deny(self, head: Phrase, bound: set[str], at: int, end: int) -> None:
        for name in self.tables.heads[head]:
            steps = self.tables.degrees.get((head, name))
            label = steps[0] if steps else "none" if name != REGISTER and "none" in FIELDS[name].labels else None
            if label is not None and name not in bound:
                bound.add(name)
                self._mention([Sense(name, label, False)], at, end, 10.0)
                return

    def _mention(self, senses: Sequence[Sense], start: int, end: int, strength: float) -> None:
        negated, degree = self._before(start)
        self.used[start:end] = [True] * (end - start)
        said = " ".join(token.text for token in self.tokens[start:end])
        for name, label, _ in senses:
            if name == REGISTER:
                if not negated:
                    low, high = map(int, str(label).split())
                    self.mentions.append(Mention("register_min_oct", low, strength, said))
                    self.mentions.append(Mention("register_max_oct", high, strength, said))
                continue
            label = moved(FIELDS[name], label, degree)
            other = opposite(FIELDS[name], label) if negated else label
            if other is None:
                self.banned[name].add(label)
            else:
                self.mentions.append(Mention(name, other, strength, f"not {said}" if negated else said))


@lru_cache(maxsize=4096)
def parse_vibe(text: str) -> ParsedVibe:
    """Parse a vibe: explicitly named fields, moods, colours. Any text is treated as data.

    The result is shared by the N candidates of a vibe; do not modify it.
    """
    reader = _Reader(text)
    reader.read()
    parsed = ParsedVibe(banned=reader.banned)
    strengths: dict[str, float] = {}
    for name, label, strength, words in [*reader.mentions, *_numbers_and_keys(text)]:
        if strength > strengths.get(name, 0.0) or _says_more(name, label, parsed.fields.get(name)):
            strengths[name] = strength
            parsed.fields[name] = label
            parsed.words[name] = words
    named = (at for at, used in enumerate(reader.used) if used and reader.roots[at] not in poles())
    parsed.genre = genre_labels(text)
    parsed.reading = read_rest(text, frozenset(named))
    parsed.colors = colors_in([token.text for token in reader.tokens])
    return parsed


def _says_more(name: str, label: Label | None, before: Label | None) -> bool:
    """Return True if ``label`` is on the same side of an ordered field's middle as ``before``, but further out."""
    spec = FIELDS[name]
    if spec.kind not in ("scale", "whole") or label is None or before is None:
        return False
    middle = (len(spec.labels) - 1) / 2
    new, old = spec.labels.index(label) - middle, spec.labels.index(before) - middle
    return new * old > 0 and abs(new) > abs(old)


# --- numbers and keys ------------------------------------------------------------------------------------------------

_BPM = re.compile(r"\b(\d{2,3})\s*(?:bpm|beats per minute|b\.p\.m)", re.IGNORECASE)
_NUMBER = r"(\d+|one|two|three|four|five|six|seven|eight)"
_OCTAVES = re.compile(
    rf"\boctaves?\s*{_NUMBER}\s*(?:to|through|and|until|up to|down to|[-–])\s*(?:octave\s*)?{_NUMBER}\b", re.IGNORECASE
)
_LAYERS = re.compile(
    rf"\b{_NUMBER}\s+(?:\w+\s+)?(?:layers|instruments|voices|parts)\b|\b(?:density|layers)\s*(?:is|of|:|=|at|set to|level)?\s*{_NUMBER}\b",
    re.IGNORECASE,
)
_NOTE = r"([A-Ga-g])\s?(#|♯|b\b|♭|[- ]?sharp\b|[- ]?flat\b)?"
_MODE = r"(major|minor|maj|min|dorian|mixolydian|ionian|aeolian)"
_KEY_NAMED = re.compile(
    r"\b(?:[Kk]ey|[Rr]oot|[Tt]onic|[Tt]onal cent(?:er|re)|[Hh]ome note|[Cc]entred|[Cc]entered)(?:\s+note)?"
    rf"\s*(?:should be|must be|set to|is|of|in|on|:|=)?\s*(?:the note\s*)?{_NOTE}(?![A-Za-z])"
)
_KEY_MODE = re.compile(
    rf"\b{_NOTE}[\s-]+{_MODE}\b(?!\s+(?:key|scale|mode|chord|tonality|third|seventh|feel))", re.IGNORECASE
)
_KEY_IN = re.compile(
    r"\b(?:[Ii]n|on)\s+([A-G])\s?(#|♯|b\b|♭|[- ]?sharp\b|[- ]?flat\b)?(?=\s*(?:[,.;!?)]|$|with\b|at\b|and\b))"
)
_MODES = {"maj": "major", "ionian": "major", "min": "minor", "aeolian": "minor"}
_FLATS = {"d": "c#", "e": "d#", "g": "f#", "a": "g#", "b": "a#", "c": "b", "f": "e"}
_SHARPS = {"e": "f", "b": "c"}
_MEASURED = 20.0
"""Confidence of a number or key, higher than that of any word."""


@cache
def _assignments() -> re.Pattern[str]:
    """``field: label`` and ``field=label`` in the schema's own words."""
    fields = "|".join(re.escape(name).replace("_", "[ _-]") for name in sorted(FIELDS, key=len, reverse=True))
    labels = {str(label).lower() for spec in FIELDS.values() for label in spec.labels}
    choices = "|".join(re.escape(label).replace("_", "[ _-]") for label in sorted(labels, key=len, reverse=True))
    return re.compile(rf"\b({fields})\s*[:=]\s*[\"']?({choices})(?![\w#])", re.IGNORECASE)


def _numbers_and_keys(text: str) -> Iterator[Mention]:
    for match in _assignments().finditer(text):
        name, value = (re.sub(r"[ -]", "_", part.lower()) for part in match.groups())
        for label in FIELDS[name].labels:
            if str(label).lower() == value:
                yield Mention(name, label, _MEASURED + 1, match[0])
    if match := _BPM.search(text):
        spec, bpm = FIELDS["tempo"], int(match[1])
        label = min(spec.labels, key=lambda label: abs(beats_per_minute(float(spec.number(label))) - bpm))
        yield Mention("tempo", label, _MEASURED, match[0])
    if match := _OCTAVES.search(text):
        low, high = sorted((_octave(match[1]), _octave(match[2])))
        yield Mention("register_min_oct", low, _MEASURED + 0.5, match[0])
        yield Mention("register_max_oct", high, _MEASURED + 0.5, match[0])
    if match := _LAYERS.search(text):
        yield Mention("density", min(max(_digit(match[1] or match[2]), 2), 6), _MEASURED, match[0])
    for match in (_KEY_NAMED.search(text), _key_with_mode(text), _KEY_IN.search(text)):
        if match:
            yield Mention("root", _root(match[1], match[2]), _MEASURED, match[0])
            break
    if match := _key_with_mode(text):
        mode = match[3].lower()
        yield Mention("mode", _MODES.get(mode, mode), _MEASURED, match[0])


def _key_with_mode(text: str) -> re.Match[str] | None:
    for match in _KEY_MODE.finditer(text):
        # "a minor" is an article and a mode unless it is written "A minor" or follows "in", "key of".
        before = text[: match.start()].rstrip().lower()
        if match[1] != "a" or match[2] or before.endswith(("in", "key of", "key:", "key")):
            if match[1] == "A" and not before and not match[2] and text[match.end() :].lstrip()[:1].isalpha():
                continue
            return match
    return None


def _root(note: str, sign: str | None) -> str:
    note, sign = note.lower(), (sign or "").strip(" -").lower()
    if sign in ("#", "♯", "sharp"):
        return _SHARPS.get(note, note + "#")
    if sign in ("b", "♭", "flat"):
        return _FLATS[note]
    return note


def _digit(text: str) -> int:
    return int(numbers().get(text.lower(), text))


def _octave(text: str) -> int:
    return min(max(_digit(text), 1), 8)
