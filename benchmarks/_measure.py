"""Shared by the benchmarks: a loopback server in its own process, rows to ask about, the CPU time of a child process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPO / "src"), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "CI": "true"}


@contextlib.contextmanager
def chat_server(*options: str) -> Iterator[str]:
    """The address of a chat-completions server (see ``tests/servers.py``)."""
    command = [sys.executable, str(REPO / "tests" / "servers.py"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def stats(url: str, **query: float) -> dict[str, Any]:
    """What the server has seen so far."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/stats?{asked}") as answer:
        return json.load(answer)


def write_vibes(root: Path, count: int) -> None:
    """Vibe rows that are all different."""
    folder = root / ".vibes"
    folder.mkdir(parents=True)
    with (folder / "SFT-Train.jsonl").open("w") as out:
        for number in range(count):
            row = {
                "row_id": f"bench:{number}:0:scene:0:m",
                "dataset": "bench",
                "id_in_dataset": str(number),
                "vibe_level": "m",
                "vibe_original": f"a damp november street, the lamps of house {number} just lit",
                "tags_original": ["rain", "street"],
                "split": "SFT-Train",
            }
            out.write(json.dumps(row) + "\n")


def timed(command: Sequence[str]) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of a command that must succeed."""
    import time

    started = time.monotonic()
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{errors[-3000:]}")
    return used.ru_utime + used.ru_stime, time.monotonic() - started


def configs_command(root: Path, url: str, *options: str, model: str = "openai/bench") -> list[str]:
    """``lsdata configs --only generate`` against the server."""
    return [
        sys.executable,
        *("-m", "latentscore_data", "configs", "--root", str(root), "--only", "generate", "--quiet"),
        *("--model", model, "--api-base", url),
        *options,
    ]
