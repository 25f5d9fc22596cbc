"""lsdata run-all: the stages in order, each only when something it depends on has changed.

What the module of each stage offers to this one and to ``status``:

- ``stage_files(settings, workspace) -> list[StageFiles]``: what it reads, and which settings and versions decide its result
  (configs has two parts, generate and score); it works before any input exists;
- ``preflight(settings) -> list[LsdataError]``: keys, extras and weights that are missing, found without network or cost;
- ``run_stage_for_chain(settings, yes=...) -> Summary``: the whole stage, under the lock that is already held;
- where it costs money, ``estimate(settings, workspace, behind=...) -> {"cost_usd": ..., "calls": ..., "basis": ...}``;
  ``behind`` names the first stage that runs before it, empty for none: its rows are then not those that are there now.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentscore_data.commands._options import DryRunOption, Globals, MaxCostOption, YesOption, load
from latentscore_data.core.base.display import OUTPUT, clean, console, duration, interactive, money, print_json, say
from latentscore_data.core.base.errors import EXIT_SOME_FAILED, InputError, LsdataError, StoppedError
from latentscore_data.core.base.manifest import StageFiles, read_manifest, stale_reasons
from latentscore_data.core.base.settings import Settings, chosen, load_settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace, sample_root

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

STAGES = ("download", "vibes", "configs", "train", "bench", "export")

SAMPLE_SETTINGS: dict[str, dict[str, Any]] = {
    "llm": {"model": "builtin/keywords"},
    "download": {"datasets": ["builtin"], "sample_size": 16},
    "vibes": {"model": "builtin/keywords", "max_vibes": 1, "characters": False},
    "dedupe": {"model": "words"},
    "configs": {"model": "builtin/keywords", "n": 4},
    "scoring": {"scorers": ["acoustic"], "seconds": 5.0},
    "train": {"on": "local", "base_model": "tiny-random", "recipes": ["sft"], "optim": {"max_steps": 12}},
    "bench": {
        "sources": ["dataset:config_payload", "baseline:random", "baseline:keywords"],
        "suite": None,
        "name": None,
    },
    "export": {"kinds": ["map", "dataset", "report"]},
}
"""What ``--sample`` decides: offline, free and small. Rows go to ``<root>/sample``, apart from all others."""


def sample_flags(root: Path | None) -> dict[str, dict[str, Any]]:
    """The sample's settings as if given as flags, so that no settings file can make the sample spend money."""
    flags = {name: dict(values) for name, values in SAMPLE_SETTINGS.items()}
    flags["paths"] = {"root": sample_root(root or load_settings(Globals.config).paths.root)}
    return flags


def run_all(
    sample: Annotated[
        bool, typer.Option("--sample", help="The bundled passages, offline, in sample/ of the data root.")
    ] = False,
    from_: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Start with this stage.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="End with this stage.")] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="STAGE", help="Leave this stage out. Repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run every stage, fresh or not.")] = False,
    max_cost: MaxCostOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Run download, vibes, configs, train, bench and export in order; a stage that is fresh is skipped.

    Examples:

        lsdata run-all --sample
        lsdata run-all --until configs --max-cost 5
    """
    flags = sample_flags(Globals.root) if sample else {}
    flags["llm"] = {**flags.get("llm", {}), **chosen(max_cost=max_cost)}
    settings = load(**flags)
    stages = selected(from_, until, [*(skip or []), *settings.run_all.skip])
    chain = run_stages(settings, stages, force=force, dry_run=dry_run, yes=yes, sample=sample)
    chain.show()
    raise typer.Exit(chain.exit_code)


def selected(from_: str | None, until: str | None, skip: Sequence[str]) -> list[str]:
    """The stages to run, in order. Raises :class:`InputError` for a name that is no stage or an empty choice."""
    for name in (from_, until, *skip):
        if name is not None and name not in STAGES:
            raise InputError(f"{name!r} is no stage", f"stages: {', '.join(STAGES)}")
    first = STAGES.index(from_) if from_ else 0
    last = STAGES.index(until) if until else len(STAGES) - 1
    stages = [name for name in STAGES[first : last + 1] if name not in skip]
    if not stages:
        raise InputError("no stage is left to run", "check --from, --until and --skip")
    return stages


@dataclass
class Chain:
    """What the whole run did."""

    summaries: list[Summary] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Stages that did not run, with the reason."""
    plan: list[dict[str, Any]] = field(default_factory=list)
    report: str = ""
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        return max((summary.exit_code for summary in self.summaries), default=0)

    def show(self) -> None:
        """The plan or the result, as a table or as one JSON document."""
        if OUTPUT.json:
            print_json(
                {
                    "stages": [summary.to_dict() for summary in self.summaries],
                    "left_out": self.left_out,
                    "plan": self.plan,
                    "report": self.report,
                    "seconds": round(self.seconds, 3),
                    "exit_code": self.exit_code,
                }
            )
            return
        from rich.table import Table
        from rich.text import Text

        if self.plan:
            console().print(plan_table(self.plan))
            for step in spending_steps(self.plan):
                console().print(Text(clean(f"{step['stage']}: {step['basis']}"), style="dim"))
            return
        table = Table("stage", "state", "rows", "failed", "cost", "time", box=None)
        for summary in self.summaries:
            state = "fresh" if summary.fresh else "done"
            failed = str(sum(summary.failed.values()) or "")
            rows = str(summary.done + summary.skipped)
            table.add_row(summary.stage, state, rows, failed, money(summary.cost_usd), duration(summary.seconds))
        for stage in self.left_out:
            table.add_row(stage, "skipped", "", "", "", "", style="dim")
        console().print(table)
        for stage, why in self.left_out.items():
            console().print(Text(clean(f"{stage} was skipped: {why}"), style="dim"))
        if self.report:
            console().print(Text.assemble(("open: ", "dim"), clean(self.report)), soft_wrap=True)


