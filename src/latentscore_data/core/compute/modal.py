"""The client side of Modal: start, follow and fetch training runs, and map work over containers."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import (
    InputError,
    LsdataError,
    MissingError,
    OutputError,
    StoppedError,
    VerificationError,
    first_line,
    require,
)
from latentscore_data.core.base.jsonl import read_object, replace_json, writing
from latentscore_data.core.base.manifest import file_fact, utc_now
from latentscore_data.core.base.settings import ModalSettings
from latentscore_data.core.compute.entrypoints import ON_A_GPU, code_digest
from latentscore_data.core.compute.estimates import cap_usd, check_gpu, gpu_count
from latentscore_data.core.models.base_models import SHORT_NAMES, adapter_base, is_local, unreachable_hub
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.models.spec import TINY_RANDOM, TrainSpec
from latentscore_data.core.training.launch import check_processes
from latentscore_data.core.training.prepare import Prepared

Say = Callable[[str], None]

FETCH_TRIES = 3


class ModalError(MissingError):
    """Modal is not set up, refused a request, or cannot be reached."""


class RemoteRunError(OutputError):
    """A run failed on Modal; a retry may succeed."""


def require_modal() -> None:
    """Raise :class:`MissingError` unless the extra is installed and a token is set. Makes no network calls."""
    require("modal", "modal", "running on Modal")
    from modal.config import config

    if not (config.get("token_id") and config.get("token_secret")):
        raise ModalError(
            "Modal is not set up on this machine",
            "run `modal setup` (or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET), then lsdata train check",
        )


@contextlib.contextmanager
def modal_errors() -> Iterator[None]:
    """Context manager: convert errors of Modal's client to a message with a remedy; lsdata's errors from a container are
    not changed."""
    import modal

    try:
        yield
    except LsdataError:
        raise
    except modal.exception.AuthError as error:
        raise ModalError(f"Modal refused the token ({first_line(error)})", "run `modal setup` again") from error
    except modal.exception.OutputExpiredError as error:
        raise InputError("Modal no longer stores the result of this run", "lsdata train fetch RUN") from error
    except (modal.exception.FunctionTimeoutError, modal.exception.TimeoutError) as error:
        raise StoppedError(
            f"the run on Modal reached its time-out ({first_line(error)})",
            "raise train.modal.timeout_hours and run the same command again; it resumes from its newest checkpoint",
        ) from error
    except modal.exception.ConnectionError as error:
        raise ModalError(f"Modal cannot be reached ({first_line(error)})", "check the network and try again") from error
    except modal.exception.NotFoundError as error:
        raise InputError(f"Modal has no such object ({first_line(error)})", "see lsdata train status") from error
    except modal.exception.Error as error:
        raise RemoteRunError(f"the run on Modal failed ({first_line(error)})", "see lsdata train attach RUN") from error


def check_cap(modal: ModalSettings, gpu: str | None, runs: int = 1) -> float:
    """Return the maximum cost of ``runs``, time-out x price each. Raises :class:`StoppedError` above ``max_cost``."""
    return within_cap(modal, cap_usd(modal, gpu, runs), "these runs" if runs > 1 else "this run")


def within_cap(modal: ModalSettings, cap: float, what: str) -> float:
    """Return ``cap``. Raises :class:`StoppedError` if it is above ``max_cost``."""
    if modal.max_cost is not None and cap > modal.max_cost:
        raise StoppedError(
            f"{what} could cost up to ${cap:.2f} (time-out x price), more than the "
            f"${modal.max_cost:.2f} that train.modal.max_cost allows",
            "lower train.modal.timeout_hours, use a smaller --gpu, or raise the cap",
        )
    return cap


def _app_module() -> Any:
    """Return the module with the app. It imports Modal's client, so it is imported only when something runs there."""
    return import_module("latentscore_data.core.compute.modal_app")


@contextlib.contextmanager
def _app_running(detach: bool) -> Iterator[Any]:
    """Context manager: the running app. Modal's output goes to stderr, because stdout is for results."""
    with contextlib.redirect_stdout(sys.stderr), modal_errors(), _app_module().app.run(detach=detach) as app:
        yield app


