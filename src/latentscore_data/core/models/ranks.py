"""Distributed training of one run: the rank of this process, and waiting for the first process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def world_size() -> int:
    """Return the number of processes of the run, from the environment of ``accelerate launch``."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return True in the process that writes the run folder and reports progress."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def first_alone() -> Iterator[bool]:
    """Yield True in the first process; the others enter the block when the first has left it."""
    if world_size() == 1:
        yield True
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield is_first()


def of_first(make: Callable[[], T]) -> T:
    """Call ``make`` in the first process and return its result in all processes."""
    if world_size() == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    made: list[Any] = [make() if is_first() else None]
    return broadcast_object_list(made)[0]
