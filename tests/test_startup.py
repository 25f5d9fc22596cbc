"""Start-up: help and completion load no unneeded library, and every module can be imported alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from conftest import SRC, command_paths, here
from forked import python
from latentscore_data.cli import COMMANDS

HEAVY = (
    "torch", "litellm", "scipy", "numba", "transformers", "modal", "datasets", "soundfile", "jinja2", "huggingface_hub",
    "numpy", "pydantic", "importlib.metadata", "latentscore_data.core.base.settings", "latentscore_data.core.stages",
)  # fmt: skip

PROBE = """
import os, sys
from latentscore_data.cli import main
for path, tab in [(path, tab) for path in {paths!r} for tab in (False, True)]:
    sys.stdout.flush()
    # A process of its own for each, without starting Python anew.
    if os.fork() == 0:
        if tab:
            print("OPTIONS OF", *path)
            typed = ["lsdata", *path, "--"]
            os.environ.update(_LSDATA_COMPLETE="complete_bash", COMP_WORDS=" ".join(typed), COMP_CWORD=str(len(path) + 1))
        else:
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
    """What each command's ``--help`` prints at 100 columns, what it has loaded, and the same of its options' completion."""
    code = PROBE.format(paths=command_paths(), heavy=HEAVY)
    out = python("-c", code, env={"COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": str(SRC)})
    return {path.strip(): text for path, _, text in (part.partition("\n") for part in out.stdout.split("HELP OF")[1:])}


@pytest.mark.long
@pytest.mark.parametrize("path", [" ".join(path) for path in command_paths()])
def test_help_loads_nothing_heavy(helps: dict[str, str], path: str) -> None:
    shown, _, completed = helps[path].partition("OPTIONS OF")
    assert "Usage" in shown
    assert "--help" in completed.splitlines()
    for out in (shown, completed):
        assert "LEFT WITH 0" in out
        assert out.rsplit("HEAVY:", 1)[1].split() == []


@pytest.mark.long
@pytest.mark.parametrize("path", [" ".join(path) for path in command_paths(leaves_only=True)])
def test_help_has_an_example_and_fits_a_screen(helps: dict[str, str], path: str) -> None:
    shown = helps[path].partition("LEFT WITH")[0]
    assert f"lsdata {path}" in shown.split("Usage:", 1)[1].split("\n", 1)[1], "an example of the command itself"
    assert len(shown.splitlines()) < 60
    assert "…" not in shown, "something was cut off"


BOTH_WAYS = """
import importlib, os, sys
from typer.testing import CliRunner
from latentscore_data.cli import COMMANDS, LazyGroup, app

for name in COMMANDS:
    importlib.import_module("latentscore_data.commands." + name.replace("-", "_"))
calls = [words.split(",") for words in sys.argv[2:]]
for columns in sys.argv[1].split(","):
    # A process of its own for each width: a command that is loaded keeps the one that it was loaded at.
    if os.fork():
        os.wait()
        continue
    os.environ["COLUMNS"] = columns
    answers = [CliRunner().invoke(app, words, prog_name="lsdata") for words in calls]
    LazyGroup.resolve_command = lambda group, context, typed: (typed[0], group.loaded(typed[0]), typed[1:])
    for words, answer in zip(calls, answers, strict=True):
        own = CliRunner().invoke(app, words, prog_name="lsdata")
        assert answer.output == own.output, (words, answer.output, own.output)
        assert answer.exit_code == own.exit_code
        print(columns, answer.exit_code, len(answer.output.splitlines()), *words, flush=True)
    os._exit(0)
"""
"""Compares what the program answers at some widths with what the modules of its commands would answer.

Prints width, exit code, number of lines and the words typed."""


def answered_as_by_the_modules(calls: Iterable[Sequence[str]], *columns: int) -> list[str]:
    words = [",".join(words) for words in calls]
    out = python("-c", BOTH_WAYS, ",".join(map(str, columns)), *words, env={"NO_COLOR": "1"})
    assert not out.stderr
    return out.stdout.splitlines()


@pytest.mark.long
def test_help_is_what_the_command_s_module_would_print() -> None:
    calls = [(*path, "--help") for path in command_paths()]
    answers = answered_as_by_the_modules(calls, 60, 88, 160)
    assert len(answers) == 3 * len(calls)
    for answer in answers:
        _, exit_code, lines = answer.split()[:3]
        assert exit_code == "0", answer
        assert int(lines) > 10, answer


def test_wrong_words_are_reported_as_the_command_s_module_would() -> None:
    wrong = [
        "configs --nope",
        "configs --nope --help",
        "configs --n",
        "configs --n x",
        "train sft --nope",
        "train sf",
        "train",
    ]
    answers = answered_as_by_the_modules([words.split() for words in wrong], 100)
    assert [answer.split()[1] for answer in answers] == ["2"] * len(wrong)


def test_help_as_the_value_of_an_option_is_a_value() -> None:
    assert "no provider is known for the model --help" in here("configs", "--model", "--help", "--dry-run").stderr


@pytest.mark.long
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
    loaded = python("-c", code).stdout.rsplit("LOADED", 1)[1].split()
    assert not {f"latentscore_data.commands.{name.replace('-', '_')}" for name in COMMANDS} & set(loaded)
    assert len(loaded) < 12, loaded


def modules() -> list[str]:
    source = Path(__file__).resolve().parent.parent / "src"
    names = [".".join(path.relative_to(source).with_suffix("").parts) for path in sorted(source.rglob("*.py"))]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


@pytest.mark.long
def test_each_module_imports_alone() -> None:
    """In one child per module, forked when other people's libraries are loaded and none of our modules is."""
    code = """
import contextlib, gc, importlib, os, sys
gc.disable()  # each child would look for garbage among the libraries' million objects
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
    python("-c", code.replace("{heavy!r}", repr((*HEAVY, "trl", "peft"))), *modules())
