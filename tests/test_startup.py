"""Starting is light: help loads no heavy library, and every module can be imported by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from latentscore_data.cli import app

HEAVY = (
    "torch", "litellm", "numpy", "scipy", "numba", "transformers", "modal", "datasets", "pydantic", "pydantic_settings",
    "soundfile", "jinja2", "huggingface_hub",
)  # fmt: skip

PROBE = """
import sys
from latentscore_data.cli import main
sys.argv = ["lsdata", *{arguments!r}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("HEAVY:", *sorted(set({heavy!r}) & set(sys.modules)))
"""


def command_paths() -> list[tuple[str, ...]]:
    """Every command and subcommand of the program."""
    paths: list[tuple[str, ...]] = [()]

    def walk(command: object, path: tuple[str, ...]) -> None:
        for name, sub in getattr(command, "commands", {}).items():
            paths.append((*path, name))
            walk(sub, (*path, name))

    walk(typer.main.get_command(app), ())
    return paths


@pytest.mark.parametrize("path", command_paths(), ids=lambda path: " ".join(path) or "lsdata")
def test_help_loads_nothing_heavy(path: tuple[str, ...]) -> None:
    code = PROBE.format(arguments=[*path, "--help"], heavy=HEAVY)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert out.returncode == 0, out.stderr
    assert out.stdout.rsplit("HEAVY:", 1)[1].split() == []
    assert "Usage" in out.stdout


def modules() -> list[str]:
    source = Path(__file__).resolve().parent.parent / "src"
    names = [".".join(path.relative_to(source).with_suffix("").parts) for path in sorted(source.rglob("*.py"))]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


@pytest.mark.long
def test_each_module_imports_alone() -> None:
    """In one child per module, forked after the interpreter has started, so that no other module was there before."""
    code = """
import importlib, os, sys
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
        [sys.executable, "-c", code, *modules()], capture_output=True, text=True, timeout=280, check=False
    )
    assert out.returncode == 0, out.stderr
