"""Measure time and memory of ``lsdata configs`` in a workspace whose rows are all done; one JSON line.

    python benchmarks/done_rows.py --rows 100000
    python benchmarks/done_rows.py --rows 100000 --new 1     one more vibe than there are candidates

The workspace is written by this script: candidates and scores are made up, their fingerprints are those of a real run.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from latentscore.config import random_config
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.manifest import write_manifest
from latentscore_data.core.base.rows import SPLITS, ConfigRow, Split, VibeRow
from latentscore_data.core.base.settings import load_settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.configs.candidate_generation import fingerprint
from latentscore_data.core.llm.answerers import version_of
from latentscore_data.core.scoring.best_of import score_files, scoring_job
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorers
from latentscore_data.core.scoring.service import ScoringService
from latentscore_data.core.stages.configs import generate_files

SHARES: dict[Split, float] = {"SFT-Train": 0.55, "SFT-Val": 0.05, "GRPO": 0.25, "TEST": 0.15}
POOL = 2000
"""Payloads that the rows draw their candidates from."""


def payloads() -> list[dict[str, Any]]:
    rng, draw = random.Random(0), np.random.default_rng(0)

    def palette() -> dict[str, Any]:
        return {"colors": [{"hex": f"#{rng.randrange(1 << 24):06x}", "weight": "md"} for _ in range(5)]}

    return [
        {
            "thinking": "The vibe is damp and slow, so the pulse is faint, the room is large and the light is low. "
            * 3,
            "title": f"Rain On A Tin Roof {number}",
            "config": random_config(draw).model_dump(),
            "palettes": [palette() for _ in range(3)],
        }
        for number in range(POOL)
    ]


class Maker:
    """Lines of the workspace's files, row by row, without holding them."""

    def __init__(self, workspace: Workspace, candidates: int) -> None:
        self.settings = load_settings(
            paths={"root": workspace.root}, configs={"n": candidates}, scoring={"scorers": ["acoustic"]}
        )
        self.workspace = workspace
        self.version = version_of(self.settings.model_of("configs"), workspace.train_dir)
        self.pool = payloads()

    def vibes(self, split: Split, start: int, count: int) -> Iterator[VibeRow]:
        for number in range(start, start + count):
            yield VibeRow(
                row_id=f"made:{number // 5}:0:scene:0:{number % 5}",
                dataset="made",
                id_in_dataset=str(number // 5),
                vibe_index=0,
                vibe_scope="scene",
                vibe_level="m",
                vibe_original=f"a damp november street, the lamps of house {number} just lit",
                tags_original=["rain", "street"],
                split=split,
            )

    def candidates(self, row: VibeRow) -> dict[str, Any]:
        number = int(row.id_in_dataset)
        count = self.settings.configs.n
        found = [self.pool[(number * 7 + at * 13) % POOL] for at in range(count)]
        return {
            **row.model_dump(mode="json", exclude_unset=True),
            "config_model": self.settings.model_of("configs"),
            "config_candidates": found,
            "validation_scores": {name: [1.0] * count for name in ("format_valid", "schema_valid", "palette_valid")},
            "config_error": None,
            "input_fingerprint": fingerprint(row, self.version, self.settings.configs),
        }

    def write(self, rows: int, new: int) -> None:
        workspace, settings = self.workspace, self.settings
        sizes = {split: round(rows * share) for split, share in SHARES.items()}
        starts = {split: sum(list(sizes.values())[:at]) for at, split in enumerate(SPLITS)}
        for split in SPLITS:
            replace_rows(workspace.vibes(split), self.vibes(split, starts[split], sizes[split]))
        every = (row for split in SPLITS for row in self.vibes(split, starts[split], sizes[split]))
        replace_rows(workspace.candidates, map(self.candidates, every))
        scorers = make_scorers(ScorerDeps(settings.scoring, settings.llm))
        with ScoringService(scorers, settings.scoring) as service:
            job = scoring_job(service, settings.scoring)

            def scored(row: VibeRow) -> dict[str, Any]:
                line = self.candidates(row)
                scores = [
                    round(0.3 + (int(row.id_in_dataset) * 31 + at * 7) % 50 / 100, 3)
                    for at in range(settings.configs.n)
                ]
                best = scores.index(max(scores))
                return {
                    **line,
                    "candidate_scores": {"acoustic": scores},
                    "scores_external": {"acoustic": {"final_score": scores[best], "words": 3, "fingerprint": "made"}},
                    "best_index": best,
                    "config_payload": line["config_candidates"][best],
                    "input_fingerprint": job.fingerprint(ConfigRow.model_validate(line)),
                }

            for split in SPLITS:
                replace_rows(workspace.scored(split), map(scored, self.vibes(split, starts[split], sizes[split])))
        done = Summary("configs", done=rows)
        done.details = {"scorers": ["acoustic"], "converted": {}}
        write_manifest(generate_files(settings, workspace), workspace.root, [workspace.candidates], done)
        write_manifest(score_files(settings, workspace), workspace.root, workspace.scored_files(), done)
        if new:
            more = self.vibes("SFT-Train", rows, new)
            with workspace.vibes("SFT-Train").open("a") as out:
                out.writelines(row.model_dump_json(exclude_unset=True) + "\n" for row in more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--new", type=int, default=0)
    parser.add_argument("--root", type=Path, help="Keep the workspace here; one that is there is used as it is.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or Path(folder)
        if not (root / ".processed").exists():
            Maker(Workspace(root), options.candidates).write(options.rows, options.new)
        command = [sys.executable, "-m", "latentscore_data", "configs", "--root", str(root), "--scorer", "acoustic"]
        command += ["--n", str(options.candidates), "--json"]
        started = time.perf_counter()
        ran = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        if ran.returncode:
            sys.exit(f"configs ended with {ran.returncode}:\n{ran.stderr[-3000:]}")
        summary = json.loads(ran.stdout)
        report = {
            "benchmark": "done_rows",
            "rows": options.rows,
            "candidates_bytes": Workspace(root).candidates.stat().st_size,
            "skipped": summary["skipped"],
            "done": summary["done"],
            "seconds": round(seconds, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        }
        print(json.dumps(report))


if __name__ == "__main__":
    main()
