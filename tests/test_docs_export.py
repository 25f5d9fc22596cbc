"""The examples of docs/export.md run unchanged on the output of its commands."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import here
from export_workspace import fill
from tiny_models import trained_run

PAGE = Path(__file__).resolve().parent.parent / "docs" / "export.md"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))


def commands(section: str) -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [
        shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("lsdata export")
    ]


@pytest.mark.parametrize(
    "title",
    [
        "A map: the nearest config to a text",
        "A data set",
        "Chat files for other trainers",
        pytest.param("A model", marks=pytest.mark.ml),
    ],
)
def test_the_example_of_each_section_runs(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    section = SECTIONS[title]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code.strip().splitlines()) == 3
    if "datasets" in code and not find_spec("datasets"):
        pytest.skip("needs the hub extra")
    workspace = fill(Path("data_work"))
    if title == "A model":
        if not find_spec("torch"):
            pytest.skip("needs the ml extra")
        trained_run(workspace.train_dir, "my-run", method="full")
        Path("GEMMA_TERMS.html").write_text("terms")
    ran = commands(section)
    assert ran
    for command in ran:
        here(*command, code=0)
    exec(code, {})
    assert capsys.readouterr().out.strip()


def test_the_report_command_runs() -> None:
    fill(Path("data_work"))
    (command,) = commands(SECTIONS["A report"])
    here(*command, env={"LSDATA_SCORING__SECONDS": "1"}, code=0)
    assert Path("data_work/.exports/report/index.html").is_file()
