"""Choose the checkpoint by score: at each validation some rows are answered, rendered and scored."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from latentscore_data.core.scoring.service import ScoringService
from latentscore_data.core.training.audit import COMPLETION_ROOM
from latentscore_data.core.training.context import TrainContext
from latentscore_data.core.training.loop import MetricsCallback
from latentscore_data.core.training.run_health import label_entropy

UNPLAYABLE = -1.0
"""The score of an answer that cannot be rendered: the lowest cosine there is."""

AT_ONCE = 8
SECONDS = 5.0
"""Seconds of audio rendered per validation answer, as for a GRPO completion."""


@dataclass(frozen=True)
class Answers:
    """What a model answered to the validation rows: payloads (None where none could be read), and the share that was valid
    without the grammar's help."""

    payloads: list[dict[str, Any] | None]
    valid: float


class ScoreCallback(TrainerCallback):
    """Adds ``eval_score``, ``eval_valid`` and ``eval_label_entropy`` to the metrics of each validation.

    The trainer compares checkpoints by what stands in the metrics when this callback returns, so it comes before the one
    that stops early.
    """

    def __init__(self, context: TrainContext, score_pairs: ScorePairs, watch: MetricsCallback) -> None:
        self._context, self._score_pairs, self._watch = context, score_pairs, watch
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
        self._watch.add({"step": state.global_step, **line})

    def _measured(self) -> dict[str, float]:
        found = answer_rows(self._context, self._rows)
        pairs = [(row.vibe_original, p["config"]) for row, p in zip(self._rows, found.payloads, strict=True) if p]
        sound_scores = iter(self._score_pairs(pairs) if pairs else [])
        given = [next(sound_scores) if payload else None for payload in found.payloads]
        scores = [score if score is not None and math.isfinite(score) else UNPLAYABLE for score in given]
        return {
            "eval_score": sum(scores) / len(scores),
            "eval_valid": found.valid,
            "eval_label_entropy": label_entropy([payload["config"] for payload in found.payloads if payload]),
        }


def answer_rows(context: TrainContext, rows: Sequence[ScoredRow]) -> Answers:
    """One greedy answer to each row: free, and where that is not a payload once more under the grammar of its form."""
    loaded = context.loaded
    decoder = SchemaDecoder(loaded.model, loaded.tokenizer, context.spec.base_model)
    room = math.ceil(COMPLETION_ROOM * context.audit.answer_tokens["max"])
    spec, form = context.spec, context.spec.form
    prompts = [
        Prompt(prompt_messages(row.vibe_for_training, spec.system, form), room, openings=form.openings) for row in rows
    ]
    training = loaded.model.training
    loaded.model.eval()
    try:
        free = _written(decoder, prompts)
        payloads = [_payload(text, row, form) for text, row in zip(free, rows, strict=True)]
        broken = [at for at, payload in enumerate(payloads) if payload is None]
        grammar = form.grammar()
        held = _written(decoder, [replace(prompts[at], grammar=grammar) for at in broken])
    finally:
        loaded.model.train(training)
    for at, text in zip(broken, held, strict=True):
        payloads[at] = _payload(text, rows[at], form)
    return Answers(payloads, 1 - len(broken) / len(rows))


def _written(decoder: SchemaDecoder, prompts: Sequence[Prompt]) -> list[str]:
    starts = range(0, len(prompts), AT_ONCE)
    return [written.text for start in starts for written in decoder.write(prompts[start : start + AT_ONCE])]


def _payload(text: str, row: ScoredRow, form: AnswerForm) -> dict[str, Any] | None:
    try:
        said = payload_text(form, text, row.vibe_original)
        return parse_payload(json.loads(said, strict=False)).model_dump(mode="json")
    except (ValueError, RecursionError, InvalidConfigError):
        return None


@contextlib.contextmanager
def score_callbacks(
    context: TrainContext, validating: bool
) -> Iterator[Callable[[MetricsCallback], list[TrainerCallback]]]:
    """What makes the callback that scores validation answers, with its renderers running; none where the spec chooses by the loss."""
    if not validating or context.spec.choose_by != "score":
        yield lambda _: []
        return
    if not is_first():  # the first process scores for all
        yield lambda watch: [ScoreCallback(context, lambda pairs: [], watch)]
        return
    with open_scorer(context.spec.scoring, "auto", SECONDS) as (name, why, score_pairs):
        context.watching.say(f"the checkpoint is chosen by {name}{f' ({why})' if why else ''}")
        context.folder.note(choice_scorer=name)
        yield lambda watch: [ScoreCallback(context, score_pairs, watch)]


@contextlib.contextmanager
def open_scorer(scoring: ScoringSettings | None, scorer: str, seconds: float) -> Iterator[tuple[str, str, ScorePairs]]:
    """(scorer, why this one, a function that scores pairs): renders in worker processes, each config once."""
    if scoring is None:
        raise InputError("the spec of this run contains no settings of scorers", "make it with lsdata train")
    settings = scoring.model_copy(update={"seconds": seconds})
    name, why = resolve_auto(settings) if scorer == "auto" else (scorer, "")
    made = make_scorer(name, ScorerDeps(settings))
    with ScoringService([made], settings) as service:

        def score_pairs(pairs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[float | None]:
            return [_score_of(scored_render, made.name) for scored_render in service.score_all(pairs)]

        yield name, why, score_pairs


def _score_of(scored_render: Any, scorer: str) -> float | None:
    if scored_render.failure is not None:
        return None
    score = scored_render.score(scorer)
    return math.nan if score is None else score.final_score
