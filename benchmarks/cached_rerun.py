"""Time a second run of ``lsdata configs --only generate`` without its outputs: 1000 rows of 2 candidates from the cache.

Seconds of the whole process, start-up included, and whether it imported litellm or scipy. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from _measure import ENVIRONMENT, chat_server, configs_command, stats, timed, write_vibes

HEAVY = ("litellm", "scipy", "torch", "transformers", "numba")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    given = parser.parse_args()
    with chat_server("--delay", "0.0") as url, tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_vibes(root, given.rows)
        command = configs_command(root, url, "--n", "2", "--max-concurrency", "64", model="hosted_vllm/bench")
        timed(command)
        first = stats(url)["requests"]
        shutil.rmtree(root / ".processed")
        cpu, wall = timed(command)
        again = stats(url)["requests"] - first
        shutil.rmtree(root / ".processed")
        # Import times tell which modules a run has loaded.
        seen = subprocess.run(
            [sys.executable, "-X", "importtime", *command[1:]],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        loaded = {line.rsplit("|", 1)[-1].strip() for line in seen.splitlines()}
    result = {
        "benchmark": "cached_rerun",
        "rows": given.rows,
        "candidates": 2,
        "calls_first": first,
        "calls_again": again,
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "heavy_imports": [name for name in HEAVY if name in loaded],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
