"""Packing: collects several questions and asks them in one call.

Each answer is validated and stored as if its question had been asked alone.
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
"""Seconds that an incomplete pack waits for more questions."""

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
    """Collects questions that differ only in their user message, at most ``size`` per pack."""

    def __init__(self, send: Callable[[Sequence[Asked]], Awaitable[None]], size: int) -> None:
        self._send, self._size = send, size
        self._open: dict[Any, list[Asked]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, key: str, question: Question, answer_type: type[BaseModel]) -> Any:
        """Return the answer, once the question's pack is answered."""
        loop = asyncio.get_running_loop()
        asked = Asked(key, question, answer_type, loop.create_future())
        # Candidates of one vibe are never in the same pack, because they would be identical questions.
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
    """Return one question for all of them; their keys are "1", "2" and so on."""
    first = questions[0]
    user = "\n\n".join(f"[{number}]\n{question.user}" for number, question in enumerate(questions, 1))
    longest = first.max_tokens * len(questions) if first.max_tokens is not None else None
    return replace(first, system=first.system + PACKING_RULES, user=user, max_tokens=longest)


class Keyed(BaseModel):
    """One answer of several. It is validated separately, so that an invalid one does not affect the others."""

    model_config = ConfigDict(extra="forbid")

    key: str
    answer: JsonObject


class Together(BaseModel):
    """The answer to several questions."""

    model_config = ConfigDict(extra="forbid")

    answers: list[Keyed]


@cache
def packed_schema(answer_type: type[BaseModel]) -> JsonObject:
    """Return the JSON schema of a pack, which contains the single answer's schema; definitions are moved to the top level."""
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
    """Return the answers in the order of the questions; None for each that is missing, duplicated or invalid."""
    found: dict[str, list[Any]] = {}
    for entry in value.answers:
        found.setdefault(entry.key.strip("[] "), []).append(entry.answer)
    return [_valid(found.get(str(number), []), answer_type) for number in range(1, count + 1)]


def _valid(given: list[Any], answer_type: type[BaseModel]) -> BaseModel | None:
    if len(given) != 1:
        return None
    try:
        # As JSON, so that the same validation applies as to a single answer.
        return answer_type.model_validate_json(json_bytes(given[0]))
    except ValidationError:
        return None
