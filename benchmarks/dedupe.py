"""Measure time and memory of near-duplicates and farthest-point sampling; one JSON line.

Every result is checked: against the plain greedy loop on a part, and against rows whose duplicates are known.

    python benchmarks/dedupe.py            10,000 rows
    python benchmarks/dedupe.py --rows 100000
    python benchmarks/dedupe.py --rows 100000 --exact-up-to 0      with the index, compared with the copies that are known
    python benchmarks/dedupe.py --rows 1000000
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import time

import numpy as np

from latentscore_data.core.vibes.dedupe import farthest_points, first_of_each, near_duplicates

DIM = 384
THRESHOLD = 0.95


def rows_with_duplicates(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows of which every fifth is a near copy (cosine about 0.98) of an earlier one, and which those are."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    copies = np.arange(4, count, 5)
    originals = rng.integers(0, copies // 5 + 1) * 5
    slips = rng.standard_normal((len(copies), DIM), dtype=np.float32) * (0.2 / DIM**0.5)
    vectors[copies] = vectors[originals] + slips
    vectors[copies] /= np.linalg.norm(vectors[copies], axis=1, keepdims=True)
    is_copy = np.zeros(count, dtype=bool)
    is_copy[copies] = True
    return vectors, is_copy


def plain_greedy(vectors: np.ndarray) -> np.ndarray:
    kept: list[int] = []
    for i, vector in enumerate(vectors):
        if not kept or float((vectors[kept] @ vector).max()) < THRESHOLD:
            kept.append(i)
    stays = np.zeros(len(vectors), dtype=bool)
    stays[kept] = True
    return stays


def largest_slip(vectors: np.ndarray, chosen: list[int]) -> float:
    """By how much (cosine) a chosen row ever was nearer to those before it than the best choice of the plain loop.

    Sums in another order differ in the last bits, so that a tie may fall otherwise; more than that would be an error.
    """
    nearest = vectors @ vectors.mean(axis=0)
    worst = float(nearest[chosen[0]] - nearest.min())
    nearest = vectors @ vectors[chosen[0]]
    nearest[chosen[0]] = np.inf
    for at in chosen[1:]:
        worst = max(worst, float(nearest[at] - nearest.min()))
        np.maximum(nearest, vectors @ vectors[at], out=nearest)
        nearest[at] = np.inf
    return worst


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exact-up-to", type=int, default=100_000)
    options = parser.parse_args()

    vectors, is_copy = rows_with_duplicates(options.rows, options.seed)
    first_of_each(vectors[:2000], THRESHOLD)  # the first product starts BLAS's threads
    started, cpu = time.perf_counter(), time.process_time()
    found = near_duplicates(vectors, THRESHOLD, options.exact_up_to)
    stays = found.stays
    dedupe_seconds, dedupe_cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = peak_bytes()

    part = vectors[: min(options.rows, 3000)]
    same_as_plain = bool(np.array_equal(stays[: len(part)], plain_greedy(part)))
    points = vectors[:10_000]
    wanted = len(points) // 4
    started, cpu = time.perf_counter(), time.process_time()
    chosen = farthest_points(points, wanted)
    farthest_seconds, farthest_cpu = time.perf_counter() - started, time.process_time() - cpu
    slip = largest_slip(points, chosen)
    result = {
        "benchmark": "dedupe",
        "rows": options.rows,
        "dim": DIM,
        "dedupe_seconds": round(dedupe_seconds, 3),
        "dedupe_cpu_seconds": round(dedupe_cpu, 3),
        "dropped": int((~stays).sum()),
        "method": found.method,
        "recall": found.recall,
        "recall_near_duplicates": found.sampled,
        "same_as_known": round(float((~stays == is_copy).mean()), 6),
        "decisions": hashlib.sha256(stays.tobytes()).hexdigest()[:16],
        "same_as_plain_greedy": same_as_plain,
        "peak_bytes": peak,
        "farthest_rows": len(points),
        "farthest_wanted": wanted,
        "farthest_seconds": round(farthest_seconds, 3),
        "farthest_cpu_seconds": round(farthest_cpu, 3),
        "farthest_largest_slip": slip,
    }
    print(json.dumps(result))
    same = (
        result["same_as_known"] == 1.0 and same_as_plain if found.method == "exact" else result["same_as_known"] >= 0.99
    )
    if not (same and slip < 1e-5 and len(set(chosen)) == wanted):
        sys.exit("the result is not that of the plain definition")


if __name__ == "__main__":
    main()