def start(run: Prepared, modal: ModalSettings, *, detach: bool, say: Say, resume: bool = True) -> JsonObject | None:
    """Upload a run's folder and train it on Modal. Returns its record, or None for a detached run.

    A run that is already on the volume continues there, or is deleted first without ``resume``. Raises subclasses of
    :class:`LsdataError`.
    """
    processes = gpu_count(modal.gpu)
    check_processes(run.spec, processes)
    _check_reachable(run)
    cap = check_cap(modal, modal.gpu)
    deadline = time.time() + modal.timeout_hours * 3600
    upload(run, say, resume=resume)
    function = _app_module().train.with_options(
        gpu=modal.gpu,
        timeout=int(modal.timeout_hours * 3600),
        **_retries_and_secrets(modal),
    )
    asked = json.dumps(
        {
            "run_id": run.spec.run_id,
            "spec": run.spec.model_dump(mode="json"),
            "deadline": deadline,
            "processes": processes,
        },
        sort_keys=True,
    )
    say(f"training {run.spec.base_model} on Modal ({modal.gpu}) as run {run.spec.run_id}; at most ${cap:.2f}")
    with _app_running(detach) as app:
        call = function.spawn(asked)
        note_remote(
            run.folder, call_id=call.object_id, app_id=app.app_id, gpu=modal.gpu, cap_usd=cap, deadline=deadline,
            started=utc_now(), state="running",
        )  # fmt: skip
        if detach:
            return None
        return follow(run.folder, call, say)


def _retries_and_secrets(modal: ModalSettings) -> dict[str, Any]:
    from modal import Retries, Secret

    return {
        "retries": Retries(max_retries=modal.retries, initial_delay=10.0),
        "secrets": [Secret.from_name(name) for name in modal.secrets],
    }


def _check_reachable(run: Prepared) -> None:
    """Raise :class:`InputError` if the run needs a folder or code that exists only on this machine."""
    base = run.spec.base_model
    if base != TINY_RANDOM and is_local(base) and not (run.folder.path.parent / base / "final").is_dir():
        raise InputError(
            f"base model {base} is a file on this machine, which Modal cannot read",
            "use a hub id or a short name, or train with --on here",
        )
    if not is_local(base, run.folder.path.parent):
        # A hub that this machine cannot reach is no error, but a model that the hub does not have is.
        unreachable_hub(SHORT_NAMES.get(base, base))
    if run.spec.tracker != "none":
        raise InputError(
            f"{run.spec.tracker} is not in the containers",
            "use --set tracker=none; metrics.jsonl is fetched with the run",
        )
    if run.spec.grpo is not None and run.spec.grpo.reward != "standard":
        raise InputError(
            f"reward {run.spec.grpo.reward} is code on this machine, which Modal cannot read",
            "use the standard reward, or train with --on here",
        )


def upload(run: Prepared, say: Say, *, resume: bool = True) -> None:
    """Upload spec, rows and the models that the run continues to the volume.

    A run with the same spec is not changed; one with another spec keeps its checkpoints, but is no longer finished and
    gets the new rows. Without ``resume`` it is deleted.
    """
    run_id, runs = run.spec.run_id, run.folder.path.parent
    with modal_errors():
        there = remote_files(run_id)
        if there and not resume:
            _app_module().outputs.remove_file(f"/{run_id}", recursive=True)
            there = set[str]()
        if f"{run_id}/data/train.jsonl" in there:
            say(f"run {run_id} is already on Modal and continues there")
        if f"{run_id}/spec.json" in there and not _same_spec(
            run, b"".join(_app_module().outputs.read_file(f"/{run_id}/spec.json"))
        ):
            if f"{run_id}/DONE" in there:
                _app_module().outputs.remove_file(f"/{run_id}/DONE")
            there = set[str]()
        with _app_module().outputs.batch_upload(force=True) as batch:
            batch.put_file(run.folder.spec_file, f"/{run_id}/spec.json")
            for role in run.lines:
                if f"{run_id}/data/{role}.jsonl" not in there:
                    batch.put_file(run.folder.data(role), f"/{run_id}/data/{role}.jsonl")
            for needed in {run.spec.adapter, run.spec.base_model} - {None, TINY_RANDOM}:
                _upload_model(str(needed), runs, run_id, batch, say)


def _same_spec(run: Prepared, there: bytes) -> bool:
    try:
        return TrainSpec.model_validate_json(there) == run.spec
    except ValidationError:
        return False


