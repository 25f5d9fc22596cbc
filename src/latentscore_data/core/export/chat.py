"""Rows in the formats of other trainers: chat messages, and preference pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from latentscore.forms import completion_messages, prompt_messages
from latentscore_data.core.base.jsonl import Line
from latentscore_data.core.base.marks import Preference
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.training.preference import marked_pairs, row_pair


def sft_lines(rows: Iterable[ScoredRow]) -> Iterator[Line]:
    """Yield ``{"messages": [system, user, assistant], "row_id": ...}`` for each row with a winner."""
    for row in rows:
        if row.config_payload is not None:
            messages = [*prompt_messages(row.vibe_for_training), *completion_messages(row.config_payload)]
            yield {"messages": messages, "row_id": row.row_id}


def preference_lines(rows: Iterable[ScoredRow], answers: Sequence[Preference] = ()) -> Iterator[Line]:
    """Yield ``{"prompt": [system, user], "chosen": [assistant], "rejected": [assistant], ...}`` with the best and the
    worst candidate of each row, and their scores by the scorer that chose the winner.

    A row that people judged (``answers``) gives their pairs instead, with the scorer ``marks`` and the scores 1 and 0.
    """
    answered: defaultdict[str, list[Preference]] = defaultdict(list)
    for answer in answers:
        answered[answer.row_id].append(answer)
    for row in rows:
        marked = marked_pairs([row], answered[row.row_id]) if row.row_id in answered else []
        for pair in marked or filter(None, [row_pair(row)]):
            yield {
                "prompt": prompt_messages(row.vibe_for_training),
                "chosen": completion_messages(pair.chosen),
                "rejected": completion_messages(pair.rejected),
                "chosen_score": pair.chosen_score,
                "rejected_score": pair.rejected_score,
                "scorer": pair.source,
                "row_id": row.row_id,
            }
