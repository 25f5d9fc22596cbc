"""status compares a stage with what was typed for its run, not with the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import here
from latentscore_data.core.base.settings import Settings, load_settings


def run(*commands: str) -> None:
    for command in commands:
        here(*command.split(), code=0)


def stage(name: str) -> dict[str, Any]:
    return next(one for one in here("status", "--json").json()["stages"] if one["stage"] == name)


def test_what_was_typed_for_a_run_is_no_change() -> None:
    Path("texts").mkdir()
    Path("texts/poem.txt").write_text("Slow rain fell on the tin roof all night long, and nobody was awake to hear it.")
    run("download --dataset ./texts --sample-size 5")
    assert stage("download")["state"] == "fresh"
    Path("texts/poem.txt").write_text("A bright morning, and the bells of the village rang over the wet roofs.")
    assert stage("download")["state"] == "stale"
    Path("texts/poem.txt").unlink()
    Path("texts").rmdir()
    download = stage("download")
    assert (download["state"], download["why"]) == ("stale", ["./texts does not exist"])


def test_what_was_typed_for_the_first_part_of_a_run_counts_for_that_part_only() -> None:
    run("download --dataset builtin --sample-size 3", "vibes", "configs --n 1 --limit 1 --split TEST")
    files = [Path("data_work/.processed") / name for name in ("score.manifest.json", "TEST.jsonl")]
    scored = {path: path.read_bytes() for path in files}
    run("configs --n 2 --limit 1 --split TEST")
    for path, before in scored.items():  # as if the second run had been interrupted before it scored
        path.write_bytes(before)
    configs, score = stage("configs"), stage("score")
    assert (configs["state"], configs["why"]) == ("fresh", [])
    assert (score["state"], score["why"]) == ("stale", ["input .processed/candidates.jsonl changed"])


def test_run_all_says_which_stored_value_differs_from_the_settings() -> None:
    run("download --dataset builtin --sample-size 5")
    plan = here("run-all", "--until", "download", "--dry-run", "--json").json()["plan"]
    assert any("sample_size changed from 5 to 1000" in reason for reason in plan[0]["why"])


def test_a_dry_run_shows_the_plan_with_what_is_missing() -> None:
    Path("latentscore.toml").write_text("[download]\ndatasets = ['builtin']\n[scoring]\nscorers = ['acoustic']\n")
    out = here(
        "run-all", "--until", "configs", "--dry-run", "--json", env={"LSDATA_CONFIGS__MODEL": "openai/gpt-4o-mini"}
    )
    document = out.json()
    assert [step["stage"] for step in document["plan"]] == ["download", "vibes", "configs"]
    assert any("OPENAI_API_KEY" in line for line in document["missing"])
    assert out.returncode == 3


def test_the_rows_of_vibes_are_its_rows_and_what_is_left_out_stands_behind_the_plan() -> None:
    Path("latentscore.toml").write_text("[download]\ndatasets = ['builtin']\nsample_size = 3\n[train]\nskip = true\n")
    run("download", "vibes")
    files = Path("data_work/.vibes").glob("*-*.jsonl"), Path("data_work/.vibes").glob("[GT]*.jsonl")
    assert stage("vibes")["rows"] == sum(len(file.read_text().splitlines()) for found in files for file in found)
    out = here("run-all", "--dry-run")
    assert out.stderr == ""
    assert "train is skipped: train.skip is set" in out.stdout.splitlines()[-1]


def test_the_settings_are_loaded_once_for_parts_with_the_same_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    run("download --dataset builtin --sample-size 3", "vibes", "configs --n 1 --limit 1 --split TEST")
    loaded: list[object] = []

    def load(*args: Any, **flags: Any) -> Settings:
        loaded.append(flags)
        return load_settings(*args, **flags)

    monkeypatch.setattr("latentscore_data.commands._options.load_settings", load)
    assert stage("score")["state"] == "fresh"
    assert len(loaded) == 3, "without flags, with those of download, and with those of both parts of configs"


def test_a_flag_of_a_run_holds_until_the_value_that_it_replaced_is_changed() -> None:
    def configs() -> tuple[str, list[str]]:
        return stage("configs")["state"], stage("configs")["why"]

    def set_n(n: int) -> None:
        Path("latentscore.toml").write_text(f"[configs]\nn = {n}\nlimit = 1\nsplits = ['TEST']\n")

    set_n(1)
    run("download --dataset builtin --sample-size 3", "vibes", "configs --n 2 --seed 3")
    assert configs() == ("fresh", [])
    set_n(3)
    assert configs() == ("stale", ["setting n changed from 2 to 3"])
    assert here("configs", "--n", "2", "--seed", "3", "--json").json()["fresh"]
    assert configs() == ("fresh", []), "the flag replaces the new value"
    Path("latentscore.toml").unlink()
    assert configs() == ("stale", [
        "setting limit changed from 1 to None", "setting n changed from 2 to 5",
        "setting splits changed from ['TEST'] to ['SFT-Train', 'SFT-Val', 'GRPO', 'TEST']",
        "input .vibes/GRPO.jsonl is new", "input .vibes/SFT-Train.jsonl is new", "input .vibes/SFT-Val.jsonl is new",
    ])  # fmt: skip


def test_no_settings_file_changes_the_sample() -> None:
    run("run-all --sample --until vibes")
    Path("latentscore.toml").write_text("[vibes]\nmax_vibes = 2\n[download]\nsample_size = 2\n")
    stages = here("status", "--sample", "--json").json()["stages"]
    assert [one["state"] for one in stages[:2]] == ["fresh", "fresh"]
