"""Prompt suites: bundled ones, and JSONL files of the user.

A line has ``vibe`` (or ``vibe_original``); optionally ``id``, ``expect`` (fields, and the labels that fit each), and
``half``: the keyword lexicon may be tuned on ``open`` prompts, and is evaluated on ``held-out`` ones.
"""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path

import orjson

from latentscore import FIELDS
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import Line, read_lines
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.vibes.schema import level_of

SUITES = ("short", "typo", "out-of-domain", "controllability")


def suite_file(suite: str) -> Path | None:
    """Return the user's file of a suite; None for a bundled one. Raises :class:`InputError` for an unknown name."""
    if suite in SUITES:
        return None
    path = Path(suite)
    if not path.is_file():
        raise InputError(
            f"unknown suite {suite}", f"suites are {', '.join(SUITES)}, or a JSONL file with a vibe in each line"
        )
    return path


def suite_name(suite: str) -> str:
    """Return the name of a bundled suite, or of the user's file without its extensions."""
    return suite if suite in SUITES else Path(suite).name.split(".")[0] or "suite"


def suite_lines(name: str) -> list[Line]:
    """Return the lines of a suite. Raises :class:`InputError` for an unknown suite, and for an invalid line of a user's
    file."""
    path = suite_file(name)
    if path is not None:
        return [_checked(line, f"{path}:{number}", number) for number, line in read_lines(path)]
    text = files("latentscore_data.core.bench.suites").joinpath(f"{name}.jsonl").read_bytes()
    return [orjson.loads(line) for line in text.splitlines() if line.strip()]


def _checked(line: Line, where: str, number: int) -> Line:
    """Return a line of a user's file, with the line number as ``id`` if it has none."""
    vibe, expect = line.get("vibe", line.get("vibe_original")), line.get("expect") or {}
    if not isinstance(vibe, str) or not vibe.strip():
        raise InputError(f"{where}: a prompt has no vibe", 'write a text for each line: {"vibe": "rain on a tin roof"}')
    example = 'write {"tempo": ["slow", "very_slow"]} for the labels that fit'
    if not isinstance(expect, dict) or not all(isinstance(labels, list) for labels in expect.values()):
        raise InputError(f"{where}: expect is not an object of lists", example)
    for field, labels in expect.items():
        wrong = [label for label in labels if field not in FIELDS or label not in FIELDS[field].labels]
        if wrong or field not in FIELDS:
            raise InputError(
                f"{where}: expect names {field} {', '.join(map(str, wrong))}, which no config holds", example
            )
    return {**line, "vibe": vibe, "expect": expect, "id": str(line.get("id") or number)}


def suite_rows(name: str) -> list[VibeRow]:
    """Return the prompts of a suite as rows, one document each. Raises :class:`InputError` as :func:`suite_lines` does,
    and for an id that occurs twice."""
    called = suite_name(name)
    rows = [
        VibeRow.model_validate(
            {
                "row_id": f"suite-{called}:{line['id']}",
                "dataset": f"suite-{called}",
                "id_in_dataset": line["id"],
                "vibe_scope": "scene",
                "vibe_level": level_of(line["vibe"]),
                "vibe_original": line["vibe"],
                **{key: line[key] for key in ("expect", "half", "clean") if line.get(key)},
            }
        )
        for line in suite_lines(name)
    ]
    twice = [one for one, count in Counter(row.id_in_dataset for row in rows).items() if count > 1]
    if twice:
        raise InputError(f"{name}: the id {twice[0]} is used more than once", "give each prompt its own id, or none")
    return rows
