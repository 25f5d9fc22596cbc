"""The table of a benchmark (``summary.json``) from its scored samples. Pure functions: no files, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from latentscore import FIELDS
from latentscore.json_search import JsonObject
from latentscore.seeds import rng_for
from latentscore_data.core.base.rows import BenchRow
from latentscore_data.core.bench import stats


@dataclass(frozen=True)
class SourceFacts:
    """A source, as far as it is known before scoring."""

    label: str
    kind: str
    name: str
    chosen_by: tuple[str, ...] = ()
    """Scorers that selected this source's answers or its training data: their scores of it are biased upwards."""
    note: str = ""


@dataclass(frozen=True)
class RunFacts:
    """The inputs and settings of a run, for its table."""

    name: str
    title: str
    created: str
    sources: Sequence[SourceFacts]
    scorers: Sequence[str]
    baseline: str
    seconds: float
    seed: int
    split: str | None = None
    suite: str | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    ceiling: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """For each scorer, the best score among each row's candidates, in the order of the rows."""
    ceiling_of: str = ""
    """How the ceiling was measured, for the page."""
    resamples: int = 4000


def headline_scorer(scorers: Sequence[str], sources: Sequence[SourceFacts]) -> str:
    """Return the first scorer that selected none of the answers, so that it is unbiased; else the first one."""
    interested = {name for source in sources for name in source.chosen_by}
    return next((scorer for scorer in scorers if scorer not in interested), scorers[0])


def final_score(row: BenchRow, scorer: str) -> float | None:
    """Return the sample's score by this scorer; None without one."""
    value = row.scores.get(scorer, {}).get("final_score")
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def summarise(rows: Sequence[BenchRow], run: RunFacts) -> JsonObject:
    """Return the content of ``summary.json``. ``rows`` has one sample per source and row, the same rows for each
    source.

    A sample without a score gets the floor: the mean score of the same audio against vibes of other texts. Raises
    :class:`ValueError` if the sources were compared on different rows.
    """
    by_source = {source.label: [row for row in rows if row.source == source.label] for source in run.sources}
    order = [row.row_id for row in by_source[run.sources[0].label]]
    for label, samples in by_source.items():
        if [row.row_id for row in samples] != order:
            raise ValueError(f"{label} was not compared on the same rows as {run.sources[0].label}")
    reference = by_source[run.sources[0].label]
    documents = [row.source_id for row in reference]
    headline = headline_scorer(run.scorers, run.sources)

    floors = {scorer: _floor(rows, scorer, run) for scorer in run.scorers}
    values = {
        scorer: {label: _values(samples, scorer, floors[scorer]["mean"]) for label, samples in by_source.items()}
        for scorer in run.scorers
    }
    comparisons = {scorer: _comparisons(values[scorer], documents, scorer, run) for scorer in run.scorers}
    anchor = next((s.label for s in run.sources if s.kind == "dataset"), None)
    copied = ("title", "created", "split", "suite", "baseline", "seconds", "seed", "ceiling_of")
    summary: JsonObject = {
        "run": run.name,
        "scorers": list(run.scorers),
        "fingerprints": dict(run.fingerprints),
        **{name: getattr(run, name) for name in copied},
        "rows": len(order),
        "documents": len(set(documents)),
        "levels": dict(Counter(row.vibe_level for row in reference)),
        "scopes": dict(Counter(row.vibe_scope for row in reference)),
        "headline": headline,
        "few_documents": stats.too_few(len(set(documents))),
        "floor": floors,
        "ceiling": {
            scorer: _ceiling(run.ceiling.get(scorer), documents, scorer, floors[scorer]["mean"], run)
            for scorer in run.scorers
        },
        "detectable": {scorer: _detectable(values[scorer], documents, run.baseline) for scorer in run.scorers},
        "edges": {scorer: _edges(values[scorer]) for scorer in run.scorers},
        "sources": [],
    }
    for source in run.sources:
        samples = by_source[source.label]
        summary["sources"].append(
            {
                **_answers(source, samples),
                "scores": {
                    scorer: {
                        **_estimate(values[scorer][source.label], documents, run, source.label, scorer),
                        **_spread(samples, scorer, summary["edges"][scorer]),
                        "parts": _part_means(samples, scorer),
                        "by_level": _grouped(values[scorer][source.label], [row.vibe_level for row in reference]),
                        "by_scope": _grouped(values[scorer][source.label], [row.vibe_scope for row in reference]),
                    }
                    for scorer in run.scorers
                },
                "versus_baseline": {scorer: comparisons[scorer].get(source.label) for scorer in run.scorers},
                "fields": _asked_fields(samples, source.label, run),
                "variety": _variety(samples),
                "agreement": _agreement(samples, by_source[anchor]) if anchor and anchor != source.label else None,
            }
        )
    # A source without any score has the mean of the floor, which can be above that of a source that was scored.
    summary["sources"].sort(
        key=lambda source: (not source["scores"][headline]["scored"], -source["scores"][headline]["mean"])
    )
    return summary


