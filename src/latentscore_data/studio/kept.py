"""What pages hold on the server by a random name: a few at once, since a page that is closed never says so."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from latentscore_data.core.base.errors import InputError

ValueT = TypeVar("ValueT")


class Kept(Generic[ValueT]):
    """At most ``most`` values; the one that was asked for longest ago goes. Safe to use from several threads."""

    def __init__(self, most: int, what: str, remedy: str) -> None:
        self._most, self._what, self._remedy = most, what, remedy
        self._values: OrderedDict[str, ValueT] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, value: ValueT) -> str:
        """Keep a value; its name is what the other methods take."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._values[name] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return name

    def get(self, name: str) -> ValueT:
        """The value of that name. Raises :class:`InputError` where it is gone."""
        with self._lock:
            value = self._values.get(name)
            if value is None:
                raise InputError(f"this {self._what} has ended", self._remedy)
            self._values.move_to_end(name)
        return value

    def drop(self, name: str) -> None:
        """Keep it no longer."""
        with self._lock:
            self._values.pop(name, None)
