"""lsdata train: teach a small model to answer vibes, on this machine or on Modal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentscore_data.commands._options import DryRunOption, SeedOption, load, show

if TYPE_CHECKING:
    from latentscore_data.core.errors import LsdataError
    from latentscore_data.core.settings import Settings
    from latentscore_data.core.stage import Summary
    from latentscore_data.core.training.spec import Choices
    from latentscore_data.core.workspace import StageFiles, Workspace

app = typer.Typer(help="Rows to a model: SFT, GRPO and ablations, here or on Modal.", no_args_is_help=True)

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
ResumeOption = Annotated[str, typer.Option(help="auto goes on from the newest checkpoint; never begins again.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Go on although the spec has changed.")]


@app.command()
def sft(
    base_model: BaseModelOption = None,
    preset: PresetOption = None,
    set_: SetOption = None,
    run_id: RunIdOption = None,
    max_steps: MaxStepsOption = None,
    limit: LimitRowsOption = None,
    seed: SeedOption = None,
    resume: ResumeOption = "auto",
    force: ForceOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Fine-tune a base model on the SFT-Train rows."""
    from latentscore_data.core.settings import chosen
    from latentscore_data.core.training.spec import Choices

    settings = load(
        train=chosen(base_model=base_model, limit=limit, seed=seed, optim=chosen(max_steps=max_steps) or None)
    )
    choices = Choices("sft", run_id, None, preset or [], set_ or [])
    show(_locked(settings, choices, resume, force, dry_run))


def _locked(settings: Settings, choices: Choices, resume: str, force: bool, dry_run: bool) -> Summary:
    from latentscore_data.core.workspace import Workspace

    with Workspace(settings.paths.root).lock(f"train {choices.kind}"):
        return train_one(settings, choices, resume=resume, force=force, dry_run=dry_run)


def run_train(settings: Settings, *, yes: bool = False) -> Summary:
    """Train every recipe that the settings name, in order."""
    from latentscore_data.core.stage import Summary
    from latentscore_data.core.training.spec import Choices
    from latentscore_data.core.workspace import Workspace, write_manifest

    workspace = Workspace(settings.paths.root)
    total = Summary("train")
    for kind in settings.train.recipes:
        summary = train_one(settings, Choices(kind))
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


def train_one(
    settings: Settings,
    choices: Choices,
    *,
    resume: str = "auto",
    force: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Prepare one run, train it here, and say what came out."""
    from latentscore_data.core.display import say
    from latentscore_data.core.stage import Summary
    from latentscore_data.core.training.prepare import prepare
    from latentscore_data.core.training.run import run_training
    from latentscore_data.core.training.runs import open_run
    from latentscore_data.core.workspace import Workspace

    workspace = Workspace(settings.paths.root)
    run = prepare(settings.train, settings.scoring, workspace, choices)
    summary = Summary(f"train {choices.kind}")
    open_run(run.folder, run.spec, resume=resume == "auto", force=force)
    run.write_data()
    say(f"training {run.spec.base_model} ({run.spec.method}) as run {run.spec.run_id}")
    was_done = run.folder.done
    record = run_training(run.spec, run.folder.path, say=say)
    summary.done, summary.skipped = (0, 1) if was_done else (1, 0)
    summary.seconds = 0.0 if was_done else float(record["seconds"])
    summary.details = {"run": run.spec.run_id, "base_model": run.spec.base_model, **record["metrics"]}
    summary.outputs = [str(run.folder.path)]
    summary.next_step = f"lsdata bench --source local:{run.folder.final}"
    return summary


def stage_files(settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """What training reads and what decides its result."""
    from latentscore_data.core.training.prepare import training_files
    from latentscore_data.core.workspace import StageFiles

    inputs = {path for kind in settings.train.recipes for path in training_files(workspace, kind).values()}
    decisive = settings.train.model_dump(mode="json", exclude={"skip", "modal", "on"})
    return [StageFiles("train", workspace.train_dir / "manifest.json", sorted(inputs), decisive, {})]


def preflight(settings: Settings) -> list[LsdataError]:
    """What would stop training before it starts: a missing extra, a base model that is not there."""
    from latentscore_data.core.errors import LsdataError, require

    problems: list[LsdataError] = []
    for module in ("torch", "transformers", "trl", "peft", "datasets", "accelerate"):
        try:
            require(module, "ml", "training")
        except LsdataError as error:
            problems.append(error)
            break
    return problems
