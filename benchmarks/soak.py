"""Send 20,000 rows at N = 1 through ``configs --only generate`` to a server that fails from time to time.

    python benchmarks/soak.py [--rows 20000]

Memory at the end must be at most 50 MB above that at a quarter of the way, and the number of open files flat. Prints one
JSON line; exits 1 when it does not hold. Takes several minutes; not part of the tests.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from _measure import ENVIRONMENT, REPO, configs_command, write_vibes

sys.path.insert(0, str(REPO / "tests"))
from servers import ChatServer, Faults, config_reply

MEMORY_MB = 50
FILES = 8


def done(root: Path) -> int:
    path = root / ".processed" / "candidates.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    given = parser.parse_args()
    faults = Faults(dict.fromkeys(("500", "close", "malformed", "truncated", "empty", "wrong-schema"), 0.01))
    with (
        tempfile.TemporaryDirectory() as folder,
        ChatServer(config_reply(), faults=faults, delay_seconds=0.02) as server,
    ):
        root = Path(folder) / "a workspace ünder test"
        write_vibes(root, given.rows)
        command = configs_command(root, server.url, "--n", "1", "--max-concurrency", "64")
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        watched = psutil.Process(process.pid)
        samples: list[tuple[int, float, int]] = []
        started = time.monotonic()
        while process.poll() is None:
            server.received.clear()  # what the server remembers is not what is measured
            try:
                samples.append((done(root), watched.memory_info().rss / 1e6, watched.num_fds()))
            except psutil.Error:
                break
            time.sleep(1)
        rows = done(root)
    quarter = next(sample for sample in samples if sample[0] >= given.rows / 4)
    last = samples[-1]
    figures = {
        "benchmark": "soak",
        "rows": rows,
        "seconds": round(time.monotonic() - started, 1),
        "exit_code": process.returncode,
        "memory_mb": {"quarter": round(quarter[1], 1), "end": round(last[1], 1)},
        "open_files": {"quarter": quarter[2], "end": last[2]},
    }
    print(json.dumps(figures))
    grew = last[1] - quarter[1] > MEMORY_MB or last[2] - quarter[2] > FILES
    sys.exit(1 if grew or process.returncode not in (0, 1) else 0)


if __name__ == "__main__":
    main()
