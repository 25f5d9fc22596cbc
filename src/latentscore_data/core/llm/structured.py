"""The shape of an answer: how it is asked for, and how an answer's text becomes an object of that shape."""

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
"""Ways to ask for a shape, the strictest first; a model that refuses one is asked in the next."""

_LENGTHS = ("minLength", "maxLength", "default")


class BadAnswer(Exception):
    """An answer that cannot be used. ``reason`` is truncated, filtered, empty, malformed or invalid."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class _Miss(Exception):
    """A text without an object that fits. ``fault`` is that of the likeliest one; ``tried`` is true when there is one."""

    def __init__(self, fault: ValidationError, tried: bool) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.tried = tried


@dataclass(frozen=True)
class Shape(Generic[T]):
    """An answer type with what is sent for it, built once.

    ``hosted`` leaves out what hosted providers refuse in a strict schema (lengths of strings); a local server's grammar
    needs them to end a runaway text. The answer is validated in full either way.
    """

    answer_type: type[T]
    hosted: bool = True
    given_schema: JsonObject | None = None
    """The schema where it is not the type's own."""

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
        misses: list[_Miss] = []
        for one in [*said, *thought]:
            if len(misses) >= len(said) and any(miss.tried for miss in misses[: len(said)]):
                break  # what was said is the answer, and does not fit; a thought may hold an older draft
            try:
                return self._find(one)
            except _Miss as miss:
                misses.append(miss)
        # The fault of an object says more than that a text is no object.
        raise BadAnswer(*_describe(min((miss.fault for miss in misses), key=_is_malformed))) from None

    def _find(self, text: str) -> T:
        """The object of this type in a text. Raises :class:`_Miss` where none fits."""
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
        """The objects, and those inside of them, that have a field of the type: one whose fields all have defaults would be
        found in any object."""
        for one in found:
            for value in itertools.chain((one.value,), inside(one.value)):
                if not self._names.isdisjoint(value):
                    yield value

    @cached_property
    def _names(self) -> set[str]:
        fields = self.answer_type.model_fields
        return {*fields, *(field.alias for field in fields.values() if field.alias)}


def _dumped(value: JsonObject) -> bytes:
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
    kept: JsonObject = {}
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
