"""The chain: runs the stages in order and skips those that are fresh."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from latentscore.json_search import JsonObject
from latentscore_data.core.base.display import (
    OUTPUT,
    console,
    duration,
    money,
    print_json,
    print_next,
    print_rows,
    say,
    styled,
)
from latentscore_data.core.base.errors import EXIT_SOME_FAILED, InputError, LsdataError
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.manifest import NOT_COMPLETED, StageFiles, read_manifest
from latentscore_data.core.base.settings import Settings, load_settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace, sample_root
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.llm.prices import unknown_price
from latentscore_data.core.stages.base import STAGES, RunContext, stage_named
from latentscore_data.core.stages.spending import agree_to_spend

if TYPE_CHECKING:
    from pathlib import Path


SAMPLE_SETTINGS: dict[str, Values] = {
    "llm": {"model": "builtin/keywords"},
    "download": {"datasets": ["builtin"], "sample_size": 16},
    "vibes": {"model": "builtin/keywords", "max_vibes": 1, "characters": False},
    "dedupe": {"model": "words"},
    "configs": {"model": "builtin/keywords", "n": 4},
    "scoring": {"scorers": ["acoustic"], "seconds": 5.0},
    "train": {"on": "here", "base_model": "tiny-random", "recipes": ["sft"], "optim": {"max_steps": 12}},
    "bench": {
        "sources": ["dataset:config_payload", "baseline:random", "baseline:keywords"],
        "suite": None,
        "name": None,
    },
    "export": {"kinds": ["map", "dataset", "report"]},
}
"""The settings of ``--sample``: offline, free and small. Its workspace is ``<root>/sample``."""


def sample_flags(root: Path | None, config: Path | None = None) -> dict[str, Values]:
    """Return the sample's settings as flags, so that no settings file can make the sample spend money."""
    flags = {name: dict(values) for name, values in SAMPLE_SETTINGS.items()}
    flags["paths"] = {"root": sample_root(root or load_settings(config).paths.root)}
    return flags


def selected(from_: str | None, until: str | None, skip: Sequence[str]) -> list[str]:
    """Return the stages to run, in order. Raises :class:`InputError` for an unknown name or an empty selection."""
    for name in (from_, until, *skip):
        if name is not None and name not in STAGES:
            raise InputError(f"{name!r} is not a stage", f"stages: {', '.join(STAGES)}")
    first = STAGES.index(from_) if from_ else 0
    last = STAGES.index(until) if until else len(STAGES) - 1
    stages = [name for name in STAGES[first : last + 1] if name not in skip]
    if not stages:
        raise InputError("no stage is left to run", "check --from, --until and --skip")
    return stages


@dataclass(frozen=True)
class Step:
    """A stage of the plan: whether it would run, why, and its cost. ``estimate`` is None if it calls no model."""

    stage: str
    state: str
    why: list[str]
    estimate: Plan | None = None

    @property
    def cost_usd(self) -> float | None:
        return 0.0 if self.estimate is None else self.estimate.cost_usd

    @property
    def basis(self) -> str:
        return "" if self.estimate is None else self.estimate.basis

    def to_dict(self) -> JsonObject:
        estimate = {} if self.estimate is None else self.estimate.to_dict()
        return {"stage": self.stage, "state": self.state, "why": self.why, **estimate}


@dataclass
class Chain:
    """The result of the whole run."""

    summaries: list[Summary] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Stages that did not run, with the reason."""
    plan: list[Step] = field(default_factory=list)
    report: str = ""
    missing: dict[str, list[LsdataError]] = field(default_factory=dict)
    """Errors that a dry run found; the run would end with the first one."""
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        for problems in self.missing.values():
            return problems[0].exit_code
        return max((summary.exit_code for summary in self.summaries), default=0)

    @property
    def next_step(self) -> str:
        """The benchmark's page; without one, or while answers are pending, the next step of the last stage."""
        last = self.summaries[-1] if self.summaries else Summary("")
        return f"open {self.report}" if self.report and not last.pending else last.next_step

    def _missing_lines(self) -> list[str]:
        return [f"{stage}: {problem}" for stage, problems in self.missing.items() for problem in problems]

    def _show_left_out(self) -> None:
        for stage, why in self.left_out.items():
            console().print(styled(f"{stage} is skipped: {why}", "dim"))

    def show(self) -> None:
        """Print the plan or the result, as a table or as one JSON document."""
        if OUTPUT.json:
            print_json(
                {
                    "stages": [summary.to_dict() for summary in self.summaries],
                    "left_out": self.left_out,
                    "plan": [step.to_dict() for step in self.plan],
                    **({"missing": missing} if (missing := self._missing_lines()) else {}),
                    "report": self.report,
                    "next_step": self.next_step,
                    "seconds": round(self.seconds, 3),
                    "exit_code": self.exit_code,
                }
            )
            return
        if self.plan:
            rows = [(s.stage, s.state, "; ".join(dict.fromkeys(s.why)), money(s.cost_usd)) for s in self.plan]
            print_rows(("stage", "state", "why", "cost"), rows)
            for line in self._missing_lines():
                console().print(styled(f"missing: {line}", "red"))
            for step in spending_steps(self.plan):
                console().print(styled(f"{step.stage}: {step.basis}", "dim"))
            self._show_left_out()
            return
        lines: list[Sequence[object]] = []
        for summary in self.summaries:
            if summary.fresh:
                lines.append((summary.stage, "fresh"))
                continue
            state = "waiting" if summary.pending else "done"
            failed = str(sum(summary.failed.values()) or "")
            rows = str(summary.done + summary.skipped)
            lines.append((summary.stage, state, rows, failed, money(summary.cost_usd), duration(summary.seconds)))
        lines += [(styled(stage, "dim"), styled("skipped", "dim")) for stage in self.left_out]
        print_rows(("stage", "state", "rows", "failed", "cost", "time"), lines)
        self._show_left_out()
        print_next(self.next_step)


