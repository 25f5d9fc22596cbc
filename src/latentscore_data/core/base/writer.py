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
    """Writes in a separate thread, in order, so that a slow disk does not block the event loop and its time-outs.

    Writes that arrive during a write are grouped and written inside ``together`` (for example a transaction). A write
    is reported as done only when its whole group is, and all of the group fail if ``together`` fails. Submitted writes
    are completed even if their caller is cancelled.
    """

    def __init__(self, together: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self._together = together
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self._writing = False

    async def write(self, write: Callable[..., OutT], *given: Any) -> OutT:
        """Run ``write(*given)`` in the thread and return its result or raise its exception."""
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
        """Wait for pending writes."""
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
