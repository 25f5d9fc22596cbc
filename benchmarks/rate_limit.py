"""Measure the adaptive rate limiter against a server that allows 50 requests/s (token bucket, burst 10) and takes 500 ms.

Beyond the rate it answers 429 with ``Retry-After: 1``. The first seconds are left out. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from _measure import chat_server, configs_command, stats, timed, write_vibes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--skip-seconds", type=float, default=10.0)
    given = parser.parse_args()
    limits = ("--delay", "0.5", "--rate", str(given.rate), "--burst", "10")
    with chat_server(*limits) as url, tempfile.TemporaryDirectory() as folder:
        write_vibes(Path(folder), given.requests)
        options = ("--n", "1", "--max-concurrency", "256")
        _, wall = timed(configs_command(Path(folder), url, *options, model="hosted_vllm/bench"))
        everything = stats(url)
        late = stats(url, skip_seconds=given.skip_seconds)
    done, refused = late["late_statuses"].get("200", 0), late["late_statuses"].get("429", 0)
    result = {
        "benchmark": "rate_limit",
        "requests": everything["statuses"]["200"],
        "refused": everything["statuses"].get("429", 0),
        "wall_seconds": round(wall, 1),
        "skipped_seconds": given.skip_seconds,
        "share_of_allowed_rate_used": round(done / late["late_seconds"] / given.rate, 3),
        "share_of_requests_refused": round(refused / (done + refused), 4),
        "most_in_flight": everything["most_in_flight"],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
