"""Measure the speed of the synthesizer: a table and one line of JSON.

    python benchmarks/render.py [--configs 40] [--seconds 30] [--no-processes]

48 kHz stereo; one thread unless a line says two. Nothing is kept from one render to the next but wavetables, and those
are emptied too. CPU seconds are those of all threads. The yardstick is a fixed loop of plain Python and of numpy, timed in
the same run, to compare machines and moments.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from stream import first_block

from latentscore import LAYERS, MusicConfig, random_config, render
from latentscore.synth import engine, score, signal, space
from latentscore.synth.context import RenderContext
from latentscore.synth.render import finish

RATE = 48_000
SEED = 20


def yardstick() -> float:
    """Seconds for a fixed amount of work like ours: passes over 30 s of stereo sound, and a plain loop."""
    begin = time.perf_counter()
    sound = np.linspace(-1, 1, 30 * RATE * 2, dtype=np.float32)
    for _ in range(8):
        sound = np.sin(sound * np.float32(1.1))
    total = 0
    for number in range(600_000):
        total += number & 7
    assert total
    return time.perf_counter() - begin


def empty_caches() -> None:
    """Wavetables are all that outlives a render."""
    signal.table.cache_clear()


def timed_render(config: MusicConfig, seconds: float, spent: dict[str, float]) -> float:
    """One render, in the steps of the engine, each step's seconds added to ``spent``; the seconds of the whole."""
    begin = last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        spent[name] += now - last
        last = now

    piece = score.compose(config, seconds, 0)
    frames = round(seconds * RATE)
    player = engine.Player(RenderContext(piece.piece, RATE), frames, engine.GROUPS)
    lap("score")
    for layer in LAYERS:
        for bar in (*piece.bars, piece.closing):
            player.add({layer: bar.get(layer, ())})
        lap(layer)
    mixed = np.empty((2, frames), np.float32)
    for at in range(0, frames, engine.MIX_FRAMES):
        size = min(engine.MIX_FRAMES, frames - at)
        player.move(at, size)
        player.mix_into(mixed, at, size)
    lap("pad's filter, echo, reverb, width")
    space.bus(mixed, config, RATE)
    lap("tone and drive")
    finish(mixed, RATE)
    lap("loudness and limiter")
    return time.perf_counter() - begin


def whole_render(config: MusicConfig, seconds: float, threads: int) -> tuple[float, float]:
    """Seconds on the clock and seconds of work: on a machine that is busy with other things they differ."""
    empty_caches()
    begin, work = time.perf_counter(), time.process_time()
    render(config, seconds, 0, RATE, threads=threads)
    return time.perf_counter() - begin, time.process_time() - work


