"""The thread that writes files for an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

OutT = TypeVar("OutT")

Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


class BackgroundWriter:
    """Writes in a thread of its own, in order, so that a slow disk never keeps the loop from calls whose time is running.

    Whatever has come while it wrote is written in one go, inside ``together`` (a transaction, say): under load the two
    threads hand over once for many writes. Nobody is told that his is written before all of them are, and everybody is
    told where ``together`` fails. What was given to it is written, also when whoever waits for it is cancelled.
    """

    def __init__(self, together: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self._together = together
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self._writing = False

    async def write(self, write: Callable[..., OutT], *given: Any) -> OutT:
        """What ``write(*given)`` returns or raises, done in the thread."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[OutT] = loop.create_future()
        with self._lock:
            self._waiting.append((done, write, given))
            if not self._writing:
                self._writing = True
                self._thread.submit(self._write_all, loop)
        return await done

    def _write_all(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._writing = False
                    return
            try:
                with self._together():
                    outcomes: list[Outcome] = [_outcome(*one) for one in batch]
            except BaseException as error:
                outcomes = [(done, None, error) for done, _, _ in batch]
            loop.call_soon_threadsafe(_tell, outcomes)

    def close(self) -> None:
        """Wait for what is being written."""
        self._thread.shutdown()


def _outcome(done: asyncio.Future[Any], write: Callable[..., Any], given: tuple[Any, ...]) -> Outcome:
    try:
        return done, write(*given), None
    except BaseException as error:
        return done, None, error


def _tell(outcomes: list[Outcome]) -> None:
    for done, result, error in outcomes:
        if done.cancelled():
            continue
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)
