"""Decorators for inner loops that are compiled at their first call, so that importing a module does not import numba."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from importlib import import_module
from typing import Any, TypeVar, cast

Loop = TypeVar("Loop", bound=Callable[..., Any])

_lock = threading.RLock()


class _Uncompiled:
    """Placeholder for a loop until its first call; modules that imported it keep calling the placeholder."""

    def __init__(self, python: Callable[..., Any], inner: bool) -> None:
        update_wrapper(self, python)
        self._python: Any = python
        self._inner = inner
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *given: Any) -> Any:
        if self._inner:
            raise TypeError(f"{self._python.__name__} cannot be called from Python; use @jit instead of @inner_jit")
        return (self._compiled or self.compiled())(*given)

    def compiled(self) -> Callable[..., Any]:
        """Return the loop compiled by numba, after compiling every loop that it calls."""
        with _lock:
            if self._compiled is not None:
                return self._compiled
            names = self._python.__globals__
            for name in self._python.__code__.co_names:
                if isinstance(names.get(name), _Uncompiled):
                    # Numba resolves a called loop by its name in the module.
                    names[name] = names[name].compiled()
            made = self._compiled = names[self._python.__name__] = _numba_side().compiled(self._python, self._inner)
            return made


def _numba_side() -> Any:
    return import_module("latentscore.compiling")


def jit(loop: Loop) -> Loop:
    """Compile ``loop`` at its first call; see :func:`latentscore.compiling.compiled`."""
    return cast(Loop, _Uncompiled(loop, inner=False))


def inner_jit(loop: Loop) -> Loop:
    """:func:`jit` for a loop that only other loops call. It cannot be called from Python and compiles faster."""
    return cast(Loop, _Uncompiled(loop, inner=True))


@contextmanager
def announced(message: str) -> Iterator[None]:
    """Context manager: log ``message`` as a warning, which Python prints to stderr by default, before the first loop is
    compiled inside the block."""
    with _numba_side().telling(message):
        yield