def throughput(work: str) -> tuple[float, float]:
    """How much faster two processes get through ``work`` each than one: (alone, both) in seconds."""
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import render; render.{work}()"

    def run(count: int) -> float:
        workers = [
            subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        for worker in workers:  # each says when it is warm
            assert worker.stdout is not None
            worker.stdout.readline()
        begin = time.perf_counter()
        for worker in workers:
            worker.communicate("go\n")
        return time.perf_counter() - begin

    return run(1), run(2)


def worker_renders() -> None:
    configs = [random_config(np.random.default_rng([SEED, n])).to_config() for n in range(12)]
    for config in configs:
        render(config, 0.6, 0, RATE, threads=1)
    print("ready", flush=True)
    sys.stdin.readline()
    for config in configs:
        render(config, 30.0, 0, RATE, threads=1)


def worker_yardsticks() -> None:
    yardstick()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(12):
        yardstick()


def compiled_anew() -> tuple[float, float]:
    """Seconds on the clock and of work for the first clip of 10 s on a machine: everything is compiled."""
    # Only the work of a process that was waited for is counted: also that of the second one, which compiles the room.
    program = (
        "from latentscore import MusicConfig, compiling, render; render(MusicConfig(), 10.0); "
        "beside = compiling._Announcer.beside; beside and beside.wait()"
    )
    with tempfile.TemporaryDirectory() as folder:
        begin, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        subprocess.run([sys.executable, "-c", program], check=True, env=environment, stderr=subprocess.DEVNULL)
        clock, now = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def print_limits(configs: Sequence[MusicConfig], processes: bool) -> dict[str, float]:
    """Measure what has a limit, and print it beside that; seconds by name, on the clock and (``_cpu``) of work."""
    found = {
        "clip of 10 s, two threads": (0.060, np.mean([whole_render(config, 10.0, 2) for config in configs], axis=0)),
        "first block of a stream": (0.150, np.median([first_block(config) for config in configs], axis=0)),
    }
    if processes:
        found["first clip on a machine"] = (8.0, np.array(compiled_anew()))
    for name, (limit, (clock, work)) in found.items():
        holds = "holds" if clock < limit else "holds in CPU time" if work < limit else "does not hold"
        print(f"{name:26} {clock:8.3f} s, {work:.3f} s of CPU, limit {limit:g} s: {holds}")
    return {
        f"{name}{suffix}": round(float(value), 4)
        for name, (_, both) in found.items() for suffix, value in zip(("", "_cpu"), both, strict=True)
    }  # fmt: skip


def cold_start() -> float:
    """Seconds of a new process that renders one clip of 10 s, with the compiled loops on disk."""
    begin = time.perf_counter()
    program = "from latentscore import MusicConfig, render; render(MusicConfig(), 10.0)"
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--no-processes", action="store_true", help="leave out compiling, cold start and two processes")
    arguments = parser.parse_args()

    configs = [random_config(np.random.default_rng([SEED, n])).to_config() for n in range(arguments.configs)]
    for config in configs:  # compile, outside the measurement
        render(config, 0.6, 0, RATE)
    spent: dict[str, float] = defaultdict(float)
    whole, work, sticks, beside = [], [], [], []
    for config in configs:
        clock, cpu = whole_render(config, arguments.seconds, 1)
        whole.append(clock)
        work.append(cpu)
        beside.append(whole_render(config, arguments.seconds, 2))
        sticks.append(yardstick())
    two_threads, two_threads_cpu = (float(mean) for mean in np.mean(beside, axis=0))
    for config in configs:
        empty_caches()
        timed_render(config, arguments.seconds, spent)

    count, mean = len(configs), float(np.mean(whole))
    result = {
        "configs": count, "seconds": arguments.seconds, "mean_s": round(mean, 4), "median_s": round(float(np.median(whole)), 4),
        "worst_s": round(max(whole), 4), "cpu_mean_s": round(float(np.mean(work)), 4), "times_real_time": round(arguments.seconds / mean, 1),
        "two_threads_mean_s": round(two_threads, 4), "two_threads_cpu_mean_s": round(two_threads_cpu, 4),
        "two_threads_gain": round(mean / two_threads, 2),
        "yardstick_s": round(float(np.mean(sticks)), 4), "mean_over_yardstick": round(mean / float(np.mean(sticks)), 3),
        "load": os.getloadavg()[0], "layers_ms": {name: round(1000 * s / count, 1) for name, s in spent.items()},
    }  # fmt: skip
    print(f"{'step':22} {'ms':>8} {'x real time':>12}")
    for name, total in spent.items():
        print(f"{name:22} {1000 * total / count:8.1f} {arguments.seconds * count / total:12.0f}")
    print(f"{'whole render':22} {1000 * mean:8.1f} {arguments.seconds / mean:12.0f}")
    print(f"{'its work (CPU)':22} {1000 * float(np.mean(work)):8.1f}")
    print(f"{'with two threads':22} {1000 * two_threads:8.1f} {arguments.seconds / two_threads:12.0f}")
    print(f"{'its work (CPU)':22} {1000 * two_threads_cpu:8.1f}")
    print(f"{'yardstick':22} {1000 * float(np.mean(sticks)):8.1f}")
    result |= print_limits(configs, not arguments.no_processes)
    if not arguments.no_processes:
        alone, both = throughput("worker_renders")
        stick_alone, stick_both = throughput("worker_yardsticks")
        result |= {
            "cold_start_s": round(cold_start(), 2), "two_processes_gain": round(2 * alone / both, 2),
            "two_yardsticks_gain": round(2 * stick_alone / stick_both, 2),
            "gain_share": round((alone / both) / (stick_alone / stick_both), 3),
        }  # fmt: skip
        print(f"cold start, 10 s clip  {result['cold_start_s']:8.2f} s")
        print(
            f"two processes          {result['two_processes_gain']:8.2f} times one; yardsticks {result['two_yardsticks_gain']}"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
