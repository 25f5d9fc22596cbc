"""Starting is light: help loads no heavy library, and every module can be imported by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SRC, command_paths
from latentscore_data.cli import COMMANDS, load_command

HEAVY = (
    "torch", "litellm", "scipy", "numba", "transformers", "modal", "datasets", "soundfile", "jinja2", "huggingface_hub",
)  # fmt: skip

PROBE = """
import os, sys
from latentscore_data.cli import main
for path in {paths!r}:
    sys.stdout.flush()
    # A process of its own for each, without starting Python anew.
    if os.fork() == 0:
        print("HELP OF", *path)
        sys.argv = ["lsdata", *path, "--help"]
        try:
            main()
        except SystemExit as stop:
            print("LEFT WITH", stop.code)
        print("HEAVY:", *sorted(set({heavy!r}) & set(sys.modules)))
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """What each command's ``--help`` prints at 100 columns, and what it has loaded."""
    code = PROBE.format(paths=command_paths(), heavy=HEAVY)
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": str(SRC)}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True, env=env)
    return {path.strip(): text for path, _, text in (part.partition("\n") for part in out.stdout.split("HELP OF")[1:])}


@pytest.mark.parametrize("path", [" ".join(path) for path in command_paths()])
def test_help_loads_nothing_heavy(helps: dict[str, str], path: str) -> None:
    assert "Usage" in helps[path]
    assert "LEFT WITH 0" in helps[path]
    assert helps[path].rsplit("HEAVY:", 1)[1].split() == []


@pytest.mark.parametrize("path", [" ".join(path) for path in command_paths(leaves_only=True)])
def test_help_has_an_example_and_fits_a_screen(helps: dict[str, str], path: str) -> None:
    assert f"lsdata {path}" in helps[path].split("Usage:", 1)[1].split("\n", 1)[1], "an example of the command itself"
    assert len(helps[path].splitlines()) < 60
    assert "…" not in helps[path], "something was cut off"


def test_stages_are_listed_in_their_order(helps: dict[str, str]) -> None:
    stages = ["download", "vibes", "configs", "train", "bench", "export", "run-all"]
    places = [helps[""].index(f" {stage} ") for stage in stages]
    assert places == sorted(places)


def test_the_program_s_help_imports_no_command() -> None:
    code = (
        "import sys\nfrom latentscore_data.cli import main\nsys.argv = ['lsdata', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sorted(name for name in sys.modules if name.startswith('latentscore_data.co')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = out.stdout.rsplit("LOADED", 1)[1].split()
    assert not {f"latentscore_data.commands.{entry.module}" for entry in COMMANDS.values()} & set(loaded)
    assert len(loaded) < 12, loaded


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_table_says_what_the_command_s_docstring_says(name: str) -> None:
    assert (load_command(name).help or "").splitlines()[0] == COMMANDS[name].help


def modules() -> list[str]:
    source = Path(__file__).resolve().parent.parent / "src"
    names = [".".join(path.relative_to(source).with_suffix("").parts) for path in sorted(source.rglob("*.py"))]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


@pytest.mark.long
def test_each_module_imports_alone() -> None:
    """In one child per module, forked when other people's libraries are loaded and none of our modules is."""
    code = """
import contextlib, importlib, os, sys
for name in {heavy!r}:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(name, repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(bool(failed))
"""
    out = subprocess.run(
        [sys.executable, "-c", code.replace("{heavy!r}", repr((*HEAVY, "trl", "peft"))), *modules()],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert out.returncode == 0, out.stderr
