"""What the API's handlers get and give: a call with its JSON, and a reply. Nothing here knows the web framework."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.names import json_bytes

T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """One answer: bytes with their media type. ``name`` is what a browser calls the file when it saves it."""

    body: bytes
    media_type: str = "application/json"
    status: int = 200
    name: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(value: Any, status: int = 200) -> Reply:
    """The value as a JSON reply."""
    return Reply(json_bytes(value, orjson.OPT_SERIALIZE_NUMPY), status=status)


class Gone(Exception):
    """Nobody waits for this answer any more."""


@dataclass(frozen=True)
class Call:
    """One request: the JSON object that it sent and the parameters of its address.

    ``gone`` returns when the browser has closed the connection.
    """

    data: Mapping[str, Any]
    path: Mapping[str, str]
    gone: Callable[[], Awaitable[None]]

    async def wait(self, *futures: Future[T]) -> list[T]:
        """The results of the futures. When the browser leaves, those that have not begun are cancelled.

        Raises :class:`Gone`.
        """
        done = asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
        left = asyncio.ensure_future(self.gone())
        try:
            await asyncio.wait({done, left}, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                for future in futures:
                    future.cancel()
                # Nobody asks for its result any more, which asyncio would complain about.
                done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                raise Gone
            return await done
        finally:
            left.cancel()
            done.cancel()

    def text(self, name: str, most: int, default: str | None = None) -> str:
        """A text of at most ``most`` characters. Raises :class:`InputError`."""
        value = self.data.get(name, default)
        if not isinstance(value, str):
            raise InputError(f"{name} must be text")
        if len(value) > most:
            raise InputError(f"{name} has {len(value):,} characters; {most:,} are possible")
        return value

    def whole(self, name: str, low: int, high: int, default: int) -> int:
        """A whole number from ``low`` to ``high``. Raises :class:`InputError`."""
        value = self.data.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"{name} must be a whole number from {low:,} to {high:,}, not {value!r}"[:200])
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """A number from ``low`` to ``high``. Raises :class:`InputError`."""
        value = self.data.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise InputError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}"[:200])
        return float(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        """A JSON object. Raises :class:`InputError`."""
        value = self.data.get(name)
        if not isinstance(value, dict):
            raise InputError(f"{name} must be a JSON object")
        return value

    def words(self, name: str, most: int = 100) -> list[str]:
        """A list of texts, empty where none is given. Raises :class:`InputError`."""
        value = self.data.get(name, [])
        if not isinstance(value, list) or len(value) > most or not all(isinstance(item, str) for item in value):
            raise InputError(f"{name} must be a list of at most {most} texts")
        return value
