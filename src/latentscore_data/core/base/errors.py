"""Errors with a remedy for the user. Each class has one exit code; the command line prints message and remedy."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from latentscore.installed import install

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a write for which there is no space: a full disk, a quota, the longest allowed file."""


class LsdataError(Exception):
    """Base class of known errors.

    ``message`` describes the error in one line; ``remedy`` is what the user should do.
    """

    exit_code = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class InputError(LsdataError):
    """Wrong usage, settings or input data."""


FLAG = "flag"
"""The origin of a value that was given as a flag."""


class FlagError(InputError):
    """A flag with a value that its setting does not accept."""

    def __init__(self, setting: str, typed: Any, problem: str, remedy: str) -> None:
        super().__init__(f"{FLAG}: {setting}: {problem}", remedy)
        self.setting, self.typed, self.problem = setting, typed, problem


class MissingError(LsdataError):
    """A required extra, key, weight or input is missing or was refused."""

    exit_code = 3


class StoppedError(LsdataError):
    """The circuit breaker or the budget stopped the run; finished work is saved."""

    exit_code = 4


class NoImprovementError(LsdataError):
    """Training did not beat its baselines, and that was required."""

    exit_code = 5


class OutputError(LsdataError):
    """Disk, output folder or lock."""

    exit_code = 6


class VerificationError(LsdataError):
    """An export that differs when it is read back, or a worker with another version."""

    exit_code = 7


EXIT_CHECK_FAILED = 8
"""Exit code if a measure of ``lsdata check`` exceeds its limit."""
EXIT_SOME_FAILED = 1
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


def raised_by(*checks: Callable[[], object]) -> Iterator[LsdataError]:
    """Yield the errors that the checks raise, in their order. A check runs when the next error is requested."""
    for check in checks:
        try:
            check()
        except LsdataError as error:
            yield error


def one_line(error: object, most: int = 200) -> str:
    """Return a library's error message as one line of at most ``most`` characters, for use inside another message."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def first_line(error: object) -> str:
    """The first line of what an error of a library says, where a traceback follows."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")


def in_a_sentence(message: str) -> str:
    """Return pydantic's message for use inside a sentence. Only the first letter is lowered, because values in it are
    case-sensitive."""
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:] if message[1:2].islower() else message


def require(module: str, extra: str, what: str) -> None:
    """Raise :class:`MissingError` unless ``module`` can be imported. Nothing is imported."""
    if find_spec(module) is None:
        raise MissingError(f"{what} needs the {extra} extra", install(extra))
