from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from conftest import needs
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.settings import ModalSettings, ScoringSettings, TrainSettings
from latentscore_data.core.compute.estimates import cap_usd, estimate_run
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.models.spec import Choices, DataFact, build_spec
from latentscore_data.core.training.audit import Audit, percentiles
from latentscore_data.core.training.run import figures
from latentscore_data.core.training.run_health import draw, health
from latentscore_data.core.training.sweep import best, members, table


def history(steps: int = 20, **values: Any) -> list[dict[str, Any]]:
    good = {"loss": 0.1, "equal_groups": 0.1, "completions/clipped_ratio": 0.1, "entropy": 2.0}
    return [{"step": step, **good, **values} for step in range(steps)]


def test_a_healthy_run_has_nothing_to_say() -> None:
    assert health([]) == []
    assert health(history()) == []


@pytest.mark.parametrize(
    ("values", "what_to_change"),
    [
        ({"equal_groups": 0.9}, "grpo.temperature"),
        ({"completions/clipped_ratio": 0.6}, "grpo.max_completion_tokens"),
        ({"loss": math.nan}, "optim.learning_rate"),
        ({"eval_loss": math.inf}, "optim.learning_rate"),
    ],
)
def test_health_names_what_to_change(values: dict[str, Any], what_to_change: str) -> None:
    findings = health(history(**values))
    assert len(findings) == 1
    assert what_to_change in findings[0]


def test_health_sees_entropy_collapse() -> None:
    falling = [{**line, "entropy": 2.0 * 0.7 ** line["step"]} for line in history(30)]
    assert any("grpo.beta" in finding for finding in health(falling))


def test_health_waits_for_a_whole_window() -> None:
    assert health(history(5, equal_groups=1.0)) == []


def test_percentiles_are_lengths_that_occur() -> None:
    assert percentiles([1, 2, 3, 4, 1000]) == {"p50": 3, "p95": 1000, "p99": 1000, "max": 1000}
    assert percentiles([7]) == {"p50": 7, "p95": 7, "p99": 7, "max": 7}


def report(**changes: Any) -> Audit:
    values: dict[str, Any] = {
        "prompt_tokens": {"p50": 1500}, "row_tokens": {"p50": 2000}, "max_completion_tokens": 600, "steps": 500,
        "all_parameters": 270_000_000,
    }  # fmt: skip
    return Audit(**{**values, **changes})


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_the_price_is_a_range_with_a_basis_and_a_cap(kind: str) -> None:
    data = {"train": DataFact(sha256="0" * 64, rows=2000)}
    spec, _ = build_spec(TrainSettings(), Choices(kind), data, ScoringSettings())  # type: ignore[arg-type]
    found = estimate_run(spec, report(), ModalSettings(gpu="L4", timeout_hours=2))
    assert 0 < found.low_usd < found.high_usd
    assert found.cap_usd == pytest.approx(2 * found.price_per_hour)
    assert "list prices" in found.basis
    assert "500 steps" in found.basis
    own = estimate_run(spec, report(), ModalSettings(price_per_hour=1.0, timeout_hours=3))
    assert (own.cap_usd, own.price_per_hour) == (3.0, 1.0)
    assert "your price" in own.basis
    assert cap_usd(ModalSettings(price_per_hour=2.0, timeout_hours=1), None, containers=4) == 8


def test_an_unknown_gpu_names_those_there_are() -> None:
    with pytest.raises(Exception, match="A100-80GB"):
        cap_usd(ModalSettings(gpu="RTX"), "RTX")


def test_a_sweep_has_one_run_per_member_and_names_the_best() -> None:
    runs = members("lora_rank", Choices("sft", run_id="ablation", overrides=["seed=1"]))
    assert list(runs) == ["r4", "r8", "r16", "r32", "r64", "r128"]
    assert runs["r4"].run_id == "ablation-r4"
    assert runs["r4"].presets == ["lora_rank:r4"]
    assert runs["r4"].overrides == ["seed=1"]
    lines = table(
        {
            name: {
                "run_id": name,
                "status": "finished",
                "metrics": {"best_eval_loss": loss},
                "health": [],
                "seconds": 1,
            }
            for name, loss in (("r4", 2.0), ("r8", 1.5), ("r16", 1.7))
        }
    )
    assert best(lines, "lora_rank") == "r8"
    assert lines[0]["last_reward"] is None
    lines[1]["best_eval_loss"] = math.nan
    assert best(lines, "lora_rank") == "r16"


def test_the_best_of_a_sweep_has_the_best_validation_score_and_losses_of_other_betas_are_not_compared() -> None:
    # The DPO loss of one model, whose better answers are likelier by exp(1): it falls with beta.
    losses = {beta: math.log1p(math.exp(-beta)) for beta in (0.05, 0.1, 0.5)}
    lines = [{"preset": f"b{beta}", "best_eval_loss": loss, "last_loss": loss} for beta, loss in losses.items()]
    assert best(lines, "dpo_beta") is None
    for line, score in zip(lines, (0.2, 0.3, 0.1), strict=True):
        line["best_eval_score"] = score
    assert best(lines, "dpo_beta") == "b0.1"
    assert best(lines, "learning_rate") == "b0.1"


@needs("matplotlib")
def test_what_is_no_number_is_read_back_and_left_out_of_the_figures(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    logged = [{"step": 1, "loss": 2.0, "eval_loss": 3.0}, {"step": 2, "loss": math.nan, "eval_loss": math.nan}]
    replace_rows(run.metrics, logged)
    read = run.history()
    assert math.isnan(read[1]["loss"])
    assert any("not a number" in finding for finding in health(read))
    # Its last loss is not that of the step before it diverged.
    assert figures(read) == {"first_loss": 2.0, "best_eval_loss": 3.0, "steps": 2}
    draw(read, "diverged", run.picture)
    draw(read[1:], "nothing to see", run.picture)
    run.forget_after(2)
    assert math.isnan(run.history()[1]["loss"])
