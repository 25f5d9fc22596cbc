"""The image of the containers: exactly the versions that are tested, and everything that runs there."""

from __future__ import annotations

import json
import re
import time
import tomllib
from pathlib import Path

import pytest

from conftest import needs
from factories import make_payload
from forked import python

pytestmark = needs("modal")

ROOT = Path(__file__).resolve().parents[3]

ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"{name} is not in the image")

sys.meta_path.insert(0, Absent())
import latentscore_data.core.bench.suites, latentscore_data.core.generators.local, latentscore_data.core.scoring.clap
import latentscore_data.core.scoring.rewards, latentscore_data.core.training.prepare, latentscore_data.core.base.weights
from latentscore_data.core.compute import entrypoints
entrypoints.what_is_here()
if __name__ == "__main__":
    print(entrypoints.score_shard(sys.stdin.read()))
"""


def names(requirements: list[str]) -> set[str]:
    return {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~! ;]", line)[0].lower()) for line in requirements}


def pins() -> list[str]:
    from latentscore_data.core.compute import modal_app

    return modal_app.pins()


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_pins_are_the_versions_that_the_tests_run_with() -> None:
    def canonical(line: str) -> str:
        return re.sub(r"[-_.]+", "-", line.strip().lower().partition("==")[0]) + "==" + line.strip().partition("==")[2]

    constraints = {canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {canonical(pin) for pin in pins()} <= constraints


def test_all_of_the_ml_extra_is_in_the_image() -> None:
    assert names(project()["optional-dependencies"]["ml"]) <= names(pins())


@pytest.mark.long
def test_a_shard_needs_nothing_that_is_not_in_the_image(tmp_path: Path) -> None:
    absent = names(project()["dependencies"]) - names(pins())
    assert "typer" in absent
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    sound = {"config": make_payload()["config"], "vibes": ["rain"], "clip": True}
    shard = {
        "scoring": {"scorers": ["acoustic"], "seconds": 1}, "deadline": time.time() + 600, "keep_flac": False,
        "sounds": [sound],
    }  # fmt: skip
    modules = ",".join(name.replace("-", "_") for name in [*absent, "modal"])
    (scored_render,) = python(script, modules, input=json.dumps(shard)).json()["sounds"]
    assert "final_score" in scored_render["rain"]["outcomes"]["acoustic"]
