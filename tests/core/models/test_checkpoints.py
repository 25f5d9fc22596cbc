"""Going on from the newest checkpoint that is whole, whatever a power cut left of the newer ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import needs
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.models.checkpoints import damage, mend_best, newest_whole
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.training.run import run_training
from training_runs import ready, write_rows

pytestmark = [needs("trl"), pytest.mark.ml, pytest.mark.usefixtures("one_thread")]

SPEC = ("optim.max_steps=3", "checkpoint.every_steps=1", "checkpoint.keep=3", "limit=4")


@pytest.fixture(scope="module", params=["full", "lora"])
def stopped(
    tmp_path_factory: pytest.TempPathFactory, one_thread: None, short_prompt: None, request: pytest.FixtureRequest
) -> RunFolder:
    """A run with checkpoints 1 and 2 that was killed before its third step."""
    workspace = Workspace(tmp_path_factory.mktemp("stopped"))
    write_rows(workspace)
    run = ready(workspace, "sft", *SPEC, f"method={request.param}", run_id="stopped")

    def kill(path: Path) -> None:
        if path.name == "checkpoint-2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(run.spec, run.folder.path, kill)
    return run.folder


@pytest.fixture
def run(stopped: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of it, in another place."""
    shutil.copytree(stopped.path, tmp_path / "copy" / "stopped")
    return RunFolder(tmp_path / "copy" / "stopped")


def go_on(run: RunFolder) -> list[str]:
    spec, said = run.spec(), list[str]()
    assert spec is not None
    assert run_training(spec, run.path, say=said.append)["metrics"]["steps"] == 3
    assert [line["step"] for line in run.history() if "loss" in line] == [1, 2, 3]
    return said


def weights_of(checkpoint: Path) -> Path:
    (path,) = checkpoint.glob("*model.safetensors")
    return path


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def hole(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 200 : middle + 200] = b"\xaa" * 400
    path.write_bytes(data)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b"") and None,
    "cut": half,
    "zeros": zeros,
    "missing": lambda path: path.unlink(),
    "a folder": folder,
}
FILES = ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "weights")


def damaged_file(checkpoint: Path, name: str) -> Path:
    return weights_of(checkpoint) if name == "weights" else checkpoint / name


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", DAMAGES)
def test_damage_to_any_file_is_found(run: RunFolder, name: str, how: str) -> None:
    checkpoint = run.checkpoints / "checkpoint-2"
    assert damage(checkpoint) is None
    path = damaged_file(checkpoint, name)
    DAMAGES[how](path)
    reason = damage(checkpoint)
    assert reason is not None
    assert "\n" not in reason
    assert newest_whole(run.checkpoints, lambda _: None) == run.checkpoints / "checkpoint-1"


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth"])
def test_a_hole_inside_the_optimizer_is_found(run: RunFolder, name: str) -> None:
    checkpoint = run.checkpoints / "checkpoint-2"
    hole(checkpoint / name)
    assert damage(checkpoint) is not None


@pytest.mark.parametrize(
    "state",
    ["[]", '"text"', "null", '{"global_step": 1}', '{"global_step": "two"}', '{"unknown": 1, "global_step": 2}'],
)
def test_a_state_that_is_none_is_found(run: RunFolder, state: str) -> None:
    checkpoint = run.checkpoints / "checkpoint-2"
    (checkpoint / "trainer_state.json").write_text(state)
    assert damage(checkpoint) is not None


def test_names_that_are_no_checkpoints_are_left_alone(run: RunFolder) -> None:
    for name in ("checkpoint-2.bak", "checkpoint-", "checkpoint-last", "checkpoint-1e3"):
        shutil.copytree(run.checkpoints / "checkpoint-1", run.checkpoints / name)
    (run.checkpoints / "checkpoint-9").write_text("a file")
    assert newest_whole(run.checkpoints, lambda _: None) == run.checkpoints / "checkpoint-2"


@pytest.mark.parametrize("name", FILES)
def test_a_run_goes_on_from_the_older_checkpoint_and_says_so(run: RunFolder, name: str) -> None:
    path = damaged_file(run.checkpoints / "checkpoint-2", name)
    path.write_bytes(b"")
    said = go_on(run)
    assert f"checkpoint-2 is skipped: {path.name} is damaged (it is empty)" in said
    assert "resuming from checkpoint-1" in said


def test_a_run_without_a_whole_checkpoint_starts_again(run: RunFolder) -> None:
    for checkpoint in run.checkpoints.glob("checkpoint-*"):
        (checkpoint / "optimizer.pt").unlink()
    said = go_on(run)
    assert "no checkpoint is complete: training starts at its first step" in said


def test_a_run_that_lost_its_best_checkpoint_ends_with_the_best_of_the_rest(run: RunFolder) -> None:
    newest, best = run.checkpoints / "checkpoint-2", run.checkpoints / "checkpoint-1"
    state = json.loads((newest / "trainer_state.json").read_text())
    state.update(best_model_checkpoint=str(best), best_global_step=1, best_metric=0.0)
    (newest / "trainer_state.json").write_text(json.dumps(state))
    weights_of(best).write_bytes(b"")
    said = go_on(run)
    assert "resuming from checkpoint-2" in said
    assert any("the best checkpoint so far, checkpoint-1, is lost" in line for line in said)
    assert json.loads((run.checkpoints / "checkpoint-3" / "trainer_state.json").read_text())["best_global_step"] == 3


def test_a_run_that_was_moved_knows_its_best_checkpoint(run: RunFolder, stopped: RunFolder) -> None:
    newest = run.checkpoints / "checkpoint-2"
    mend_best(newest, lambda said: pytest.fail(said))
    state = json.loads((newest / "trainer_state.json").read_text())
    assert Path(state["best_model_checkpoint"]).parent == run.checkpoints != stopped.checkpoints
