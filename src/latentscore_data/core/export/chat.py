"""Rows as other trainers read them: messages to learn from, and pairs of a better and a worse answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.training.chat import completion_messages, prompt_messages


def sft_lines(rows: Iterable[ScoredRow]) -> Iterator[dict[str, Any]]:
    """``{"messages": [system, user, assistant], "row_id": ...}`` for each row with a winner, in its training wording."""
    for row in rows:
        if row.config_payload is not None:
            messages = [*prompt_messages(row.vibe_for_training), *completion_messages(row.config_payload)]
            yield {"messages": messages, "row_id": row.row_id}


def preference_lines(rows: Iterable[ScoredRow]) -> Iterator[dict[str, Any]]:
    """``{"prompt": [system, user], "chosen": [assistant], "rejected": [assistant], ...}`` with the best and the worst
    candidate of each row, and their scores by the scorer that chose."""
    for row in rows:
        if (pair := best_and_worst(row)) is not None:
            scorer, (best, best_score), (worst, worst_score) = pair
            yield {
                "prompt": prompt_messages(row.vibe_for_training),
                "chosen": completion_messages(best),
                "rejected": completion_messages(worst),
                "chosen_score": best_score,
                "rejected_score": worst_score,
                "scorer": scorer,
                "row_id": row.row_id,
            }


def best_and_worst(
    row: ScoredRow,
) -> tuple[str, tuple[dict[str, Any], float], tuple[dict[str, Any], float]] | None:
    """The scorer that chose, and the candidates with its highest and lowest score; ``None`` unless they differ."""
    scorer, scores = next(iter(row.candidate_scores.items()), ("", []))
    known = [
        (candidate, score)
        for candidate, score in zip(row.config_candidates, scores, strict=False)
        if candidate is not None and score is not None
    ]
    if not known:
        return None
    best, worst = max(known, key=lambda pair: pair[1]), min(known, key=lambda pair: pair[1])
    # The title is part of an answer but not of the sound: equal configs have equal scores and teach nothing.
    return (scorer, best, worst) if best[1] > worst[1] else None
