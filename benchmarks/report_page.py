"""Time the report with 200 vibes and 6 sources: from navigation to the first filtered search, in headless Chromium.

    python benchmarks/report_page.py

Prints the size of the HTML and the median of five fresh browsers. Target: under 5 MB and under 2 s on two cores.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / "src"), str(REPO / "tests")]

from bench_fakes import make_result, make_rows, noise  # noqa: E402
from browsing import open_page  # noqa: E402
from latentscore.seeds import unit_hash  # noqa: E402
from latentscore_data.core.bench.report import render_report  # noqa: E402
from latentscore_data.core.bench.summary import RunFacts, SourceFacts, summarise  # noqa: E402
from latentscore_data.core.generators.simple import RandomGenerator  # noqa: E402
from latentscore_data.core.scoring.clips import ALPHABET, PEAKS  # noqa: E402

DOCUMENTS, PER_DOCUMENT, SOURCES, TRIES = 40, 5, 6, 5

SEARCH = """(text) => {
  const box = document.getElementById("search");
  box.value = text;
  box.dispatchEvent(new Event("input", { bubbles: true }));
  return new Promise((done) => requestAnimationFrame(() => setTimeout(() =>
    done([performance.now() / 1000, document.getElementById("count").textContent]))));
}"""


def write_page(folder: Path) -> Path:
    """The page of a made-up run: as many texts, configs, palettes and waveforms as a real one, all different."""
    facts = RunFacts(
        name="speed",
        title="TEST rows",
        created="2026-01-01T00:00+00:00",
        sources=[SourceFacts(f"source {s}", "baseline", "random") for s in range(SOURCES)],
        scorers=["acoustic"],
        baseline="source 0",
        seconds=10.0,
        seed=0,
    )
    rows = make_rows(DOCUMENTS, PER_DOCUMENT)
    samples = []
    for source in facts.sources:
        for row, answer in zip(rows, RandomGenerator("r", 0).generate(rows), strict=True):
            peaks = "".join(ALPHABET[int(unit_hash(row.row_id, source.label, i) * 64)] for i in range(PEAKS))
            payload = {**(answer.payload or {}), "thinking": "A slow and careful thought. " * 16}
            changes = {"config_payload": payload, "peaks": peaks, "audio_file": f"audio/{peaks[:16]}.mp3"}
            changes["vibe_original"] = f"{row.vibe_original}: " + "rain over the harbour, slow and grey. " * 4
            score = noise(row.row_id, source.label)
            changes["scores"], changes["shuffled_scores"] = (
                {"acoustic": {"final_score": score}},
                {"acoustic": score - 0.5},
            )
            samples.append(make_result(row, source.label, score, **changes))
    return render_report(summarise(samples, facts), samples, folder / "audio", folder / "report.html")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_page(Path(folder))
        times = []
        for _ in range(TRIES):
            with open_page(path) as page:
                seconds, count = page.evaluate(SEARCH, "number 17,")
                assert count == f"{PER_DOCUMENT} of {DOCUMENTS * PER_DOCUMENT}", count
                times.append(seconds)
        print(f"html_mb={path.stat().st_size / 1e6:.2f}")
        print("seconds_each=" + " ".join(f"{t:.2f}" for t in times))
        print(f"navigation_to_first_search_seconds={statistics.median(times):.2f}")


if __name__ == "__main__":
    main()
