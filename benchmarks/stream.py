"""Measure a stream: real-time factor, time to the first block, cost of a change, memory over a simulated hour.

    python benchmarks/stream.py [--configs 8] [--minutes 60] [--seconds 60]

One thread, 48 kHz stereo. Times are CPU seconds, so that a busy machine does not change them; the first block is given on
the clock as well. Memory is the resident set of a process of its own, above what it is once one short render has loaded the
compiled loops.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from latentscore import MusicConfig, random_config
from latentscore.synth import signal
from latentscore.synth.stream import predicted_lufs, stream

RATE = 48_000
SEED = 22


def configs(count: int) -> list[MusicConfig]:
    """Random configs, always the same."""
    return [random_config(np.random.default_rng([SEED, n])).to_config() for n in range(count)]


def empty_caches() -> None:
    """What outlives a stream: wavetables and predicted loudness."""
    signal.table.cache_clear()
    predicted_lufs.cache_clear()


def first_block(config: MusicConfig) -> tuple[float, float]:
    """Seconds to the first block of a stream in a warm process: on the clock, and of work."""
    empty_caches()
    begin, work = time.perf_counter(), time.thread_time()
    next(stream(config, 0, RATE))
    return time.perf_counter() - begin, time.thread_time() - work


def real_time_factor(config: MusicConfig, seconds: float) -> float:
    """How many seconds of sound one second of work makes."""
    playing = stream(config, 0, RATE)
    begin = time.thread_time()
    for _ in range(round(seconds)):
        playing.read(RATE)
    return seconds / (time.thread_time() - begin)


def cost_of_a_change(old: MusicConfig, new: MusicConfig) -> tuple[float, float]:
    """Seconds of work of ``update`` itself, and seconds of sound that one second of work makes while two pieces sound."""
    playing = stream(old, 0, RATE)
    playing.read(10 * RATE)
    empty_caches()
    begin = time.thread_time()
    playing.update(new, bars=4)
    update = time.thread_time() - begin
    begin = time.thread_time()
    playing.read(8 * RATE)
    return update, 8.0 / (time.thread_time() - begin)


def resident_mib() -> float:
    """The resident set of this process in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def hour(minutes: int) -> None:
    """Print MiB above import, after a short render, and after the first and the last minute of a stream."""
    before = resident_mib()
    config = configs(1)[0]
    next(stream(config, 0, 8_000))
    warm = resident_mib()
    playing = stream(config, 0, RATE)
    used = []
    for _ in range(minutes):
        for _ in range(60):
            playing.read(RATE)
        used.append(resident_mib())
    print(json.dumps({"loops_mib": warm - before, "first_mib": used[0] - warm, "last_mib": used[-1] - warm,
                      "most_mib": max(used) - warm}))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=int, default=8)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()

    chosen = configs(arguments.configs)
    for config in chosen:  # compile, outside the measurement
        stream(config, 0, RATE).read(3 * RATE)
    firsts = np.array([first_block(config) for config in chosen])
    factors = [real_time_factor(config, arguments.seconds) for config in chosen]
    changes = np.array([cost_of_a_change(*pair) for pair in zip(chosen, [*chosen[1:], chosen[0]], strict=True)])
    program = f"import runpy; runpy.run_path({str(Path(__file__))!r})['hour']({arguments.minutes})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    memory = json.loads(done.stdout)
    result = {
        "configs": len(chosen), "first_block_ms": round(1000 * float(np.median(firsts[:, 0]))),
        "first_block_cpu_ms": round(1000 * float(np.median(firsts[:, 1]))), "first_block_cpu_worst_ms": round(1000 * float(firsts[:, 1].max())),
        "real_time_factor": round(float(np.median(factors))), "real_time_factor_worst": round(min(factors)),
        "update_ms": round(1000 * float(np.median(changes[:, 0]))), "real_time_factor_in_a_cross_fade": round(float(np.median(changes[:, 1]))),
        "minutes": arguments.minutes, **{name: round(value, 1) for name, value in memory.items()},
    }  # fmt: skip
    for name, value in result.items():
        print(f"{name:34} {value:8}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
