"""Reading the error response of a model server: its status, code, type, message and retry time.

It reads errors of both transports. LiteLLM maps errors by words in their text, and sometimes drops body and headers, so
the server's response is taken from the chain of exceptions. Its body is read in the formats that providers use.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from latentscore.json_search import search

Body = Mapping[str, Any]

WORDS_IN = 500
"""Number of characters of the message that are searched if only words identify an error."""

CHAIN_AT_MOST = 10
"""Maximum number of exceptions in the chain, from LiteLLM's to its cause."""


@dataclass(frozen=True)
class Response:
    """An error response, with the attributes that LiteLLM's exceptions also have."""

    status_code: int | None
    headers: Mapping[str, str]
    text: str


class Refusal(Exception):
    """A response with an error status, or with an error in its body."""

    def __init__(self, status: int | None, headers: Mapping[str, str], text: str) -> None:
        super().__init__(text[:WORDS_IN] or f"status {status}")
        self.response = Response(status, headers or {"status": str(status)}, text)
        self.status_code = status


class CallFailed(Exception):
    """A call without any valid response. ``final`` if a retry would fail in the same way."""

    def __init__(
        self, message: str, *, status: int | None = None, final: bool = False, maybe_billed: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.final = final
        self.maybe_billed = maybe_billed


@dataclass(frozen=True)
class ServerError:
    """A parsed error response. ``status`` is the server's, if known; ``names`` are its codes, types and reasons in lower case."""

    status: int | None
    message: str
    names: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    """The names that the server gives as the error's type."""
    param: str | None = None
    """The parameter that the server names as the cause."""
    retry_after: float | None = None
    """Seconds until a retry, as requested by the server."""
    draw: str | None = None
    """The model's text that the server refused as invalid JSON."""

    def named(self, pattern: re.Pattern[str]) -> bool:
        """True when a code, type or reason matches."""
        return any(pattern.search(name) for name in self.names)


def read_server_error(error: BaseException) -> ServerError:
    """Read the error response behind an exception. Never raises, whatever the server sent."""
    chain = list(_chain(error))
    given: list[Any] = [getattr(one, "response", None) for one in chain]
    responses = [response for response in given if getattr(response, "headers", None)]
    own = responses[0] if responses else None
    body = next(_bodies(chain, own), {})
    entries = list(_entries(body))
    names = frozenset(name.lower() for entry in entries for name in _names(entry))
    message = next((text for entry in entries if (text := _message(entry))), "") or str(error)
    mapped = _whole(getattr(error, "status_code", None))
    status = _whole(getattr(own, "status_code", None)) or mapped
    if status != mapped and mapped is not None and not names:
        status = mapped  # LiteLLM derived it from words, and the server gave no status
    headers = [response.headers for response in responses]
    headers += [kept for one in chain if (kept := getattr(one, "litellm_response_headers", None))]
    return ServerError(
        status,
        message,
        names,
        frozenset(str(entry["type"]).lower() for entry in entries if entry.get("type")),
        next((str(entry["param"]) for entry in entries if entry.get("param")), None),
        # Only the beginning of other messages, because servers repeat the request after it.
        _retry_seconds(headers, entries, message if status == 429 else message[:WORDS_IN]),
        next((str(entry["failed_generation"]) for entry in entries if "failed_generation" in entry), None),
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    for _ in range(CHAIN_AT_MOST):
        if one is None:
            return
        yield one
        one = one.__cause__ or one.__context__


def _bodies(chain: list[BaseException], response: Any) -> Iterator[Body]:
    """Yield objects that may be the body of the error response, the most reliable first."""
    with suppress(RuntimeError):  # the body of a stream that nobody read
        yield from _parsed(response.text if response is not None else "")
    for one in chain:
        if isinstance(body := getattr(one, "body", None), Mapping):
            yield cast("Body", body)
    for one in chain:
        for found in search(str(getattr(one, "message", None) or one)).said[::-1]:
            if found.value.keys() & {"error", "message", "code", "type", "detail", "errors"}:
                yield found.value


def _parsed(text: str) -> Iterator[Body]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    for one in cast("list[Any]", value) if isinstance(value, list) else [value]:
        if isinstance(one, Mapping):
            yield cast("Body", one)


def _entries(body: Body) -> Iterator[Body]:
    """Yield the objects of a body that describe the error; the original error comes before a router's own."""
    inner = body.get("error")
    if isinstance(inner, str) and inner.lstrip().startswith("{"):
        inner = next(_parsed(inner), inner)
    if isinstance(inner, Mapping):
        metadata = inner.get("metadata")
        if isinstance(metadata, Mapping) and isinstance(raw := metadata.get("raw"), str):
            for passed_on in _parsed(raw):
                yield from _entries(cast("Body", passed_on))
        yield cast("Body", inner)
        for detail in details if isinstance(details := inner.get("details"), list) else []:
            if isinstance(detail, Mapping):
                yield cast("Body", detail)
    yield body


def _names(entry: Body) -> Iterator[str]:
    for key in ("code", "type", "status", "reason", "__type"):
        # Numbers repeat the status.
        if isinstance(name := entry.get(key), str) and not name.isdigit():
            yield name


def _message(entry: Body) -> str:
    for key in ("message", "error", "detail", "msg", "Message"):
        if isinstance(text := entry.get(key), str) and text.strip():
            return text
    return ""


def _whole(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# -- retry times

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT = r"(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)"
_DURATION = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,9}})?)\s?({_UNIT})(?![a-z])", re.IGNORECASE)
_COME_AGAIN = re.compile(
    rf"\b(?:retry|try again|try your request again|wait)\b[^.\d]{{0,40}}((?:\d{{1,9}}(?:\.\d{{1,9}})?\s?{_UNIT}(?![a-z])\s?)+)",
    re.IGNORECASE,
)


