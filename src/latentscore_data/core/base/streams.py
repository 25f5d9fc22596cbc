"""The standard streams of the program: closed, full or abandoned ones end in the work or in a refusal, never in a traceback."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import Any

from latentscore_data.core.base.errors import OutputError

_WIDTH = re.compile(r"[1-9][0-9]{0,3}")


class _Stderr(io.FileIO):
    """Lines that nobody can read any more are lost; the work goes on."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


class _Stdout(io.FileIO):
    """A result that cannot be written is an error; a reader that has seen enough (``| head``) is none."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"the result cannot be written to standard output ({error.strerror})",
                "redirect it to a writable file or pipe; finished work is saved",
            ) from None


def protect() -> None:
    """Give the program three usable streams. A locale that is not UTF-8 does not turn a vibe into a crash.

    A closed stream gets the null device in its place, so that no file of ours is opened under its number; standard output's is
    opened for reading only, so that a result without a reader is an error. A terminal whose size is said to be 0, as some
    containers do, has the usual one: libraries would print nothing.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        if not _WIDTH.fullmatch(os.environ.get(name, "")):
            os.environ.pop(name, None)
    sys.stdout = _text(_Stdout(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Stderr(2, "w", closefd=False), sys.stderr)


def _text(raw: io.FileIO, before: Any) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    lines = raw.isatty() or raw.fileno() == 2
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors="replace", line_buffering=lines)


def abandon_stdout() -> None:
    """Nobody reads the results any more: what is still in buffers goes nowhere, also when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
