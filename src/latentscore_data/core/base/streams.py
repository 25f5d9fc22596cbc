"""The standard streams of the program: closed, full or broken ones never cause a traceback."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import Any

from latentscore_data.core.base.errors import OutputError

_WIDTH = re.compile(r"[1-9][0-9]{0,3}")


class _Stderr(io.FileIO):
    """A stderr that drops lines if its reader is gone; the work continues."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


class _Stdout(io.FileIO):
    """A stdout for which a failed write is an error. Lines are dropped if the reader closed the pipe (``| head``)."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            return len(data)
        except OSError as error:
            raise OutputError(
                f"the result cannot be written to standard output ({error.strerror})",
                "redirect it to a writable file or pipe; finished work is saved",
            ) from None


def protect() -> None:
    """Give the program three usable streams. Characters that the locale cannot encode are printed as question marks.

    A closed stream is replaced by the null device, so that no other file gets its file descriptor. The replacement of
    standard output is read-only, so that a result without a reader is an error. A terminal size of 0, as in some
    containers, is replaced by the default, because libraries would print nothing.
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
    """Discard buffered output, also at Python's exit, because it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
