"""lsdata train: teach a small model to answer vibes, on this machine, on Modal or on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentscore_data.commands._options import DryRunOption, OnOption, SeedOption, YesOption, load, show, with_flags
from latentscore_data.core.base.display import OUTPUT, clean, console, duration, print_json, say
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute import modal as remote
from latentscore_data.core.stages.train import (
    StartOptions,
    plan_one,
    plan_sweep,
    run_lines,
    run_summary,
    run_sweep,
    train_one,
    trust_reward,
)
from latentscore_data.core.training.runs import find_run
from latentscore_data.core.training.spec import Choices

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


app = typer.Typer(
    help="Rows to a model: SFT, GRPO and ablations, here, on Modal or on Ray.",
    no_args_is_help=True,
    add_completion=False,
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
MaxStepsOption = Annotated[
    int | None, typer.Option(help="Train for exactly this many steps.", min=1, rich_help_panel=WHAT)
]
LimitRowsOption = Annotated[
    int | None, typer.Option("--limit", help="Use at most this many rows, from the start.", min=1)
]
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
    typer.Option(
        help="Cap in US dollars on the whole run: containers that could exceed it are refused beforehand.",
        min=0,
        rich_help_panel=WHERE,
    ),
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
    trust_reward(settings, trust_settings)
    choices = Choices("grpo", run_id, adapter, preset or [], set_ or [])
    _start(settings, choices, StartOptions(resume, force, detach, yes, evaluate, require_improvement), dry_run)


@app.command()
@with_flags("wanted", SETTING_FLAGS)
def dpo(
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
    dry_run: DryRunOption = False,
) -> None:
    """Prefer the best candidate of each GRPO row to its worst one (DPO).

    Examples:

        lsdata train dpo --base-model tiny-random --max-steps 10
        lsdata train dpo --adapter sft-gemma-3-270m-it-1a2b3c4d --set dpo.margin=1.5
    """
    settings = _settings(wanted, dry_run)
    choices = Choices("dpo", run_id, adapter, preset or [], set_ or [])
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
    trust_reward(settings, trust_settings)
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
    show(run_summary(folder, was_done=False))


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
    show(run_summary(folder, was_done=False))


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
