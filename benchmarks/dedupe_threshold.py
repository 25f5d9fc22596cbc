"""Find the dedupe threshold of an embedder: cosines of pairs with the same meaning, and of pairs with another one.

    python benchmarks/dedupe_threshold.py [words] [minilm | FOLDER]

One line for each kind of pair: the cosine's minimum, 5 %, median, 95 % and maximum. The threshold should lie below the
kinds that differ in marks, articles or the order of words, and above typing slips and the wordings of one scene.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import numpy as np

from latentscore.embed import make_embedder
from latentscore_data.core.base.sample import sample_texts
from latentscore_data.core.bench.suites import suite_lines
from latentscore_data.core.vibes.excerpts import vibes_for
from latentscore_data.core.vibes.noise import mistyped


def pairs() -> dict[str, list[tuple[str, str]]]:
    rng = np.random.default_rng(0)
    vibes = [str(line["vibe"]) for suite in ("short", "controllability") for line in suite_lines(suite)]
    ladders = [ladder for text in sample_texts() for vibe in vibes_for(text.text).vibes for ladder in vibe.scene_vibes]
    listed = [vibe for vibe in vibes if ", " in vibe]
    return {
        "upper case": [(vibe, vibe.upper()) for vibe in vibes],
        "full stop": [(vibe, f"{vibe}.") for vibe in vibes],
        "article": [(vibe, f"the {vibe}") for vibe in vibes],
        "and for a comma": [(vibe, vibe.replace(",", " and", 1)) for vibe in listed],
        "order of words": [(vibe, ", ".join(vibe.split(", ")[::-1])) for vibe in listed],
        "typing slips": [(vibe, mistyped(vibe, rng)) for vibe in vibes],
        "one word less": [(vibe, vibe.rpartition(" ")[0]) for vibe in vibes if len(vibe.split()) > 4],
        "wordings of a scene": [
            pair for ladder in ladders for pair in combinations(dict.fromkeys(ladder.model_dump().values()), 2)
        ],
        "any two": [(vibes[i], vibes[j]) for i, j in rng.integers(0, len(vibes), (2000, 2)) if i != j],
    }


def main() -> None:
    for name in sys.argv[1:] or ["words"]:
        embedder = make_embedder(name)
        print(f"{embedder.fingerprint}: threshold {embedder.default_dedupe_threshold}")
        for kind, both in pairs().items():
            first, second = (embedder.embed([pair[side] for pair in both]) for side in (0, 1))
            spread = np.quantile((first * second).sum(axis=1), [0, 0.05, 0.5, 0.95, 1])
            print(f"  {kind:20} {len(both):5}  " + "  ".join(f"{value:.3f}" for value in spread))


if __name__ == "__main__":
    main()
