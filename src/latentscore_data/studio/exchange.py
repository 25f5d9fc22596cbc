"""Arguments and results of the API's handlers: calls and replies, independent of the web framework."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.names import json_bytes

T = TypeVar("T")

MOST_WORDS = 100
"""Longest list of texts in a call."""


@dataclass(frozen=True)
class Reply:
    """One response: its body, media type and HTTP status."""

    body: bytes
    media_type: str = "application/json"
    status: int = 200


def as_json(value: Any, status: int = 200) -> Reply:
    """Return the value as a JSON reply."""
    return Reply(json_bytes(value, orjson.OPT_SERIALIZE_NUMPY), status=status)


class Gone(Exception):
    """The browser closed the connection before the reply."""


@dataclass(frozen=True)
class Call:
    """One request with its JSON object. ``gone`` returns when the browser has closed the connection."""

    data: Mapping[str, Any]
    gone: Callable[[], Awaitable[None]]

    async def wait(self, *futures: Future[T]) -> list[T]:
        """Return the results of the futures.

        If the browser closes the connection, futures that have not started are cancelled, and :class:`Gone` is raised.
        """
        done = asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
        left = asyncio.ensure_future(self.gone())
        try:
            await asyncio.wait({done, left}, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                for future in futures:
                    future.cancel()
                # Retrieve the result: asyncio warns about exceptions that are never retrieved.
                done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                raise Gone
            return await done
        finally:
            left.cancel()
            done.cancel()

    def text(self, name: str, most: int, default: str | None = None) -> str:
        """Return a text of at most ``most`` characters. Raises :class:`InputError` for another value."""
        value = self.data.get(name, default)
        if not isinstance(value, str):
            raise InputError(f"{name} must be text")
        if len(value) > most:
            raise InputError(f"{name} has {len(value):,} characters; {most:,} are possible")
        return value

    def whole(self, name: str, low: int, high: int, default: int) -> int:
        """Return a whole number from ``low`` to ``high``. Raises :class:`InputError` for another value."""
        value = self.data.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"{name} must be a whole number from {low:,} to {high:,}, not {value!r}"[:200])
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """Return a number from ``low`` to ``high``. Raises :class:`InputError` for another value."""
        value = self.data.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise InputError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}"[:200])
        return float(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Return a JSON object. Raises :class:`InputError` for another value."""
        value = self.data.get(name)
        if not isinstance(value, dict):
            raise InputError(f"{name} must be a JSON object")
        return value

    def words(self, name: str) -> list[str]:
        """Return a list of texts, empty by default. Raises :class:`InputError` for another value."""
        value = self.data.get(name, [])
        if not isinstance(value, list) or len(value) > MOST_WORDS or not all(isinstance(item, str) for item in value):
            raise InputError(f"{name} must be a list of at most {MOST_WORDS} texts")
        return value