def _upload_model(name: str, runs: Path, run_id: str, batch: Any, say: Say) -> None:
    """Upload a run of this workspace beside this one; another adapter becomes its ``start/``."""
    folder = runs / name / "final"
    if folder.is_dir():
        mark = runs / name / "DONE"
        if mark.exists():
            if _weights_listed(mark.read_bytes()) == _weights_there(name):
                return
            batch.put_file(mark, f"/{name}/{RunFolder(runs / name).uploaded_mark.name}")
        target = f"/{name}/final"
    elif Path(name).is_dir():
        folder, target = Path(name), f"/{run_id}/start"
    else:
        return
    say(f"uploading {folder}")
    batch.put_directory(folder, target)


def _weights_listed(mark: bytes) -> dict[str, str]:
    """Return the SHA-256 of each file of ``final/`` in a mark's list."""
    files = json.loads(mark)["files"]
    return {name: fact["sha256"] for name, fact in files.items() if name.startswith("final/")}


def _weights_there(name: str) -> dict[str, str]:
    """Return the same for the model on the volume, which was uploaded or trained there; empty if there is none."""
    there = remote_files(name)
    run = RunFolder(Path(name))
    for mark in (run.uploaded_mark.as_posix(), run.done_mark.as_posix()):
        if mark in there:
            return _weights_listed(b"".join(_app_module().outputs.read_file(f"/{mark}")))
    return {}


def check_model(name: str, runs: Path) -> None:
    """Raise :class:`InputError` for a file or folder on this machine that is not a run, because Modal cannot read it."""
    if name != TINY_RANDOM and is_local(name) and not (runs / name / "final").is_dir():
        raise InputError(
            f"{name} is a file on this machine, which Modal cannot read", "name a run or a hub id, or --on here"
        )


def upload_model(name: str, runs: Path, say: Say) -> None:
    """Upload a model that was trained here, and the base of its adapter, unless they are on the volume.

    A hub id needs no upload. Raises the errors of :func:`check_model`.
    """
    check_model(name, runs)
    if (runs / name / "final").is_dir():
        with modal_errors(), _app_module().outputs.batch_upload(force=True) as batch:
            _upload_model(name, runs, name, batch, say)
        if (base := adapter_base(runs / name / "final")) is not None:
            upload_model(base, runs, say)


def remote_files(run_id: str) -> set[str]:
    """Return the files of a run on the volume, without a leading slash; empty if there is no such run."""
    from modal.exception import NotFoundError

    try:
        entries = _app_module().outputs.listdir(f"/{run_id}", recursive=True)
    except (NotFoundError, FileNotFoundError):
        return set()
    return {entry.path.lstrip("/") for entry in entries if entry.type.name == "FILE"}


def follow(folder: RunFolder, call: Any, say: Say) -> JsonObject:
    """Print a run's log lines until it ends. Returns its record; raises the error of the run."""
    from modal.exception import Error

    try:
        for entry in call.logs.stream():
            say(entry.message.rstrip("\n"))
    except Error as error:
        # Lost log lines do not affect the run.
        say(f"the log of {folder.run_id} cannot be followed ({first_line(error)}); waiting for the result")
    try:
        with modal_errors():
            record = json.loads(call.get())
    except Exception as error:
        note_remote(folder, state="failed", error=first_line(error))
        raise
    note_remote(folder, state="finished")
    return record


def attach(folder: RunFolder, say: Say) -> JsonObject:
    """Follow a run that was started before. Raises the error of the run."""
    from modal import FunctionCall

    noted = remote_note(folder)
    with modal_errors():
        call = FunctionCall.from_id(noted["call_id"])
    return follow(folder, call, say)


def state(folder: RunFolder) -> JsonObject:
    """Return the state of a run on Modal: ``running``, ``finished``, or ``failed`` with the reason."""
    import modal
    from modal import FunctionCall

    noted = remote_note(folder)
    if noted["state"] != "running":
        return noted
    try:
        with modal_errors():
            FunctionCall.from_id(noted["call_id"]).get(timeout=0)
    except TimeoutError:
        return noted
    except LsdataError as error:
        cause = error.__cause__
        if type(cause) is modal.exception.TimeoutError:
            return noted
        if isinstance(cause, modal.exception.OutputExpiredError):
            # Modal deletes results after a week; the volume keeps them.
            there = f"{folder.run_id}/DONE" in remote_files(folder.run_id)
            note_remote(folder, state="finished" if there else "failed", error=None if there else error.message)
        elif cause is None or isinstance(cause, modal.exception.RemoteError | modal.exception.FunctionTimeoutError):
            note_remote(folder, state="failed", error=error.message)
        else:
            raise
    except Exception as error:  # an error of the run in its container is raised here
        note_remote(folder, state="failed", error=first_line(error))
    else:
        note_remote(folder, state="finished")
    return remote_note(folder)