def _values(samples: Sequence[BenchRow], scorer: str, floor: float) -> list[float]:
    scores = (final_score(row, scorer) for row in samples)
    return [floor if score is None else score for score in scores]


def _floor(rows: Sequence[BenchRow], scorer: str, run: RunFacts) -> JsonObject:
    """Return the mean score of the same audio against vibes of other texts; the lowest score of the run if nothing was
    scored against other vibes."""
    scored: list[tuple[float, str]] = []
    for row in rows:
        shuffled: Mapping[str, Any] = getattr(row, "shuffled_scores", None) or {}
        value = shuffled.get(scorer)
        if isinstance(value, int | float) and np.isfinite(value):
            scored.append((float(value), row.source_id))
    if scored:
        found = _estimate([v for v, _ in scored], [d for _, d in scored], run, "floor", scorer)
        return {**found, "of": "the same audio against vibes of other texts"}
    known = [score for row in rows if (score := final_score(row, scorer)) is not None]
    lowest = min(known, default=0.0)
    return {
        **asdict(stats.Estimate(lowest, None, None, len(known), 0, "no audio was scored against other vibes")),
        "of": "the lowest score of this run",
    }


def _ceiling(
    best: Sequence[float | None] | None, documents: Sequence[str], scorer: str, floor: float, run: RunFacts
) -> JsonObject | None:
    """Return the mean of the rows' best candidates; a row without a scored candidate counts with the floor, as it does
    for a source."""
    if not best or all(score is None for score in best):
        return None
    values = [floor if score is None else score for score in best]
    return _estimate(values, documents, run, "ceiling", scorer)


def _estimate(values: Sequence[float], documents: Sequence[str], run: RunFacts, *drawn_by: str) -> JsonObject:
    return asdict(stats.estimate(values, documents, rng_for(run.seed, *drawn_by), resamples=run.resamples))


def _comparisons(values: Mapping[str, list[float]], documents: Sequence[str], scorer: str, run: RunFacts) -> JsonObject:
    """Return the paired differences of the other sources to the baseline, with Holm's correction."""
    others = [label for label in values if label != run.baseline]
    found = [
        stats.paired_difference(
            values[label],
            values[run.baseline],
            documents,
            rng_for(run.seed, label, scorer, "paired"),
            resamples=run.resamples,
        )
        for label in others
    ]
    corrected = stats.holm([difference.p for difference in found])
    return {
        label: {**asdict(difference), "p_holm": p}
        for label, difference, p in zip(others, found, corrected, strict=True)
    }


def _detectable(values: Mapping[str, list[float]], documents: Sequence[str], baseline: str) -> float | None:
    """Return the largest of the sources' detectable differences, which every comparison of the table can detect."""
    base = np.asarray(values[baseline])
    found = [
        stats.detectable_difference(np.asarray(v) - base, documents, len(values) - 1)
        for label, v in values.items()
        if label != baseline
    ]
    return max((f for f in found if f is not None), default=None)


def _edges(values: Mapping[str, list[float]], bins: int = 28) -> list[float]:
    """Return histogram edges for all sources together, so that their distributions can be compared."""
    every = np.concatenate([np.asarray(v) for v in values.values()])
    low, high = float(every.min()), float(every.max())
    margin = (high - low) * 0.02 or 0.5
    return [float(edge) for edge in np.linspace(low - margin, high + margin, bins + 1)]


