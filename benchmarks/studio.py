"""Measure the studio in headless Chromium: time to the first sound, and memory. The server is warm and on this machine.

    python benchmarks/studio.py [--renders 500]

Prints the median and the worst of Enter to first audible sample (target: 1 s with the offline model), of a control to the
changed samples being scheduled (target: 0.3 s), of what they then wait for their bar line, of a control to the whole piece in
their place, and the server's memory before and after that many renders.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / "src"), str(REPO / "tests")]

from factories import make_config  # noqa: E402
from latentscore.labels import FIELDS  # noqa: E402
from studio_server import StudioProcess, open_browser, open_studio, run_studio  # noqa: E402

TRIES = 9
VIBES = ("slow rain", "a bright morning", "neon at midnight", "an empty church", "harbour fog", "kites", "first snow",
         "the last tram home", "a storm far away")  # fmt: skip

KNOBS = ("brightness", "motion", "echo")
"""Fields with five labels, turned so that every config is a new one."""

FIRST_SOUND = """async () => {
  const e = await import('/static/engine.js');
  const begun = performance.now();
  document.querySelector('#vibe').dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));
  for (;;) {
    await new Promise((next) => setTimeout(next, 2));
    if (e.player.playing && e.hear().level > 0.0005) return (performance.now() - begun) / 1000;
    if (performance.now() - begun > 30000) return NaN;
  }
}"""

CHANGED = """async ([field, value]) => {
  const e = await import('/static/engine.js');
  const before = e.player.onchange, begun = performance.now();
  const box = document.querySelector(`#field-${field}`);
  return await new Promise((done) => {
    let ready = 0, waits = 0;
    e.player.onchange = () => {
      before();
      const now = (performance.now() - begun) / 1000;
      if (!ready) { ready = now; waits = e.heardIn(); return; }
      e.player.onchange = before;
      done([ready, waits, now]);
    };
    box.value = value;
    box.dispatchEvent(new Event('input', { bubbles: true }));
    setTimeout(() => done([ready, waits, NaN]), 15000);
  });
}"""


def first_sound(page: Any, vibe: str) -> float:
    """Seconds from Enter to the first sample that can be heard, from silence."""
    page.evaluate("async () => { const e = await import('/static/engine.js'); e.pause(); }")
    page.wait_for_timeout(400)
    page.fill("#vibe", vibe)
    seconds = float(page.evaluate(FIRST_SOUND))
    page.wait_for_timeout(300)
    return seconds


def memory(studio: StudioProcess) -> float:
    """Megabytes of the server and its workers: what is theirs alone."""
    parent = psutil.Process(studio.process.pid)
    return sum(process.memory_full_info().uss for process in (parent, *parent.children(recursive=True))) / 2**20


def render_many(studio: StudioProcess, count: int) -> float:
    """Seconds for so many different sounds of 10 s."""
    started = time.monotonic()
    for number in range(count):
        config = make_config(tempo=FIELDS["tempo"].labels[number % 5], pad=FIELDS["pad"].labels[number % 7])
        status, _, _ = studio.ask("/api/sound", {"config": config, "seed": number, "seconds": 10.0, "format": "pcm"})
        assert status == 200
    return time.monotonic() - started


def shown(name: str, seconds: list[float]) -> None:
    print(f"{name:34} median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s of {len(seconds)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--renders", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, run_studio(Path(folder)) as studio, open_browser() as browser:
        with open_studio(browser, studio) as page:
            first_sound(page, "warm up")
            shown("Enter to first audible sample", [first_sound(page, vibe) for vibe in VIBES[:TRIES]])
            changes: list[list[float]] = []
            for number in range(TRIES):
                page.evaluate("async () => { const e = await import('/static/engine.js'); e.seek(10); }")
                page.wait_for_timeout(400)
                changes.append(page.evaluate(CHANGED, [KNOBS[number % 3], str(number % 5)]))
            ready, waits, whole = (list(some) for some in zip(*changes, strict=True))
            shown("control to changed samples, ready", ready)
            shown("  then waiting for the bar line", waits)
            shown("control to the whole piece", whole)
        before = memory(studio)
        took = render_many(studio, options.renders)
        print(
            f"{options.renders} renders of 10 s{'':14} {took:.0f} s; memory {before:.0f} MB before, {memory(studio):.0f} MB after"
        )


if __name__ == "__main__":
    main()
