"""What is made from the code is current, and every command explains itself."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from latentscore import FIELDS
from latentscore_data.cli import app
from latentscore_data.core.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", ["latentscore.toml.example", "docs/cli.md", "docs/architecture.md"])
def test_documents_made_from_the_code_are_current(name: str) -> None:
    made = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = ['docs']; import make; print(make.documents()[make.ROOT / {name!r}], end='')"],
        capture_output=True, text=True, cwd=ROOT, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert (ROOT / name).read_text(encoding="utf-8") == made, "run: make docs"


def test_documents_count_the_fields_as_the_table_does() -> None:
    counts = {
        r"(?:the|dict of|\*\*) (\d+) fields": len(FIELDS),
        r"(?:config of|turns) (\d+) words": len(FIELDS),
        r"(\d+) pairs of labels": sum(math.comb(len(spec.labels), 2) for spec in FIELDS.values()),
    }
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for pattern, count in counts.items():
            said = re.findall(pattern, path.read_text(encoding="utf-8"))
            assert {int(number) for number in said} <= {count}, f"{path.name}: {pattern} is {count} now"


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

    walk(typer.main.get_command(app), "lsdata")
    assert missing == []


def test_the_settings_example_holds_the_defaults_and_names_every_setting() -> None:
    example = ROOT / "latentscore.toml.example"
    assert load_settings(example) == Settings()
    text = example.read_text(encoding="utf-8")
    # Settings without a default stand there as comments; uncommented with some value they must be known names.
    uncommented = "\n".join(
        line.removeprefix("# ") + " 1" if line.startswith("# ") and line.endswith(" =") else line
        for line in text.splitlines()
    )

    def names(table: dict, prefix: str = "") -> set[str]:
        found: set[str] = set()
        for key, value in table.items():
            found |= names(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key}
        return found

    assert names(tomllib.loads(uncommented)) >= names(Settings().model_dump())


def test_every_setting_has_a_sentence() -> None:
    lines = (ROOT / "latentscore.toml.example").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.strip() == "#"] == []
