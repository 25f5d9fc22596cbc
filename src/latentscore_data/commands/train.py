"""lsdata train: teach a small model to answer vibes, on this machine or on Modal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentscore_data.commands._models import confirm_remote
from latentscore_data.commands._options import DryRunOption, OnOption, SeedOption, YesOption, load, show, with_flags
from latentscore_data.core.base.display import OUTPUT, clean, console, duration, print_json, say
from latentscore_data.core.base.errors import InputError, LsdataError, MissingError, OutputError, require
from latentscore_data.core.base.manifest import StageFiles, write_manifest
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute import modal as remote
from latentscore_data.core.compute.estimates import cap_usd
from latentscore_data.core.compute.modal import ModalError, RemoteRunError, check_cap, require_modal
from latentscore_data.core.training.base_models import check_base
from latentscore_data.core.training.evaluate import evaluate_run
from latentscore_data.core.training.prepare import check_lengths, plan, prepare, training_files
from latentscore_data.core.training.run import run_training
from latentscore_data.core.training.runs import RunFolder, find_run, find_runs, open_run
from latentscore_data.core.training.spec import Choices, effective_settings
from latentscore_data.core.training.sweep import best, members, table, table_file, write_table

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

log = logging.getLogger(__name__)

app = typer.Typer(
    help="Rows to a model: SFT, GRPO and ablations, here or on Modal.", no_args_is_help=True, add_completion=False
)

WHAT = "What is trained"
WHERE = "Where it runs"
JUDGE = "Is it any better"

BaseModelOption = Annotated[
    str | None,
    typer.Option(help="gemma3-270m, qwen3-600m, tiny-random, a hub id, folder, GGUF or run.", rich_help_panel=WHAT),
]
PresetOption = Annotated[
    list[str] | None, typer.Option("--preset", help="FAMILY:NAME, such as lora_rank:r32.", rich_help_panel=WHAT)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any training value: optim.learning_rate=1e-4.", rich_help_panel=WHAT
    ),
]
RunIdOption = Annotated[str | None, typer.Option(help="Name of the run (default: made from its spec).")]
MaxStepsOption = Annotated[int | None, typer.Option(help="Exactly so many steps.", min=1, rich_help_panel=WHAT)]
LimitRowsOption = Annotated[int | None, typer.Option("--limit", help="Only the first so many rows.", min=1)]
AdapterOption = Annotated[
    str | None,
    typer.Option(
        metavar="RUN|PATH",
        help="Go on from this run or adapter (default: the newest SFT run; none for the base model).",
        rich_help_panel=WHAT,
    ),
]
GpuOption = Annotated[
    str | None, typer.Option(help="GPU of a remote run: T4, L4, A10, L40S, A100-80GB, H100, ...", rich_help_panel=WHERE)
]
DetachOption = Annotated[
    bool, typer.Option("--detach", help="Start on Modal and return; see train status.", rich_help_panel=WHERE)
]
ModalCostOption = Annotated[
    float | None,
    typer.Option(help="Refuse a remote run that could cost more, in US dollars.", min=0, rich_help_panel=WHERE),
]
EvaluateOption = Annotated[
    bool, typer.Option("--evaluate", help="Then compare it with its base, random and look-up.", rich_help_panel=JUDGE)
]
RequireOption = Annotated[
    bool,
    typer.Option("--require-improvement", help="Fail (5) unless it beats all of them.", rich_help_panel=JUDGE),
]
ResumeOption = Annotated[str, typer.Option(help="auto goes on from the newest checkpoint; never begins again.")]
TrustOption = Annotated[
    bool, typer.Option("--trust-settings", help="Run a reward that is a file or module named in the settings file.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Go on although the spec has changed.")]


SETTING_FLAGS = {
    "base_model": BaseModelOption,
    "max_steps": MaxStepsOption,
    "limit": LimitRowsOption,
    "seed": SeedOption,
    "on": OnOption,
    "gpu": GpuOption,
    "max_cost": ModalCostOption,
}
"""The flags of every kind of training, by the setting in ``train`` that each overrides."""

SECTION_OF = {"max_steps": "optim", "gpu": "modal", "max_cost": "modal"}
"""Those of them whose setting lies in a section of its own."""


@app.command()
@with_flags("wanted", SETTING_FLAGS)
def sft(
    wanted: dict[str, Any],
    preset: PresetOption = None,
    set_: SetOption = None,
    run_id: RunIdOption = None,
    resume: ResumeOption = "auto",
    force: ForceOption = False,
    detach: DetachOption = False,
    yes: YesOption = False,
    evaluate: EvaluateOption = False,
    require_improvement: RequireOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Fine-tune a base model on the SFT-Train rows.

    Examples:

        lsdata train sft --base-model tiny-random
        lsdata train sft --preset lora_rank:r64 --set optim.epochs=2
    """
    settings = _settings(wanted, dry_run)
    choices = Choices("sft", run_id, None, preset or [], set_ or [])
    _start(settings, choices, StartOptions(resume, force, detach, yes, evaluate, require_improvement), dry_run)