def spending_steps(plan: Iterable[Step]) -> list[Step]:
    """Return the stages of a plan that cost money or may cost money."""
    return [step for step in plan if step.cost_usd != 0.0]


def agree(plan: Iterable[Step], settings: Settings, yes: bool) -> bool:
    """Ask once, before the first stage, whether the whole chain may spend its estimated cost.

    Return whether the stages may spend without asking again. ``plan`` is only read if a question is necessary. Raises
    :class:`InputError` without a terminal and :class:`StoppedError` if the answer is no.
    """
    if yes or settings.llm.max_cost is not None:
        return yes
    spending = spending_steps(plan)
    if not spending:
        return False
    costs = ", ".join(f"{step.stage} {money(step.cost_usd)}" for step in spending)
    lines = (f"{step.stage}: {money(step.cost_usd)} ({step.basis})" for step in spending)
    agree_to_spend(f"this costs money ({costs})", lines, "Continue with all stages?")
    return True


def run_stages(
    settings: Settings, stages: Sequence[str], *, force: bool, dry_run: bool, yes: bool, sample: bool
) -> Chain:
    """Check all stages, then run the stale ones in order, under one lock."""
    workspace = Workspace(settings.paths.root)
    chain = Chain()
    stages = [stage for stage in stages if not _cannot_run(stage, settings, sample, chain)]
    plan = planned(stages, settings, workspace, force)
    if dry_run:
        chain.plan = list(plan)
        chain.missing = {stage: found for stage in stages if (found := stage_named(stage).preflight(settings))}
        for step in chain.plan:
            asked = step.estimate
            if settings.llm.max_cost is not None and asked is not None and asked.calls and asked.cost_usd is None:
                unknown = unknown_price(asked.model or step.stage, settings.llm.max_cost)
                chain.missing.setdefault(step.stage, []).append(unknown)
        return chain
    check_first(settings, stages)
    context = RunContext(agree(plan, settings, yes))
    started = time.monotonic()
    with workspace.lock("run-all"):
        for stage in stages:
            of_chain = stage_named(stage)
            why = [] if force else stage_named(stage).stale_reasons(settings, workspace)
            if not why and not force:
                chain.summaries.append(Summary(stage, fresh=True))
                say(f"{stage}: fresh")
                continue
            if force or set(why) != {NOT_COMPLETED}:  # a first run needs no reason
                say(f"{stage}: {'forced' if force else why[0]}")
            summary = of_chain.run(settings, context)
            chain.summaries.append(summary)
            if summary.pending:
                say(
                    f"{stage}: {summary.pending:,} questions wait in provider batches; run the same command again to continue"
                )
                break
            if summary.exit_code > EXIT_SOME_FAILED:
                break
    if "bench" in stages:
        chain.report = report_of(stage_named("bench").files(settings, workspace)[0], workspace)
    chain.seconds = time.monotonic() - started
    return chain


def report_of(bench: StageFiles, workspace: Workspace) -> str:
    """Return the path of the page of these settings' benchmark; empty if there is none."""
    outputs: JsonObject = (read_manifest(bench.manifest) or {}).get("outputs", {})
    pages = {(workspace.root / name).parent / "report.html" for name in outputs}
    return next((str(page.resolve()) for page in pages if page.exists()), "")


def check_first(settings: Settings, stages: Sequence[str]) -> None:
    """Check all stages before the first one runs. Prints all errors and raises the first one."""
    problems: list[LsdataError] = []
    for stage in stages:
        found = stage_named(stage).preflight(settings)
        problems += found
        for problem in found:
            say(f"{stage}: {problem}")
    if problems:
        raise problems[0]


def _cannot_run(stage: str, settings: Settings, sample: bool, chain: Chain) -> bool:
    """Return True for a stage that is skipped: by the settings, or in the sample because an extra is missing. The reason is
    added to ``chain.left_out``."""
    if stage != "train":
        return False
    if settings.train.skip:
        why = "train.skip is set"
    elif sample and (problems := stage_named("train").preflight(settings)):
        why = str(problems[0])
    else:
        return False
    chain.left_out[stage] = why
    return True


def planned(stages: Sequence[str], settings: Settings, workspace: Workspace, force: bool) -> Iterator[Step]:
    """Yield each stage with its state, the reasons, and its estimated cost. A stage after one that runs may run as well, because
    its rows will change; its cost is estimated without the current rows."""
    before = ""
    for stage in stages:
        why = ["forced"] if force else stage_named(stage).stale_reasons(settings, workspace)
        if not why and before:
            why = [f"{before} runs before it"]
        state = "not run" if set(why) == {NOT_COMPLETED} else "stale" if why else "fresh"
        estimate = None
        if why:
            try:
                estimate = stage_named(stage).estimate(settings, workspace, behind=before)
            except LsdataError as error:  # what is missing for the stage is found by its preflight
                estimate = Plan("", cost_usd=None, basis=error.message)
        if why and not before:
            before = stage
        yield Step(stage, state, why, estimate)