def note_remote(folder: RunFolder, **facts: Any) -> None:
    """Record facts about a remote run in ``remote.json``."""
    path = folder.path / "remote.json"
    before = read_object(path, "delete it: it is written again when the run is started") if path.exists() else {}
    replace_json(path, {**before, **facts})


def remote_note(folder: RunFolder) -> JsonObject:
    """Return the content of ``remote.json``. Raises :class:`InputError` for a run that was not started on Modal from here."""
    path = folder.path / "remote.json"
    if not path.exists():
        raise InputError(f"run {folder.run_id} was not started on Modal from here", "see lsdata train status")
    return read_object(path, "delete it and start the run again: it continues")


def fetch(folder: RunFolder, *, delete_remote: bool, say: Say) -> int:
    """Download a finished run, compare every file with the run's list, and only then mark it as finished.

    Returns the number of files. With ``delete_remote`` the run is deleted from the volume after the comparison. Raises
    :class:`InputError` for a run that is not finished and :class:`VerificationError` for a file that differs.
    """
    run_id = folder.run_id
    with modal_errors():
        if f"{run_id}/DONE" not in remote_files(run_id):
            raise InputError(f"run {run_id} is not finished on Modal", f"lsdata train attach {run_id} waits for it")
        mark = json.loads(b"".join(_app_module().outputs.read_file(f"/{run_id}/DONE")))
        draft = folder.path / ".fetching"
        for name, fact in mark["files"].items():
            _fetch_file(_app_module().outputs, run_id, name, fact, draft)
        with writing(folder.path):
            for name in mark["files"]:
                target = folder.path / name
                target.parent.mkdir(parents=True, exist_ok=True)
                (draft / name).replace(target)
            shutil.rmtree(draft, ignore_errors=True)
        replace_json(folder.done_mark, mark)
        folder.verify()
        if delete_remote:
            _app_module().outputs.remove_file(f"/{run_id}", recursive=True)
            say(f"run {run_id} is deleted on Modal")
    note_remote(folder, state="fetched", deleted=delete_remote)
    return len(mark["files"])


def _fetch_file(volume: Any, run_id: str, name: str, fact: JsonObject, draft: Path) -> None:
    path = draft / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise VerificationError(f"run {run_id} lists a file outside its folder: {name}", "do not use this run")
    for _ in range(FETCH_TRIES):
        if not (path.exists() and file_fact(path).sha256 == fact["sha256"]):
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    volume.read_file_into_fileobj(f"/{run_id}/{name}", file)
        if file_fact(path).sha256 == fact["sha256"]:
            return
    raise VerificationError(
        f"{name} of run {run_id} differs from the file that the run wrote", f"run lsdata train fetch {run_id} again"
    )


def check_code() -> JsonObject:
    """Start one small container and compare its code with the code here.

    Raises :class:`VerificationError` if they differ.
    """
    require_modal()
    with _app_running(detach=False):
        there = json.loads(_app_module().check.remote("what do you see?"))
    if there["code"] != code_digest():
        raise VerificationError(
            "the code on Modal differs from the code here", "install lsdata again, then check again"
        )
    return there


def map_on_modal(function_name: str, shards: Sequence[str], modal: ModalSettings, deadline: float) -> Iterator[str]:
    """Run shards in up to ``max_containers`` containers, and yield the results in the order of the shards.

    ``function_name`` is an entry point. All containers end at ``deadline`` (Unix time), so that their total cost stays
    below the cap. Raises the errors of shards unchanged.
    """
    # A shard is work for one GPU; several train together.
    gpu = modal.gpu.partition(":")[0] if function_name in ON_A_GPU else None
    containers = min(modal.max_containers, len(shards))
    check_cap(modal, gpu, containers)
    function = getattr(_app_module(), function_name).with_options(
        timeout=max(int(deadline - time.time()), 1),
        max_containers=containers,
        **_retries_and_secrets(modal),
        **({"gpu": check_gpu(gpu)} if gpu else {}),
    )
    with _app_running(detach=False):
        yield from function.map(list(shards), order_outputs=True)
