"""Running on Modal, with the real client against a control plane on the loopback."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conftest import needs
from latentscore import forms
from latentscore_data.core.base.errors import InputError, MissingError, StoppedError, VerificationError
from latentscore_data.core.base.settings import ModalSettings, Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute import entrypoints
from latentscore_data.core.compute import modal as remote
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.models.spec import Choices
from latentscore_data.core.stages.train import StartOptions, train_one
from latentscore_data.core.training.prepare import Prepared
from training_runs import ready as ready_to_train
from training_runs import short_system, write_rows

if TYPE_CHECKING:
    from modal_loopback import LoopbackModal

pytestmark = needs("modal", "torch")

VOLUME = "latentscore-data-outputs"
QUICK = ("optim.max_steps=2", "checkpoint.every_steps=1", "limit=4")


@pytest.fixture(autouse=True)
def _short_prompt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("ml"):
        request.getfixturevalue("one_thread")
    monkeypatch.setattr(forms, "config_system", short_system)


def ready(workspace: Workspace, *overrides: str) -> Prepared:
    return ready_to_train(workspace, "sft", *(overrides or QUICK))


def start(run: Prepared, *, detach: bool = False, **settings: Any) -> tuple[dict[str, Any] | None, list[str]]:
    said: list[str] = []
    return remote.start(run, ModalSettings(**settings), detach=detach, say=said.append), said


@pytest.mark.ml
def test_a_run_goes_to_modal_and_comes_home(modal: LoopbackModal, workspace: Workspace) -> None:
    run = ready(workspace)
    record, said = start(run, gpu="A100-80GB", timeout_hours=2, retries=3, secrets=["my-hub-token"])

    assert record is not None
    assert record["status"] == "finished"
    assert any("at most $" in line for line in said)
    assert any(line.startswith("step 1/2") for line in said), "the container's log lines are passed on"
    sent = modal.options[-1]
    assert sent.resources.gpu_config.gpu_type == "A100-80GB"
    assert (sent.timeout_secs, sent.retry_policy.retries) == (7200, 3)
    assert modal.secrets == ["my-hub-token"]
    (name, (text,)) = modal.sent[-1]
    assert name == "train"
    assert json.loads(text)["run_id"] == run.spec.run_id
    assert "as-loopback" not in text
    assert modal.calls.count("commit") >= 3  # two checkpoints and the end

    assert not run.folder.done
    count = remote.fetch(run.folder, delete_remote=False, say=said.append)
    assert count >= 6
    assert run.folder.done
    run.folder.verify()
    assert run.folder.record()["metrics"]["steps"] == 2
    assert (run.folder.final / "model.safetensors").stat().st_size > 100_000
    assert (modal.volume(VOLUME) / run.spec.run_id).is_dir()

    # Asking again is a no-op there, and fetching again is allowed; the second time it is deleted after the comparison.
    again, said = start(run)
    assert again == record
    assert f"run {run.spec.run_id} is already on Modal and continues there" in said
    remote.fetch(run.folder, delete_remote=True, say=said.append)
    assert not (modal.volume(VOLUME) / run.spec.run_id).exists()
    assert remote.remote_note(run.folder)["state"] == "fetched"


@pytest.mark.ml
def test_a_detached_run_can_be_asked_for_and_attached_to(modal: LoopbackModal, workspace: Workspace) -> None:
    run = ready(workspace)
    modal.held.clear()
    record, _ = start(run, detach=True)
    assert record is None
    assert modal.detached == [True]
    assert remote.state(run.folder)["state"] == "running"
    with pytest.raises(InputError, match="is not finished on Modal"):
        remote.fetch(run.folder, delete_remote=False, say=print)
    said: list[str] = []
    threading.Timer(0.3, modal.held.set).start()
    assert remote.attach(run.folder, said.append)["status"] == "finished"
    assert any("step" in line for line in said)
    assert remote.state(run.folder)["state"] == "finished"
    remote.fetch(run.folder, delete_remote=False, say=print)
    assert run.folder.done


def once(workspace: Workspace, how: StartOptions, steps: int = 2) -> Summary:
    """``lsdata train sft --on modal --run-id mine``."""
    train = {"base_model": "tiny-random", "on": "modal", "limit": 4, "optim": {"max_steps": steps}}
    settings = Settings.model_validate({"paths": {"root": workspace.root}, "train": train})
    return train_one(settings, Choices("sft", "mine"), how)


@pytest.mark.ml
@pytest.mark.parametrize("tempo", ["medium", "very_fast"])
def test_a_run_that_begins_again_begins_again_on_modal(modal: LoopbackModal, workspace: Workspace, tempo: str) -> None:
    there = RunFolder(modal.volume(VOLUME) / "mine")
    once(workspace, StartOptions(yes=True))
    (there.path / "left-over").touch()
    write_rows(workspace, tempo=tempo)
    modal.logs.clear()

    again = once(workspace, StartOptions(resume="never", yes=True))
    assert (again.done, again.skipped, again.details["steps"]) == (1, 0, 2)
    assert not any("is finished" in line or "going on" in line for line in modal.logs)
    assert not (there.path / "left-over").exists()
    assert {(row.config_payload or {})["config"]["tempo"] for row in there.rows("train")} == {tempo}


@pytest.mark.ml
def test_a_run_that_is_forced_goes_on_modal_with_the_new_spec_and_rows(
    modal: LoopbackModal, workspace: Workspace
) -> None:
    there = RunFolder(modal.volume(VOLUME) / "mine")
    once(workspace, StartOptions(yes=True))
    write_rows(workspace, tempo="very_fast")
    modal.logs.clear()

    forced = once(workspace, StartOptions(force=True, yes=True), steps=4)
    assert (forced.done, forced.details["steps"]) == (1, 4)
    assert "resuming from checkpoint-2" in modal.logs
    assert {(row.config_payload or {})["config"]["tempo"] for row in there.rows("train")} == {"very_fast"}
    spec = there.spec()
    assert spec is not None
    assert there.other_rows(spec) == []


def test_rows_that_are_not_those_of_the_spec_are_not_trained_on(modal: LoopbackModal, workspace: Workspace) -> None:
    run = ready(workspace)
    remote.upload(run, print)
    RunFolder(modal.volume(VOLUME) / run.spec.run_id).data("train").write_text("{}")
    with pytest.raises(InputError, match=r"the train rows of run .* differ from those of its spec"):
        start(run)


@pytest.mark.ml
def test_a_preempted_run_goes_on_from_its_checkpoint(
    modal: LoopbackModal, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ready(workspace, "optim.max_steps=4", "checkpoint.every_steps=2", "limit=4")
    modal.preempt = 1
    commits = 0

    def commit() -> None:
        nonlocal commits
        commits += 1
        if commits == 1:
            raise KeyError("the container is taken away")

    modal.bodies["train"] = lambda text: entrypoints.train_run(text, modal.volume(VOLUME), commit)
    record, said = start(run)
    assert record is not None
    assert record["metrics"]["steps"] == 4
    assert any("resuming from checkpoint-2" in line for line in said)


@pytest.mark.ml
def test_what_a_container_raises_arrives_as_it_was_raised(modal: LoopbackModal, workspace: Workspace) -> None:
    run = ready(workspace, "max_tokens=20")
    with pytest.raises(InputError, match="longer than max_tokens 20") as error:
        start(run)
    assert "max_tokens=" in error.value.remedy
    assert remote.remote_note(run.folder)["state"] == "failed"
    assert remote.state(run.folder)["error"].startswith("all 24 rows")


@pytest.mark.ml
def test_nothing_runs_after_the_deadline(modal: LoopbackModal, workspace: Workspace) -> None:
    run = ready(workspace)
    remote.upload(run, print)
    asked = {"run_id": run.spec.run_id, "spec": run.spec.model_dump(mode="json"), "deadline": time.time() - 1}
    with pytest.raises(StoppedError, match="time-out"):
        entrypoints.train_run(json.dumps(asked), modal.volume(VOLUME), lambda: None)


def test_a_file_that_changed_on_the_way_is_not_accepted(modal: LoopbackModal, workspace: Workspace) -> None:
    run = ready(workspace)
    there = RunFolder(modal.volume(VOLUME) / run.spec.run_id)
    there.final.mkdir(parents=True)
    (there.final / "adapter_model.safetensors").write_bytes(b"weights")
    (there.path / "spec.json").write_text("{}")
    there.note(status="finished")
    there.mark_done()
    (there.final / "adapter_model.safetensors").write_bytes(b"weighty")
    with pytest.raises(VerificationError, match=r"final/adapter_model\.safetensors"):
        remote.fetch(run.folder, delete_remote=True, say=print)
    assert not run.folder.done
    assert there.done, "nothing is deleted that has not arrived"
    mark = json.loads(there.done_mark.read_text())
    mark["files"]["../../outside"] = {"sha256": "0" * 64}
    there.done_mark.write_text(json.dumps(mark))
    with pytest.raises(VerificationError, match=r"outside|adapter_model"):
        remote.fetch(run.folder, delete_remote=False, say=print)
    assert not (run.folder.path.parent.parent / "outside").exists()


def test_the_image_is_pinned_and_the_package_data_travels(modal: LoopbackModal) -> None:
    found = remote.check_code()
    assert found["asked"] == "what do you see?"
    commands = "\n".join(command for image in modal.images for command in image.dockerfile_commands)
    for pin in ("torch==", "transformers==", "trl==1.16.0", "peft=="):
        assert pin in commands
    for file in ("presets.toml", "modal_pins.txt", "lexicon.toml", "modal_app.py"):
        assert any(name.endswith(f"/{file}") for name in modal.mounted)
    assert not any(name.endswith(".pyc") for name in modal.mounted)
    train = next(f for f in modal.functions.values() if f.function_name == "train")
    function = (
        train.ranked_functions[0].function if hasattr(train, "ranked_functions") and train.ranked_functions else train
    )
    assert {mount.mount_path for mount in function.volume_mounts} == {"/outputs", "/models"}
    assert modal.secrets == []


def test_other_code_on_modal_is_noticed(modal: LoopbackModal) -> None:
    modal.bodies["check"] = lambda question: json.dumps({**entrypoints.what_is_here(), "code": "another"})
    with pytest.raises(VerificationError, match="differs from the code"):
        remote.check_code()


def test_a_failing_shard_ends_the_map_with_its_own_error(modal: LoopbackModal) -> None:
    modal.bodies["score_shard"] = lambda text: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(remote.map_on_modal("score_shard", ["{}"], ModalSettings(), time.time() + 3600))


def test_without_a_token_the_remedy_is_modal_setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from modal.config import config

    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(config, "get", lambda *_, **__: None)
    with pytest.raises(MissingError) as error:
        remote.require_modal()
    assert "modal setup" in error.value.remedy


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_cost": 0.5}, StoppedError, r"up to \$4\.\d\d .* more than the \$0\.50"),
        ({"gpu": "RTX"}, InputError, "unknown GPU 'RTX'"),
    ],
)
def test_what_costs_too_much_or_does_not_exist_never_starts(
    modal: LoopbackModal, workspace: Workspace, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        start(ready(workspace), **settings)
    assert modal.sent == []


def test_a_base_model_in_a_folder_here_is_refused(modal: LoopbackModal, workspace: Workspace, tmp_path: Path) -> None:
    run = ready(workspace, *QUICK, f"base_model={tmp_path}")
    with pytest.raises(InputError, match="which Modal cannot read"):
        start(run)


def test_a_base_model_that_the_hub_does_not_have_books_no_gpu(
    modal: LoopbackModal, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(repo: str) -> None:
        raise MissingError(f"the hub has no model {repo}", "name another")

    monkeypatch.setattr(remote, "unreachable_hub", ask)
    with pytest.raises(MissingError, match="no model unsloth/gemma-3-270m-it"):
        start(ready(workspace, *QUICK, "base_model=gemma3-270m"))
    assert modal.sent == []


@pytest.mark.ml
def test_rows_that_are_all_too_long_book_no_gpu(modal: LoopbackModal, workspace: Workspace) -> None:
    train = {"base_model": "tiny-random", "on": "modal", "max_tokens": 20}
    settings = Settings.model_validate({"paths": {"root": workspace.root}, "train": train})
    with pytest.raises(InputError, match="all 24 rows are longer than max_tokens 20"):
        train_one(settings, Choices("sft"), StartOptions(yes=True))
    assert modal.sent == []
    assert not list(workspace.train_dir.glob("*"))


def test_a_tracker_that_the_containers_do_not_have_is_refused(modal: LoopbackModal, workspace: Workspace) -> None:
    with pytest.raises(InputError, match="wandb is not in the containers"):
        start(ready(workspace, *QUICK, "tracker=wandb"))
    assert modal.sent == []


def test_a_model_of_this_machine_is_uploaded_with_its_base_and_again_when_it_changed(
    modal: LoopbackModal, workspace: Workspace
) -> None:
    there = modal.volume(VOLUME)

    def trained(run_id: str, weights: str, base: str | None = None) -> None:
        run = RunFolder(workspace.train_dir / run_id)
        run.final.mkdir(parents=True, exist_ok=True)
        (run.final / "weights").write_text(weights)
        if base is not None:
            (run.final / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        run.mark_done()

    trained("sft-base", "one")
    trained("sft-adapter", "two", base="sft-base")
    said: list[str] = []
    remote.upload_model("sft-adapter", workspace.train_dir, said.append)
    assert (there / "sft-adapter" / "final" / "weights").read_text() == "two"
    assert (there / "sft-base" / "final" / "weights").read_text() == "one"
    assert len(said) == 2

    remote.upload_model("sft-adapter", workspace.train_dir, said.append)
    assert len(said) == 2, "what is there stays"
    trained("sft-adapter", "three", base="sft-base")
    remote.upload_model("sft-adapter", workspace.train_dir, said.append)
    assert (there / "sft-adapter" / "final" / "weights").read_text() == "three"
    assert len(said) == 3
    # On the volume it is a model, not a run that was trained there.
    assert not (there / "sft-adapter" / "DONE").exists()
    with pytest.raises(InputError, match="which Modal cannot read"):
        remote.upload_model(str(workspace.root), workspace.train_dir, said.append)


def test_status_lists_the_runs_of_this_machine_without_modal(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentscore_data.core.base.settings import Settings
    from latentscore_data.core.stages.train import run_lines

    run = ready(workspace)
    remote.note_remote(run.folder, call_id="fc-1", state="running")
    monkeypatch.setattr(remote, "require_modal", lambda: (_ for _ in ()).throw(MissingError("no Modal", "modal setup")))
    (line,) = run_lines(Settings.model_validate({"paths": {"root": workspace.root}}))
    assert (line["run"], line["state"], line["error"]) == (run.spec.run_id, "unknown", "no Modal")


def test_a_refused_token_is_one_line(modal: LoopbackModal) -> None:
    import grpclib

    async def refuse(self: Any, stream: Any) -> None:
        await stream.recv_message()
        raise grpclib.GRPCError(grpclib.Status.UNAUTHENTICATED, "token is not valid")

    with modal.intercept() as context:
        context.set_responder("AppCreate", refuse)
        with pytest.raises(MissingError, match="token is not valid") as error:
            remote.check_code()
    assert "modal setup" in error.value.remedy