def seconds_in(duration: str) -> float | None:
    """Return the seconds in a duration such as ``1.4s``, ``250ms`` or ``1h2m3s``; None if there is none."""
    parts = _DURATION.findall(re.sub(r"(?<=[a-z])(?=\d)", " ", duration, flags=re.IGNORECASE))
    if not parts:
        return None
    units = ((float(number), unit.lower()) for number, unit in parts)
    return sum(n * (0.001 if unit.startswith(("ms", "milli")) else _UNITS[unit[0]]) for n, unit in units)


def _retry_seconds(headers: list[Any], entries: list[Body], message: str) -> float | None:
    """From the header, else from the body (Google's ``retryDelay``, an estimated time of loading), else from the message."""
    for given in headers:
        if (seconds := retry_after_seconds(given)) is not None:
            return seconds
    for entry in entries:
        if isinstance(delay := entry.get("retryDelay"), str) and (seconds := seconds_in(delay)) is not None:
            return seconds
        estimate = entry.get("estimated_time")
        if isinstance(estimate, int | float) and not isinstance(estimate, bool) and math.isfinite(estimate):
            return max(0.0, float(estimate))
    found = _COME_AGAIN.search(message)
    return seconds_in(found[1]) if found else None


def retry_after_seconds(headers: Any, now: Callable[[], float] = time.time) -> float | None:
    """``Retry-After`` as seconds from now; the header holds seconds or a date. None without a usable one.

    A date is compared with the server's ``Date`` header, if present, because the local clock may be wrong.
    """
    lower = {str(name).lower(): str(value) for name, value in dict(headers).items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = lower.get(name)
        if not value:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            due = _unix_time(value)
            if due is None:
                continue
            sent = _unix_time(lower.get("date"))
            seconds = due - (sent if sent is not None else now())
        if not math.isnan(seconds):
            return max(0.0, seconds)
    return None


def _unix_time(date: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() if date else None
    except (ValueError, OverflowError):
        return None
