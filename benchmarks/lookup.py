"""Time to open a map of 10,000 rows and to answer from it: ``python benchmarks/lookup.py [ROWS]``."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import numpy as np  # noqa: E402

from latentscore import load_map  # noqa: E402
from latentscore.config import random_config  # noqa: E402
from latentscore.embed import WordVectorEmbedder  # noqa: E402
from latentscore_data.core.base.rows import ScoredRow  # noqa: E402
from latentscore_data.core.export.maps import write_map  # noqa: E402

DIM = 384
"""As MiniLM has."""
PALETTES = [{"colors": [{"hex": f"#{i:02X}88AA", "weight": "md"} for i in range(5)]}] * 3


def rows(count: int) -> Iterator[ScoredRow]:
    rng = np.random.default_rng(0)
    for i in range(count):
        payload = {"title": f"Title {i}", "config": random_config(rng).model_dump(), "palettes": PALETTES}
        yield ScoredRow(
            row_id=f"x:{i}",
            dataset="x",
            id_in_dataset=str(i),
            vibe_original=f"vibe {i} of a long evening by the sea",
            split="SFT-Train",
            config_payload=payload,
        )


def forget(folder: Path) -> None:
    """Ask the kernel to drop the files from memory, so that opening them reads the disk."""
    os.sync()
    for path in folder.iterdir():
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def milliseconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rng = np.random.default_rng(1)

    def vectors(batch: Any) -> Any:
        drawn = rng.standard_normal((len(batch), DIM)).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_map(folder, rows(count), "text", vectors, "benchmark")
        sizes = {path.name: path.stat().st_size / 2**20 for path in folder.iterdir()}
        print(f"{count} rows, {DIM} dimensions: " + ", ".join(f"{n} {s:.1f} MiB" for n, s in sorted(sizes.items())))

        opened, first = [], []
        for _ in range(5):
            if hasattr(os, "posix_fadvise"):
                forget(folder)
            opened.append(milliseconds(lambda: load_map(folder)))
            question, loaded = vectors([0])[0], load_map(folder)
            first.append(
                milliseconds(lambda question=question, loaded=loaded: loaded.nearest(question)[0].row["title"])
            )
        print(f"open from safetensors: {max(opened[1:]):.1f} ms (slowest of 4, not in memory; limit 300)")
        print(f"first answer: {median(first):.1f} ms (median of 5; reads the embeddings)")

        vibe_map = load_map(folder)
        times = [milliseconds(lambda q=q: vibe_map.nearest(q)[0].config) for q in vectors(range(200))]
        print(f"answer, once embedded: median {median(times):.2f} ms, slowest {max(times):.2f} ms of 200 (limit 20)")
        print(f"open from JSONL, for comparison: {milliseconds(lambda: load_map(folder / 'map.jsonl')):.0f} ms")
        embedder = WordVectorEmbedder()
        embedding = [milliseconds(lambda i=i: embedder.embed([f"rain on roof {i}"])) for i in range(50)]
        print(f"embedding a text with word vectors: median {median(embedding):.2f} ms")


if __name__ == "__main__":
    main()
