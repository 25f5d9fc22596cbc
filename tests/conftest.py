"""Fixtures of all tests: a workspace in a temporary folder, no network, none of the user's settings."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from forked import Done, Program, ended

if TYPE_CHECKING:
    from latentscore_data.core.base.workspace import Workspace
    from modal_loopback import LoopbackModal

SRC = Path(__file__).resolve().parent.parent / "src"

# Processes share cores and a disk here: how long a single example took says nothing of the code.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")


# What is imported and collected lives as long as the process: the collector need not walk it again and again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a fixture of their module share a process too: a page one test leaves is where the next begins.

    Long tests begin first: at the end no process waits for a minute on what another one has just begun.
    """
    items.sort(key=lambda item: not any(map(item.get_closest_marker, ("long", "ml", "browser"))))
    for item in items:
        if item.get_closest_marker("xdist_group") or not isinstance(item, pytest.Function):
            continue
        fixtures = item._fixtureinfo.name2fixturedefs  # pyright: ignore[reportPrivateUsage]
        if any(fixture.scope == "module" for found in fixtures.values() for fixture in found):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is a coroutine function runs in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


_KEY_MARKS = ("_KEY", "_TOKEN", "_SECRET")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No keys, no settings and no hub but those a test sets; an own working folder; the program's globals as new."""
    for name in list(os.environ):
        if name.startswith(("LSDATA_", "HF_")) or name.endswith(_KEY_MARKS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("PYTHONPATH", str(SRC))
    work = tmp_path.parent / f"{tmp_path.name}-cwd"
    work.mkdir()
    monkeypatch.chdir(work)
    yield
    # With tmp_path_retention_policy: pytest looks through the folders of all tests before to name the next one's.
    shutil.rmtree(work, ignore_errors=True)
    from latentscore_data.commands._globals import Globals
    from latentscore_data.core.base import display

    for name in ("config", "root"):
        setattr(Globals, name, None)
    for name in ("json", "quiet", "verbose"):
        setattr(Globals, name, False)
    vars(display.OUTPUT).update(vars(display.Output()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root."""
    return tmp_path / "data"


@pytest.fixture
def workspace(root: Path) -> Workspace:
    """A workspace with rows in every split that training reads."""
    from latentscore_data.core.base.workspace import Workspace
    from training_runs import write_rows

    workspace = Workspace(root)
    write_rows(workspace)
    return workspace


@pytest.fixture(params=["session", "litellm"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """``session``: each route has the transport it gets by itself; ``litellm``: all go through LiteLLM."""
    from latentscore_data.core.llm import answerers
    from latentscore_data.core.llm.routes import Route
    from latentscore_data.core.llm.transport import LiteLLMTransport, Transport

    def only_litellm(route: Route, *, marks_prompt: bool, timeout_seconds: float, connections: int) -> Transport:
        return LiteLLMTransport(route, marks_prompt, timeout_seconds)

    if request.param == "litellm":
        monkeypatch.setattr(answerers, "transport_for", only_litellm)
    return request.param


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium for the tests of one file."""
    from studio_server import open_browser

    with open_browser() as browser:
        yield browser


Lsdata = Callable[..., Done]


@pytest.fixture(scope="session")
def program() -> Iterator[Program]:
    program = Program()
    yield program
    program.close()


@pytest.fixture
def lsdata(program: Program) -> Lsdata:
    """Run the program in a process of its own: ``lsdata("status", "--json", code=0)`` fails with another exit code."""

    def run(
        *args: str,
        code: int | None = None,
        timeout: float = 120,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Done:
        too_late = [name for name in env or {} if name.startswith(("PYTHON", "LANG", "LC_"))]
        assert not too_late, "Python reads these when it starts: start it with subprocess"
        return ended(program.run(list(args), {**os.environ, **(env or {})}, cwd or Path.cwd(), timeout), code)

    return run


def here(*args: str, code: int | None = None, env: dict[str, str] | None = None) -> Done:
    """Run the program in this process: ten times as fast as :func:`lsdata`, because the libraries are loaded already."""
    from typer.testing import CliRunner

    from latentscore_data.cli import app

    out = CliRunner().invoke(app, args, env=env, prog_name="lsdata")
    if out.exception is not None and not isinstance(out.exception, SystemExit):
        raise out.exception
    return ended(Done(args, out.exit_code, out.stdout, out.stderr), code)


def needs(*libraries: str) -> pytest.MarkDecorator:
    """Skip tests where a library is not installed. Unlike ``pytest.importorskip`` it imports nothing while tests are collected:
    torch and what builds upon it take seconds, in each process and for tests that need none of it too."""
    absent = [name for name in libraries if find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}")


Words = tuple[str, ...]


def command_paths(leaves_only: bool = False) -> list[Words]:
    """The words that call the program and each command and subcommand; with ``leaves_only``, those that do something."""
    from latentscore_data.cli import COMMANDS
    from latentscore_data.commands._outline import outlined

    def walk(command: object, path: Words) -> Iterator[Words]:
        below = getattr(command, "commands", {})
        if not (leaves_only and below):
            yield path
        for name, sub in below.items():
            yield from walk(sub, (*path, name))

    below = [path for name in COMMANDS for path in walk(outlined(name), (name,))]
    return below if leaves_only else [(), *below]


@pytest.fixture
def modal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackModal]:
    """A control plane of Modal that runs what it is sent in this process, with its volumes in a temporary folder."""
    pytest.importorskip("modal")
    from modal.client import _Client

    from latentscore_data.core import compute
    from latentscore_data.core.compute import entrypoints
    from modal_loopback import LoopbackModal, serve

    plane = LoopbackModal(tmp_path / "modal")
    volume = plane.volume("latentscore-data-outputs")
    plane.bodies = {
        "train": lambda text: entrypoints.train_run(text, volume, lambda: plane.calls.append("commit")),
        "score_shard": entrypoints.score_shard,
        "generate_shard": lambda text: entrypoints.generate_shard(text, volume),
        "write_shard": lambda text: entrypoints.write_shard(text, volume),
        "check": lambda question: json.dumps({"asked": question, **entrypoints.what_is_here()}),
    }
    monkeypatch.setattr(entrypoints, "_say", plane.logs.append)
    with serve(plane) as url:
        for name, value in {
            "MODAL_SERVER_URL": url,
            "MODAL_TOKEN_ID": "ak-loopback",
            "MODAL_TOKEN_SECRET": "as-loopback",
            "MODAL_CONFIG_PATH": str(tmp_path / "no-such-file"),
        }.items():
            monkeypatch.setenv(name, value)
        # The client and the app's volumes remember the server they first met.
        _Client._set_env_client(None)
        monkeypatch.delitem(sys.modules, "latentscore_data.core.compute.modal_app", raising=False)
        monkeypatch.delattr(compute, "modal_app", raising=False)
        yield plane
        _Client._set_env_client(None)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tests run beside each other, and threads that wait for each other are slower than one that works."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def short_prompt() -> Iterator[None]:
    """Training with a prompt of a few words; the real one has a thousand tokens."""
    from latentscore import forms
    from training_runs import short_system

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "config_system", short_system)
        yield
