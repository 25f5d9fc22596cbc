"""The shape of an answer: how it is asked for, and how an answer's text becomes an object of that shape."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from latentscore_data.core.llm.json_search import inside, search

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

    def read(self, text: str | None, finish_reason: str, thoughts: Sequence[str] = (), calls: Sequence[str] = ()) -> T:
        """The object in an answer.

        ``text`` is what the model said and ``calls`` are the arguments of its tool calls; ``thoughts`` are read where
        there is no object in either. Raises :class:`BadAnswer`.
        """
        # Looked at first: a cut answer explains most invalid JSON.
        if finish_reason == "length":
            raise BadAnswer("truncated", "the answer was cut off at max_tokens")
        if finish_reason == "content_filter":
            raise BadAnswer("filtered", "the provider's content filter withheld the answer")
        said = [one for one in (text, *calls) if one and one.strip()]
        thought = [one for one in thoughts if one.strip()]
        if not said and not thought:
            raise BadAnswer("empty", "there was no answer")
        faults: list[ValidationError] = []
        for one in said:
            try:
                return self._find(one)
            except ValidationError as error:
                faults.append(error)
        if all(_is_malformed(fault) for fault in faults) and not any(search(one).begun for one in said):
            for one in thought:
                try:
                    return self._find(one)
                except ValidationError as error:
                    faults.append(error)
        # The fault of an object says more than that a text is no object.
        raise BadAnswer(*_describe(min(faults, key=_is_malformed))) from None

    def _find(self, text: str) -> T:
        """The object of this type in a text. Raises the :class:`ValidationError` of the likeliest one where none fits."""
        try:
            return self.answer_type.model_validate_json(text)
        except ValidationError as error:
            whole = error
        fault: ValidationError | None = None
        for found in search(text).tried:
            for value in itertools.chain((found.value,), inside(found.value)):
                # A type whose fields all have defaults would be found in any object.
                if self._names.isdisjoint(value):
                    continue
                try:
                    return self.answer_type.model_validate_json(_dumped(value))
                except ValidationError as error:
                    fault = fault or error
        raise fault or whole

    @cached_property
    def _names(self) -> set[str]:
        fields = self.answer_type.model_fields
        return {*fields, *(field.alias for field in fields.values() if field.alias)}


def _dumped(value: dict[str, Any]) -> bytes:
    # Half a surrogate pair is legal in a JSON escape and in no file or database.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _is_malformed(fault: ValidationError) -> bool:
    return fault.errors(include_url=False, include_context=False, include_input=False)[0]["type"] == "json_invalid"


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


def _describe(error: ValidationError) -> tuple[str, str]:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if _is_malformed(error):
        return "malformed", faults[0]["msg"]
    lines = [f"{'.'.join(map(str, fault['loc'])) or 'answer'}: {fault['msg']}" for fault in faults[:8]]
    more = f" (and {len(faults) - 8} more)" if len(faults) > 8 else ""
    return "invalid", "; ".join(lines) + more
