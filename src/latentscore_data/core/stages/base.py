"""The protocol of a stage, and the table of stages that run-all, status, doctor and provenance use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from latentscore_data.core.base.errors import InputError, LsdataError
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.manifest import StageFiles, stale_reasons
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.plan import Plan

if TYPE_CHECKING:
    from latentscore_data.core.scoring.executor import Executor

STAGES = ("download", "vibes", "configs", "train", "bench", "export")
"""The stages in order. Each is the object ``STAGE`` of the module of its name in this package, which is imported when it is
first asked for."""

BY_HAND = ("improve",)
"""Stages that are started only by their own command, not by run-all."""


@dataclass(frozen=True)
class RunContext:
    """The values of one run that are not settings.

    The stages of a chain share one, so that ``llm.max_cost`` is one cap for all of them.
    """

    yes: bool = False
    """Money may be spent without asking."""
    spend: SpendTracker = field(default_factory=SpendTracker)
    retry_failed: bool = False
    overwrite: bool = False
    executor: Executor | None = None
    """Where rendering, scoring and local models run; None: on this machine."""
    trusted: frozenset[str] = frozenset()
    """Custom scorers whose code may run."""

    @property
    def remote(self) -> Executor | None:
        """The executor, if it is not this machine."""
        return self.executor if self.executor is not None and self.executor.remote else None

    def overwritten(self) -> set[str] | None:
        """Return the ``overwrite`` argument of :func:`run_stage`: an empty set to process all rows again, or None."""
        return set() if self.overwrite else None


class Run(Protocol):
    def __call__(self, settings: Settings, context: RunContext) -> Summary: ...


class Estimate(Protocol):
    def __call__(self, settings: Settings, workspace: Workspace, behind: str = "") -> Plan | None: ...


def costs_nothing(settings: Settings, workspace: Workspace, behind: str = "") -> Plan | None:
    """The estimate of a stage that calls no model."""
    return None


@dataclass(frozen=True)
class Stage:
    """One stage of the chain.

    ``files`` returns its inputs and what determines its result; it works before any input exists. ``preflight`` returns the
    missing or wrong keys, extras, weights and values, without network and cost. ``run`` runs the whole stage under the
    caller's lock. ``estimate`` returns calls and cost, None for a stage that calls no model; ``behind`` names the first stage
    that will run before it and change its rows (empty for none). ``finished_mark`` is the file that marks a finished run in
    the folder of a run that was started by its own command.
    """

    name: str
    files: Callable[[Settings, Workspace], list[StageFiles]]
    preflight: Callable[[Settings], list[LsdataError]]
    run: Run
    estimate: Estimate = costs_nothing
    finished_mark: str = ""

    def stale_reasons(self, settings: Settings, workspace: Workspace) -> list[str]:
        """Why the stage must run; an empty list when it is fresh."""
        return [reason for part in self.files(settings, workspace) for reason in stale_reasons(part, workspace.root)]


def stage_named(name: str) -> Stage:
    """Return the stage with this name. Raises :class:`InputError` for an unknown name."""
    if name not in (*STAGES, *BY_HAND):
        raise InputError(f"{name!r} is not a stage", f"stages: {', '.join((*STAGES, *BY_HAND))}")
    return import_module(f"latentscore_data.core.stages.{name}").STAGE
