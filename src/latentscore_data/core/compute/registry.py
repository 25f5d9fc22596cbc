"""The table of executors: what ``--on`` may name."""

from __future__ import annotations

from collections.abc import Callable

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import OLD_HERE, Settings
from latentscore_data.core.compute.local import LocalExecutor
from latentscore_data.core.compute.modal_executor import ModalExecutor
from latentscore_data.core.compute.ray_executor import RayExecutor
from latentscore_data.core.compute.types import Executor

EXECUTORS: dict[str, Callable[[Settings, Callable[[str], None]], Executor]] = {
    "here": LocalExecutor,
    "modal": ModalExecutor,
    "ray": RayExecutor,
}


def make_executor(name: str, settings: Settings, say: Callable[[str], None]) -> Executor:
    """The executor of that name; ``say`` gets its progress lines. Raises :class:`InputError` for a name that is none."""
    if name == OLD_HERE:
        say(
            f"--on {OLD_HERE} is now --on here; {OLD_HERE}: is a kind of model, and the old name will be removed in version 0.3"
        )
        name = "here"
    if name not in EXECUTORS:
        raise InputError(f"unknown place {name!r}", " or ".join(f"--on {known}" for known in EXECUTORS))
    return EXECUTORS[name](settings, say)
