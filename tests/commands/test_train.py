"""The real program: a dry run, a run, the same run again, status, GRPO on top of it, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conftest import here, needs
from latentscore_data.commands._train_tables import show_plans
from latentscore_data.core.base.errors import InputError, MissingError, OutputError, StoppedError, VerificationError
from latentscore_data.core.base.settings import ScoringSettings, Settings, TrainSettings, load_settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.estimates import RunEstimate
from latentscore_data.core.compute.modal import ModalError, RemoteRunError
from latentscore_data.core.models.spec import Choices, TrainSpec
from latentscore_data.core.stages.train import StartOptions, run_sweep
from latentscore_data.core.training.prepare import prepare
from training_runs import ready, short_system

if TYPE_CHECKING:
    from modal_loopback import LoopbackModal

QUICK = ("--base-model", "tiny-random", "--max-steps", "1", "--limit", "4")


def settings_of(workspace: Workspace, *, train: dict[str, Any] | None = None, **sections: Any) -> Settings:
    return load_settings(
        paths={"root": workspace.root}, train={"base_model": "tiny-random", **(train or {})}, **sections
    )


@pytest.mark.ml
@pytest.mark.timeout(600)
def test_sft_and_grpo_from_the_command_line(lsdata: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = ("--root", str(workspace.root), "--json")

    plan = lsdata("train", "sft", *QUICK, "--dry-run", *root, timeout=200).json()
    assert plan["spec"]["optim.max_steps"] == [1, "settings"]
    assert plan["spec"]["method"] == ["full", "recipe tiny-random"]
    assert plan["audit"]["rows"] == {"train": 4, "val": 4}
    assert plan["modal"]["cap_usd"] > 0
    assert not list(workspace.train_dir.glob("*")), "a dry run leaves nothing behind"

    summary = lsdata("train", "sft", *QUICK, *root, timeout=200, code=0).json()
    assert (summary["done"], summary["details"]["steps"]) == (1, 1)
    assert summary["details"]["run"] == plan["run_id"]

    again = lsdata("train", "sft", *QUICK, *root, timeout=200).json()
    assert (again["done"], again["skipped"]) == (0, 1)

    grpo = ("--set", "batch.size=4", "--set", "grpo.generations=4", "--set", "grpo.max_completion_tokens=8")
    done = lsdata("train", "grpo", *QUICK, *grpo, "--set", "grpo.audio_weight=0", *root, timeout=250, code=0)
    assert f"continuing from {plan['run_id']}" in done.stderr

    lines = lsdata("train", "status", *root).json()
    assert [(line["kind"], line["where"], line["state"]) for line in lines] == [
        ("grpo", "here", "finished"),
        ("sft", "here", "finished"),
    ]


def test_a_run_that_cannot_be_read_does_not_hide_the_others(workspace: Workspace) -> None:
    ready(workspace, "sft", run_id="good")
    for name in ("old", "broken"):
        ready(workspace, "sft", run_id=name)
        (workspace.train_dir / name / "DONE").write_text("{}")
    (workspace.train_dir / "old" / "spec.json").write_text('{"kind": "sft", "from": "another version"}')
    (workspace.train_dir / "broken" / "run.json").write_text("{")

    lines = here("train", "status", "--root", str(workspace.root), "--json").json()
    assert {line["run"]: line["state"] for line in lines} == {
        "good": "not started", "old": "unreadable", "broken": "unreadable",
    }  # fmt: skip
    narrow = here("train", "status", "--root", str(workspace.root), env={"COLUMNS": "60"})
    assert narrow.stdout.count("unreadable") == 2, "names and states stay whole"
    assert "not a training spec" in " ".join(narrow.stdout.split())
    (workspace.train_dir / "broken" / "spec.json").unlink()
    said: list[str] = []
    grpo = prepare(TrainSettings(base_model="tiny-random"), ScoringSettings(), workspace, Choices("grpo"), said.append)
    assert grpo.spec.adapter is None
    assert any("run old is skipped" in line for line in said)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("sft", "--preset", "lora_rank:r33"), 2, "did you mean"),
        (("sft", "--set", "optim.learning_rat=1"), 2, "did you mean learning_rate"),
        (("grpo", "--set", "batch.size=30", "--set", "batch.per_device=2"), 2, "batch.size 24 or 32"),
        (("grpo", "--adapter", "no-such-run"), 2, "neither a finished run nor a folder"),
        (("sft", "--run-id", "../up"), 2, "not a folder name"),
        (("sft", "--resume", "maybe"), 2, "use auto or never"),
        (("sft", "--detach"), 2, "add --on modal"),
        (("sft", "--gpu", "A100-80GB"), 2, "add --on modal"),
        pytest.param(("sft", "--on", "modal"), 3, "modal setup", marks=needs("modal")),
        (("sweep", "lora"), 2, "did you mean lora_rank"),
        (("attach", "no-such-run"), 2, "no run 'no-such-run'"),
        (("fetch", "no-such-run"), 2, "no run 'no-such-run'"),
    ],
)
def test_wrong_use_is_one_line_and_a_remedy(
    workspace: Workspace, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    no_token = {"MODAL_CONFIG_PATH": str(tmp_path / "none")}
    out = here("train", *arguments, "--root", str(workspace.root), env=no_token, code=code)
    assert message in out.stderr
    assert "Traceback" not in out.stderr
    assert not list(workspace.train_dir.glob("*"))


def test_a_plan_for_people_holds_rounded_times_and_money(capsys: pytest.CaptureFixture[str]) -> None:
    estimate = RunEstimate("L4", 1.1172, 60.00684436, 180.0684, 0.018622, 0.055881, 4.4688, "45 steps")
    plan = {"run_id": "r", "spec": {"optim.max_steps": (None, "default")}, "audit": {"steps": 45}, "missing": []}
    show_plans([{**plan, "modal": asdict(estimate)}], lambda: None, alone=True)
    shown = " ".join(capsys.readouterr().out.split())
    assert "with --on modal 1 min 00 s to 3 min 00 s, $0.0186 to $0.0559, at most $4.47 (45 steps)" in shown
    assert "None" not in shown


@pytest.mark.ml
def test_a_dry_run_shows_the_plan_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    root = ("--root", str(tmp_path / "empty"))
    plan = here("train", "dpo", "--set", "dpo.beta=0.3", "--dry-run", *root, "--json", code=3).json()
    assert plan["spec"]["dpo.beta"] == [0.3, "--set"]
    rows, base = plan["missing"]
    assert "there are no GRPO rows" in rows
    assert "gemma-3-270m-it" in base
    assert "missing: there are no GRPO rows" in " ".join(here("train", "dpo", "--dry-run", *root).stdout.split())
    assert not (tmp_path / "empty").exists()


@needs("torch")
def test_a_reward_in_somebody_elses_settings_file_does_not_run(workspace: Workspace) -> None:
    Path("reward.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\ndef fn(vibes, answers): return [0.0] * len(vibes)\n"
    )
    Path("latentscore.toml").write_text("[train.grpo]\nreward = 'reward.py:fn'\n")
    assert "--trust-settings" in here("train", "grpo", *QUICK, "--root", str(workspace.root), code=2).stderr
    here("run-all", "--from", "train", "--until", "train", "--root", str(workspace.root), code=2)
    assert not Path("ran").exists()


@pytest.mark.ml
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_that_does_not_beat_its_rivals_says_so_and_fails_when_that_was_required(
    lsdata: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # One step teaches a random model nothing; what it answers under the schema is noise, as that of its base is.
    out = lsdata(
        "train", "sft", *QUICK, "--evaluate", "--require-improvement", "--root", str(workspace.root),
        env={"LSDATA_SCORING__SCORERS": '["acoustic"]', "LSDATA_SCORING__SECONDS": "1", "LSDATA_BENCH__LIMIT": "2"},
        timeout=500, code=5
    )  # fmt: skip
    assert "did not beat" in out.stderr
    (record,) = workspace.train_dir.glob("*/run.json")
    evaluation = json.loads(record.read_text())["evaluation"]
    assert set(evaluation["rivals"]) == {"base", "random", "look-up"}
    assert evaluation["improved"] is False
    assert evaluation["scorer"] == "acoustic"


def test_without_rows_the_command_that_makes_them_is_named(root: Path) -> None:
    assert "lsdata configs --split SFT-Train" in here("train", "sft", "--root", str(root), code=3).stderr


@pytest.mark.ml
@pytest.mark.long
def test_a_sweep_survives_a_member_that_fails_and_goes_on_where_it_was(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    from latentscore import forms
    from latentscore_data.core.training import launch

    monkeypatch.setattr(forms, "config_system", short_system)
    train_really, ill = launch.train_together, [8]

    def train_some(spec: TrainSpec, *arguments: Any, **options: Any) -> Any:
        if spec.batch_size in ill:
            raise InputError("the GPU has too little memory for this run", "take less")
        return train_really(spec, *arguments, **options)

    monkeypatch.setattr("latentscore_data.core.stages.train.train_together", train_some)
    settings = settings_of(workspace, train={"limit": 4, "optim": {"max_steps": 1}})
    first = run_sweep(settings, "batch_size", Choices("sft"), StartOptions())
    assert (first.done, first.skipped, dict(first.failed), first.exit_code) == (3, 0, {"run": 1}, 1)
    lines = {line["preset"]: line for line in first.details["runs"]}
    assert {name: line["status"] for name, line in lines.items()} == {
        "bs4": "finished", "bs8": "failed", "bs16": "finished", "bs32": "finished",
    }  # fmt: skip
    assert "too little memory" in lines["bs8"]["error"]
    assert lines["bs8"]["last_loss"] is None
    assert len({line["run"] for line in lines.values()}) == 4

    ill.clear()
    again = run_sweep(settings, "batch_size", Choices("sft"), StartOptions())
    assert (again.done, again.skipped, again.exit_code) == (1, 3, 0)
    table = json.loads(Path(again.outputs[-1]).read_text())
    assert table["family"] == "batch_size"
    assert table["runs"] == again.details["runs"]
    finished = {line["preset"]: line["best_eval_loss"] for line in table["runs"]}
    assert table["best"] == min(finished, key=lambda name: finished[name])
    assert [line["run"] for line in table["runs"] if line["preset"] != "bs8"] == [
        line["run"] for line in first.details["runs"] if line["preset"] != "bs8"
    ]


@pytest.mark.parametrize(
    "command",
    [
        ("sft",),
        ("sft", "--set", "tracker=wandb"),
        ("sft", "--resume", "never"),
        ("sft", "--on", "ray"),
        ("sweep", "lora_rank"),
    ],
)
def test_a_run_that_cannot_start_leaves_the_folder_of_runs_as_it_was(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr("latentscore_data.core.base.errors.find_spec", lambda module: None)
    begun = ready(workspace, "sft", base_model="tiny-random").folder if "never" in command else None
    before = sorted(workspace.train_dir.rglob("*"))
    named = ("--run-id", begun.run_id) if begun is not None else ()
    done = here("train", *command, *named, "--base-model", "tiny-random", "--root", str(workspace.root))
    assert (done.returncode, "needs the" in done.stderr) == (3, True), done.stderr
    assert sorted(workspace.train_dir.rglob("*")) == before


def swept(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Summary:
    """A sweep whose first member fails."""
    from latentscore_data.core.stages import train

    started: list[str] = []

    def train_some(settings: Settings, choices: Choices, how: StartOptions) -> Summary:
        started.append(choices.presets[0])
        if len(started) == 1:
            raise error
        return Summary("train", done=1)

    monkeypatch.setattr(train, "train_one", train_some)
    monkeypatch.setattr(train, "check_start", lambda spec, runs: None)
    return run_sweep(settings_of(workspace), "batch_size", Choices("sft"), StartOptions())


@pytest.mark.parametrize(
    "error",
    [
        StoppedError("the run on Modal reached its time-out", "raise train.modal.timeout_hours"),
        VerificationError("model.safetensors differs from the file that the run wrote", "fetch it again"),
        MissingError("base model x cannot be loaded", "name another"),
        RemoteRunError("the run on Modal failed", "see lsdata train attach"),
        RuntimeError("CUDA error: device-side assert triggered"),
    ],
)
def test_a_sweep_survives_whatever_is_wrong_with_one_member(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    total = swept(workspace, monkeypatch, error)
    assert (total.done, dict(total.failed)) == (3, {"run": 1})
    lines = json.loads(Path(total.outputs[-1]).read_text())["runs"]
    assert str(getattr(error, "message", error)) in lines[0]["error"]


@pytest.mark.parametrize(
    "error", [OutputError("no space left on device", "free some"), ModalError("Modal cannot be reached", "try again")]
)
def test_a_sweep_ends_with_what_concerns_all_its_members(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with pytest.raises(type(error)):
        swept(workspace, monkeypatch, error)


def test_a_sweep_that_could_cost_too_much_in_all_never_starts(modal: LoopbackModal, workspace: Workspace) -> None:
    # One run could cost 1 h x 2 USD, four of them 8.
    remote = {"timeout_hours": 1, "price_per_hour": 2, "max_cost": 7.5}
    settings = settings_of(workspace, train={"on": "modal", "modal": remote})
    with pytest.raises(StoppedError, match=r"these runs could cost up to \$8\.00"):
        run_sweep(settings, "batch_size", Choices("sft"), StartOptions())
    assert modal.sent == []
    assert not list(workspace.train_dir.glob("*"))


@pytest.mark.ml
def test_the_runs_of_a_sweep_are_counted_once_towards_the_cap(
    modal: LoopbackModal, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(
        "latentscore_data.core.compute.modal.start", lambda run, *_, **__: started.append(run.spec.run_id)
    )
    remote = {"timeout_hours": 1, "price_per_hour": 2}
    settings = settings_of(workspace, train={"on": "modal", "modal": remote}, llm={"max_cost": 8.5})
    total = run_sweep(settings, "batch_size", Choices("sft"), StartOptions(detach=True))
    assert (len(started), dict(total.failed)) == (4, {})


def test_a_sweep_whose_last_member_cannot_be_trained_says_so_before_the_first(workspace: Workspace) -> None:
    settings = settings_of(workspace)
    with pytest.raises(InputError, match=r"batch\.size 4 is not a multiple of batch\.per_device 8"):
        run_sweep(settings, "batch_size", Choices("sft", overrides=["batch.per_device=8"]), StartOptions())
    assert not list(workspace.train_dir.glob("*"))
