"""The Dockerfile refers only to files and commands that exist. Nothing is built."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from latentscore_data.cli import whole_program

ROOT = Path(__file__).resolve().parent.parent
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def arguments(instruction: str) -> list[list[str]]:
    return [shlex.split(line.split(maxsplit=1)[1]) for line in LINES if line.startswith(f"{instruction} ")]


def test_every_file_that_is_copied_exists_and_is_not_ignored() -> None:
    copied = [name for *names, _ in arguments("COPY") for name in names]
    assert {"pyproject.toml", "constraints.txt", "src"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) <= kept


def test_what_the_package_needs_to_be_built_is_copied() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = re.findall(r'(?:readme = |license-files = \[)"([^"]+)"', project)
    copied = {name for *names, _ in arguments("COPY") for name in names}
    assert set(named) <= copied


def test_the_default_command_is_the_studio_with_options_that_exist() -> None:
    (line,) = [line for line in LINES if line.startswith("CMD ")]
    *_, script = json.loads(line.removeprefix("CMD "))
    words = shlex.split(
        script.replace("exec ", "").replace("${STUDIO_TOKEN:?set it with -e STUDIO_TOKEN=...}", "token")
    )
    assert words[:2] == ["lsdata", "studio"]
    studio = whole_program().commands["studio"]
    known = {option for parameter in studio.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_image_has_a_python_that_the_package_supports() -> None:
    ((image,),) = arguments("FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)
    assert version is not None
    assert f"Python :: {version[1]}" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
