"""Several processes that train one run together: which of them writes, and how the others wait for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def world_size() -> int:
    """How many processes train together; ``accelerate launch`` says it in the environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes the run folder and speaks."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def first_alone() -> Iterator[bool]:
    """Whether this process is the first; the others come in when the first has left."""
    if world_size() == 1:
        yield True
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield is_first()


def of_first(make: Callable[[], T]) -> T:
    """What ``make`` gave in the first process, in all of them."""
    if world_size() == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    made: list[Any] = [make() if is_first() else None]
    return broadcast_object_list(made)[0]
