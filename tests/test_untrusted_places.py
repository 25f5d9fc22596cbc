"""Paths that are not regular files: pipes without a writer, endless devices, folders, dangling links."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest

from conftest import here
from factories import make_scored
from forked import python
from latentscore.files import MOST_BYTES, open_file, read_whole, why_no_file
from latentscore_data.core.base.errors import FULL_DISK
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.workspace import Workspace

COMMANDS = {
    "payload": ("render", "--payload", "PLACE", "--out", "x.flac"),
    "map": ("render", "rain", "--map", "PLACE", "--out", "x.flac"),
    "settings": ("status", "--config", "PLACE"),
    "suite": ("bench", "--suite", "PLACE", "--source", "baseline:random"),
    "system": ("configs", "rain", "--system", "PLACE"),
    "answers": ("bench", "--human-answers", "PLACE"),
    "terms": ("export", "model", "nothing", "--terms", "PLACE"),
    "texts": ("download", "--dataset", "PLACE"),
    "scorer": ("configs", "rain", "--scorer", "PLACE:score"),
    "base model": ("export", "model", "PLACE", "--gguf", "f16"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "nothing.json").symlink_to(tmp_path / "gone")
    (tmp_path / "device.json").symlink_to("/dev/zero")
    replace_rows(Workspace(tmp_path / "data").scored("TEST"), [make_scored(1, split="TEST")])
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_waits_for_what_is_no_file(folder: Path, name: str) -> None:
    for place in ("pipe.json", "folder.json", "nothing.json", "device.json"):
        words = [word.replace("PLACE", place) for word in COMMANDS[name]]
        out = python("-m", "latentscore_data", *words, "--root", "data", cwd=folder, timeout=60, code=None)
        assert out.returncode in (2, 3), (place, out.returncode, out.stdout, out.stderr)
        assert "Traceback" not in out.stderr
        assert "->" in out.stdout + out.stderr, (place, out.stderr)


NAMES = {
    **COMMANDS,
    "model of a benchmark": ("bench", "--suite", "short", "--limit", "1", "--source", "local:PLACE"),
    "base of a training": ("train", "sft", "--base-model", "PLACE", "--dry-run"),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_home_of_a_user_who_does_not_exist_is_a_missing_file(name: str) -> None:
    out = here(*(word.replace("PLACE", "~no-such-user/x.py") for word in NAMES[name]))
    assert out.returncode in (2, 3), (out.stdout, out.stderr)


def test_doctor_runs_for_a_user_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", none)
    out = here("doctor")
    assert out.returncode == 0, out.stderr


@pytest.mark.long
@pytest.mark.parametrize("place", ["pipe.json", "device.json"])
def test_a_workspace_with_such_places_in_it_is_looked_at_without_waiting(folder: Path, place: str) -> None:
    inside = (
        ".vibes/TEST.jsonl", ".processed/vibes.manifest.json", ".processed/score.manifest.json", ".benchmarks/b/run.json",
        ".improve/i/rounds.json", ".modal_outputs/r/run.json", ".exports/e/export.json", "marks.jsonl",
    )  # fmt: skip
    for name in inside:
        target = folder / "data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / place, target) if place == "pipe.json" else target.symlink_to("/dev/zero")
    for words in (("status",), ("train", "status"), ("export", "report"), ("check",)):
        out = python("-m", "latentscore_data", *words, "--root", "data", cwd=folder, timeout=60, code=None)
        assert out.returncode != 70, (words, out.stderr)
        assert "Traceback" not in out.stderr


def test_a_file_is_opened_and_read_whole_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": 1}))
    assert json.loads(read_whole(path)) == {"a": 1}
    with pytest.raises(OSError, match="longer") as error:
        read_whole(path, most=3)
    assert error.value.errno not in FULL_DISK
    with pytest.raises(OSError, match="device"):
        open_file(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    assert read_whole(tmp_path / "pipe") == b""
    assert why_no_file(tmp_path / "gone") == "does not exist"
    assert why_no_file(tmp_path) == "is not a file"
    assert MOST_BYTES > 10**8
