"""Rounds of improvement: the record of each round, the best model so far, when to stop, and the table of all rounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from latentscore_data.core.base.errors import InputError, in_a_sentence
from latentscore_data.core.base.jsonl import read_object, replace_json
from latentscore_data.core.base.rows import ScoredRow, VibeRow, source_id
from latentscore_data.core.scoring.paired import Paired, compared
from latentscore_data.core.training.run_health import label_entropy

ROUND_FILE = "round.json"


@dataclass(frozen=True)
class Round:
    """A model and its answers to the validation vibes. Round 0 is the model that the rounds start from.

    ``scores`` are by scorer and row id, for the rows whose answer could be scored; ``documents`` are the source
    documents by row id. ``entropy`` is that of :func:`label_entropy`, ``answered`` the share of vibes with a valid
    answer, both 0 to 1. ``learned`` is the number of pairs or winners that the model was trained on, ``best_of`` the
    guide's mean score of their best answers.
    """

    number: int
    model: str
    scores: dict[str, dict[str, float]]
    documents: dict[str, str]
    entropy: float
    answered: float
    learned: int = 0
    best_of: float | None = None

    @classmethod
    def judged(
        cls, number: int, model: str, asked: Sequence[VibeRow], rows: Sequence[ScoredRow], **trained: Any
    ) -> Self:
        """Return the round of a model that answered each vibe of ``asked`` once; ``rows`` were scored."""
        scores: dict[str, dict[str, float]] = {}
        for row in rows:
            for scorer, given in row.candidate_scores.items():
                if given and (score := given[0]) is not None:
                    scores.setdefault(scorer, {})[row.row_id] = score
        answers = [row.config_candidates[0] for row in rows if row.config_candidates]
        valid = [answer["config"] for answer in answers if answer is not None]
        documents = {row.row_id: source_id(row.dataset, row.id_in_dataset) for row in asked}
        share = len(valid) / len(asked) if asked else 0.0
        return cls(number, model, scores, documents, label_entropy(valid), share, **trained)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the round in ``folder``; None if there is none. Raises :class:`InputError` for a damaged file."""
        path = folder / ROUND_FILE
        if not path.exists():
            return None
        remedy = f"delete {folder}: the round is repeated"
        try:
            return TypeAdapter(cls).validate_python(read_object(path, remedy))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise InputError(f"{path} is damaged ({field}: {in_a_sentence(first['msg'])})", remedy) from None

    def write(self, folder: Path) -> None:
        """Write ``round.json``, which marks the round as finished."""
        replace_json(folder / ROUND_FILE, asdict(self))

    def mean(self, scorer: str) -> float | None:
        """The mean score of the answers; None without scores."""
        scores = self.scores.get(scorer)
        return sum(scores.values()) / len(scores) if scores else None


def against(before: Round, after: Round, scorer: str) -> Paired | None:
    """Compare two rounds by a scorer on the same vibes; None without scores.

    If only one round has a score for a vibe, the other one gets the lowest score of both rounds.
    """
    ours, theirs = before.scores.get(scorer, {}), after.scores.get(scorer, {})
    lowest = min([*ours.values(), *theirs.values()], default=0.0)
    rows = [row for row in before.documents if row in ours or row in theirs]
    return compared(scorer, [(before.documents[row], ours.get(row, lowest), theirs.get(row, lowest)) for row in rows])


@dataclass(frozen=True)
class Verdict:
    """The best round so far, and the reason to stop (empty to continue)."""

    best: Round | None
    stop: str = ""


def verdict(rounds: Sequence[Round], judge: str, min_entropy: float) -> Verdict:
    """Return the best round, and why to stop.

    A round replaces the best so far if the judge's mean over the same vibes is higher, and the label entropy is at
    least ``min_entropy`` times that of round 0. The first round that does not ends the rounds.
    """
    best, floor = rounds[0], min_entropy * rounds[0].entropy
    for one in rounds[1:]:
        if one.entropy < floor:
            return Verdict(best, f"label entropy of round {one.number} is {one.entropy:.2f}, below {floor:.2f}")
        change = against(best, one, judge)
        if change is None or change.difference <= 0:
            words = "no scores" if change is None else change.in_words()
            return Verdict(best, f"{judge} is not better in round {one.number} than in round {best.number}: {words}")
        best = one
    return Verdict(best)


def table(rounds: Sequence[Round], judge: str, guide: str) -> list[dict[str, Any]]:
    """Return one line per round: mean scores by judge and guide, the judge's difference to round 0, entropy."""
    lines: list[dict[str, Any]] = []
    for one in rounds:
        change = against(rounds[0], one, judge) if one.number else None
        line = {
            "round": one.number,
            "model": one.model,
            **{name: one.mean(name) for name in (judge, guide)},
            "against_round_0": change and change.difference,
            "low": change and change.low,
            "high": change and change.high,
            "entropy": one.entropy,
            "answered": one.answered,
            "learned": one.learned,
            "best_of": one.best_of,
        }
        lines.append({name: round(value, 4) if isinstance(value, float) else value for name, value in line.items()})
    return lines


def with_winner(rows: Iterable[ScoredRow]) -> list[ScoredRow]:
    """Return the rows with a winner, sorted by row id, because the order of their file depends on timing."""
    return sorted((row for row in rows if row.config_payload is not None), key=lambda row: row.row_id)


def best_scores(rows: Sequence[ScoredRow]) -> float | None:
    """Return the mean of the winners' scores by the scorer that chose them; None without scores."""
    known = [score for row in rows if (score := row.winner_score) is not None]
    return sum(known) / len(known) if known else None
