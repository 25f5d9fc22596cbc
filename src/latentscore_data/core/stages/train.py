"""The stage train: recipes, sweeps and the runs of a workspace, here or on a remote executor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from latentscore_data.core.base.display import say
from latentscore_data.core.base.errors import InputError, LsdataError, MissingError, OutputError, raised_by, require
from latentscore_data.core.base.jsonl import replace_json
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.manifest import StageFiles, write_manifest
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench.evaluate import evaluate_run
from latentscore_data.core.compute import modal as remote
from latentscore_data.core.compute.estimates import cap_usd, estimate_run
from latentscore_data.core.compute.modal import ModalError, RemoteRunError, check_cap, require_modal
from latentscore_data.core.compute.ray_executor import RayExecutor
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.llm.prompts import config_prompt_hash
from latentscore_data.core.models.base_models import check_base
from latentscore_data.core.models.runs import RunFolder, find_run, find_runs, open_run
from latentscore_data.core.models.spec import Choices, effective_settings, unnamed
from latentscore_data.core.stages.base import RunContext, Stage
from latentscore_data.core.stages.spending import confirm_remote, reserve_remote
from latentscore_data.core.training.launch import train_together
from latentscore_data.core.training.prepare import (
    Prepared,
    Rows,
    check_lengths,
    plan,
    plan_without_rows,
    prepare,
    training_files,
)
from latentscore_data.core.training.run import check_start
from latentscore_data.core.training.sweep import best, members, table

log = logging.getLogger(__name__)


def trust_reward(settings: Settings, trusted: bool) -> None:
    """Raise :class:`InputError` for reward code that only the settings file names, unless the file is trusted.

    Otherwise, a folder from another source could run its code.
    """
    reward = settings.train.grpo.reward
    if reward != "standard" and not trusted:
        raise InputError(
            f"the settings file names the reward code {reward}",
            f"to allow this, pass --set grpo.reward={reward} or --trust-settings",
        )


@dataclass(frozen=True)
class StartOptions:
    """Options of a run's start, and of what follows the run."""

    resume: str = "auto"
    force: bool = False
    detach: bool = False
    yes: bool = False
    evaluate: bool = False
    require_improvement: bool = False
    spend: SpendTracker = field(default_factory=SpendTracker)
    """Spending of the run; containers are counted at their maximum cost."""
    agreed: bool = False
    """True for one of several runs whose total cost was confirmed and counted before."""

    def __post_init__(self) -> None:
        if self.resume not in ("auto", "never"):
            raise InputError(f"--resume {self.resume} is unknown", "use auto or never")


def run_train(settings: Settings, context: RunContext | None = None) -> Summary:
    """Train every recipe that the settings name, in order."""
    workspace, context = Workspace(settings.paths.root), context or RunContext()
    total = Summary("train", unit="run")
    for kind in settings.train.recipes:
        summary = train_one(settings, Choices(kind), StartOptions(yes=context.yes, spend=context.spend))
        total.add(summary)
        total.outputs += summary.outputs
        total.details.update({f"{kind} {name}": value for name, value in summary.details.items()})
    total.next_step = "lsdata bench"
    written = [Path(output) / "run.json" for output in total.outputs]
    write_manifest(stage_files(settings, workspace)[0], workspace.root, written, total)
    return total


def train_one(
    settings: Settings, choices: Choices, how: StartOptions, rows: Rows | None = None, ray: RayExecutor | None = None
) -> Summary:
    """Prepare one run, train it on this machine, Modal or Ray, and return its summary. ``rows`` replace those of the workspace;
    ``ray`` is the caller's cluster, because a process can have only one."""
    on_modal = settings.train.on == "modal"
    if how.detach and not on_modal:
        raise InputError("--detach is for remote runs", "add --on modal")
    run = _prepare(settings, choices, say, rows)
    if on_modal:
        remote.require_modal()
        check_lengths(run, say)
        if not how.agreed:
            agree(settings, how, runs=1)
    else:
        _check_start(run, settings, how)
    open_run(run.folder, run.spec, resume=how.resume == "auto", force=how.force)
    run.write_data()
    was_done = run.folder.done
    if on_modal and not was_done:
        resume = how.resume == "auto"
        if remote.start(run, settings.train.modal, detach=how.detach, say=say, resume=resume) is None:
            return _detached(run.folder)
        remote.fetch(run.folder, delete_remote=False, say=say)
    elif settings.train.on == "ray" and not was_done:
        say(f"training {run.spec.base_model} on Ray; {run.folder.path / 'metrics.jsonl'} grows with it")
        with nullcontext(ray) if ray is not None else closing(RayExecutor(settings, say)) as cluster:
            cluster.train(run.spec)
    else:
        say(f"training {run.spec.base_model} ({run.spec.kind}, {run.spec.method}) as run {run.spec.run_id}")
        train_together(run.spec, run.folder, settings.train.processes, say=say)
    summary = run_summary(run.folder, was_done)
    if how.evaluate or how.require_improvement:
        summary.details.update(
            evaluate_run(run.folder, settings, require=how.require_improvement, say=say, spend=how.spend)
        )
    return summary


