"""Documents made from the code are current, commands and files in documents exist, and every command and option has help."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from conftest import Lsdata
from latentscore import FIELDS
from latentscore_data.cli import app, whole_program
from latentscore_data.core.base.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent


STALE = """
import sys; sys.path[:0] = ['docs']
import make
print([path.name for path, text in getattr(make, sys.argv[1])().items() if path.read_text('utf-8') != text])
"""


@pytest.mark.parametrize("made", ["documents", pytest.param("measured", marks=pytest.mark.long)])
def test_documents_made_from_the_code_are_current(made: str) -> None:
    run = [sys.executable, "-c", STALE, made]
    out = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True, timeout=120)
    assert out.stdout.strip() == "[]", "these documents are out of date; run: make docs"


def test_documents_count_the_fields_as_the_table_does() -> None:
    counts = {
        r"(?:the|dict of|\*\*) (\d+) fields": len(FIELDS),
        r"(?:config of|turns) (\d+) words": len(FIELDS),
        r"(\d+) pairs of labels": sum(math.comb(len(spec.labels), 2) for spec in FIELDS.values()),
    }
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for pattern, count in counts.items():
            said = re.findall(pattern, path.read_text(encoding="utf-8"))
            wrong = {int(number) for number in said} - {count}
            assert not wrong, f"{path}: {wrong} in {pattern!r} is {count} now"


def commands_in(path: Path) -> Iterator[str]:
    """Each call of the program in a document: a line of a code block, or a piece of code in the text."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for found in re.finditer(r"^ *(?:\$ |- run: )?(lsdata [^\n]*)$|`(lsdata [^`\n]+)`", text, re.MULTILINE):
        command = re.split(r" [|>] | \|\| ", found[1] or found[2])[0]
        # Headings and usage lines of the reference are made from the program itself.
        if "[OPTIONS]" not in command and not (path.name == "cli.md" and found[2]):
            yield command


DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


FILE_NAMED = re.compile(r"`([\w./-]+\.(?:py|toml|txt|md|js))`")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_a_page_for_contributors_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8").partition("<!-- module map")[0]
    now = re.sub(r"^## Modules of the first design.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    files = [
        f"/{path.relative_to(ROOT)}" for folder in ("src", "tests", "docs") for path in (ROOT / folder).rglob("*.*")
    ]
    missing = [
        name
        for name in FILE_NAMED.findall(now)
        if not (ROOT / name).exists() and not any(file.endswith(f"/{name}") for file in files)
    ]
    assert not missing, f"{page} names files that do not exist: {missing}"


@pytest.mark.long
def test_the_screen_in_the_readme_is_what_one_sees(lsdata: Lsdata) -> None:
    blocks = (ROOT / "README.md").read_text(encoding="utf-8").split("```")
    command, *shown = next(block for block in blocks if block.startswith("text\n$ lsdata")).strip().splitlines()[1:]
    out = lsdata(
        *shlex.split(command)[2:], env={"COLUMNS": "88", "NO_COLOR": "1", "LSDATA_SCORING__SCORERS": '["acoustic"]'}
    )
    seen = [line.rstrip() for line in out.stdout.splitlines() if line.strip()]
    assert seen == shown[-len(seen) :]
    assert shown[1] in out.stderr


def what_is_wrong(words: list[str]) -> str:
    """Why the program does not understand the words; empty when it does, or when only more of them are needed."""
    step = typer.main.get_command(app)
    try:
        context = step.make_context("lsdata", words)
        while hasattr(step, "commands"):
            name, step, words = step.resolve_command(context, [*context._protected_args, *context.args])
            context = step.make_context(name, words, parent=context)
    except Exception as error:
        # The text may speak of a command without all that it needs.
        known = ("Exit", "NoArgsIsHelpError", "MissingParameter")
        return "" if type(error).__name__ in known else str(error)
    return ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_can_be_typed(path: Path) -> None:
    for command in commands_in(path):
        words = shlex.split(command, comments=True)[1:]
        if not any("|" in word for word in words[:2]):  # "export map|dataset" names several
            assert what_is_wrong(words) == "", command


def test_every_command_and_option_has_help() -> None:
    missing: list[str] = []

    def walk(command: object, path: str) -> None:
        if not getattr(command, "help", None):
            missing.append(path)
        missing.extend(
            f"{path} {parameter.opts[0]}"
            for parameter in getattr(command, "params", [])
            if not getattr(parameter, "help", None) and not getattr(parameter, "hidden", False)
        )
        for name, sub in getattr(command, "commands", {}).items():
            walk(sub, f"{path} {name}")

    walk(whole_program(), "lsdata")
    assert missing == []


def test_the_settings_example_holds_the_defaults_and_names_every_setting() -> None:
    example = ROOT / "latentscore.toml.example"
    assert load_settings(example) == Settings()
    text = example.read_text(encoding="utf-8")
    # Settings without a default stand there as comments; uncommented with some value they must be known names.
    uncommented = "\n".join(
        line.removeprefix("# ") + " 1"
        if line.startswith("# ") and line.endswith(" =")
        else line.removeprefix("# ")
        if line.startswith("# [")
        else line
        for line in text.splitlines()
    )

    def names(table: dict, prefix: str = "") -> set[str]:
        found: set[str] = set()
        for key, value in table.items():
            found |= names(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key}
        return found

    # A table for each name that the user gives stands there with an example's name.
    found = {name.replace("llm.prices.NAME.input", "llm.prices") for name in names(tomllib.loads(uncommented))}
    missing = names(Settings().model_dump()) - found
    assert not missing, f"run: make docs ({missing} are not in {example.name})"


def test_every_setting_has_a_sentence() -> None:
    lines = (ROOT / "latentscore.toml.example").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.strip() == "#"] == []