def plan_table(plan: Sequence[dict[str, Any]]) -> Table:
    """What each stage would do and cost."""
    from rich.table import Table
    from rich.text import Text

    table = Table("stage", "state", "why", "cost", box=None)
    for step in plan:
        why = "; ".join(dict.fromkeys(step["why"]))
        table.add_row(step["stage"], step["state"], Text(clean(why)), money(step.get("cost_usd", 0.0)))
    return table


def spending_steps(plan: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stages of a plan that cost something, or may."""
    return [step for step in plan if step.get("cost_usd", 0.0) != 0.0]


def agree(plan: Iterable[dict[str, Any]], settings: Settings, yes: bool) -> bool:
    """Ask once, before the first stage, whether all that the chain would spend may be spent: nobody is there to answer hours
    later. Returns whether the stages need not ask again. Where nothing is to be asked, ``plan`` is not even looked at.

    Raises :class:`InputError` where nobody can be asked and :class:`StoppedError` when the answer is no.
    """
    if yes or settings.llm.max_cost is not None:
        return yes
    spending = spending_steps(plan)
    if not spending:
        return False
    if not interactive():
        costs = ", ".join(f"{step['stage']} {money(step['cost_usd'])}" for step in spending)
        raise InputError(f"this costs money ({costs}) and nobody can be asked", "say --yes or --max-cost USD")
    for step in spending:
        say(f"{step['stage']}: {money(step['cost_usd'])} ({step['basis']})")
    if not typer.confirm("Go on with all of it?", err=True):
        raise StoppedError("nothing was spent", "a hard stop can be set with --max-cost USD")
    return True


def run_stages(
    settings: Settings, stages: Sequence[str], *, force: bool, dry_run: bool, yes: bool, sample: bool
) -> Chain:
    """Check everything first, then run what is stale, one stage after the other, under one lock."""
    import time

    workspace = Workspace(settings.paths.root)
    chain = Chain()
    stages = [stage for stage in stages if not _cannot_run(stage, settings, sample, chain)]
    check_first(settings, stages)
    plan = planned(stages, settings, workspace, force)
    if dry_run:
        chain.plan = list(plan)
        return chain
    yes = agree(plan, settings, yes)
    started = time.monotonic()
    with workspace.lock("run-all"):
        for stage in stages:
            module = command_module(stage)
            why = [] if force else stale(stage, settings, workspace)
            if not why and not force:
                chain.summaries.append(Summary(stage, fresh=True))
                say(f"{stage}: fresh")
                continue
            say(f"{stage}: {'forced' if force else why[0]}")
            summary = module.run_stage_for_chain(settings, yes=yes)
            chain.summaries.append(summary)
            if summary.exit_code > EXIT_SOME_FAILED:
                break
    if "bench" in stages:
        chain.report = report_of(command_module("bench").stage_files(settings, workspace)[0], workspace)
    chain.seconds = time.monotonic() - started
    return chain


def command_module(stage: str) -> Any:
    """The module that holds a stage's command."""
    return importlib.import_module(f"latentscore_data.commands.{stage}")


def stale(stage: str, settings: Settings, workspace: Workspace) -> list[str]:
    """Why a stage must run; empty when it is fresh."""
    parts: list[StageFiles] = command_module(stage).stage_files(settings, workspace)
    return [reason for part in parts for reason in stale_reasons(part, workspace.root)]


def report_of(bench: StageFiles, workspace: Workspace) -> str:
    """The page of the benchmark that these settings ask for; empty while there is none."""
    outputs: dict[str, Any] = (read_manifest(bench.manifest) or {}).get("outputs", {})
    pages = {(workspace.root / name).parent / "report.html" for name in outputs}
    return next((str(page.resolve()) for page in pages if page.exists()), "")


def check_first(settings: Settings, stages: Sequence[str]) -> None:
    """Find what is missing for any stage before the first one runs. Raises the first error, after naming them all."""
    problems: list[LsdataError] = []
    for stage in stages:
        found = command_module(stage).preflight(settings)
        problems += found
        for problem in found:
            say(f"{stage}: {problem}")
    if problems:
        raise problems[0]


def _cannot_run(stage: str, settings: Settings, sample: bool, chain: Chain) -> bool:
    """True for a stage that the sample run leaves out because its extra is not installed; the reason is told."""
    if stage != "train":
        return False
    if settings.train.skip:
        why = "train.skip is set"
    elif sample and (problems := command_module("train").preflight(settings)):
        why = str(problems[0])
    else:
        return False
    chain.left_out[stage] = why
    say(f"{stage}: skipped, {why}")
    return True


def planned(stages: Sequence[str], settings: Settings, workspace: Workspace, force: bool) -> Iterator[dict[str, Any]]:
    """Each stage with its state, why, and what it can cost. Behind a stage that runs, those after it get other rows than
    there are now, so that they may run as well; what they may cost is reckoned without what is there."""
    before = ""
    for stage in stages:
        why = ["forced"] if force else stale(stage, settings, workspace)
        if not why and before:
            why = [f"{before} runs before it"]
        step: dict[str, Any] = {"stage": stage, "state": "stale" if why else "fresh", "why": why}
        estimate = getattr(command_module(stage), "estimate", None)
        if why and estimate is not None:
            step.update(estimate(settings, workspace, behind=before))
        if why and not before:
            before = stage
        yield step
