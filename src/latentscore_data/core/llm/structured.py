"""Structured answers: how a type is requested, and how an answer's text is parsed to an object of that type."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal

import orjson
from pydantic import ValidationError

from latentscore.json_search import Found, JsonObject, inside, search
from latentscore_data.core.llm.types import Messages, T

Mode = Literal["schema", "json_object", "text"]
MODES: tuple[Mode, ...] = ("schema", "json_object", "text")
"""Response formats, the strictest first; if a model refuses one, the next is used."""

_LENGTHS = ("minLength", "maxLength", "default")


class BadAnswer(Exception):
    """An unusable answer. ``reason`` is truncated, filtered, empty, malformed or invalid."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class _Miss(Exception):
    """A text without a valid object. ``fault`` is the error of the most likely object; ``tried`` is true if there is an
    object."""

    def __init__(self, fault: ValidationError, tried: bool) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.tried = tried


@dataclass(frozen=True)
class Shape(Generic[T]):
    """An answer type and its schema, built once.

    ``hosted`` leaves out keywords that hosted providers refuse in a strict schema (lengths of strings); a local
    server's grammar needs them to limit texts. The answer is validated completely in both cases.
    """

    answer_type: type[T]
    hosted: bool = True
    given_schema: JsonObject | None = None
    """The schema, if it is not that of the type."""

    @cached_property
    def schema(self) -> JsonObject:
        return self.given_schema or self.answer_type.model_json_schema()

    @cached_property
    def response_formats(self) -> dict[Mode, JsonObject | None]:
        sent = _without(self.schema, _LENGTHS) if self.hosted else self.schema
        named = {"name": self.answer_type.__name__, "schema": sent, "strict": True}
        return {
            "schema": {"type": "json_schema", "json_schema": named},
            "json_object": {"type": "json_object"},
            "text": None,
        }

    def asked(self, messages: Messages, mode: Mode) -> tuple[Messages, JsonObject | None]:
        """The messages and the response format of a call in that mode."""
        if mode != "schema":
            head = messages[0]
            messages = [{**head, "content": head["content"] + self._instruction}, *messages[1:]]
        return messages, self.response_formats[mode]

    @cached_property
    def _instruction(self) -> str:
        """The instruction in the prompt, if the schema cannot be sent as a parameter."""
        return (
            "\n\nAnswer with one JSON object and nothing else. It must match this JSON schema:\n"
            + orjson.dumps(self.schema).decode()
        )

    def read(self, text: str | None, finish_reason: str, thoughts: Sequence[str] = (), calls: Sequence[str] = ()) -> T:
        """The object in an answer.

        ``text`` is the model's content and ``calls`` are the arguments of its tool calls; ``thoughts`` are searched if
        neither has an object. Raises :class:`BadAnswer`.
        """
        # Checked first, because a truncated answer is the usual cause of invalid JSON.
        if finish_reason == "length":
            raise BadAnswer("truncated", "the answer was cut off at max_tokens")
        if finish_reason == "content_filter":
            raise BadAnswer("filtered", "the provider's content filter withheld the answer")
        said = [one for one in (text, *calls) if one and one.strip()]
        thought = [one for one in thoughts if one.strip()]
        if not said and not thought:
            raise BadAnswer("empty", "there was no answer")
        misses: list[_Miss] = []
        for one in [*said, *thought]:
            if len(misses) >= len(said) and any(miss.tried for miss in misses[: len(said)]):
                break  # the content is the answer and is invalid; a thought may contain an older draft
            try:
                return self._find(one)
            except _Miss as miss:
                misses.append(miss)
        # The error of an object is more informative than that a text is not an object.
        raise BadAnswer(*_describe(min((miss.fault for miss in misses), key=_is_malformed))) from None

    def _find(self, text: str) -> T:
        """Return the object of this type in a text. Raises :class:`_Miss` if none is valid."""
        try:
            return self.answer_type.model_validate_json(text)
        except ValidationError as error:
            whole = error
        found = search(text)
        said = list(self._alike(found.said))
        tried = bool(said) or not self._names.isdisjoint(found.begun)
        fault: ValidationError | None = None
        for value in said if tried else self._alike(found.thoughts):
            try:
                return self.answer_type.model_validate_json(_dumped(value))
            except ValidationError as error:
                fault = fault or error
        raise _Miss(fault or whole, tried or not _is_malformed(whole))

    def _alike(self, found: Iterable[Found]) -> Iterator[JsonObject]:
        """Yield the objects, and those inside them, that have at least one field of the type; a type whose fields all have
        defaults would otherwise match any object."""
        for one in found:
            for value in itertools.chain((one.value,), inside(one.value)):
                if not self._names.isdisjoint(value):
                    yield value

    @cached_property
    def _names(self) -> set[str]:
        fields = self.answer_type.model_fields
        return {*fields, *(field.alias for field in fields.values() if field.alias)}


def _dumped(value: JsonObject) -> bytes:
    # A JSON escape may be a lone surrogate, which files and databases cannot store.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _is_malformed(fault: ValidationError) -> bool:
    return fault.errors(include_url=False, include_context=False, include_input=False)[0]["type"] == "json_invalid"


def _without(schema: Any, names: tuple[str, ...]) -> Any:
    """Return the schema without some keywords."""
    if isinstance(schema, list):
        return [_without(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: JsonObject = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            # The keys below are names of fields, not keywords.
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
