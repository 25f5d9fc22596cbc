"""Closed, full and abandoned standard streams: the program works or refuses, without a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Lsdata

PROGRAM = f"{sys.executable} -m latentscore_data"


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line; ``lsdata`` in it stands for the program."""
    line = command.replace("lsdata", PROGRAM)
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)


def test_the_work_goes_on_when_the_reader_of_stderr_goes_away() -> None:
    done = shell("{ lsdata download --dataset builtin --json 2>&3 3>&- >out.json; echo $? >rc; } 3>&1 | true")
    assert done.returncode == 0
    assert Path("rc").read_text().strip() == "0"
    assert json.loads(Path("out.json").read_text())["done"] > 0
    assert list(Path("data_work/.outputs").glob("*.jsonl"))


@pytest.mark.long
def test_the_work_goes_on_behind_a_pipe_that_has_seen_enough() -> None:
    shell("lsdata download --dataset builtin 2>&1 | head -1")
    assert list(Path("data_work/.outputs").glob("*.jsonl"))


@pytest.mark.parametrize("command", ["--help", "configs --help", "status", "status --json"])
def test_a_reader_that_has_seen_enough_is_no_error(command: str) -> None:
    done = shell(f"{{ lsdata {command}; echo $? >rc; }} | true")
    assert (Path("rc").read_text().strip(), done.stderr) == ("0", "")


@pytest.mark.parametrize("streams", ["2>&-", "<&-", "0<&- 2>&-"])
def test_closed_streams_do_not_keep_it_from_working(streams: str) -> None:
    done = shell(f"lsdata status --json {streams}")
    assert done.returncode == 0
    assert json.loads(done.stdout)


@pytest.mark.parametrize(
    "command", ["status >/dev/full", "status --json >&-", "--version >/dev/full", "status --json >/dev/full"]
)
def test_a_result_that_cannot_be_written_is_a_refusal(command: str) -> None:
    done = shell(f"lsdata {command}")
    assert done.returncode == 6, done.stderr
    assert "standard output" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.long
def test_a_question_without_anybody_to_answer_is_a_refusal() -> None:
    os.environ["OPENAI_API_KEY"] = "none"
    try:
        done = shell("lsdata configs rain --model openai/gpt-4o-mini <&-")
    finally:
        del os.environ["OPENAI_API_KEY"]
    assert done.returncode == 2, done.stderr
    assert "no terminal to confirm it" in done.stderr


def test_files_of_the_user_are_never_taken_for_drafts() -> None:
    mine = [Path(".notes.tmp"), Path(".notes.lsdata-draft"), Path(".x.0badf00d.tmp")]
    for path in mine:
        path.write_text("mine")
    Path(".work.tmp").mkdir()
    Path(".work.tmp/file").write_text("mine")
    assert shell("lsdata download --dataset builtin --root .").returncode == 0
    assert all(path.read_text() == "mine" for path in [*mine, Path(".work.tmp/file")])


@pytest.mark.parametrize("size", ["0", "00", "-5", "", "abc", "²", pytest.param("9" * 5000, id="digits")])
def test_a_terminal_without_a_size_has_the_usual_one(lsdata: Lsdata, root: Path, size: str) -> None:
    env = {"COLUMNS": size, "LINES": size, "TERMINAL_WIDTH": size}
    for command in (("status", "--root", str(root)), ("--help",)):
        done = lsdata(*command, env=env, code=0)
        assert {"status": "not run", "--help": "Turn a sentence"}[command[0]] in done.stdout
