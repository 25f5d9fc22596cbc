"""Choice of the checkpoint by score: at each validation the model answers some rows, which are rendered and scored."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from latentscore.api.answers import payload_text
from latentscore.config import parse_payload
from latentscore.decoding import Prompt, SchemaDecoder
from latentscore.errors import InvalidConfigError
from latentscore.forms import AnswerForm, prompt_messages
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.models.ranks import is_first, of_first
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorer, resolve_auto
from latentscore_data.core.scoring.rewards import ScorePairs
from latentscore_data.core.scoring.service import ScoredRender, ScoringService
from latentscore_data.core.training.audit import COMPLETION_ROOM
from latentscore_data.core.training.context import TrainContext
from latentscore_data.core.training.run_health import Line, label_entropy

UNPLAYABLE = -1.0
"""The score of an answer that cannot be rendered: the lowest cosine."""

BATCH_SIZE = 8
SECONDS = 5.0
"""Seconds of audio rendered per validation answer, as for a GRPO completion."""


@dataclass(frozen=True)
class Answers:
    """A model's answers to the validation rows: payloads (None for an invalid answer), and the share, 0 to 1, that was
    valid without constrained decoding."""

    payloads: list[dict[str, Any] | None]
    valid: float


class ScoreCallback(TrainerCallback):
    """Adds ``eval_score``, ``eval_valid`` and ``eval_label_entropy`` to the metrics of each validation.

    Early stopping reads these metrics, so its callback must come after this one.
    """

    def __init__(self, context: TrainContext, score_pairs: ScorePairs, add: Callable[[Line], None]) -> None:
        self._context, self._score_pairs, self._add = context, score_pairs, add
        self._rows = context.rows["val"][: context.spec.choose_rows]

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        line = of_first(self._measured)
        if metrics is not None:
            metrics.update(line)
        self._context.watching.say(
            f"step {state.global_step}: score {line['eval_score']:.3f}, {line['eval_valid']:.0%} valid without the grammar, "
            f"label entropy {line['eval_label_entropy']:.2f} of 1"
        )
        self._add({"step": state.global_step, **line})

    def _measured(self) -> dict[str, float]:
        found = answer_rows(self._context, self._rows)
        pairs = [(row.vibe_original, p["config"]) for row, p in zip(self._rows, found.payloads, strict=True) if p]
        sound_scores = iter(self._score_pairs(pairs) if pairs else [])
        known = [next(sound_scores) if payload else None for payload in found.payloads]
        scores = [score if score is not None and math.isfinite(score) else UNPLAYABLE for score in known]
        return {
            "eval_score": sum(scores) / len(scores),
            "eval_valid": found.valid,
            "eval_label_entropy": label_entropy([payload["config"] for payload in found.payloads if payload]),
        }


def answer_rows(context: TrainContext, rows: Sequence[ScoredRow]) -> Answers:
    """Return one greedy answer to each row; an invalid one is generated again with constrained decoding."""
    loaded, spec, form = context.loaded, context.spec, context.spec.form
    decoder = SchemaDecoder(loaded.model, loaded.tokenizer, spec.base_model)
    room = math.ceil(COMPLETION_ROOM * context.audit.answer_tokens["max"])
    prompts = [
        Prompt(prompt_messages(row.vibe_for_training, spec.system, form), room, openings=form.openings) for row in rows
    ]
    training = loaded.model.training
    loaded.model.eval()
    try:
        unconstrained = _generate(decoder, prompts)
        payloads = [_payload(text, row, form) for text, row in zip(unconstrained, rows, strict=True)]
        invalid = [at for at, payload in enumerate(payloads) if payload is None]
        grammar = form.grammar()
        constrained = _generate(decoder, [replace(prompts[at], grammar=grammar) for at in invalid])
    finally:
        loaded.model.train(training)
    for at, text in zip(invalid, constrained, strict=True):
        payloads[at] = _payload(text, rows[at], form)
    return Answers(payloads, 1 - len(invalid) / len(rows))


def _generate(decoder: SchemaDecoder, prompts: Sequence[Prompt]) -> list[str]:
    starts = range(0, len(prompts), BATCH_SIZE)
    return [written.text for start in starts for written in decoder.write(prompts[start : start + BATCH_SIZE])]


def _payload(text: str, row: ScoredRow, form: AnswerForm) -> dict[str, Any] | None:
    try:
        answer = json.loads(payload_text(form, text, row.vibe_original), strict=False)
        return parse_payload(answer).model_dump(mode="json")
    except (ValueError, RecursionError, InvalidConfigError):
        return None


@contextlib.contextmanager
def score_callbacks(
    context: TrainContext, validating: bool, add: Callable[[Line], None]
) -> Iterator[list[TrainerCallback]]:
    """The callback that scores validation answers, while its rendering workers run; no callback if the spec chooses by
    the loss. ``add`` appends a line to the run's metrics."""
    if not validating or context.spec.choose_by != "score":
        yield []
    elif not is_first():  # the first process scores for all
        yield [ScoreCallback(context, lambda pairs: [], add)]
    else:
        with open_scorer(context.spec.scoring, "auto", SECONDS) as (name, why, score_pairs):
            context.watching.say(f"the checkpoint is chosen by {name}{f' ({why})' if why else ''}")
            context.folder.note(choice_scorer=name)
            yield [ScoreCallback(context, score_pairs, add)]


@contextlib.contextmanager
def open_scorer(scoring: ScoringSettings | None, scorer: str, seconds: float) -> Iterator[tuple[str, str, ScorePairs]]:
    """Yield (scorer, reason for this choice, a function that renders and scores pairs), while rendering workers run.

    ``seconds`` is the length of the audio. The function returns None for a config that cannot be rendered, and NaN for
    a sound without a score. Raises :class:`InputError` for a spec without settings of scorers.
    """
    if scoring is None:
        raise InputError("the spec of this run contains no settings of scorers", "make it with lsdata train")
    settings = scoring.model_copy(update={"seconds": seconds})
    name, why = resolve_auto(settings) if scorer == "auto" else (scorer, "")
    made = make_scorer(name, ScorerDeps(settings))

    def score_of(scored: ScoredRender) -> float | None:
        if scored.failure is not None:
            return None
        score = scored.score(made.name)
        return math.nan if score is None else score.final_score

    with ScoringService([made], settings) as service:
        yield name, why, lambda pairs: [score_of(scored) for scored in service.score_all(pairs)]
