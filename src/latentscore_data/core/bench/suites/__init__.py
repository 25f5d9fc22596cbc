"""The bundled prompt suites, one JSONL file each, with what the prompts ask for where they ask for something.

A line holds ``id`` and ``vibe``; a line of the controllability suite also ``expect``, which names fields and the values
that fit, and ``half``: the keyword lexicon may be tuned on ``open`` prompts and is judged on ``held-out`` ones.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import orjson

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.rows import VibeRow

SUITES = ("short", "typo", "out-of-domain", "controllability")


def suite_lines(name: str) -> list[dict[str, Any]]:
    """The prompts of a suite as they are in its file. Raises :class:`InputError` for a name that is no suite."""
    if name not in SUITES:
        raise InputError(f"unknown suite {name}", f"suites are {', '.join(SUITES)}")
    text = files("latentscore_data.core.bench.suites").joinpath(f"{name}.jsonl").read_bytes()
    return [orjson.loads(line) for line in text.splitlines() if line.strip()]


def suite_rows(name: str) -> list[VibeRow]:
    """The prompts of a suite as rows; each prompt is a document of its own."""
    return [
        VibeRow.model_validate(
            {
                "row_id": f"suite-{name}:{line['id']}",
                "dataset": f"suite-{name}",
                "id_in_dataset": line["id"],
                "vibe_scope": "scene",
                "vibe_level": level_of(line["vibe"]),
                "vibe_original": line["vibe"],
                **{key: line[key] for key in ("expect", "half", "clean") if key in line},
            }
        )
        for line in suite_lines(name)
    ]


def level_of(vibe: str) -> str:
    """The level that a text of this length would have: xs up to 3 words, sm up to 10, m up to 40."""
    words = len(vibe.split())
    return "xs" if words <= 3 else "sm" if words <= 10 else "m" if words <= 40 else "lg"
