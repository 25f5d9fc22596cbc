"""Preference pairs: a better and a worse answer to one vibe, from scored candidates or from people's answers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from latentscore.forms import JSON, AnswerForm
from latentscore_data.core.base.marks import Preference
from latentscore_data.core.base.payloads import Payload
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.settings import DpoSettings

MARKS = "marks"
"""The source of the pairs that people judged."""


@dataclass(frozen=True)
class Pair:
    """Two answers to the vibe of ``row``. ``source`` is a scorer or :data:`MARKS`; scores are in its unit."""

    row: ScoredRow
    source: str
    chosen: Payload
    rejected: Payload
    chosen_score: float
    rejected_score: float

    def as_row(self) -> ScoredRow:
        """Return the row with these two answers as its only candidates, the better one as its winner."""
        return self.row.model_copy(
            update={
                "config_payload": self.chosen,
                "config_candidates": [self.chosen, self.rejected],
                "candidate_scores": {self.source: [self.chosen_score, self.rejected_score]},
                "candidate_origins": [],
                "best_index": 0,
                "search": None,
            }
        )


@dataclass
class PairSet:
    """Pairs, and the number of rows without a pair by reason."""

    pairs: list[Pair] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def reasons(self) -> str:
        """The numbers of rows without a pair, in one line; empty if every row gave a pair."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())


def preference_pairs(
    rows: Sequence[ScoredRow], dpo: DpoSettings, more: Iterable[Pair] = (), form: AnswerForm = JSON
) -> PairSet:
    """Return at most one pair for each row: its best candidate, and the worst one of similar length.

    A pair's scores differ by at least ``dpo.margin`` times the standard deviation of the scores of one vibe's
    candidates, pooled over the rows by scorer. So near ties are left out, whatever the scorer's unit. ``more`` are
    pairs from another source, such as marks: all are kept, and their rows give no pair by score.
    """
    found = PairSet([*more])
    judged = {pair.row.row_id for pair in found.pairs}
    spread = score_spread(rows)
    for row in rows:
        if row.row_id in judged:
            continue
        if (widest := row_pair(row)) is None:
            found.left_out["without two answers of different scores"] += 1
            continue
        margin = dpo.margin * spread[widest.source]
        pair = row_pair(row, margin, dpo.length_ratio, form)
        if pair is not None:
            found.pairs.append(pair)
        elif widest.chosen_score - widest.rejected_score < margin:
            found.left_out["near ties"] += 1
        else:
            found.left_out["of different lengths"] += 1
    return found


def row_pair(
    row: ScoredRow, margin: float = 0.0, length_ratio: float | None = None, form: AnswerForm = JSON
) -> Pair | None:
    """Return the row's best candidate with its worst one, or None if no two candidates qualify.

    The scores are those of the scorer that chose the winner. They differ by at least ``margin``, and are never equal.
    The longer answer has at most ``length_ratio`` times the characters of the shorter one.
    """
    scorer, scores = next(iter(row.candidate_scores.items()), ("", []))
    known = [
        (candidate, score)
        for candidate, score in zip(row.config_candidates, scores, strict=False)
        if candidate is not None and score is not None
    ]
    if not known:
        return None
    best, best_score = max(known, key=lambda scored: scored[1])
    if row.search is not None and row.best_index is not None and (score := scores[row.best_index]) is not None:
        # After a search the winner may not have the highest score: the prior and the judge also count.
        best, best_score = row.config_candidates[row.best_index] or {}, score
    worse = [
        (candidate, score)
        for candidate, score in known
        if score < best_score and best_score - score >= margin and _alike(best, candidate, length_ratio, form)
    ]
    if not worse:
        return None
    worst, worst_score = min(worse, key=lambda scored: scored[1])
    return Pair(row, scorer, best, worst, best_score, worst_score)


def _alike(one: Payload, other: Payload, ratio: float | None, form: AnswerForm) -> bool:
    """Return True for a similar length. DPO learns to write longer answers if the better ones are longer."""
    if ratio is None:
        return True
    shorter, longer = sorted((len(form.write(one)), len(form.write(other))))
    return longer <= ratio * shorter


def score_spread(rows: Iterable[ScoredRow]) -> dict[str, float]:
    """Return by scorer the pooled standard deviation of scores within a row; 0 if no row has two scores."""
    squares: defaultdict[str, float] = defaultdict(float)
    freedom: Counter[str] = Counter()
    for row in rows:
        for scorer, scores in row.candidate_scores.items():
            known = [score for score in scores if score is not None]
            mean = sum(known) / max(len(known), 1)
            squares[scorer] += sum((score - mean) ** 2 for score in known)
            freedom[scorer] += max(len(known) - 1, 0)
    return {scorer: math.sqrt(squares[scorer] / max(freedom[scorer], 1)) for scorer in freedom}


def marked_pairs(rows: Iterable[ScoredRow], answers: Iterable[Preference]) -> list[Pair]:
    """Return people's answers to "which fits better?" on these rows as pairs with the scores 1 and 0.

    The payloads are those that were compared, even if the row has other candidates now.
    """
    by_id = {row.row_id: row for row in rows}
    return [Pair(by_id[one.row_id], MARKS, one.better, one.worse, 1.0, 0.0) for one in answers if one.row_id in by_id]


def pair_of(row: ScoredRow) -> tuple[Payload, Payload] | None:
    """Return (better, worse) for a row that :meth:`Pair.as_row` made; None for any other row."""
    if len(row.config_candidates) != 2:
        return None
    chosen, rejected = row.config_candidates
    return (chosen, rejected) if chosen is not None and rejected is not None else None
