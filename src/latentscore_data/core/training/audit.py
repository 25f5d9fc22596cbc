"""The audit of a run's rows before training: how many are usable, their lengths in tokens, the number of steps."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from latentscore.config import parse_payload
from latentscore.errors import InvalidConfigError
from latentscore.forms import AnswerForm, Message, completion_messages, prompt_messages
from latentscore.prompt import template_options
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.models.base_models import model_config
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.training.preference import pair_of

LENGTH_STEP = 64
"""A limit that is not set is rounded up to a multiple of so many tokens."""

COMPLETION_ROOM = 1.25
"""The token limit of a generated answer, as a multiple of the longest usual answer."""


@dataclass
class Audit:
    """Rows and tokens of one run. Percentiles are in tokens: ``{"p50": ..., "p95": ..., "p99": ..., "max": ...}``."""

    rows: dict[str, int] = field(default_factory=dict)
    """Usable rows by role."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Number of rows left out, by reason."""
    prompt_tokens: dict[str, int] = field(default_factory=dict)
    answer_tokens: dict[str, int] = field(default_factory=dict)
    row_tokens: dict[str, int] = field(default_factory=dict)
    max_tokens: int = 0
    """The token limit of a row (SFT and DPO) or of a prompt (GRPO)."""
    max_completion_tokens: int = 0
    steps: int = 0
    trainable_parameters: int = 0
    all_parameters: int = 0
    checkpoint_bytes: int = 0
    """Size of the trained weights and AdamW's two moments, in float32."""


@dataclass(frozen=True)
class Measured:
    """A row with the tokens of its prompt and of its answer (the longer answer of a preference pair)."""

    row: ScoredRow
    prompt_tokens: int
    answer_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.answer_tokens


def usable(rows: Sequence[ScoredRow], dropped: Counter[str]) -> list[ScoredRow]:
    """Return the rows with a valid payload, titles cut to the allowed length; count the others in ``dropped``."""
    kept: list[ScoredRow] = []
    for row in rows:
        if row.config_payload is None:
            dropped["no payload"] += 1
            continue
        try:
            title = parse_payload(row.config_payload).title
        except InvalidConfigError:
            dropped["invalid payload"] += 1
            continue
        kept.append(row.model_copy(update={"config_payload": {**row.config_payload, "title": title}}))
    return kept


def measure(rows: Sequence[ScoredRow], tokenizer: Any, system: str | None, form: AnswerForm) -> list[Measured]:
    """Count tokens with the tokenizer's own chat template."""
    options = template_options(tokenizer.chat_template)
    measured: list[Measured] = []
    for row in rows:
        prompt = prompt_messages(row.vibe_for_training, system, form)
        answers = pair_of(row) or (row.config_payload or {},)
        prompt_tokens = _tokens(tokenizer, prompt, add_generation_prompt=True, **options)
        total = max(_tokens(tokenizer, prompt + completion_messages(answer, form), **options) for answer in answers)
        measured.append(Measured(row, prompt_tokens, max(total - prompt_tokens, 0)))
    return measured


def _tokens(tokenizer: Any, messages: list[Message], **options: Any) -> int:
    return len(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)["input_ids"])


def audit(
    spec: TrainSpec, rows: dict[str, list[ScoredRow]], tokenizer: Any
) -> tuple[Audit, dict[str, list[ScoredRow]]]:
    """Measure the rows of a run and keep those within the token limit. ``rows`` is by role: ``train`` and ``val``.

    Raises :class:`InputError` if no training row is left, or fewer than one GRPO step needs.
    """
    report = Audit()
    dropped: Counter[str] = Counter()
    measured = {role: measure(usable(some, dropped), tokenizer, spec.system, spec.form) for role, some in rows.items()}
    train = measured["train"]
    if not train:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "there are none"
        raise InputError(f"no row can be trained on ({reasons})", "run lsdata configs first")
    report.prompt_tokens = percentiles([m.prompt_tokens for m in train])
    report.answer_tokens = percentiles([m.answer_tokens for m in train])
    report.row_tokens = percentiles([m.tokens for m in train])
    is_grpo = spec.kind == "grpo"
    limited = report.prompt_tokens if is_grpo else report.row_tokens
    report.max_tokens = spec.max_tokens or _round_up(limited["max" if is_grpo else "p99"])
    fits = {
        role: [m for m in some if (m.prompt_tokens if is_grpo else m.tokens) <= report.max_tokens]
        for role, some in measured.items()
    }
    if is_grpo:
        room = math.ceil(COMPLETION_ROOM * report.answer_tokens["p99"])
        report.max_completion_tokens = spec.rollout.max_completion_tokens or room
    if too_long := sum(len(measured[role]) - len(fits[role]) for role in measured):
        dropped[f"longer than {report.max_tokens} tokens"] = too_long
    if not fits["train"]:
        raise InputError(
            f"all {len(train)} rows are longer than max_tokens {report.max_tokens} (median {limited['p50']})",
            f"use --set max_tokens={_round_up(limited['p99'])}",
        )
    report.rows = {role: len(some) for role, some in fits.items()}
    report.dropped = dict(dropped)
    if is_grpo and report.rows["train"] < spec.prompts_per_step:
        # The trainer drops the last, incomplete step of an epoch. Here that is the only step.
        size = report.rows["train"] * spec.rollout.generations
        smaller = math.gcd(size, spec.per_device)
        raise InputError(
            f"{report.rows['train']} usable rows are fewer than the {spec.prompts_per_step} prompts of one step",
            f"use --set batch.size={size}"
            + (f" --set batch.per_device={smaller}" if smaller != spec.per_device else "")
            + ", or make more rows",
        )
    # An epoch consists of rows, or of sequences that rows are packed into.
    tokens = [m.tokens for m in fits["train"]]
    report.steps = spec.steps(packed(tokens, spec.per_device * report.max_tokens) if spec.packs else len(tokens))
    return report, {role: [m.row for m in some] for role, some in fits.items()}


def packed(lengths: Sequence[int], room: int) -> int:
    """Return how many sequences of ``room`` tokens the rows fill, packed best-fit decreasing like TRL's trainer."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        at = bisect.bisect_left(free, length)
        left = (free.pop(at) if at < len(free) else room) - length
        bisect.insort(free, left)
    return len(free)


def count_parameters(report: Audit, spec: TrainSpec, runs: Path | None = None) -> None:
    """Set the numbers of parameters and the checkpoint size of ``report``, from the architecture; loads no weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config(spec.base_model, runs=runs))
    report.all_parameters = sum(parameter.numel() for parameter in model.parameters())
    if spec.method == "lora":
        head = model.get_output_embeddings()
        report.trainable_parameters = sum(
            spec.lora.rank * (layer.in_features + layer.out_features)
            for layer in model.modules()
            if isinstance(layer, torch.nn.Linear) and layer is not head
        )
    else:
        report.trainable_parameters = report.all_parameters
    report.checkpoint_bytes = report.trainable_parameters * 4 * 3


def percentiles(values: Sequence[int]) -> dict[str, int]:
    """Return the percentiles, each a value that occurs in ``values``."""
    points = np.percentile(values, (50, 95, 99, 100), method="inverted_cdf")
    return dict(zip(("p50", "p95", "p99", "max"), map(int, points), strict=True))


def _round_up(tokens: int) -> int:
    return math.ceil(tokens / LENGTH_STEP) * LENGTH_STEP
