"""Compare Ray with local processes: render and score the same candidates with both in one run.

    python benchmarks/executors.py [--candidates 500] [--seconds 5] [--workers 2] [--repeats 3]

Each way is timed from its first request to its last score, its processes' start included; the start of the cluster (once a
run) and its end are given beside it. The order alternates, so that a change in the machine's load concerns both. CPU seconds
of all processes are given as well: they depend less on what else the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from scoring import make_rows

from latentscore.installed import available_cores
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.settings import ComputeSettings, ScoringSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.scoring.best_of import run_scoring
from latentscore_data.core.scoring.renderer import LocalRenderer, MakeRenderer

WANTED = 0.15
PER_ROW = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=available_cores())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    settings = Settings(
        scoring=ScoringSettings(scorers=["acoustic"], seconds=options.seconds, workers=options.workers),
        compute=ComputeSettings(ray_cpus=options.workers),
    )
    rows = make_rows(options.candidates // PER_ROW, PER_ROW)
    score(rows[:2], settings, LocalRenderer)  # compiles the sound loops where they are not in a cache
    ray = make_executor("ray", settings, lambda line: None)
    start = timed(lambda: ray.at_once)
    ways: dict[str, MakeRenderer] = {"here": LocalRenderer, "ray": ray.make_renderer()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    worked: dict[str, list[float]] = {name: [] for name in ways}
    written: dict[str, bytes] = {}
    for number in range(options.repeats):
        for name in (list(ways), list(ways)[::-1])[number % 2]:
            before = cpu_seconds()
            seconds, written[name] = score(rows, settings, ways[name])
            taken[name].append(seconds)
            worked[name].append(cpu_seconds() - before)
    end = timed(ray.close)
    assert written["here"] == written["ray"], "the rows differ"
    here, there = statistics.median(taken["here"]), statistics.median(taken["ray"])
    print(f"{options.candidates} candidates of {options.seconds:g} s, acoustic, {options.workers} workers; same bytes")
    for name in ways:
        both = ", ".join(f"{s:.1f} s ({c:.1f} s of CPU)" for s, c in zip(taken[name], worked[name], strict=True))
        print(f"  {name:4}: {both}")
    cpu = statistics.median(worked["ray"]) / statistics.median(worked["here"]) - 1
    print(f"  Ray over here: {there / here - 1:+.1%} (wanted: at most {WANTED:.0%}), {cpu:+.1%} of CPU")
    print(f"  cluster: {start:.1f} s to start, {end:.1f} s to end; with both: {(there + start + end) / here - 1:+.1%}")


def cpu_seconds() -> float:
    """CPU seconds of this process and all that it started, those that have ended included."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            spent = process.cpu_times()
            total += spent.user + spent.system + spent.children_user + spent.children_system
    return total


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def score(rows: list[dict[str, object]], settings: Settings, make_renderer: MakeRenderer) -> tuple[float, bytes]:
    """Seconds, and the scored rows."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        replace_rows(workspace.vibes("SFT-Train"), rows)
        replace_rows(workspace.candidates, rows)
        started = time.perf_counter()
        run_scoring(settings, workspace, make_renderer=make_renderer)
        return time.perf_counter() - started, workspace.scored("SFT-Train").read_bytes()


if __name__ == "__main__":
    main()
