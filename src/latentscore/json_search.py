"""Find the JSON objects in a model's reply, the most likely answer first.

Models put an answer between prose, fences, thoughts and examples, into a string or into another object. The caller
validates the objects; if several are valid, their order here decides.
"""

from __future__ import annotations

import bisect
import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]
"""A JSON object, as read from or written to a file, a request or an answer."""

_BEGINS = re.compile(
    r'\{\s*(?:\}|"(?:[^"\\]|\\.){0,100}"\s*:)'
    r'|"\s{0,4}(?:\\{1,8}"\s{0,4}){0,3}\[?\s{0,4}\{\s{0,20}\\{1,16}"'
)
"""The possible beginning of an object: a brace and its first key, also escaped inside a string."""
_FIRST_KEY = re.compile(r'["\\\s[{]{1,40}([^"\\]{0,100})')
_MARK = re.compile(
    r"<\|?channel\|?>\s*(?P<channel>\w{0,40})"
    r"|(?:<\|?|\[|◁)\s?(?P<name>/?[\w:./-]{1,40})(?:\s[^<>{}]{0,80})?(?:\|?>|\]|▷)",
    re.IGNORECASE,
)
_THOUGHT = re.compile(r"think|thought|reason|reflect|scratch|monologue|analysis|commentary", re.IGNORECASE)
_END = re.compile(r"/|end(?![a-z])", re.IGNORECASE)
_EXAMPLE = re.compile(r"\bexamples?\b|\be\.\s?g\.|\bfor instance\b", re.IGNORECASE)

BEFORE_EXAMPLE = 80
"""An object is an example if a word like "example" is in this many characters before it."""

NESTED_AT_MOST = 2000
"""Maximum number of values that are searched inside one object."""

QUOTED_AT_MOST = 8
"""Maximum number of times that a text is unquoted."""

_RECURSION_COST = 10_000


@dataclass(frozen=True)
class Found:
    """A JSON object and its position, ``text[start:end]``."""

    start: int
    end: int
    value: JsonObject
    example: bool = False


@dataclass(frozen=True)
class Search:
    """The objects of a text, outside (``said``) and inside its thoughts (``thoughts``), each sorted from the most likely
    answer."""

    said: list[Found]
    thoughts: list[Found]
    begun: frozenset[str]
    """The first keys of incomplete objects outside the thoughts."""


def search(text: str) -> Search:
    """Search a text for objects, in linear time for any content."""
    text = _unquoted(text)
    found = list(_objects(text))
    objects = _Spans([(one.start, one.end) for one in found])
    thinking = _thoughts(text, objects)
    starts = (match.start() for match in _BEGINS.finditer(text))
    begun = (_FIRST_KEY.match(text, at) for at in starts if at not in thinking and at not in objects)
    return Search(
        _likely_first([one for one in found if one.start not in thinking]),
        _likely_first([one for one in found if one.start in thinking]),
        frozenset(match[1] for match in begun if match is not None),
    )


def inside(value: Any) -> Iterator[JsonObject]:
    """Yield the objects inside a value, outer ones first, including those in strings of JSON."""
    waiting = deque([value])
    for _ in range(NESTED_AT_MOST):
        if not waiting:
            return
        one = waiting.popleft()
        if isinstance(one, dict):
            if one is not value:
                yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, str) and one.lstrip().startswith(("{", "[", '"')):
            waiting.extend(found.value for found in _objects(_unquoted(one)))


def _likely_first(found: list[Found]) -> list[Found]:
    """Sort: the last object first, because drafts precede the answer; examples last, because they may follow it."""
    backwards = found[::-1]
    return [one for one in backwards if not one.example] + [one for one in backwards if one.example]


def _objects(text: str) -> Iterator[Found]:
    """Yield the outermost objects from left to right; an object inside a string replaces the string."""
    at = before = 0
    # Each attempt may read far before it fails, so the total is limited.
    budget = 100_000 + 8 * len(text)
    while budget > 0 and (match := _BEGINS.search(text, at)) is not None:
        start = match.start()
        try:
            value, end = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            at, budget = start + 1, budget - _cost(error, start)
            continue
        except (ValueError, RecursionError):
            at, budget = start + 1, budget - _RECURSION_COST
            continue
        budget -= end - start
        example = bool(_EXAMPLE.search(text, max(before, start - BEFORE_EXAMPLE), start))
        for one in [value] if isinstance(value, dict) else (inner.value for inner in _objects(value)):
            yield Found(start, end, one, example)
        at = before = end


def _cost(error: json.JSONDecodeError, start: int) -> int:
    """Return the number of characters read before an attempt failed."""
    read = len(error.doc) if error.msg.startswith("Unterminated string") else error.pos
    return read - start + error.pos // 16 + 1


def _unquoted(text: str) -> str:
    """Unescape a text that is one JSON string, with or without its quotes; other texts are returned unchanged."""
    for _ in range(QUOTED_AT_MOST):
        bare = text.strip()
        if not bare.startswith(('"', '{\\"', '[{\\"')):
            break
        try:
            value = json.loads(bare if bare.startswith('"') else f'"{bare}"', strict=False)
        except ValueError:
            break
        text = str(value)
    return text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Line breaks inside strings are accepted: models write them.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant)


class _Spans:
    """Sorted, disjoint ranges of a text."""

    def __init__(self, spans: list[tuple[int, int]]) -> None:
        self._spans = spans
        self._starts = [start for start, _ in spans]

    def __contains__(self, at: int) -> bool:
        before = bisect.bisect_right(self._starts, at)
        return before > 0 and at < self._spans[before - 1][1]


def _thoughts(text: str, objects: _Spans) -> _Spans:
    """Return the ranges of thoughts. An unclosed mark extends to the end; a closing mark alone covers everything before it."""
    spans: list[tuple[int, int]] = []
    began: int | None = None
    for match in _MARK.finditer(text):
        begins, ends = _kind_of_mark(match)
        if not (begins or ends) or match.start() in objects:
            continue
        if begins:
            began = match.start() if began is None else began
        elif began is not None:
            spans.append((began, match.end()))
            began = None
        elif match["channel"] is None:
            spans = [(0, match.end())]
    if began is not None:
        spans.append((began, len(text)))
    return _Spans(spans)


def _kind_of_mark(match: re.Match[str]) -> tuple[bool, bool]:
    """Return (begins a thought, ends a thought)."""
    if match["channel"] is not None:
        begins = bool(_THOUGHT.search(match["channel"]))
        return begins, not begins
    if not _THOUGHT.search(match["name"]):
        return False, False
    ends = bool(_END.match(match["name"]))
    return not ends, ends
