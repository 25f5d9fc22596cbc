from __future__ import annotations

from typing import Any

import pytest

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import ScoringSettings, TrainSettings
from latentscore_data.core.models.spec import (
    Choices,
    DataFact,
    TrainSpec,
    build_spec,
    differences,
    effective_settings,
    families,
    parse_overrides,
)

DATA = {"train": DataFact(sha256="0" * 64, rows=100)}


def spec(kind: str = "sft", *overrides: str, **settings: Any) -> TrainSpec:
    choices = Choices(kind, overrides=overrides)  # type: ignore[arg-type]
    return build_spec(TrainSettings(**settings), choices, DATA, ScoringSettings())[0]


def test_the_recipes_are_those_of_the_docs() -> None:
    sft, grpo = spec("sft"), spec("grpo")
    assert (sft.learning_rate, sft.batch_size, sft.optim.epochs) == (2e-4, 16, 3)
    assert (sft.method, sft.lora.rank, sft.lora.alpha, sft.lora.dropout) == ("lora", 32, 32, 0)
    assert (grpo.learning_rate, grpo.batch_size, grpo.prompts_per_step) == (1e-5, 32, 4)
    assert (grpo.rollout.beta, grpo.rollout.temperature, grpo.rollout.top_p) == (0.0, 1.0, 1.0)
    assert sft.grpo is None


def test_later_wins_default_recipe_settings_preset_set() -> None:
    settings = TrainSettings.model_validate({"lora": {"rank": 4}, "optim": {"learning_rate": 1e-3}})
    choices = Choices("sft", presets=["learning_rate:lr5e-5"], overrides=["optim.weight_decay=0.1"])
    train, origins = effective_settings(settings, choices)
    assert (train.lora.rank, train.optim.learning_rate, train.optim.weight_decay) == (4, 5e-5, 0.1)
    assert train.optim.epochs == 3
    assert origins["lora.rank"] == "settings"
    assert origins["optim.learning_rate"] == "preset learning_rate:lr5e-5"
    assert origins["optim.weight_decay"] == "--set"
    assert origins["optim.epochs"] == "recipe sft"
    assert origins["lora.dropout"] == "default"


@pytest.mark.parametrize("name", [f"{group}:{member}" for group, members in families().items() for member in members])
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_every_preset_makes_a_spec(name: str, kind: str) -> None:
    plain, _ = build_spec(TrainSettings(), Choices(kind), DATA, ScoringSettings())  # type: ignore[arg-type]
    preset, origins = build_spec(TrainSettings(), Choices(kind, presets=[name]), DATA, ScoringSettings())  # type: ignore[arg-type]
    assert f"preset {name}" in origins.values()
    assert preset.steps(100) >= 1
    assert plain.run_id.startswith(f"{kind}-gemma3-270m-")


def test_families_are_the_ablations() -> None:
    ranks = [member["lora.rank"] for member in families()["lora_rank"].values()]
    rates = [member["optim.learning_rate"] for member in families()["learning_rate"].values()]
    betas = [member["grpo.beta"] for member in families()["grpo_beta"].values()]
    sizes = [member["batch.size"] for member in families()["batch_size"].values()]
    assert (ranks, sizes) == ([4, 8, 16, 32, 64, 128], [4, 8, 16, 32])
    assert (rates, betas) == ([1e-5, 5e-5, 1e-4, 2e-4, 5e-4], [0.01, 0.02, 0.04, 0.08, 0.16])


def test_equal_specs_are_the_same_run_and_different_ones_are_not() -> None:
    assert spec().run_id == spec().run_id
    assert spec().run_id != spec("sft", "seed=1").run_id
    assert differences(spec(), spec("sft", "seed=1", "lora.rank=8")) == [
        "lora.rank 32 -> 8",
        f"run_id {spec().run_id!r} -> {spec('sft', 'seed=1', 'lora.rank=8').run_id!r}",
        "seed 0 -> 1",
    ]


def test_tiny_random_trains_all_weights_unless_told_otherwise() -> None:
    assert spec(base_model="tiny-random").method == "full"
    assert spec(base_model="tiny-random", method="lora").method == "lora"
    assert spec("sft", "method=lora", base_model="tiny-random").method == "lora"


def test_overrides_are_read_as_toml_and_otherwise_as_text() -> None:
    assert parse_overrides(["a=1e-4", "b=3", "c=true", "d=[1, 2]", "e=tiny-random", "f=x=y"]) == {
        "a": 1e-4,
        "b": 3,
        "c": True,
        "d": [1, 2],
        "e": "tiny-random",
        "f": "x=y",
    }


@pytest.mark.parametrize(
    ("kind", "overrides", "message", "remedy"),
    [
        ("sft", ["optim.learning_rat=1"], "unknown setting optim.learning_rat (did you mean learning_rate?)", ""),
        ("sft", ["optim=1"], "--set: optim: input should be a valid dictionary", ""),
        ("sft", ["optim.learning_rate"], "has no value", "--set KEY=VALUE"),
        ("sft", ["optim.learning_rate=-1"], "--set: optim.learning_rate", ""),
        ("sft", ["batch.size=16", "batch.per_device=6"], "not a multiple", "batch.size 12 or 18"),
        ("grpo", ["batch.size=30", "batch.per_device=2"], "groups of grpo.generations 8", "batch.size 24 or 32"),
        ("grpo", ["batch.size=4"], "groups of grpo.generations 8", "batch.size 8, or grpo.generations 4"),
    ],
)
def test_bad_values_name_what_would_do(kind: str, overrides: list[str], message: str, remedy: str) -> None:
    with pytest.raises(InputError) as error:
        spec(kind, *overrides)
    assert message in error.value.message
    assert remedy in error.value.remedy


@pytest.mark.parametrize("name", ["lora_rank:r33", "lora_rnk:r32", "r32"])
def test_an_unknown_preset_names_the_nearest(name: str) -> None:
    with pytest.raises(InputError, match=r"lora_rank|r32|known"):
        build_spec(TrainSettings(presets=[name]), Choices("sft"), DATA, ScoringSettings())


def test_steps_are_epochs_over_the_rows_unless_given() -> None:
    assert spec().steps(100) == 19
    assert spec("sft", "optim.max_steps=1000").steps(100) == 1000
    assert spec("grpo").steps(100) == 25
