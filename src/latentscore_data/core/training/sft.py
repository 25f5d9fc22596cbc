"""Supervised fine-tuning: the vibe in, the best answer out, through TRL's ``SFTTrainer``."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from peft import LoraConfig, PeftConfig
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from latentscore.forms import completion_messages, prompt_messages
from latentscore.prompt import template_options
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.training.choice import score_callbacks
from latentscore_data.core.training.context import TrainContext
from latentscore_data.core.training.loop import (
    MetricsCallback,
    common_arguments,
    early_stopping,
    run_trainer,
    validation_arguments,
)


def train_sft(context: TrainContext, reward: object = None) -> tuple[Any, MetricsCallback]:
    """Train on the rows of ``train``, stop early on those of ``val``. Returns the trainer and what was watched."""
    spec, rows, tokenizer = context.spec, context.rows, context.loaded.tokenizer
    validating = bool(rows.get("val"))
    arguments = SFTConfig(
        **{**common_arguments(context), **validation_arguments(context, validating), **sequences(context)},
        completion_only_loss=True,
    )

    with score_callbacks(context, bool(validating)) as scoring:

        def make(watch: MetricsCallback) -> SFTTrainer:
            return SFTTrainer(
                model=context.loaded.model,
                args=arguments,
                train_dataset=examples(rows["train"], tokenizer, spec),
                eval_dataset=examples(rows["val"], tokenizer, spec) if validating else None,
                processing_class=tokenizer,
                peft_config=lora_config(spec, context.loaded.model),
                callbacks=[watch, *scoring(watch), *early_stopping(spec, validating)],
            )

        return run_trainer(make, context)


def sequences(context: TrainContext) -> dict[str, Any]:
    """How rows become sequences: one each, padded to the longest of the batch, or packed.

    A packed sequence has the room of a whole padded batch and takes its place. Its rows do not see each other: their positions
    begin anew, and from these the library's attention makes a mask of blocks (flash attention needs none and is faster, but
    eager and SDPA attention do the same). Validation rows are not packed, so that ``eval_loss`` does not depend on packing.
    """
    spec, longest = context.spec, context.audit.max_tokens
    if not spec.packs:
        return {"max_length": longest, "packing": False}
    return {
        "max_length": spec.per_device * longest,
        "packing": True,
        "eval_packing": False,
        "per_device_train_batch_size": 1,
    }


def examples(rows: list[ScoredRow], tokenizer: Any, spec: TrainSpec) -> Dataset:
    """Prompt and completion as messages; only the completion is learned."""
    options = template_options(tokenizer.chat_template)
    return Dataset.from_list(
        [
            {
                "prompt": prompt_messages(row.vibe_for_training, spec.system, spec.form),
                "completion": completion_messages(row.config_payload or {}, spec.form),
                **({"chat_template_kwargs": options} if options else {}),
            }
            for row in rows
        ]
    )


def lora_config(spec: TrainSpec, model: Any) -> PeftConfig | None:
    """The adapter of a LoRA run, on every linear layer (the library's default takes only two of them).

    None where an adapter is trained further: it brings its own configuration, and its start is the frozen reference.
    """
    if spec.method != "lora" or hasattr(model, "peft_config"):
        return None
    return LoraConfig(
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,
        lora_dropout=spec.lora.dropout,
        use_rslora=spec.lora.use_rslora,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
