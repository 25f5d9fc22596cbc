"""The texts of a model's message: its content, the arguments of its tool calls, and its thoughts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from latentscore.json_search import JsonObject
from latentscore_data.core.llm.server_errors import CallFailed, Refusal

_SAID = ("text", "output_text", "output_json", "json")
"""Types of content parts with the answer; others are thoughts or not text."""


@dataclass(frozen=True)
class Message:
    """A model's message. Lone surrogates, which JSON allows but files and databases do not, are replaced."""

    text: str | None = None
    calls: tuple[str, ...] = ()
    thoughts: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """One text that represents the message in the next question and in the cache of unusable answers."""
        return next((one for one in (self.text, *self.calls, *self.thoughts) if one and one.strip()), "")


def read_completion(answer: Any) -> tuple[Message, str, Mapping[str, Any]]:
    """(message, finish reason, usage) of a raw chat completion.

    Raises :class:`Refusal` for an error in a response with a success status, and :class:`CallFailed` for an invalid
    completion.
    """
    from litellm.litellm_core_utils.core_helpers import map_finish_reason

    body = _mapping(answer)
    choices: Any = body.get("choices")
    if (refusal := _refusal(body)) is not None:
        raise refusal
    if not isinstance(choices, list):
        raise CallFailed("the server's answer is not a chat completion", maybe_billed=True)
    usage = _mapping(body.get("usage"))
    if not choices:
        return Message(), "stop", usage
    choice = _mapping(cast("list[Any]", choices)[0])
    if not isinstance(choice.get("message"), dict):
        raise CallFailed("the server's answer is not a chat completion", maybe_billed=True)
    finish_reason = choice.get("finish_reason")
    mapped = str(map_finish_reason(finish_reason)) if isinstance(finish_reason, str) else "stop"
    return read_message(choice["message"]), mapped, usage


def _refusal(body: Mapping[str, Any]) -> Refusal | None:
    """Return the error in an answer, if any; some servers send an empty one with each answer."""
    error = body.get("error")
    told: Any = error if not isinstance(error, dict) else error.get("message") or error.get("code")
    if not told:
        return None
    code = str(_mapping(error).get("code"))
    status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else 422
    return Refusal(status, {}, json.dumps(body))


def read_message(message: Any) -> Message:
    """Read a raw message or LiteLLM's. Providers use different fields for the same content, some several."""
    if message is None:
        return Message()
    extra = _mapping(field_of(message, "provider_specific_fields"))
    said, thoughts = _parts(field_of(message, "content"))
    calls = [field_of(call, "function") for call in field_of(message, "tool_calls") or ()]
    calls.append(field_of(message, "function_call"))
    arguments = [_as_text(field_of(call, "arguments")) for call in calls if call is not None]
    arguments += [_as_text(given) for given in (field_of(message, "parsed"), extra.get("parsed"))]
    for place in ("reasoning_content", "reasoning", "thinking_blocks", "reasoning_details"):
        for given in (field_of(message, place), extra.get(place)):
            thoughts += [text for half in _parts(given) for text in half]
    return Message(
        _clean("".join(said)) if said else None,
        tuple(dict.fromkeys(_clean(one) for one in arguments if one)),
        tuple(dict.fromkeys(_clean(one) for one in thoughts if one)),
    )


def flatten_message(message: JsonObject) -> None:
    """Convert a raw message for LiteLLM: its content to a text, and its thoughts to a text in the reasoning field."""
    message["role"] = "assistant"
    said, thoughts = _parts(message.get("content"))
    if not isinstance(message.get("content"), str):
        message["content"] = "".join(said) if said else None
    for place in ("reasoning_content", "reasoning", "thinking_blocks"):
        given = message.get(place)
        if given is None or (isinstance(given, str) and place != "thinking_blocks"):
            continue
        thoughts += [text for half in _parts(message.pop(place)) for text in half]
    if thoughts:
        before = [text for place in ("reasoning_content", "reasoning") if (text := message.pop(place, None))]
        message["reasoning_content"] = "\n".join([*before, *thoughts])


def _parts(content: Any) -> tuple[list[str], list[str]]:
    """Return (answer texts, thoughts) of a content of any form: a text, an object, a list of parts."""
    said: list[str] = []
    thoughts: list[str] = []
    for part in cast("list[Any]", content) if isinstance(content, list | tuple) else [content]:
        if isinstance(part, str):
            said.append(part)
        elif isinstance(part, dict):
            part = cast("Mapping[str, Any]", part)
            kind = part.get("type")
            (said if kind in _SAID or not isinstance(kind, str) else thoughts).extend(_texts(part))
    return said, thoughts


def _texts(part: Mapping[str, Any]) -> Iterator[str]:
    """The texts of a part. An object without a type is the answer itself, unless it holds a text and nothing else."""
    if not isinstance(part.get("type"), str):
        yield part["text"] if set(part) == {"text"} and isinstance(part["text"], str) else json.dumps(part)
        return
    for key in ("text", "thinking", "json", "summary", "content"):
        inner = part.get(key)
        if isinstance(inner, str):
            yield inner
        elif key == "json" and inner is not None:
            yield json.dumps(inner)
        elif isinstance(inner, list | dict):
            yield from (text for half in _parts(inner) for text in half)


def field_of(value: Any, name: str) -> Any:
    """A field of an object of LiteLLM's, or of the same as a mapping."""
    return cast("Mapping[str, Any]", value).get(name) if isinstance(value, dict) else getattr(value, name, None)


def whole(value: object) -> int:
    """Return a count that a server reports; 0 if it is invalid."""
    return max(0, int(value)) if isinstance(value, int | float) and math.isfinite(value) else 0


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
