"""Measure Best-of-N with the acoustic scorer: candidates per second with one and two rendering processes.

    python benchmarks/scoring.py [--rows 200] [--candidates 5] [--seconds 10]
    python benchmarks/scoring.py --calibrate 300     # the table of typical descriptors in core/scoring/acoustic.py

The gain of two workers is compared with that of two yardstick processes (a fixed numeric loop) in the same run, because on a
shared machine two processes are rarely twice as fast as one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from latentscore import random_config, render
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.scoring import descriptors
from latentscore_data.core.scoring.best_of import run_scoring

VIBES = (
    "bright and fast",
    "slow dark ocean",
    "a vast empty cathedral",
    "rusty grinding machines",
    "calm rain at night",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--calibrate", type=int, metavar="CONFIGS")
    options = parser.parse_args()
    if options.calibrate:
        calibrate(options.calibrate)
        return
    rows = make_rows(options.rows, options.candidates)
    one_before, two_before = yardstick(1), yardstick(2)
    one = score(rows, 1, options.seconds)
    two = score(rows, 2, options.seconds)
    one_after, two_after = yardstick(1), yardstick(2)
    gain = one / two
    possible = statistics.mean((one_before / two_before, one_after / two_after))
    count = options.rows * options.candidates
    print(f"{options.rows} rows x {options.candidates} candidates of {options.seconds:g} s, acoustic")
    print(f"  1 worker : {one:6.1f} s, {count / one:6.2f} candidates per second")
    print(f"  2 workers: {two:6.1f} s, {count / two:6.2f} candidates per second")
    print(f"  gain {gain:.2f}; two yardstick processes gain {possible:.2f}; ratio {gain / possible:.2f} (wanted: 0.90)")


def make_rows(rows: int, candidates: int) -> list[dict[str, object]]:
    """Vibe rows with random candidates, all different."""
    rng = np.random.default_rng(0)
    palette = {"colors": [{"hex": f"#{i}{i}{i}{i}{i}{i}", "weight": "md"} for i in range(5)]}
    return [
        {
            "row_id": f"bench:{row}",
            "dataset": "bench",
            "id_in_dataset": str(row),
            "vibe_original": f"{VIBES[row % len(VIBES)]}, number {row}",
            "split": "SFT-Train",
            "config_candidates": [
                {"thinking": "", "title": "Bench", "config": random_config(rng).model_dump(), "palettes": [palette] * 3}
                for _ in range(candidates)
            ],
        }
        for row in range(rows)
    ]


def score(rows: list[dict[str, object]], workers: int, seconds: float) -> float:
    """Seconds that the whole of `configs --only score` takes in a fresh workspace, start-up of the processes included."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        replace_rows(workspace.candidates, rows)
        settings = Settings.model_validate(
            {"scoring": {"scorers": ["acoustic"], "seconds": seconds, "workers": workers}}
        )
        started = time.perf_counter()
        summary = run_scoring(settings, workspace)
        took = time.perf_counter() - started
    assert summary.done == len(rows), summary.to_dict()
    return took


def yardstick(processes: int, pieces: int = 240) -> float:
    """Seconds that so many processes take for a fixed amount of number crunching, shared among them."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        pool.map(crunch, range(processes))  # imports are not measured
        started = time.perf_counter()
        pool.map(crunch, range(pieces), chunksize=4)
        return time.perf_counter() - started


def crunch(seed: int) -> float:
    """About as much arithmetic per byte as rendering: transforms of a few seconds of sound."""
    noise = np.random.default_rng(seed).standard_normal(1 << 19)
    return float(np.abs(np.fft.irfft(np.fft.rfft(noise) * 0.5)).max())


def calibrate(count: int) -> None:
    """Mean and spread of each descriptor over random configs, as a table to paste."""
    rng = np.random.default_rng(0)
    table = np.array([descriptors.describe(render(random_config(rng), seconds=10, seed=0)) for _ in range(count)])
    for name, mean, spread in zip(descriptors.NAMES, table.mean(axis=0), table.std(axis=0), strict=True):
        print(f'    "{name}": ({mean:.3g}, {spread:.3g}),')


if __name__ == "__main__":
    main()