def _check_start(run: Prepared, settings: Settings, how: StartOptions) -> None:
    """Raise the errors that would prevent the start of a run here or on Ray, before its folder is made or emptied."""
    if run.folder.done and how.resume == "auto":
        return
    if settings.train.on == "ray":
        require("ray", "ray", "training on Ray")
    else:
        check_start(run.spec, run.folder.path.parent)


def _prepare(settings: Settings, choices: Choices, say: Callable[[str], None], rows: Rows | None = None) -> Prepared:
    workspace = Workspace(settings.paths.root)
    return prepare(settings.train, settings.scoring, workspace, choices, say, prompts=settings.prompts, rows=rows)


def agree(settings: Settings, how: StartOptions, runs: int) -> None:
    """Show the maximum cost of remote runs, and ask for confirmation unless ``how.yes`` or ``llm.max_cost`` is set."""
    modal = settings.train.modal
    cap = reserve_runs(settings, runs, how.spend)
    say(
        f"{runs} run{'s' if runs > 1 else ''} on {modal.gpu}: at most ${cap:.2f} ({modal.timeout_hours:g} h each x price)"
    )
    confirm_remote(modal, how.yes or settings.llm.max_cost is not None)


def reserve_runs(settings: Settings, runs: int, spend: SpendTracker) -> float:
    """Count the maximum cost of runs on Modal towards the caps, and return it. Raises :class:`StoppedError` above a cap."""
    modal = settings.train.modal
    cap = check_cap(modal, modal.gpu, runs)
    reserve_remote(settings, cap, spend)
    return cap


def check_runs(settings: Settings, runs: int, spend: SpendTracker) -> None:
    """Raise the errors that would prevent the start of these runs, without network calls: Modal or Ray cannot be used, or the
    runs could exceed a cap."""
    if settings.train.on == "ray":
        require("ray", "ray", "training on Ray")
    if settings.train.on == "modal":
        remote.require_modal()
        reserve_runs(settings, runs, spend)


def run_summary(folder: RunFolder, was_done: bool) -> Summary:
    """Return the summary of a finished run."""
    record = folder.record()
    summary = Summary(f"train {record['kind']}", unit="run", done=int(not was_done), skipped=int(was_done))
    summary.seconds = 0.0 if was_done else float(record["seconds"])
    summary.details = {"run": folder.run_id, "base_model": record["base_model"], **record["metrics"]}
    for number, finding in enumerate(record["health"], 1):
        summary.details[f"warning_{number}"] = finding
    summary.outputs = [str(folder.path)]
    summary.next_step = f"lsdata bench --source local:{folder.final}"
    return summary


def attach_run(settings: Settings, run: str) -> Summary:
    """Show the log of a run on Modal until it ends, then fetch the run. Raises :class:`InputError` for a run that is not
    there."""
    folder = find_run(Workspace(settings.paths.root).train_dir, run)
    remote.require_modal()
    remote.attach(folder, say)
    remote.fetch(folder, delete_remote=False, say=say)
    return run_summary(folder, was_done=False)


def fetch_run(settings: Settings, run: str, *, delete_remote: bool) -> Summary:
    """Fetch a finished run from Modal and compare its files. Raises :class:`InputError` for a run that is not there."""
    folder = find_run(Workspace(settings.paths.root).train_dir, run)
    remote.require_modal()
    files = remote.fetch(folder, delete_remote=delete_remote, say=say)
    say(f"{files} files fetched and verified")
    return run_summary(folder, was_done=False)


def _detached(folder: RunFolder) -> Summary:
    summary = Summary("train on modal", details={"run": folder.run_id, "state": "running"})
    summary.outputs = [str(folder.path)]
    summary.next_step = f"lsdata train attach {folder.run_id}"
    return summary


def run_lines(settings: Settings) -> list[dict[str, Any]]:
    """Return a line for each run in the workspace, newest first. A run that cannot be read has the state ``unreadable``."""
    lines: list[dict[str, Any]] = []
    for folder in find_runs(Workspace(settings.paths.root).train_dir):
        where = "modal" if (folder.path / "remote.json").exists() else "here"
        try:
            record, history, spec = folder.record(), folder.history(), folder.spec()
        except (InputError, ValueError) as broken:
            why = broken.message if isinstance(broken, InputError) else f"{folder.record_file} is not JSON ({broken})"
            unknown = dict.fromkeys(("kind", "base_model", "step", "loss", "reward"))
            lines.append({**unknown, "run": folder.run_id, "where": where, "state": "unreadable", "error": why})
            continue
        state = record.get("status", "not started")
        error = record.get("error")
        if where == "modal" and not folder.done:
            try:
                remote.require_modal()
                there = remote.state(folder)
                state, error = there["state"], there.get("error")
            except MissingError as missing:
                # The runs of this machine are listed nevertheless.
                state, error = "unknown", missing.message
        last = {name: line[name] for line in history for name in ("step", "loss", "reward") if name in line}
        lines.append(
            {
                "run": folder.run_id,
                "kind": spec.kind if spec else None,
                "base_model": spec.base_model if spec else None,
                "where": where,
                "state": state,
                "error": error,
                **{name: last.get(name) for name in ("step", "loss", "reward")},
            }
        )
    return lines