def _spread(samples: Sequence[BenchRow], scorer: str, edges: Sequence[float]) -> JsonObject:
    """Return the number, quantiles (5, 25, 50, 75, 95 %) and histogram of the scores, without failed samples."""
    known = [score for row in samples if (score := final_score(row, scorer)) is not None]
    if not known:
        return {"scored": 0, "quantiles": None, "histogram": None, "mean_of_scored": None}
    return {
        "scored": len(known),
        "quantiles": np.quantile(known, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist(),
        "histogram": np.histogram(known, bins=np.asarray(edges))[0].tolist(),
        "edges": list(edges),
        "mean_of_scored": float(np.mean(known)),
    }


def _answers(source: SourceFacts, samples: Sequence[BenchRow]) -> JsonObject:
    """Return how many of a source's answers are usable, with times, tokens and cost."""
    valid = sum(row.valid for row in samples)
    raw = [raw_valid for row in samples if (raw_valid := getattr(row, "raw_valid", None)) is not None]
    scored = [row for row in samples if row.scores]
    return {
        **asdict(source),
        "chosen_by": list(source.chosen_by),
        "rows": len(samples),
        "valid": valid,
        "valid_rate": valid / len(samples),
        "scored": len(scored),
        "success_rate": len(scored) / len(samples),
        "raw_valid_rate": sum(raw) / len(raw) if raw else None,
        "failures": dict(Counter(reason for row in samples for reason in _reasons(row)).most_common(10)),
        "generate_seconds": _times(row.generate_seconds for row in samples),
        "render_seconds": _times(row.render_seconds for row in samples),
        "score_seconds": _times(row.score_seconds for row in samples),
        "tokens_in": _total(row.tokens_in for row in samples),
        "tokens_out": _total(row.tokens_out for row in samples),
        "cost_usd": _total(row.cost_usd for row in samples),
    }


def _reasons(row: BenchRow) -> list[str]:
    """Return why a sample has no score, or why some of the scorers have none."""
    unscored: Mapping[str, str] = getattr(row, "unscored", None) or {}
    return [row.failure] if row.failure else list(unscored.values())


def _times(seconds: Iterable[float | None]) -> JsonObject | None:
    known = np.array([s for s in seconds if s is not None])
    if not len(known):
        return None
    return {
        "mean": float(known.mean()),
        "median": float(np.median(known)),
        "p95": float(np.quantile(known, 0.95)),
        "total": float(known.sum()),
        "samples": len(known),
    }


def _total(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) if known else None


def _grouped(values: Sequence[float], groups: Sequence[str]) -> JsonObject:
    found: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        found.setdefault(group, []).append(value)
    return {group: {"mean": float(np.mean(members)), "rows": len(members)} for group, members in found.items()}


def _part_means(samples: Sequence[BenchRow], scorer: str) -> JsonObject:
    """Return the mean of each part of the score, and the share of samples with a penalty if the scorer has one."""
    parts: dict[str, list[float]] = {}
    for row in samples:
        for name, value in row.scores.get(scorer, {}).items():
            if name != "final_score" and isinstance(value, int | float) and np.isfinite(value):
                parts.setdefault(name, []).append(float(value))
    means: JsonObject = {name: float(np.mean(found)) for name, found in parts.items()}
    if "penalty" in parts:
        means["penalty_share"] = float(np.mean(np.array(parts["penalty"]) > 0))
    return means


def field_hits(row: BenchRow) -> dict[str, bool]:
    """Return, for each field that a suite's prompt asks for, whether its value is one of those that fit."""
    expected: Mapping[str, list[Any]] = getattr(row, "expect", None) or {}
    config: Mapping[str, Any] = (row.config_payload or {}).get("config", {})
    return {name: config.get(name) in allowed for name, allowed in expected.items()}


def _asked_fields(samples: Sequence[BenchRow], label: str, run: RunFacts) -> JsonObject | None:
    """Return the share of requested fields with a value that fits, with an interval over prompts; None without
    requests.

    A missing answer counts as wrong in every field.
    """
    hits = [(name, hit, row.source_id) for row in samples for name, hit in field_hits(row).items()]
    if not hits:
        return None
    by_field: dict[str, list[bool]] = {}
    for name, hit, _ in hits:
        by_field.setdefault(name, []).append(hit)
    halves: dict[str, list[bool]] = {}
    for row in samples:
        halves.setdefault(str(getattr(row, "half", "") or "all"), []).extend(field_hits(row).values())
    return {
        **_estimate([float(hit) for _, hit, _ in hits], [d for *_, d in hits], run, label, "fields"),
        "asked": len(hits),
        "right": sum(hit for _, hit, _ in hits),
        "by_field": {name: {"asked": len(found), "right": sum(found)} for name, found in sorted(by_field.items())},
        "by_half": {half: sum(found) / len(found) for half, found in sorted(halves.items()) if found},
    }


def _variety(samples: Sequence[BenchRow]) -> JsonObject:
    """Return the entropy of each field's labels over the largest possible one: 0 (always the same label) to 1."""
    configs = [row.config_payload["config"] for row in samples if row.config_payload]
    by_field: dict[str, float] = {}
    for name, spec in FIELDS.items():
        counts = np.array(list(Counter(config.get(name) for config in configs).values()), dtype=np.float64)
        shares = counts / counts.sum() if len(counts) else counts
        most = np.log(min(len(spec.labels), max(len(configs), 2)))
        by_field[name] = float(-(shares * np.log(shares)).sum() / most) + 0.0 if len(shares) else 0.0
    return {"mean": float(np.mean(list(by_field.values()))), "by_field": by_field}


def _agreement(samples: Sequence[BenchRow], reference: Sequence[BenchRow]) -> JsonObject | None:
    """Return the share of rows in which a field has the same value as in the reference; None without such rows."""
    pairs = [
        (mine.config_payload["config"], theirs.config_payload["config"])
        for mine, theirs in zip(samples, reference, strict=True)
        if mine.config_payload and theirs.config_payload
    ]
    if not pairs:
        return None
    by_field = {name: float(np.mean([a.get(name) == b.get(name) for a, b in pairs])) for name in FIELDS}
    return {"mean": float(np.mean(list(by_field.values()))), "by_field": by_field}
