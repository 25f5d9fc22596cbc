"""How soon the studio sounds, and what it holds: in headless Chromium on a warm server of this machine.

    python benchmarks/studio.py [--renders 500]

Prints the median and the worst of Enter to first audible sample (target: 1 s with the offline model), of a control to the
changed sound being ready for its bar line, and the server's memory before and after that many renders.
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
    e.player.onchange = () => { before(); e.player.onchange = before; done((performance.now() - begun) / 1000); };
    box.value = value;
    box.dispatchEvent(new Event('input', { bubbles: true }));
    setTimeout(() => done(NaN), 30000);
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
            changes = []
            for number in range(TRIES):
                changes.append(float(page.evaluate(CHANGED, [KNOBS[number % 3], str(number % 5)])))
                page.wait_for_timeout(200)
            shown("control to changed sound, ready", changes)
        before = memory(studio)
        took = render_many(studio, options.renders)
        print(
            f"{options.renders} renders of 10 s{'':14} {took:.0f} s; memory {before:.0f} MB before, {memory(studio):.0f} MB after"
        )


if __name__ == "__main__":
    main()
