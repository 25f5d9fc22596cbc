"""Time and memory of the step after extraction (read, near-duplicates, splits, noise, write); one JSON line.

python benchmarks/arrange.py --rows 100000
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from latentscore.embed import WordVectorEmbedder
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.settings import DedupeSettings, NoiseSettings, SplitsSettings, VibesSettings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.extraction import extracted_rows
from latentscore_data.core.vibes.curation import arrange

WORDS = 5000


def answers(texts: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Lines of ``extracted.jsonl``: one ladder per text, made of words with a natural spread of frequencies."""
    words = ["".join(chr(97 + int(c)) for c in rng.integers(26, size=rng.integers(3, 10))) for _ in range(WORDS)]

    def text(count: int) -> str:
        return " ".join(words[min(int(i), WORDS - 1)] for i in rng.zipf(1.3, size=count))

    for number in range(texts):
        ladder = {"xl": text(45), "lg": text(35), "m": text(18), "sm": text(8), "xs": text(3)}
        vibe = {"vibe_index": 0, "text_page": 0, "characters": [], "scene_vibes": [ladder], "tags": ["sea"]}
        yield {
            "source_id": f"made:{number}",
            "dataset": "made",
            "id_in_dataset": str(number),
            "pages": 1,
            "vibe_model": "made/up",
            "vibes": [vibe],
            "input_fingerprint": "same",
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    texts = options.rows // 5
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        replace_rows(workspace.extracted, answers(texts, np.random.default_rng(0)))
        wanted = {f"made:{number}": "same" for number in range(texts)}
        started, cpu = time.perf_counter(), time.process_time()
        result = arrange(
            lambda: extracted_rows(workspace.extracted, wanted, VibesSettings()),
            workspace,
            WordVectorEmbedder(),
            dedupe=DedupeSettings(),
            splits=SplitsSettings(),
            noise=NoiseSettings(),
        )
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(
        json.dumps(
            {
                "benchmark": "arrange",
                "rows_in": result.rows_in,
                "rows_out": sum(result.rows.values()),
                "near_duplicates": result.near_duplicates,
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu_seconds, 1),
                "peak_bytes": peak,
            }
        )
    )


if __name__ == "__main__":
    main()
