"""Rows and runs for tests of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from factories import make_payload, make_scored
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.settings import Recipe, ScoringSettings, TrainSettings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.models.runs import RunFolder, open_run
from latentscore_data.core.models.spec import Choices
from latentscore_data.core.training.prepare import Prepared, prepare
from latentscore_data.core.training.run import run_training

ROWS = 24
SFT_STEPS = ("optim.max_steps=30", "checkpoint.every_steps=10")


def training_row(number: int, **config: Any) -> ScoredRow:
    payload = make_payload(title=f"Night Rain {number}", **config)
    return make_scored(
        number, vibe_original=f"rain number {number} at night", config_candidates=[payload], config_payload=payload,
        candidate_scores={"acoustic": [number / ROWS]},
    )  # fmt: skip


def write_rows(workspace: Workspace, **config: Any) -> None:
    rows = [training_row(number, **config) for number in range(ROWS)]
    replace_rows(workspace.scored("SFT-Train"), rows)
    replace_rows(workspace.scored("SFT-Val"), rows[:4])
    replace_rows(workspace.scored("GRPO"), rows)


def short_system() -> str:
    """The real prompt is over a thousand tokens long, which makes training on a CPU slow."""
    return "Answer with JSON."


def ready(
    workspace: Workspace, kind: Recipe, *overrides: str, base_model: str = "tiny-random", adapter: str | None = None,
    run_id: str | None = None,
) -> Prepared:  # fmt: skip
    """A run whose folder is ready to train."""
    choices = Choices(kind, run_id, adapter, overrides=overrides)
    run = prepare(TrainSettings(base_model=base_model), ScoringSettings(workers=1), workspace, choices)
    open_run(run.folder, run.spec, resume=True, force=False)
    run.write_data()
    return run


def train(workspace: Workspace, kind: Recipe, *overrides: str, reward: Any = None, **start: Any) -> RunFolder:
    """A finished run; ``reward`` is a user's reward."""
    if reward is not None:
        globals()["own_reward"] = reward
        overrides = (*overrides, f"grpo.reward={__name__}:own_reward")
    run = ready(workspace, kind, *overrides, **start)
    run_training(run.spec, run.folder.path)
    return run.folder


def quotes(vibes: Sequence[str], answers: Sequence[str]) -> list[float]:
    """The share of quotation marks: a reward that anyone can check."""
    return [answer.count('"') / max(len(answer), 1) for answer in answers]
