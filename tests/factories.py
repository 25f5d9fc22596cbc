"""Factories of valid objects (configs, payloads, rows). Keyword arguments change single values."""

from __future__ import annotations

from typing import Any

import numpy as np

from latentscore.labels import FIELDS
from latentscore_data.core.base.rows import ScoredRow, SourceText, VibeRow, source_id, vibe_row_id

COLORS = ("#1B2A41", "#324A5F", "#8FA6B2", "#CCC9DC", "#0C1821")


def make_config(**changes: Any) -> dict[str, Any]:
    """A config in words: the middle label of every field."""
    words: dict[str, Any] = {name: spec.labels[len(spec.labels) // 2] for name, spec in FIELDS.items()}
    words.update({"register_min_oct": 4, "register_max_oct": 6, "root": "c", "mode": "minor", "depth": False})
    return {**words, **changes}


def make_palette() -> dict[str, Any]:
    return {
        "colors": [
            {"hex": color, "weight": weight}
            for color, weight in zip(COLORS, ("xxl", "xl", "lg", "md", "sm"), strict=True)
        ]
    }


def make_payload(title: str = "Rain On Tin", thinking: str = "Soft drops.", **config: Any) -> dict[str, Any]:
    return {
        "thinking": thinking,
        "title": title,
        "config": make_config(**config),
        "palettes": [make_palette() for _ in range(3)],
    }


def make_text(
    number: int = 1, dataset: str = "moby-dick", text: str = "Call me Ishmael.", **changes: Any
) -> SourceText:
    values: dict[str, Any] = {
        "dataset": dataset,
        "id_in_dataset": f"chapter-{number:03d}",
        "text": text,
        "metadata": {"license": "public domain"},
        "created": None,
    }
    return SourceText(**{**values, **changes})


def make_vibe(
    number: int = 1, level: str = "m", vibe: str = "damp november soul", dataset: str = "moby-dick", **changes: Any
) -> VibeRow:
    source = source_id(dataset, f"chapter-{number:03d}")
    values: dict[str, Any] = {
        "row_id": vibe_row_id(source, 0, "scene", "0", level),
        "dataset": dataset,
        "id_in_dataset": f"chapter-{number:03d}",
        "vibe_index": 0,
        "text_page": 0,
        "vibe_scope": "scene",
        "character_name": None,
        "vibe_level": level,
        "vibe_original": vibe,
        "tags_original": ["rain"],
        "vibe_model": "fake/model",
        "split": "SFT-Train",
        "vibe_noisy": None,
        "tags_noisy": None,
    }
    return VibeRow(**{**values, **changes})


def make_scored(number: int = 1, **changes: Any) -> ScoredRow:
    payload = make_payload()
    values: dict[str, Any] = {
        **make_vibe(number).model_dump(),
        "config_model": "fake/model",
        "config_candidates": [payload, make_payload("Another Name", brightness="dark")],
        "validation_scores": {"format_valid": [1.0, 1.0], "schema_valid": [1.0, 1.0], "palette_valid": [1.0, 1.0]},
        "config_error": None,
        "candidate_scores": {"acoustic": [0.4, 0.2]},
        "scores_external": {},
        "best_index": 0,
        "config_payload": payload,
    }
    return ScoredRow(**{**values, **changes})


def unit_rows(count: int, dim: int, seed: int, clusters: int = 0) -> np.ndarray:
    """Random float32 unit vectors of shape (count, dim), in clusters where asked for."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, dim))
    if clusters:
        rows = rng.standard_normal((clusters, dim))[rng.integers(clusters, size=count)] + 0.2 * rows
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
