"""The cache of compiled loops: whatever lies in its files, a loop runs, and the next process finds it compiled."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest
from numba.core import event
from numba.core.caching import InTreeCacheLocator
from numba.core.ir import Loc

from forked import python
from latentscore import compiling
from latentscore.jit import inner_jit

LOOP = """
from latentscore.jit import jit

@jit
def twice(x):
    return x * 2.0
"""

Damage = Callable[[bytes], bytes]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


DAMAGES: dict[str, Damage] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "half zeros": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "a flipped byte": flipped,
    "a pickle of something else": lambda data: b"\x80\x04K\x01.",
    "another file": lambda data: b"not a pickle\n" * 40,
}


class Compilations(event.Listener):
    def __init__(self) -> None:
        self.count = 0

    def on_start(self, event: Any) -> None:
        self.count += 1

    def on_end(self, event: Any) -> None: ...


def ask(folder: Path) -> tuple[float, bool]:
    """(result, whether it had to be compiled) of the loop, loaded as a new process does it."""
    spec = importlib.util.spec_from_file_location("loop", folder / "loop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    compilations = Compilations()
    with event.install_listener("numba:compile", compilations):
        value = module.twice(21.0)
    return value, compilations.count > 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "loop.py").write_text(LOOP)
    assert ask(tmp_path) == (42.0, True)
    assert ask(tmp_path) == (42.0, False)
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
def test_a_damaged_file_is_compiled_again_and_replaced(folder: Path, ending: str, damage: str) -> None:
    (path,) = (folder / "cache").rglob(f"*{ending}")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert ask(folder) == (42.0, True)
    assert ask(folder) == (42.0, False)


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
def test_a_folder_in_the_place_of_a_file_costs_only_the_time_to_compile(folder: Path, ending: str) -> None:
    (path,) = (folder / "cache").rglob(f"*{ending}")
    path.unlink()
    path.mkdir()
    assert ask(folder) == (42.0, True)


def test_an_inner_loop_is_called_by_loops_and_not_from_python() -> None:
    @inner_jit
    def inner(x: float) -> float:
        return x * 2.0

    with pytest.raises(TypeError, match="cannot be called from Python"):
        inner(21.0)


def test_a_loop_is_compiled_in_a_working_folder_that_was_deleted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    location = Loc(str(folder / "loops.py"), 1).strformat()  # numba makes this text during a compilation
    assert "loops.py" in location


def test_a_changed_loop_is_compiled_again(folder: Path) -> None:
    (folder / "loop.py").write_text(LOOP.replace("2.0", "3.0") + "# longer\n")
    assert ask(folder) == (63.0, True)
    assert ask(folder) == (63.0, False)


def test_what_another_numba_has_kept_is_not_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba, "__version__", "9.9.9")
    assert ask(folder) == (42.0, True)


def test_without_a_home_folder_nothing_is_created_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InTreeCacheLocator, "from_function", lambda *_: None)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(compiling._Announcer, "uncached", False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "loop.py").write_text(LOOP)
    assert ask(tmp_path) == (42.0, True)
    assert compiling._Announcer.uncached
    assert not list(Path.cwd().iterdir())


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a loop that nobody has compiled, and that a second process is to compile."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiling, "ROOM_LOOPS", frozenset({"loop.twice"}))
    # What another process has compiled names the module that it comes from.
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "loop", raising=False)
    (tmp_path / "loop.py").write_text(LOOP)
    return tmp_path


def beside(
    monkeypatch: pytest.MonkeyPatch, folder: Path, program: str, wait_seconds: float = 60.0
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=folder)
    monkeypatch.setattr(compiling._Announcer, "beside", process)
    monkeypatch.setattr(compiling._Announcer, "waited_until", time.monotonic() + wait_seconds)
    return process


def test_what_a_second_process_compiles_is_waited_for(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = beside(monkeypatch, empty, "import loop; loop.twice(21.0)")
    assert ask(empty) == (42.0, False)
    assert process.wait() == 0


@pytest.mark.parametrize("program", ["raise SystemExit(1)", "import time; time.sleep(60)"])
def test_what_a_second_process_leaves_undone_is_compiled(
    empty: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    process = beside(monkeypatch, empty, program)
    threading.Timer(0.5, process.kill).start()
    assert ask(empty) == (42.0, True)
    assert process.wait() != 0


def test_a_second_process_that_hangs_is_not_waited_for_without_end(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = beside(monkeypatch, empty, "import time; time.sleep(60)", wait_seconds=0.5)
    assert ask(empty) == (42.0, True)
    assert process.poll() is None
    compiling.end_second_process()
    assert process.returncode == -signal.SIGKILL


def test_a_second_process_is_left_time_to_end(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = beside(monkeypatch, empty, "import time; time.sleep(0.3)")
    compiling.end_second_process()
    assert process.returncode == 0


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was started as a second process, on a machine with two cores and nothing compiled."""
    from latentscore.synth import space  # noqa: F401

    started: list[object] = []
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command))
    return started


def test_a_second_process_compiles_the_room(started: list[object]) -> None:
    compiling._compile_beside()
    assert len(started) == 1


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(os, "sched_getaffinity", lambda _: {0}), (sys, "executable", ""), (os, "access", lambda *_: False)],
)
def test_no_second_process_where_it_would_not_help(
    started: list[object], monkeypatch: pytest.MonkeyPatch, module: object, name: str, value: object
) -> None:
    monkeypatch.setattr(module, name, value)
    assert compiling._compile_beside() is None
    assert not started


@pytest.mark.slow
def test_a_first_render_compiles_the_room_in_a_second_process(tmp_path: Path) -> None:
    if compiling.available_cores() < 2:
        pytest.skip("one core")
    program = """
from numba.core import event
from latentscore import MusicConfig, compiling, render
names = []
class Compilations(event.Listener):
    def on_start(self, event): names.append(event.data["dispatcher"].py_func.__name__)
    def on_end(self, event): pass
with event.install_listener("numba:compile", Compilations()):
    render(MusicConfig(), 1.0, threads=1)
assert compiling._Announcer.beside.wait() == 0
print(*names)
"""
    names = python("-c", program, env={"NUMBA_CACHE_DIR": str(tmp_path)}).stdout.split()
    assert "add_wave" in names
    assert not {"_room", "_tone", "_limit", "_hop_energies"} & set(names)
