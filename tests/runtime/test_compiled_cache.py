"""The cache of compiled loops: whatever lies in its files, a loop runs, and the next process finds it compiled."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest
from numba.core import event

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


def test_a_changed_loop_is_compiled_again(folder: Path) -> None:
    (folder / "loop.py").write_text(LOOP.replace("2.0", "3.0") + "# longer\n")
    assert ask(folder) == (63.0, True)
    assert ask(folder) == (63.0, False)


def test_what_another_numba_has_kept_is_not_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba, "__version__", "9.9.9")
    assert ask(folder) == (42.0, True)