@app.command()
@with_flags("wanted", SETTING_FLAGS)
def grpo(
    wanted: dict[str, Any],
    adapter: AdapterOption = None,
    preset: PresetOption = None,
    set_: SetOption = None,
    run_id: RunIdOption = None,
    resume: ResumeOption = "auto",
    force: ForceOption = False,
    detach: DetachOption = False,
    yes: YesOption = False,
    evaluate: EvaluateOption = False,
    require_improvement: RequireOption = False,
    trust_settings: TrustOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Reinforce a model on the GRPO rows with the weighted reward: form, fields, sound and title.

    Examples:

        lsdata train grpo --base-model tiny-random --max-steps 10
        lsdata train grpo --adapter sft-gemma-3-270m-it-1a2b3c4d --preset grpo_beta:b0.08
    """
    settings = _settings(wanted, dry_run)
    _trust_reward(settings, trust_settings)
    choices = Choices("grpo", run_id, adapter, preset or [], set_ or [])
    _start(settings, choices, StartOptions(resume, force, detach, yes, evaluate, require_improvement), dry_run)


@app.command()
@with_flags("wanted", SETTING_FLAGS)
def sweep(
    wanted: dict[str, Any],
    family: Annotated[str, typer.Argument(help="lora_rank, learning_rate, grpo_beta or batch_size.")],
    kind: Annotated[str, typer.Option(help="sft or grpo (default: grpo for grpo_beta, else sft).")] = "",
    adapter: AdapterOption = None,
    set_: SetOption = None,
    run_id: RunIdOption = None,
    resume: ResumeOption = "auto",
    force: ForceOption = False,
    yes: YesOption = False,
    trust_settings: TrustOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train every preset of a family, one after the other, and compare them in one table.

    Example:

        lsdata train sweep lora_rank --base-model gemma3-270m --max-steps 200
    """
    kind = kind or ("grpo" if family == "grpo_beta" else "sft")
    if kind not in ("sft", "grpo"):
        raise InputError(f"{kind!r} is no kind of training", "kinds are sft and grpo")
    settings = _settings(wanted, dry_run)
    _trust_reward(settings, trust_settings)
    choices = Choices(kind, run_id, adapter if kind == "grpo" else None, [], set_ or [])
    if dry_run:
        plans = plan_sweep(settings, family, choices)
        if OUTPUT.json:
            print_json(plans)
            return
        for plan in plans:
            _show_plan(plan)
        return
    with _lock(settings, f"train sweep {family}"):
        summary = run_sweep(settings, family, choices, StartOptions(resume, force, yes=yes))
    _show_table(summary.details["runs"])
    show(summary)


@app.command()
def status() -> None:
    """Every run of this workspace: what it is, how far it came, and what Modal says about it.

    Example:

        lsdata train status
    """
    lines = run_lines(load())
    if OUTPUT.json:
        print_json(lines)
        return
    from rich.table import Column, Table

    # The run's name is typed again after this, so it stays whole and the rest gives way.
    table = Table(Column("run", no_wrap=True), Column("state", no_wrap=True), Column("what", overflow="fold"), box=None)
    for line in lines:
        what = [f"{line['kind']} of {line['base_model']}"] if line["kind"] else []
        what.append("on Modal" if line["where"] == "modal" else "here")
        what += [f"{name} {line[name]:.4g}" for name in ("step", "loss", "reward") if line[name] is not None]
        what += [line["error"]] if line["error"] else []
        table.add_row(clean(line["run"]), clean(line["state"]), clean(", ".join(what)))
    console().print(table if lines else "no runs yet: lsdata train sft")


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, as train status lists it.")]


@app.command()
def attach(run: RunArgument) -> None:
    """Follow a run on Modal until it ends, then fetch it.

    Example:

        lsdata train attach sft-gemma-3-270m-it-1a2b3c4d
    """
    workspace = Workspace(load().paths.root)
    folder = find_run(workspace.train_dir, run)
    remote.require_modal()
    remote.attach(folder, say)
    remote.fetch(folder, delete_remote=False, say=say)
    show(_summary(folder, was_done=False))


@app.command()
def fetch(
    run: RunArgument,
    delete_remote: Annotated[
        bool, typer.Option("--delete-remote", help="Delete it on Modal once every file has been compared.")
    ] = False,
) -> None:
    """Bring a finished run home from Modal and compare every file with the run's own list.

    Example:

        lsdata train fetch sft-gemma-3-270m-it-1a2b3c4d
    """
    workspace = Workspace(load().paths.root)
    folder = find_run(workspace.train_dir, run)
    remote.require_modal()
    files = remote.fetch(folder, delete_remote=delete_remote, say=say)
    say(f"{files} files arrived as they were written")
    show(_summary(folder, was_done=False))


@app.command()
def check() -> None:
    """Start one small container on Modal and compare the code it sees with the code here.

    Example:

        lsdata train check
    """
    load()
    remote.require_modal()
    found = remote.check_code()
    if OUTPUT.json:
        print_json(found)
    else:
        typer.echo(f"Modal sees this code ({found['code'][:12]}) with torch {found['versions'].get('torch')}")


def _settings(wanted: dict[str, Any], dry_run: bool) -> Settings:
    """The settings with the flags of :data:`SETTING_FLAGS` in their places.

    Raises :class:`InputError` when a GPU is named for a run on this machine; a dry run may ask for its price.
    """
    train: dict[str, Any] = {}
    for name, value in wanted.items():
        section = SECTION_OF.get(name)
        (train.setdefault(section, {}) if section else train)[name] = value
    settings = load(train=train)
    if "gpu" in wanted and settings.train.on != "modal" and not dry_run:
        raise InputError(
            "--gpu is for remote runs",
            "add --on modal; here a GPU is taken where there is one (--set device=cuda insists)",
        )
    return settings


def _trust_reward(settings: Settings, trusted: bool) -> None:
    """Code runs only when somebody named it: with ``--set grpo.reward=...``, or by trusting the settings file.

    A folder that somebody else made must not be able to run its code. Raises :class:`InputError`.
    """
    reward = settings.train.grpo.reward
    if reward != "standard" and not trusted:
        raise InputError(
            f"the settings file wants to run the reward {reward}",
            f"if that is right, say so with --set grpo.reward={reward} or --trust-settings",
        )


def _start(settings: Settings, choices: Choices, how: StartOptions, dry_run: bool) -> None:
    if dry_run:
        plan = plan_one(settings, choices)
        if OUTPUT.json:
            print_json(plan)
        else:
            _show_plan(plan)
        return
    with _lock(settings, f"train {choices.kind}"):
        summary = train_one(settings, choices, how)
    show(summary)


def _lock(settings: Settings, command: str) -> AbstractContextManager[None]:
    return Workspace(settings.paths.root).lock(command)


def _show_plan(plan: dict[str, Any]) -> None:
    """A dry run for people: every value with its origin, then what the rows are and what training would take."""
    from rich.table import Table

    out = console()
    values = Table("value", "", "from", title=plan["run_id"], title_justify="left", box=None)
    for name, (value, origin) in plan["spec"].items():
        values.add_row(name, clean(value), clean(origin), style="" if origin != "default" else "dim")
    out.print(values)
    facts = Table(show_header=False, title="rows and time", title_justify="left", box=None)
    for name, value in plan["audit"].items():
        text = ", ".join(f"{k} {v:,}" for k, v in value.items()) if isinstance(value, dict) else f"{value:,}"
        facts.add_row(name.replace("_", " "), clean(text or "none"))
    for name, value in plan["modal"].items():
        facts.add_row(f"modal {name.replace('_', ' ')}", clean(value))
    out.print(facts)


def _show_table(lines: list[dict[str, Any]]) -> None:
    from rich.table import Table

    if OUTPUT.json:
        return
    columns = [name for name in lines[0] if any(line[name] is not None for line in lines)]
    table = Table(*[name.replace("_", " ") for name in columns], box=None)
    for line in lines:
        cells = [
            duration(line[name]) if name == "seconds" and line[name] is not None
            else f"{line[name]:.4g}" if isinstance(line[name], float) else clean(line[name])
            for name in columns
        ]  # fmt: skip
        table.add_row(*cells)
    console().print(table)


@dataclass(frozen=True)
class StartOptions:
    """How a run is started, and what happens after it."""

    resume: str = "auto"
    force: bool = False
    detach: bool = False
    yes: bool = False
    evaluate: bool = False
    require_improvement: bool = False

    def __post_init__(self) -> None:
        if self.resume not in ("auto", "never"):
            raise InputError(f"--resume {self.resume} is unknown", "take auto or never")


def run_train(settings: Settings, *, yes: bool = False) -> Summary:
    """Train every recipe that the settings name, in order."""
    workspace = Workspace(settings.paths.root)
    total = Summary("train")
    for kind in settings.train.recipes:
        summary = train_one(settings, Choices(kind), StartOptions(yes=yes))
        total.done += summary.done
        total.skipped += summary.skipped
        total.seconds += summary.seconds
        total.outputs += summary.outputs
        total.details.update({f"{kind} {name}": value for name, value in summary.details.items()})
    total.next_step = "lsdata bench"
    written = [Path(output) / "run.json" for output in total.outputs]
    write_manifest(stage_files(settings, workspace)[0], workspace.root, written, total)
    return total


run_stage_for_chain = run_train


def train_one(settings: Settings, choices: Choices, how: StartOptions) -> Summary:
    """Prepare one run, train it here or on Modal, and say what came out."""
    workspace, on_modal = Workspace(settings.paths.root), settings.train.on == "modal"
    if how.detach and not on_modal:
        raise InputError("--detach is for remote runs", "add --on modal")
    run = prepare(settings.train, settings.scoring, workspace, choices, say=say)
    if on_modal:
        remote.require_modal()
        check_lengths(run, say)
        _agree(settings, how, runs=1)
    open_run(run.folder, run.spec, resume=how.resume == "auto", force=how.force)
    run.write_data()
    was_done = run.folder.done
    if on_modal and not was_done:
        resume = how.resume == "auto"
        if remote.start(run, settings.train.modal, detach=how.detach, say=say, resume=resume) is None:
            return _detached(run.folder)
        remote.fetch(run.folder, delete_remote=False, say=say)
    else:
        say(f"training {run.spec.base_model} ({run.spec.kind}, {run.spec.method}) as run {run.spec.run_id}")
        run_training(run.spec, run.folder.path, say=say)
    summary = _summary(run.folder, was_done)
    if how.evaluate or how.require_improvement:
        summary.details.update(evaluate_run(run.folder, settings, require=how.require_improvement, say=say))
    return summary


def _agree(settings: Settings, how: StartOptions, runs: int) -> None:
    """Show what remote runs can cost at most, and ask, unless that was said before."""
    modal = settings.train.modal
    cap = check_cap(modal, modal.gpu, runs)
    say(
        f"{runs} run{'s' if runs > 1 else ''} on {modal.gpu}: at most ${cap:.2f} ({modal.timeout_hours:g} h each x price)"
    )
    confirm_remote(modal, how.yes)


def _summary(folder: RunFolder, was_done: bool) -> Summary:
    """What a finished run came to."""
    record = folder.record()
    summary = Summary(f"train {record['kind']}", done=int(not was_done), skipped=int(was_done))
    summary.seconds = 0.0 if was_done else float(record["seconds"])
    summary.details = {"run": folder.run_id, "base_model": record["base_model"], **record["metrics"]}
    for number, finding in enumerate(record["health"], 1):
        summary.details[f"warning_{number}"] = finding
    summary.outputs = [str(folder.path)]
    summary.next_step = f"lsdata bench --source local:{folder.final}"
    return summary


def _detached(folder: RunFolder) -> Summary:
    summary = Summary("train on modal", details={"run": folder.run_id, "state": "running"})
    summary.outputs = [str(folder.path)]
    summary.next_step = f"lsdata train attach {folder.run_id}"
    return summary


def run_lines(settings: Settings) -> list[dict[str, Any]]:
    """A line for each run in the workspace, the newest first; one that cannot be read has the state ``unreadable``."""
    lines: list[dict[str, Any]] = []
    for folder in find_runs(Workspace(settings.paths.root).train_dir):
        where = "modal" if (folder.path / "remote.json").exists() else "local"
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
                # The runs of this machine are to be seen all the same.
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
    """What a run would be: each value with its origin, what the rows are, and what it would take on Modal."""
    run = prepare(settings.train, settings.scoring, Workspace(settings.paths.root), choices, say=say)
    return plan(run, settings.train.modal)


def plan_sweep(settings: Settings, family: str, choices: Choices) -> list[dict[str, Any]]:
    """The plans of all members of a family."""
    return [plan_one(settings, member) for member in members(family, choices).values()]


def run_sweep(settings: Settings, family: str, choices: Choices, how: StartOptions) -> Summary:
    """Train the members of a family one after the other; a finished one is left as it is.

    A member that fails is a line of the table, and the others are trained all the same. The table is written after each.
    Raises what concerns all of them: before the first one starts where that can be known, and a full disk or a Modal that
    cannot be asked when it happens.
    """
    workspace, total = Workspace(settings.paths.root), Summary(f"sweep {family}")
    runs = members(family, choices)
    folders = {name: prepare(settings.train, settings.scoring, workspace, run).folder for name, run in runs.items()}
    if settings.train.on == "modal":
        _agree(settings, how, runs=len(runs))
        how = replace(how, yes=True)
    path = table_file(workspace.train_dir, choices.kind, family)
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
            records[name] = {"run_id": folders[name].run_id, "status": "failed", "error": why}
        else:
            records[name] = folders[name].record()
            total.done += summary.done
            total.skipped += summary.skipped
            total.seconds += summary.seconds
            total.outputs += summary.outputs
        lines = table(records)
        write_table(path, choices.kind, family, lines)
        total.details = {"best": best(lines), "runs": lines}
    return replace(total, outputs=[*total.outputs, str(path)])


def _concerns_all(error: Exception) -> bool:
    """Whether the other members of a sweep would fail like this one."""
    return isinstance(error, ModalError | OutputError) and not isinstance(error, RemoteRunError)


def stage_files(settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """What training reads and what decides its result."""
    inputs = {path for kind in settings.train.recipes for path in training_files(workspace, kind).values()}
    decisive = settings.train.model_dump(mode="json", exclude={"skip", "modal", "on"})
    return [StageFiles("train", workspace.train_dir / "manifest.json", sorted(inputs), decisive, {})]


def preflight(settings: Settings) -> list[LsdataError]:
    """What would stop training before it starts: a missing extra, a preset nobody knows, a base model that is not there."""
    checks: list[Callable[[], object]] = [
        partial(require, module, "ml", "training") for module in ("torch", "transformers", "trl", "peft", "datasets")
    ]
    if settings.train.on == "modal":
        checks = [require_modal]
    checks += [partial(effective_settings, settings.train, Choices(kind)) for kind in settings.train.recipes]
    checks.append(partial(_trust_reward, settings, False))
    if settings.train.on != "modal":
        checks.append(partial(_check_base, settings))
    for check_one in checks:
        try:
            check_one()
        except LsdataError as error:
            return [error]
    return []


def _check_base(settings: Settings) -> None:
    check_base(settings.train.base_model, runs=Workspace(settings.paths.root).train_dir)


def estimate(settings: Settings, workspace: Workspace, behind: str = "") -> dict[str, Any]:
    """What training can cost, whatever the rows: nothing here, time-out x price for each run on Modal."""
    if settings.train.on != "modal":
        return {"cost_usd": 0.0, "basis": "trained on this machine"}

    modal, runs = settings.train.modal, len(settings.train.recipes)
    basis = f"at most: {runs} x {modal.timeout_hours:g} h time-out x the price of {modal.gpu}"
    return {"cost_usd": cap_usd(modal, modal.gpu, runs), "basis": basis}
