"""Errors a user can act on. Each kind has one exit code; the command line prints the message and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from latentscore.installed import install


class LsdataError(Exception):
    """Something went wrong for a reason we know.

    ``message`` says what, in one line; ``remedy`` says what to do about it.
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

    exit_code = 2


FLAG = "flag"
"""The origin of a value that was typed."""


class FlagError(InputError):
    """A value that was typed is not one that its setting takes."""

    def __init__(self, setting: str, typed: Any, problem: str, remedy: str) -> None:
        super().__init__(f"{FLAG}: {setting}: {problem}", remedy)
        self.setting, self.typed, self.problem = setting, typed, problem


class MissingError(LsdataError):
    """A needed extra, key, weight or input is missing or was refused."""

    exit_code = 3


class StoppedError(LsdataError):
    """The breaker or the budget ended the run; what was done is saved."""

    exit_code = 4


class NoImprovementError(LsdataError):
    """Training did not beat its baselines, and that was required."""

    exit_code = 5


class OutputError(LsdataError):
    """Disk, output folder or lock."""

    exit_code = 6


class VerificationError(LsdataError):
    """An export that did not come back as it was written."""

    exit_code = 7


EXIT_CHECK_FAILED = 8
"""A measure of ``lsdata check`` is beyond its limit."""
EXIT_SOME_FAILED = 1
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


def raised_by(*checks: Callable[[], object]) -> list[LsdataError]:
    """What the checks raise, in their order."""
    found: list[LsdataError] = []
    for check in checks:
        try:
            check()
        except LsdataError as error:
            found.append(error)
    return found


def one_line(error: object, most: int = 200) -> str:
    """What an error of a library says, for the middle of a message of ours: one line of at most ``most`` characters."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def first_line(error: object) -> str:
    """The first line of what an error of a library says, where a traceback follows."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")


def in_a_sentence(message: str) -> str:
    """Pydantic's message inside ours. Only the first letter is lowered: the values it names must be typed as they are."""
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:] if message[1:2].islower() else message


def require(module: str, extra: str, what: str) -> None:
    """Raise :class:`MissingError` unless ``module`` can be imported. Nothing is imported."""
    if find_spec(module) is None:
        raise MissingError(f"{what} needs the {extra} extra", install(extra))