def plan_one(settings: Settings, choices: Choices) -> dict[str, Any]:
    """Return the plan of a run: each value with its origin, the rows, the estimate for Modal, and what is missing."""
    try:
        run = _prepare(settings, choices, say)
    except MissingError as error:
        return plan_without_rows(settings.train, choices, error, Workspace(settings.paths.root).train_dir)
    return plan(run, lambda spec, report: asdict(estimate_run(spec, report, settings.train.modal)))


def plan_sweep(settings: Settings, family: str, choices: Choices) -> list[dict[str, Any]]:
    """The plans of all members of a family."""
    return [plan_one(settings, member) for member in members(family, choices).values()]


def run_sweep(settings: Settings, family: str, choices: Choices, how: StartOptions) -> Summary:
    """Train the members of a family one after the other; finished ones are skipped.

    A member that fails is a line of the table, and the next one is trained. The table is written after each member. Raises
    errors that concern all members, such as a full disk or Modal without a connection; if possible before the first start.
    """
    workspace, total = Workspace(settings.paths.root), Summary(f"sweep {family}")
    runs = members(family, choices)
    prepared = {name: _prepare(settings, run, log.info) for name, run in runs.items()}
    if settings.train.on == "modal":
        agree(settings, how, runs=len(runs))
        how = replace(how, yes=True, agreed=True)
    else:
        for run in prepared.values():
            _check_start(run, settings, how)
    path = workspace.train_dir / f"sweep-{choices.kind}-{family}.json"
    records: dict[str, dict[str, Any]] = {}
    for name, member in runs.items():
        try:
            summary = train_one(settings, member, how)
        except Exception as error:
            if _concerns_all(error):
                raise
            log.debug("%s:%s failed", family, name, exc_info=True)
            why = error.message if isinstance(error, LsdataError) else f"{type(error).__name__}: {error}"[:500]
            say(f"{family}:{name} failed: {why}")
            total.failed["run"] += 1
            records[name] = {"run_id": prepared[name].folder.run_id, "status": "failed", "error": why}
        else:
            records[name] = prepared[name].folder.record()
            total.add(summary)
            total.outputs += summary.outputs
        lines = table(records)
        total.details = {"best": best(lines, family), "runs": lines}
        replace_json(path, {"kind": choices.kind, "family": family, **total.details})
    return replace(total, outputs=[*total.outputs, str(path)])


def _concerns_all(error: Exception) -> bool:
    """Return whether the other members of a sweep would fail with the same error."""
    return isinstance(error, ModalError | OutputError) and not isinstance(error, RemoteRunError)


def stage_files(settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """Return the inputs of training, and what determines its result."""
    inputs = {
        path for kind in settings.train.recipes for path in training_files(workspace, kind, settings.train).values()
    }
    left_out = {**dict.fromkeys(("skip", "modal", "on"), True), **unnamed(settings.train)}
    decisive = settings.train.model_dump(mode="json", exclude=left_out)
    versions = {"prompt": config_prompt_hash(settings.prompts)}
    flags = settings.typed, settings.replaced
    return [StageFiles("train", workspace.train_dir / "manifest.json", sorted(inputs), decisive, versions, *flags)]


def preflight(settings: Settings) -> list[LsdataError]:
    """Return the first error that would stop training before it starts: a missing extra, an unknown preset, a missing base
    model."""
    checks: list[Callable[[], object]] = [
        partial(require, module, "ml", "training") for module in ("torch", "transformers", "trl", "peft", "datasets")
    ]
    if settings.train.on == "modal":
        checks = [require_modal]
    if settings.train.on == "ray":
        checks.append(partial(require, "ray", "ray", "training on Ray"))
    checks += [partial(effective_settings, settings.train, Choices(kind)) for kind in settings.train.recipes]
    checks.append(partial(trust_reward, settings, False))
    if settings.train.on != "modal":
        runs = Workspace(settings.paths.root).train_dir
        checks.append(partial(check_base, settings.train.base_model, runs=runs))
    return list(islice(raised_by(*checks), 1))


def estimate(settings: Settings, workspace: Workspace, behind: str = "") -> Plan:
    """Return the maximum cost of training: nothing on this machine, time-out x price for each run on Modal."""
    if settings.train.on != "modal":
        return Plan("", basis="trained on this machine")
    modal, runs = settings.train.modal, len(settings.train.recipes)
    basis = f"at most: {runs} x {modal.timeout_hours:g} h time-out x the price of {modal.gpu}"
    return Plan("", cost_usd=cap_usd(modal, modal.gpu, runs), basis=basis)


STAGE = Stage("train", stage_files, preflight, run_train, estimate=estimate, finished_mark="DONE")
