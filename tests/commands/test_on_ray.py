"""``configs --on ray`` as a program, on a cluster that it starts: Ctrl-C, going on elsewhere, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from conftest import Lsdata, here
from factories import make_vibe
from forked import begin, finish, wait_until
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.models.runs import RunFolder
from rounds_fakes import ONE_THREAD, small_rounds

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the ray extra: pip install '.[ray]'"),
]

ROWS = 40
SETTINGS = {"LSDATA_COMPUTE__RAY_CPUS": "2", "LSDATA_COMPUTE__RAY_SHARD_ROWS": "2"}


def command(root: Path, place: str) -> tuple[str, ...]:
    quick = ("--n", "1", "--scorer", "acoustic", "--seconds", "1", "--workers", "1")
    return ("configs", "--root", str(root), *quick, "--on", place, "--json")


def test_ctrl_c_keeps_what_is_done_and_another_place_goes_on(tmp_path: Path) -> None:
    for place in ("here", "ray"):
        words = ("dark slow night", "bright fast morning", "vast empty cathedral")
        rows = [make_vibe(n, vibe=f"a {words[n % 3]} {n}") for n in range(ROWS)]
        replace_rows(Workspace(tmp_path / place).vibes("SFT-Train"), rows)
    there = Workspace(tmp_path / "ray")
    scored = there.scored("SFT-Train")
    running, alone = (
        begin(*command(tmp_path / place, place), env={**os.environ, **SETTINGS}) for place in ("ray", "here")
    )
    wait_until(lambda: scored.exists() and scored.read_text().count("\n") >= 2, running)
    of_ray = psutil.Process(running.pid).children(recursive=True)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: all of the group
    assert "Traceback" not in finish(running, 130, timeout=60).output
    done = scored.read_text().count("\n")
    assert 2 <= done < ROWS
    assert any("raylet" in process.name() for process in of_ray if process.is_running()) is False
    assert not psutil.wait_procs(of_ray, timeout=10)[1]

    assert here(*command(there.root, "here"), code=0).json()["done"] == ROWS - done
    finish(alone, 0, timeout=60)
    assert scored.read_bytes() == Workspace(tmp_path / "here").scored("SFT-Train").read_bytes()


@pytest.mark.ml
def test_rounds_on_ray_answer_score_and_train_in_one_cluster(lsdata: Lsdata, tmp_path: Path) -> None:
    out = lsdata(*small_rounds(tmp_path, "ray"), env={**SETTINGS, **ONE_THREAD}, timeout=250, code=0)
    assert out.stderr.count("starting a cluster") == 1
    assert "SFT-Val answers are scored here: ear.py:score is code on this machine" in out.stderr
    rounds = json.loads((tmp_path / ".improve" / "r" / "rounds.json").read_text())["rounds"]
    assert [line["model"] for line in rounds] == ["tiny", "r-round-1"]
    assert rounds[1]["learned"] == 2
    RunFolder(Workspace(tmp_path).train_dir / "r-round-1").verify()
