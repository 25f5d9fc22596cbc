"""A workspace with scored rows, for tests of the exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factories import make_payload, make_scored, make_text
from latentscore_data.core.base.jsonl import replace_json, replace_rows
from latentscore_data.core.base.workspace import Workspace

SPLITS = {"SFT-Train": 5, "SFT-Val": 1, "GRPO": 2, "TEST": 2}


def fill(root: Path, **metadata: Any) -> Workspace:
    """A workspace with texts, scored rows in all splits, and manifests."""
    workspace = Workspace(root)
    metadata = {"license": "public domain", "author": "Herman Melville", "title": "Moby-Dick", **metadata}
    number = 0
    for split, count in SPLITS.items():
        rows = []
        for _ in range(count):
            number += 1
            rows.append(
                make_scored(
                    number,
                    split=split,
                    vibe_original=f"vibe number {number} of the sea",
                    vibe_noisy=f"vibe nubmer {number}" if split == "SFT-Train" else None,
                    candidate_scores={"acoustic": [0.1 * number, 0.05]},
                    scores_external={"acoustic": {"parts": [{"energy": 0.5, "seen": number}, None]}},
                    config_payload=make_payload(f"Title {number}", brightness="dark") if number != 3 else None,
                )
            )
        replace_rows(workspace.scored(split), rows)
    replace_rows(workspace.texts("moby-dick"), [make_text(n, metadata=metadata) for n in range(1, number + 1)])
    replace_json(
        workspace.vibes_dir / "manifest.json",
        {
            "stage": "vibes",
            "settings": {"model": "fake/model", "splits.split_by": "source"},
            "versions": {"prompt": "abc123"},
            "done": 10,
            "cost_usd": 0.25,
            "details": {"leakage": {"share_above_threshold": 0.125}},
        },
    )
    return workspace
