"""Packing: several questions in one call, gathered here, asked together, answered one by one.

The answers belong to the single questions: each is checked and kept as if it had been asked alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from latentscore.json_search import JsonObject
from latentscore_data.core.base.names import json_bytes
from latentscore_data.core.llm.types import Question

GATHER_SECONDS = 0.05
"""How long a pack that is not full waits for more questions."""

PACKING_RULES = """

You are given several of these at once, each after its key in square brackets. Answer each one by itself, as if it were \
the only one, and let none of them influence another. The answer is one JSON object with "answers", a list with one \
object for each key: "key", the key as given, and "answer", an object as described above."""


@dataclass(frozen=True)
class Asked:
    """A question that waits for its pack."""

    key: str
    question: Question
    answer_type: type[BaseModel]
    answer: asyncio.Future[Any]


class Packer:
    """Gathers questions that differ in nothing but their user message, at most ``size`` of them."""

    def __init__(self, send: Callable[[Sequence[Asked]], Awaitable[None]], size: int) -> None:
        self._send, self._size = send, size
        self._open: dict[Any, list[Asked]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, key: str, question: Question, answer_type: type[BaseModel]) -> Any:
        """The answer, once the pack that the question went with has come back."""
        loop = asyncio.get_running_loop()
        asked = Asked(key, question, answer_type, loop.create_future())
        # Candidates of one vibe never meet in a pack: they would be told apart by nothing.
        alike = (answer_type, question.system, tuple(question.sampling.items()), question.sample_idx)
        waiting = self._open.setdefault(alike, [])
        waiting.append(asked)
        if len(waiting) >= self._size:
            self._go(alike)
        elif len(waiting) == 1:
            loop.call_later(GATHER_SECONDS, self._go, alike, waiting)
        return await asked.answer

    def _go(self, alike: Any, only: list[Asked] | None = None) -> None:
        pack = self._open.get(alike)
        if not pack or (only is not None and pack is not only):
            return
        del self._open[alike]
        task = asyncio.ensure_future(self._send(pack))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


def together(questions: Sequence[Question]) -> Question:
    """The one question that asks all of them; their keys are "1", "2" and so on."""
    first = questions[0]
    user = "\n\n".join(f"[{number}]\n{question.user}" for number, question in enumerate(questions, 1))
    longest = first.max_tokens * len(questions) if first.max_tokens is not None else None
    return replace(first, system=first.system + PACKING_RULES, user=user, max_tokens=longest)


class Keyed(BaseModel):
    """One answer of several. It is checked when it is taken apart, so that a bad one spoils no other."""

    model_config = ConfigDict(extra="forbid")

    key: str
    answer: JsonObject


class Together(BaseModel):
    """The answer to several questions."""

    model_config = ConfigDict(extra="forbid")

    answers: list[Keyed]


@cache
def packed_schema(answer_type: type[BaseModel]) -> JsonObject:
    """The JSON schema that a pack is asked with: the single answer's schema inside, with its definitions lifted up."""
    single = answer_type.model_json_schema()
    definitions = single.pop("$defs", {})
    keyed = {
        "type": "object",
        "properties": {"key": {"type": "string"}, "answer": single},
        "required": ["key", "answer"],
        "additionalProperties": False,
    }
    return {
        "$defs": definitions,
        "type": "object",
        "properties": {"answers": {"type": "array", "items": keyed}},
        "required": ["answers"],
        "additionalProperties": False,
    }


def taken_apart(value: Together, count: int, answer_type: type[BaseModel]) -> list[BaseModel | None]:
    """The answers in the order of the questions; None for each that is missing, doubled or not valid."""
    found: dict[str, list[Any]] = {}
    for entry in value.answers:
        found.setdefault(entry.key.strip("[] "), []).append(entry.answer)
    return [_valid(found.get(str(number), []), answer_type) for number in range(1, count + 1)]


def _valid(given: list[Any], answer_type: type[BaseModel]) -> BaseModel | None:
    if len(given) != 1:
        return None
    try:
        # As JSON, so that the same leniency applies as to an answer that came alone.
        return answer_type.model_validate_json(json_bytes(given[0]))
    except ValidationError:
        return None
