"""Compiling the inner loops: once on a machine, into a cache that is allowed to be missing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numba
from numba.core import event
from numba.core.caching import FunctionCache

log = logging.getLogger("latentscore")

Loop = TypeVar("Loop", bound=Callable[..., Any])

# A product and a sum may become one instruction. Nothing is reordered: filters feed back in the order they are written in,
# which is the order with the shortest wait.
_FASTMATH = {"contract"}


class _OptionalCache(FunctionCache):
    """Numba's disk cache, except that a full or read-only disk costs only the time to compile again."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except (OSError, EOFError):
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            log.info("the compiled sound loops cannot be kept (%s)", error)


def jit(loop: Loop) -> Loop:
    """Compile ``loop`` at its first call. It releases the GIL and runs on one thread, so its bytes never vary."""
    compiled: Any = numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")(loop)
    try:
        compiled._cache = _OptionalCache(compiled.py_func)
    except RuntimeError:
        log.info("no folder to keep compiled sound loops in; set NUMBA_CACHE_DIR to one that can be written")
    return compiled


@contextmanager
def announced(message: str) -> Iterator[None]:
    """Log ``message`` as a warning, which Python shows on stderr by default, before the first thing that this process
    compiles inside."""
    if _Announcer.done:
        yield
        return
    with event.install_listener("numba:compile", _Announcer(message)):
        yield


class _Announcer(event.Listener):
    done = False

    def __init__(self, message: str) -> None:
        self._message = message

    def on_start(self, event: Any) -> None:
        if not _Announcer.done:
            _Announcer.done = True
            log.warning(self._message)

    def on_end(self, event: Any) -> None:
        pass
