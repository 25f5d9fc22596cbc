"""Extraction of vibes without a model: the sentences of a text with the most mood words, in five lengths.

The result consists of words of the text.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from latentscore.meaning.reading import pole_words, read, says_something
from latentscore.meaning.sentence import word_list
from latentscore_data.core.vibes.schema import CharacterVibes, Ladder, TextVibes, Vibe

PAGE_MARK = re.compile(r"\(Page (\d+)\)")
SCENE_WORDS = 160
"""Approximate number of words of a scene."""
MOST_SCENES = 12
MOST_CHARACTERS = 2
LINE_WORDS = 28
"""Longest line of an xl wording, in words."""


@dataclass(frozen=True)
class _Sentence:
    text: str
    page: int
    at: int

    @cached_property
    def words(self) -> int:
        return len(self.text.split())

    @cached_property
    def score(self) -> float:
        """Mood words per length, with a penalty for very short and very long sentences."""
        hits = sum(map(says_something, _words(self.text)))
        return hits / (6.0 + abs(self.words - 18) ** 0.8) if self.words >= 4 else 0.0


def vibes_for(text: str, *, max_vibes: int = MOST_SCENES, characters: bool = True) -> TextVibes:
    """Return up to ``max_vibes`` vibes of an English text, the scene with the highest score first.

    ``text`` may contain ``(Page k)`` marks; each vibe has the page of its scene, 0 without marks. A text without words
    has no vibes.
    """
    sentences = _sentences(text)
    scenes = sorted(_scenes(sentences), key=_rank)
    names = _names(sentences) if characters else []
    vibes: list[Vibe] = []
    for scene in scenes[:max_vibes]:
        people = [
            CharacterVibes(name=name, ladders=[_ladder(about, about=name)])
            for name in names
            if (about := [s for s in scene if re.search(rf"\b{re.escape(name)}\b", s.text)])
        ][:MOST_CHARACTERS]
        vibes.append(
            Vibe(
                vibe_index=len(vibes),
                text_page=scene[0].page,
                characters=people,
                scene_vibes=[_ladder(scene)],
                tags=_tags(scene),
            )
        )
    return TextVibes(vibes=vibes)


# --- sentences and scenes --------------------------------------------------------------------------------------------

_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|Capt|vs|etc|No|Vol|e\.g|i\.e)\.$")
_END = re.compile(r"(?<=[.!?…])[\"'”’)]*\s+(?=[\"'“‘(]*[A-Z0-9])")


def _sentences(text: str) -> list[_Sentence]:
    found: list[_Sentence] = []
    pages = PAGE_MARK.split(text)
    numbered = [(0, pages[0]), *((int(n), body) for n, body in zip(pages[1::2], pages[2::2], strict=True))]
    for page, body in numbered:
        for paragraph in re.split(r"\n\s*\n", body):
            flat = " ".join(paragraph.split())
            begin = 0
            for end in [*(m.start() for m in _END.finditer(flat)), len(flat)]:
                piece = flat[begin:end].strip()
                closing = re.match(r"[\"'”’)]+", flat[end:])
                if closing:
                    piece += closing[0]
                if end < len(flat) and _ABBREVIATION.search(piece):
                    continue
                begin = end + (len(closing[0]) if closing else 0)
                if re.search(r"\w", piece):
                    found.append(_Sentence(piece, page, len(found)))
    return found


def _scenes(sentences: list[_Sentence]) -> list[list[_Sentence]]:
    """Return runs of sentences of one page with about :data:`SCENE_WORDS` words; a short last run joins the one before."""
    scenes: list[list[_Sentence]] = []
    words = 0
    for sentence in sentences:
        if not scenes or words >= SCENE_WORDS or scenes[-1][0].page != sentence.page:
            scenes.append([])
            words = 0
        scenes[-1].append(sentence)
        words += sentence.words
    if len(scenes) > 1 and words < SCENE_WORDS / 3 and scenes[-2][0].page == scenes[-1][0].page:
        rest = scenes.pop()
        scenes[-1].extend(rest)
    return scenes


def _rank(scene: list[_Sentence]) -> tuple[float, int]:
    """Return the sort key of a scene: the scores of its three best sentences, then its place in the text."""
    return -sum(sorted((s.score for s in scene), reverse=True)[:3]), scene[0].at


# --- five lengths ----------------------------------------------------------------------------------------------------


def _ladder(scene: list[_Sentence], about: str | None = None) -> Ladder:
    ranked = sorted(scene, key=lambda s: (-s.score, s.at))
    clauses = _clauses(ranked)
    top = clauses[0] if clauses else ranked[0].text
    xl = "\n".join(_in_text_order(scene, clauses[:3]) or [_cut(ranked[0].text, LINE_WORDS)])
    lg = " ".join(_cut(s.text, 45) for s in sorted(ranked[:2], key=lambda s: s.at))
    if len(clauses) > 2 and _words(xl) == _words(lg):
        # The three clauses are all of the two best sentences: with two of them, xl and lg differ.
        xl = "\n".join(_in_text_order(scene, clauses[:2]))
    m = _cut(ranked[0].text, 30)
    sm = _densest(top if len(top.split()) >= 5 else ranked[0].text, 5, 9)
    xs = _densest(sm, 1, 3)
    if about and about.lower() not in sm.lower():
        sm = f"{about}: {' '.join(sm.split()[:8])}"
    return Ladder(xl=xl, lg=lg, m=m, sm=sm.strip(), xs=xs)


def _clauses(ranked: list[_Sentence]) -> list[str]:
    """Return the clauses of the best sentences, each cut to one line, the one with the highest score first."""
    scored: list[tuple[float, int, str]] = []
    for order, sentence in enumerate(ranked[:6]):
        for part in re.split(r"(?<=[;:—–])\s*|(?<=[.!?])\s+", sentence.text):
            part = part.strip(" ;:—–")
            if len(part.split()) >= 5:
                line = _cut(part, LINE_WORDS)
                scored.append((-_Sentence(line, 0, 0).score, order, line))
    return list(dict.fromkeys(line for _, _, line in sorted(scored)))


def _in_text_order(scene: list[_Sentence], lines: list[str]) -> list[str]:
    flat = " ".join(s.text for s in scene)
    return sorted(lines, key=lambda line: flat.find(line.rstrip("…")))


def _cut(text: str, words: int) -> str:
    """Return the text with at most this many words, cut at the last comma if it is in the second half."""
    parts = text.split()
    if len(parts) <= words:
        return text
    cut = " ".join(parts[:words])
    comma = cut.rfind(",")
    return (cut[:comma] if comma > len(cut) // 2 else cut).rstrip(" ,;:—–") + "…"


def _densest(text: str, at_least: int, at_most: int) -> str:
    """Return the run of ``at_least`` to ``at_most`` words with the most mood words, if possible without function words
    at its ends."""
    words = re.findall(r"[^\W_]+(?:[-'’][^\W_]+)*[,;]?", text)
    best, best_rank = words[:at_most], (-1.0, 0, 0)
    for length in range(min(at_least, len(words)), min(at_most, len(words)) + 1):
        for start in range(len(words) - length + 1):
            run = words[start : start + length]
            bare = [w.strip(",;").lower() for w in run]
            if any("," in w or ";" in w for w in run[:-1]) and at_most <= 3:
                continue
            hits = sum(map(says_something, bare))
            small = (bare[0] in word_list("small")) + 2 * (bare[-1] in word_list("small"))
            inner = sum(word in word_list("small") for word in bare)
            rank = (hits - 0.8 * small - 0.25 * inner - 0.12 * length, length, -start)
            if rank > best_rank or best_rank[0] == -1.0:
                best, best_rank = run, rank
    joined = " ".join(best).strip(" ,;")
    return joined if at_most > 3 else joined.lower()


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def _tags(scene: list[_Sentence]) -> list[str]:
    """Return up to three poles of the scene's strongest axes, and its two most frequent mood words."""
    text = " ".join(sentence.text for sentence in scene)
    spoken = Counter(word for word in _words(text) if len(word) > 3 and says_something(word))
    words = [word for word, _ in sorted(spoken.items(), key=lambda item: (-item[1], item[0]))[:2]]
    return list(dict.fromkeys([*list(pole_words(read(text)))[:3], *words]))


# --- characters ------------------------------------------------------------------------------------------------------

_CAPITALISED = """
    god lord sir madam mr captain chapter english french christian christmas yes aye ay oh nor upon after before while yet now here
    right such these why how not no monday tuesday wednesday thursday friday saturday sunday january february march april june july
    august september october november december
    """
_NOT_A_NAME = frozenset(_CAPITALISED.split())


def _names(sentences: list[_Sentence]) -> list[str]:
    """Return capitalized words that occur twice or more inside sentences, without places, the most frequent first."""
    counts: Counter[str] = Counter()
    small = {w for s in sentences for w in re.findall(r"\b[a-z]+\b", s.text)}
    places = Counter(
        m[1] for s in sentences for m in re.finditer(r"\b(?:in|at|to|from|near|of)\s+([A-Z][a-z]{2,})\b", s.text)
    )
    for sentence in sentences:
        for match in re.finditer(r"(?<=[a-z,;—] )([A-Z][a-z]{2,})\b", sentence.text):
            if match[1].lower() not in small | _NOT_A_NAME | word_list("small"):
                counts[match[1]] += 1
    return [
        name
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count >= 2 and places[name] * 2 <= count
    ]
