"""Check the starter set: labels per field, near-duplicate vibes, equal and close configs.

    python benchmarks/starter_coverage.py            a summary; exit status 1 if a promise is broken
    python benchmarks/starter_coverage.py --counts   every label with its count
    python benchmarks/starter_coverage.py --fill     after a new field: first write its default into every pair that lacks it

The promises stand in ``src/latentscore/starter/README.md``; ``tests/runtime/test_starter.py`` asserts them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from latentscore.config import MusicConfigPromptPayload, parse_payload  # noqa: E402
from latentscore.labels import FIELDS, Label  # noqa: E402

FOLDER = ROOT / "src" / "latentscore" / "starter"
LEAST_PER_LABEL = 5
NEAR_DUPLICATE = 0.5
"""Shared words over all words (Jaccard) from which two vibes count as one, function words left out."""
LEAST_FIELDS_APART = 8
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and as at before but by for from has he in into is it its of off on one or out over she that the their "
        "then they this to under until who with without you your",
    )
)

Pair = tuple[str, MusicConfigPromptPayload]


def load_pairs(folder: Path = FOLDER) -> list[Pair]:
    """Every (vibe, answer) of ``pairs*.jsonl``. Raises ``InvalidConfigError`` for an answer that does not fit."""
    pairs: list[Pair] = []
    for path in sorted(folder.glob("pairs*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row: dict[str, Any] = json.loads(line)
            pairs.append((row.pop("vibe"), parse_payload(row)))
    return pairs


def fill_defaults(folder: Path = FOLDER) -> int:
    """Write the default of each field that a pair lacks, and return the number of changed pairs."""
    defaults = {name: spec.nearest_label(spec.default) for name, spec in FIELDS.items()}
    changed = 0
    for path in sorted(folder.glob("pairs*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            changed += not set(defaults) <= set(row["config"])
            row["config"] = {name: row["config"].get(name, default) for name, default in defaults.items()}
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return changed


def label_counts(pairs: list[Pair]) -> dict[str, dict[Label, int]]:
    """For each field, how often each of its labels occurs, zero included."""
    counts: dict[str, dict[Label, int]] = {}
    for name, spec in FIELDS.items():
        found = Counter(getattr(payload.config, name) for _, payload in pairs)
        counts[name] = {label: found[label] for label in spec.labels}
    return counts


def near_duplicates(pairs: list[Pair]) -> list[tuple[float, str, str]]:
    """Pairs of vibes whose content words overlap by at least ``NEAR_DUPLICATE``, the closest first."""
    words = [(_content_words(vibe), vibe) for vibe, _ in pairs]
    found = [(_overlap(a, b), one, other) for (a, one), (b, other) in combinations(words, 2)]
    return sorted((pair for pair in found if pair[0] >= NEAR_DUPLICATE), reverse=True)


def _content_words(vibe: str) -> frozenset[str]:
    words = frozenset(re.findall(r"[^\W_]+", vibe.lower()))
    return words - _FUNCTION_WORDS or words


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


def close_configs(pairs: list[Pair], below: int = LEAST_FIELDS_APART) -> list[tuple[int, str, str]]:
    """Pairs of vibes whose configs differ in fewer than ``below`` fields, the closest first; 0 means equal."""
    configs = [(tuple(payload.config.model_dump().values()), vibe) for vibe, payload in pairs]
    found = [(sum(map(_differ, a, b)), one, other) for (a, one), (b, other) in combinations(configs, 2)]
    return sorted(pair for pair in found if pair[0] < below)


def _differ(a: Label, b: Label) -> bool:
    return a != b


def repeated(values: list[str]) -> list[str]:
    """The values that occur more than once, letter case ignored."""
    return sorted(value for value, count in Counter(value.casefold() for value in values).items() if count > 1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Coverage of the starter set.")
    parser.add_argument("--counts", action="store_true", help="print every label with its count")
    parser.add_argument("--fill", action="store_true", help="first write the default of each field that a pair lacks")
    options = parser.parse_args()

    if options.fill:
        print(f"{fill_defaults()} pairs changed")
    pairs = load_pairs()
    counts = label_counts(pairs)
    if options.counts:
        for name, labels in counts.items():
            print(f"{name}: " + ", ".join(f"{label} {count}" for label, count in labels.items()))
    uses = sorted((n, f"{name}={label}") for name, labels in counts.items() for label, n in labels.items())
    words = sorted(len(vibe.split()) for vibe, _ in pairs)
    findings = {
        f"labels with fewer than {LEAST_PER_LABEL} pairs": [use for use in uses if use[0] < LEAST_PER_LABEL],
        f"near-duplicate vibes (word overlap {NEAR_DUPLICATE} or more)": near_duplicates(pairs),
        f"configs with fewer than {LEAST_FIELDS_APART} fields apart": close_configs(pairs),
        "titles used twice": repeated([payload.title for _, payload in pairs]),
    }
    print(f"{len(pairs)} pairs; words per vibe {words[0]} to {words[-1]}, median {words[len(words) // 2]}")
    print(f"rarest label: {uses[0][1]}, {uses[0][0]} pairs")
    for what, found in findings.items():
        print(f"{what}: {len(found)}")
        for item in found[:20]:
            print(f"  {item}")
    return 1 if any(findings.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
