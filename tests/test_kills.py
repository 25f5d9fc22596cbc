"""Each command is killed ten times at random moments, run-all in each stage; the next run ends with the same files."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forked import begin, kill
from test_journey import MOMENTS, comparable, environment, kill_when, lines

pytestmark = pytest.mark.slow

KILLS = 10
OFFLINE = ("--model", "builtin/keywords", "--scorer", "acoustic", "--seconds", "3")

STEPS = {
    "download": ("download", "--dataset", "builtin", "--sample-size", "8"),
    "vibes": ("vibes", "--model", "builtin/keywords"),
    "configs": ("configs", "--n", "3", *OFFLINE),
    "bench": ("bench", "--name", "b", "--limit", "6", "--seconds", "3", "--human-pack"),
    "dataset": ("export", "dataset", "--audio"),
    "map": ("export", "map"),
    "chat": ("export", "chat"),
    "report": ("export", "report"),
    "check": ("check",),
    "search": ("configs", "--n", "3", "--search", "12", "--split", "TEST", *OFFLINE),
    "vibe": ("configs", "slow rain", "--n", "4", "--audio", "out"),
    "render": ("render", "a storm", "--seconds", "60", "--out", "out/storm.flac"),
    "mix": ("render", "dawn", "fog", "--crossfade", "2", "--seconds", "60", "--out", "out/mix.flac"),
    "bundle": ("studio", "--bundle", "out/bundle", "--split", "TEST"),
    # Answers as labels, because JSON of a model after four steps may fill the limit of tokens, which takes minutes.
    "train": (
        "train", "sft", "--base-model", "tiny-random", "--max-steps", "4", "--run-id", "first", "--set", "answer=labels",
    ),
    "improve": (
        "improve", "--name", "i", "--model", "first", "--base-model", "tiny-random", "--rounds", "1", "--n", "2",
        "--limit", "2", "--scorer", "acoustic", "--judge", "judge.py:score", "--seconds", "2", "--set", "dpo.margin=0",
        "--set", "answer=labels",
    ),
    "model": ("export", "model", "first"),
    "run-all": ("run-all", "--sample", "--skip", "train"),
}  # fmt: skip
"""In the order in which one needs what the one before has made."""

NOT_COMPARED = (".safetensors", ".pt", ".bin", ".log", ".zip", ".sqlite", "/DONE")
"""Weights and caches, and the list of their hashes."""

PERSONAL = ("_runtime", "_per_second", "input_fingerprint")

FINE = (0, 1, 6, 8)
"""Done; some rows failed; what is to be written exists already, since the killed command had come to its end; faults found."""


def start(folder: Path, words: tuple[str, ...]) -> subprocess.Popen[str]:
    return begin(*words, "--root", "data", stderr=subprocess.STDOUT, env=environment(), cwd=folder)


def finish(folder: Path, words: tuple[str, ...]) -> float:
    started = time.monotonic()
    process = start(folder, words)
    said, _ = process.communicate(timeout=1200)
    assert process.returncode in FINE, said
    return time.monotonic() - started


def kill_somewhere(folder: Path, words: tuple[str, ...], seconds: float) -> None:
    process = start(folder, words)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder as each command left it that was not disturbed; filled as far as it is asked for."""
    begin = tmp_path_factory.mktemp("kills") / "begin"
    begin.mkdir()
    (begin / "judge.py").write_text("def score(vibe, audio):\n    return float(abs(audio.samples).mean())\n")
    return {"": begin}


def undisturbed(finished: dict[str, Path], name: str) -> tuple[Path, Path, float]:
    """The folder before and after a command, and how long it took."""
    names = ["", *STEPS]
    before = names[names.index(name) - 1]
    if before not in finished:
        undisturbed(finished, before)
    folder = finished[""].with_name(name)
    shutil.copytree(finished[before], folder)
    seconds = finish(folder, STEPS[name])
    finished[name] = folder
    return finished[before], folder, seconds


@pytest.mark.parametrize("name", STEPS)
def test_a_command_that_was_killed_ten_times_ends_with_the_same_files(
    name: str, finished: dict[str, Path], tmp_path: Path
) -> None:
    before, after, seconds = undisturbed(finished, name)
    folder = tmp_path / "folder"
    shutil.copytree(before, folder)
    moments = random.Random(name)
    for _ in range(KILLS):
        kill_somewhere(folder, STEPS[name], moments.uniform(0.05, 1) * seconds)
    finish(folder, STEPS[name])
    assert files(folder) == files(after)


IN_TRAINING: dict[str, Callable[[Path], bool]] = {
    "before the first step": lambda root: any((root / ".modal_outputs").glob("*/spec.json")),
    "in the steps": lambda root: any(lines(path) >= 2 for path in (root / ".modal_outputs").glob("*/metrics.jsonl")),
    "at the end of the training": lambda root: any((root / ".modal_outputs").glob("*/final")),
}


@pytest.mark.ml
def test_run_all_that_was_killed_in_each_stage_ends_with_the_same_files(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    finish(whole, ("run-all", "--sample"))
    moments = list(MOMENTS.items())
    at = [name for name, _ in moments].index("in the benchmark")
    moments[at:at] = IN_TRAINING.items()
    killed = {
        name: kill_when(start(broken, ("run-all", "--sample")), broken / "data/sample", moment, watched_seconds=1200)
        for name, moment in moments
    }
    assert all(killed.values()), killed
    finish(broken, ("run-all", "--sample"))
    assert files(broken) == files(whole)


def files(folder: Path) -> dict[str, Any]:
    """What two runs must agree in. Logs and trained weights, which differ in their last digits, must be there; the fingerprints of
    what a trained model was asked differ with its weights."""
    found = {}
    for root in (folder / "data", folder / "data/sample", folder / "out"):
        names = comparable(root).items()
        found |= {f"{root.name}/{name}": content for name, content in names if not name.startswith("sample/")}
    return {name: True if name.endswith(NOT_COMPARED) else without_clock(content) for name, content in found.items()}


def without_clock(content: Any) -> Any:
    """Lines and documents of a training run, without how long it took and which weights came of it."""
    try:
        parsed = [json.loads(line) for line in content.decode().splitlines()] if isinstance(content, bytes) else content
    except ValueError:
        return content
    if isinstance(parsed, dict):
        kept = {name: one for name, one in parsed.items() if not name.endswith(PERSONAL)}
        return {name: without_clock(one) for name, one in kept.items()}
    return [without_clock(one) for one in parsed] if isinstance(parsed, list) else parsed
