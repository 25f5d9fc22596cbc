"""The result of a run of searches: scores by number of renders, and the decision of the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from latentscore.json_search import JsonObject
from latentscore_data.core.scoring.paired import Paired, compared

SHOWN_POINTS = 8
"""Largest number of points of the curve in a terminal."""


@dataclass(frozen=True)
class Run:
    """The result of all searches of a run."""

    judge: str | None
    guide: str | None = None
    rows: int = 0
    scorers: list[Paired] = field(default_factory=lambda: [])
    curve: list[JsonObject] = field(default_factory=lambda: [])
    """Mean scores of the best so far after n renders: ``{"renders": n, "scores": {scorer: mean}}``."""
    start_kept: float | None = None
    found_kept: float | None = None
    """Share of the named fields that winners keep, mean over the rows whose vibes name fields."""
    surrogate_r2: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether the found configs are used: there is no judge, or they are better by its scores."""
        return self.judge is None or any(one.scorer == self.judge and one.better for one in self.scorers)

    def to_dict(self) -> JsonObject:
        scorers = [{**vars(one), "difference": one.difference, "in_words": one.in_words()} for one in self.scorers]
        return {**vars(self), "agrees": self.agrees, "scorers": scorers}


def run_of(searched: Sequence[tuple[str, JsonObject]], judge: str | None) -> Run:
    """Return the result of a run from its rows, each as (source document, the row's ``search`` column)."""
    if not searched:
        return Run(judge)
    documents = [document for document, _ in searched]
    columns = [column for _, column in searched]
    names = list(dict.fromkeys(name for column in columns for name in _scores(column, "found_index")))
    return Run(
        judge,
        columns[0]["guide"],
        len(columns),
        [pair for name in names if (pair := _paired(name, documents, columns)) is not None],
        _curve(columns),
        _mean([column["start_kept"] for column in columns]),
        _mean([column["found_kept"] for column in columns]),
        columns[0]["surrogate_r2"],
    )


def _scores(column: JsonObject, which: str) -> dict[str, float]:
    external = column["external"].get(str(column[which])) or {}
    return {name: details["final_score"] for name, details in external.items()}


def _paired(name: str, documents: Sequence[str], columns: Sequence[JsonObject]) -> Paired | None:
    pairs = [
        (document, start[name], found[name])
        for document, column in zip(documents, columns, strict=True)
        if name in (start := _scores(column, "start_index")) and name in (found := _scores(column, "found_index"))
    ]
    return compared(name, pairs)


def _curve(columns: Sequence[JsonObject]) -> list[JsonObject]:
    """Return the means over all rows at each number of renders; each row has the scores of its best so far."""
    spent = sorted({step["renders"] for column in columns for step in column["curve"]})
    points: list[JsonObject] = []
    for renders in spent:
        reached = [
            [step["scores"] for step in column["curve"] if step["renders"] <= renders][-1:] for column in columns
        ]
        scores = [one[0] for one in reached if one]
        if len(scores) == len(columns):
            names = list(dict.fromkeys(name for one in scores for name in one))
            means = {name: _mean([one.get(name) for one in scores]) for name in names}
            points.append({"renders": renders, "scores": means})
    return points


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def summary_lines(run: JsonObject | None) -> list[str]:
    """Return the lines of the result for a terminal; an empty list for a run without a search."""
    if not run or not run["rows"]:
        return []
    rows = "1 row" if run["rows"] == 1 else f"{run['rows']} rows"
    lines = [f"search: {rows}, guided by {run['guide']}"]
    lines += [f"search: {one['in_words']}" for one in run["scorers"]]
    curve: list[JsonObject] = run["curve"]
    if curve:
        # The guide's score alone may decrease from one point to the next, so the line says what is maximized.
        lines.append(
            "search: the best so far, by the guide's score less what its changes cost (search.near, search.keep):"
        )
    for point in curve[:: max(1, -(-len(curve) // SHOWN_POINTS))]:
        means = ", ".join(f"{name} {mean:.3f}" for name, mean in point["scores"].items() if mean is not None)
        lines.append(f"search: after {point['renders']} renders: {means}")
    if run["found_kept"] is not None:
        lines.append(f"search: fields that vibes name, kept: {run['start_kept']:.0%} -> {run['found_kept']:.0%}")
    if run["judge"] is not None:
        verdict = "agrees, what was found wins" if run["agrees"] else "does not agree, the model's candidates win"
        lines.append(f"search: the judge {run['judge']} {verdict}")
    return lines
