"""The shape of an answer: how it is asked for, and how an answer's text becomes an object of that shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)

Mode = Literal["schema", "json_object", "text"]
MODES: tuple[Mode, ...] = ("schema", "json_object", "text")
"""Ways to ask for a shape, the strictest first; a model that refuses one is asked in the next."""

_LENGTHS = ("minLength", "maxLength", "default")


class BadAnswer(Exception):
    """An answer that cannot be used. ``reason`` is truncated, filtered, empty, malformed or invalid."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Shape(Generic[T]):
    """An answer type with what is sent for it, built once.

    ``hosted`` leaves out what hosted providers refuse in a strict schema (lengths of strings); a local server's grammar
    needs them to end a runaway text. The answer is validated in full either way.
    """

    answer_type: type[T]
    hosted: bool = True
    given_schema: dict[str, Any] | None = None
    """The schema where it is not the type's own."""

    @cached_property
    def schema(self) -> dict[str, Any]:
        return self.given_schema or self.answer_type.model_json_schema()

    @cached_property
    def response_formats(self) -> dict[Mode, dict[str, Any] | None]:
        sent = _without(self.schema, _LENGTHS) if self.hosted else self.schema
        named = {"name": self.answer_type.__name__, "schema": sent, "strict": True}
        return {
            "schema": {"type": "json_schema", "json_schema": named},
            "json_object": {"type": "json_object"},
            "text": None,
        }

    @cached_property
    def instruction(self) -> str:
        """Said in words where the schema cannot be handed over."""
        return (
            "\n\nAnswer with one JSON object and nothing else. It must match this JSON schema:\n"
            + orjson.dumps(self.schema).decode()
        )

    def read(self, text: str | None, finish_reason: str) -> T:
        """The object in an answer. Raises :class:`BadAnswer`."""
        # Looked at first: a cut answer explains most invalid JSON.
        if finish_reason == "length":
            raise BadAnswer("truncated", "the answer was cut off at max_tokens")
        if finish_reason == "content_filter":
            raise BadAnswer("filtered", "the provider's content filter withheld the answer")
        if text is None or not text.strip():
            raise BadAnswer("empty", "there was no answer")
        try:
            return self.answer_type.model_validate_json(text)
        except ValidationError as error:
            first = error
        found = find_json(text)
        if found is None or found == text:
            raise BadAnswer(*_describe(first))
        try:
            return self.answer_type.model_validate_json(found)
        except ValidationError as error:
            raise BadAnswer(*_describe(error)) from None


def _without(schema: Any, names: tuple[str, ...]) -> Any:
    """The schema without some of its words."""
    if isinstance(schema, list):
        return [_without(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            # The keys below are names of fields, not words of the schema.
            kept[key] = {name: _without(inner, names) for name, inner in value.items()}
        elif key not in names:
            kept[key] = _without(value, names)
    return kept


_THINK_START, _THINK_END = (re.compile(mark, re.IGNORECASE) for mark in ("<think>", "</think>"))


def find_json(text: str) -> str | None:
    """The JSON object in a chatty answer: thoughts removed, a fenced block before bare braces; None without one.

    Marks are looked for one by one: an expression for a whole block tries every start against every end, which takes
    minutes on an answer that repeats one mark.
    """
    said = ""
    *before_ends, rest = _THINK_END.split(text)
    for piece in before_ends:
        kept, *thought = _THINK_START.split(piece, maxsplit=1)
        # Some servers cut the opening mark off: then all that came before is a thought.
        said = said + kept if thought else ""
    text = said + rest
    for block in reversed(text.split("```")[1:-1:2]):
        inside = (block[4:] if block[:4].lower() == "json" else block).strip()
        if inside.startswith("{"):
            return inside
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else None


def _describe(error: ValidationError) -> tuple[str, str]:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return "malformed", faults[0]["msg"]
    lines = [f"{'.'.join(map(str, fault['loc'])) or 'answer'}: {fault['msg']}" for fault in faults[:8]]
    more = f" (and {len(faults) - 8} more)" if len(faults) > 8 else ""
    return "invalid", "; ".join(lines) + more
