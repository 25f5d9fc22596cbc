"""Texts through all stages, offline: in one run, and with repeated kills."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forked import begin, finish, kill, wait_until

SRC = Path(__file__).resolve().parent.parent / "src"
COMMAND = ("run-all", "--sample", "--skip", "train")

APPENDED = (".vibes/extracted.jsonl", ".processed/candidates.jsonl")
PERSONAL = {
    "finished", "seconds", "started", "created", "git_commit", "done", "skipped", "calls", "cached", "hits", "renders",
    "tokens_in", "tokens_out",
    "listened", "scored", "candidates_per_second", "cached_vectors", "cached_scores", "renders_cached",
}  # fmt: skip
"""What two runs with the same result may differ in: times, and how much of the work had been done before."""


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LSDATA_", "HF_"))}
    return {**kept, "PYTHONPATH": str(SRC), "HF_HUB_OFFLINE": "1"}


def start(root: Path, *more: str) -> subprocess.Popen[str]:
    return begin(*COMMAND, "--root", root, "--json", *more, env=environment(), cwd=root.parent)


def run(root: Path, *more: str) -> dict[str, Any]:
    return finish(start(root, *more), 0, timeout=280).json()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("journey") / "sample"
    return root, run(root)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_when(
    process: subprocess.Popen[str], root: Path, moment: Callable[[Path], bool], watched_seconds: float = 200
) -> bool:
    """Kill a started command's whole process group at the moment of its workspace; False when it finished before."""
    come = wait_until(lambda: moment(root), process, watched_seconds)
    if come:
        kill(process)
    else:
        process.communicate()
    return come


MOMENTS = {
    "right at the start": lambda root: (root / ".lock").exists(),
    "in the texts": lambda root: any((root / ".outputs").glob("*")),
    "in the extraction": lambda root: lines(root / ".vibes/extracted.jsonl") >= 5,
    "at the splits": lambda root: (
        any((root / ".vibes").glob("*.jsonl")) and lines(root / ".vibes/extracted.jsonl") >= 16
    ),
    "early in the candidates": lambda root: lines(root / ".processed/candidates.jsonl") >= 3,
    "late in the candidates": lambda root: lines(root / ".processed/candidates.jsonl") >= 60,
    "in the scoring": lambda root: (
        lines(root / ".processed/scored.jsonl") >= 20 or (root / ".processed/TEST.jsonl").exists()
    ),
    "in the benchmark": lambda root: any((root / ".benchmarks").glob("*/results.jsonl")),
    "in the export": lambda root: any((root / ".exports").glob("*")),
}


@pytest.mark.long
def test_killed_at_any_moment_it_ends_with_the_same_rows(
    uninterrupted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    peace, _ = uninterrupted
    root = tmp_path / "sample"
    killed = {name: kill_when(start(root), root, moment) for name, moment in MOMENTS.items()}
    run(root)
    assert sum(killed.values()) >= 5, killed
    assert comparable(root) == comparable(peace)


def comparable(root: Path) -> dict[str, Any]:
    """Every file of a workspace in the form in which two runs must agree."""
    files: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or name.startswith((".cache/", ".logs/", ".lock")):
            continue
        if name.endswith(".jsonl") and (name in APPENDED or name.startswith(".benchmarks/")):
            files[name] = sorted(json.dumps(without_times(json.loads(line)), sort_keys=True) for line in path.open())
        elif name.endswith(".json"):
            files[name] = without_times(json.loads(path.read_text()))
        elif name.endswith(".html") or name.endswith(".md"):
            files[name] = True  # they show times; what they are made from is compared
        else:
            files[name] = path.read_bytes()
    return files


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: without_times(inner)
            for key, inner in value.items()
            if key not in PERSONAL and not key.endswith(("_seconds", "_s", "sha256", "bytes"))
        }
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.long
def test_a_second_run_is_fresh_and_quick(uninterrupted: tuple[Path, dict[str, Any]]) -> None:
    root, _ = uninterrupted
    started = time.monotonic()
    again = run(root)
    assert [stage["fresh"] for stage in again["stages"]] == [True] * len(again["stages"])
    assert time.monotonic() - started < 20  # 3 s on a quiet machine; the run itself takes a minute


@pytest.mark.long
def test_the_chain_ends_with_what_people_came_for(uninterrupted: tuple[Path, dict[str, Any]]) -> None:
    root, result = uninterrupted
    assert result["exit_code"] == 0
    assert [stage["stage"] for stage in result["stages"]] == ["download", "vibes", "configs", "bench", "export"]
    assert lines(root / ".outputs/builtin.jsonl") == 16 or sum(map(lines, (root / ".outputs").glob("*.jsonl"))) == 16
    rows = [json.loads(line) for path in (root / ".processed").glob("*.jsonl") for line in path.open() if path.stem in ("SFT-Train", "SFT-Val", "GRPO", "TEST")]  # fmt: skip
    assert 60 <= len(rows) <= 80
    assert all(row["config_payload"] == row["config_candidates"][row["best_index"]] for row in rows)
    report = Path(result["report"])
    assert report.exists()
    assert result["next_step"] == f"open {report}"
    assert list(report.parent.glob("audio/*.mp3"))


@pytest.mark.long
def test_changing_one_setting_reruns_only_what_follows(
    uninterrupted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The sample's settings are fixed, so a changed score input stands for a changed setting: the splits by hand."""
    peace, _ = uninterrupted
    root = tmp_path / "copy" / "sample"
    shutil.copytree(peace, root)
    manifest = root / ".processed/score.manifest.json"
    values = json.loads(manifest.read_text())
    values["settings"]["seconds"] = 4.0
    manifest.write_text(json.dumps(values))
    plan = {step["stage"]: step for step in run(root, "--dry-run")["plan"]}
    assert plan["download"]["state"] == plan["vibes"]["state"] == "fresh"
    assert plan["configs"]["state"] == "stale"
    assert any("seconds changed from 4.0 to 5.0" in why for why in plan["configs"]["why"])
