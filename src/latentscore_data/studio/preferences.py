"""Answers to "which fits better?": the stored preference, and strengths of sources and candidates."""

from __future__ import annotations

from collections.abc import Sequence

from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.marks import Preference, config_digest, has_config
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.bench.strengths import Game, fit

RESAMPLES = 200


def preference_of(row: ScoredRow, better: int, worse: int, *, tied: bool = False) -> Preference:
    """Return the preference for one candidate of a row over another, or for neither (``tied``).

    Raises :class:`InputError` for a missing candidate.
    """
    found = [row.config_candidates[i] if i < len(row.config_candidates) else None for i in (better, worse)]
    if not has_config(found[0]) or not has_config(found[1]) or better == worse:
        raise InputError(f"row {row.row_id[:100]!r} has no candidates {better} and {worse}")
    scores = next(iter(row.candidate_scores.values()), [])
    better_score, worse_score = (scores[i] if i < len(scores) else None for i in (better, worse))
    return Preference(
        row.row_id, row.vibe_original, found[0], found[1], _source(row, better), _source(row, worse), better_score,
        worse_score, row.source_id, tied,
    )  # fmt: skip


def _source(row: ScoredRow, at: int) -> str:
    """Return the origin of a candidate, and whether the scorer selected it."""
    origin = row.candidate_origins[at] if at < len(row.candidate_origins) else "model"
    name = (row.config_model or "unknown model") if origin == "model" else origin
    return f"{name}, {'chosen' if at == row.best_index else 'not chosen'}"


def by_source(preferences: Sequence[Preference]) -> JsonObject:
    """Return the strengths of sources that were compared with another one, and the scorer's agreement with people."""
    games = [
        Game(one.better_source, one.worse_source, 2 if one.tied else 0, one.document or one.row_id)
        for one in preferences
        if one.better_source and one.worse_source and one.better_source != one.worse_source
    ]
    scored = [
        one.better_score > one.worse_score
        for one in preferences
        if one.better_score is not None
        and one.worse_score is not None
        and one.better_score != one.worse_score
        and not one.tied
    ]
    return {
        "answers": len(preferences),
        "rows": len({one.row_id for one in preferences}),
        "ties": sum(one.tied for one in preferences),
        "agree": sum(scored),
        "scored": len(scored),
        "agree_interval": _wilson(sum(scored), len(scored)),
        "sources": [player.to_dict() for player in fit(games, resamples=RESAMPLES)[0]] if games else [],
    }


def by_candidate(row: ScoredRow, preferences: Sequence[Preference]) -> dict[int, JsonObject]:
    """Return the strengths of the candidates of one row by their index. Answers are resampled independently."""
    at = {config_digest(payload): str(i) for i, payload in enumerate(row.config_candidates) if has_config(payload)}
    games: list[Game] = []
    for one in preferences:
        if one.row_id == row.row_id:
            better, worse = at.get(config_digest(one.better)), at.get(config_digest(one.worse))
            if better is not None and worse is not None and better != worse:
                games.append(Game(better, worse, 2 if one.tied else 0, str(len(games))))
    players = fit(games, resamples=RESAMPLES)[0] if games else []
    return {int(player.label): player.to_dict() for player in players}


def _wilson(hits: int, of: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a share (Wilson 1927); None without answers."""
    from scipy.stats import binomtest

    if not of:
        return None
    interval = binomtest(hits, of).proportion_ci(method="wilson")
    return interval.low, interval.high
