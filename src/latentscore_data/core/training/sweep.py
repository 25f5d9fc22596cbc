"""Sweeps: one run for each member of a family of presets, and the table that compares them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from latentscore_data.core.models.spec import Choices, family

COLUMNS = ("steps", "first_loss", "last_loss", "best_eval_loss", "best_eval_score", "first_reward", "last_reward")


def members(group: str, choices: Choices) -> dict[str, Choices]:
    """Return the choices of each member of a family: its preset is applied after others and before ``--set``.

    Raises :class:`InputError` for an unknown family.
    """
    return {
        name: replace(
            choices,
            presets=[*choices.presets, f"{group}:{name}"],
            run_id=f"{choices.run_id}-{name}" if choices.run_id else None,
        )
        for name in family(group)
    }


def table(records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one line per run: its figures, its seconds, its number of health warnings, its error."""
    return [
        {
            "preset": name,
            "run": record.get("run_id"),
            "status": record.get("status"),
            **{column: record.get("metrics", {}).get(column) for column in COLUMNS},
            "seconds": record.get("seconds"),
            "warnings": len(record.get("health", [])),
            "error": record.get("error"),
        }
        for name, record in records.items()
    ]


def best(lines: Sequence[dict[str, Any]], group: str) -> str | None:
    """Return the member with the highest validation score, else the highest last reward, else the lowest validation or
    training loss.

    Losses of DPO with different betas are not compared, because a larger beta gives the same model a lower loss.
    """
    columns = [("best_eval_score", -1), ("last_reward", -1), ("best_eval_loss", 1), ("last_loss", 1)]
    if any("dpo.beta" in values for values in family(group).values()):
        columns = columns[:1]
    for column, sign in columns:
        known = [line for line in lines if line.get(column) is not None and math.isfinite(line[column])]
        if known:
            return min(known, key=lambda line: sign * line[column])["preset"]
    return None
