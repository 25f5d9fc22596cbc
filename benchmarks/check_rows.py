"""Measure time and memory of ``lsdata check`` on many rows: ``python benchmarks/check_rows.py --rows 100000``."""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from latentscore.config import random_config
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.workspace import Workspace

SHARES = {"SFT-Train": 0.55, "SFT-Val": 0.05, "GRPO": 0.25, "TEST": 0.15}


def words() -> list[str]:
    text = (Path(__file__).resolve().parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    return sorted({word.lower() for word in text.split() if word.isalpha()})


def write_rows(workspace: Workspace, count: int, candidates: int) -> None:
    rng, draw, known = random.Random(0), np.random.default_rng(0), words()

    def row(number: int, split: str) -> dict:
        answers = [
            {
                "thinking": "",
                "title": "A Title",
                "config": random_config(draw).model_dump(),
                "palettes": [
                    {"colors": [{"hex": f"#{rng.randrange(1 << 24):06x}", "weight": "md"} for _ in range(5)]}
                    for _ in range(3)
                ],
            }
            for _ in range(candidates)
        ]
        scores = [rng.random() for _ in answers]
        best = scores.index(max(scores))
        return {
            "row_id": f"texts:{number}:0:scene:0:m",
            "dataset": "texts",
            "id_in_dataset": str(number // 5),
            "vibe_original": " ".join(rng.choices(known, k=8)),
            "vibe_model": "some/model",
            "config_model": "some/model",
            "split": split,
            "config_candidates": answers,
            "candidate_scores": {"acoustic": scores},
            "best_index": best,
            "config_payload": answers[best],
        }

    number = 0
    for split, share in SHARES.items():
        size = round(share * count)
        replace_rows(workspace.scored(split), (row(number + i, split) for i in range(size)))
        number += size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Workspace(Path(folder)), options.rows, options.candidates)
        started = time.perf_counter()
        command = [sys.executable, "-m", "latentscore_data.cli", "check", "--root", folder, "--json"]
        code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{options.rows:,} rows x {options.candidates} candidates: {time.perf_counter() - started:.1f} s, "
            f"CPU {used.ru_utime + used.ru_stime:.1f} s, {used.ru_maxrss / 1024:.0f} MB, exit {code}"
        )


if __name__ == "__main__":
    main()
