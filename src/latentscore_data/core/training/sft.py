"""Supervised fine-tuning: the vibe in, the best answer out, through TRL's ``SFTTrainer``."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from peft import LoraConfig, PeftConfig
from transformers import TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from latentscore.forms import completion_messages, prompt_messages
from latentscore.prompt import template_options
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.training.context import TrainContext
from latentscore_data.core.training.loop import MetricsCallback, common_arguments, run_trainer, validation_arguments


def train_sft(context: TrainContext) -> tuple[Any, MetricsCallback]:
    """Train on the rows of ``train``, validate on those of ``val``. Return the trainer and the run's metrics."""
    spec, rows, tokenizer = context.spec, context.rows, context.loaded.tokenizer
    validating = bool(rows.get("val"))
    arguments = SFTConfig(
        **{**common_arguments(context), **validation_arguments(context, validating), **sequences(context)},
        completion_only_loss=True,
    )

    def make(callbacks: list[TrainerCallback]) -> SFTTrainer:
        return SFTTrainer(
            model=context.loaded.model,
            args=arguments,
            train_dataset=examples(rows["train"], tokenizer, spec),
            eval_dataset=examples(rows["val"], tokenizer, spec) if validating else None,
            processing_class=tokenizer,
            peft_config=lora_config(spec, context.loaded.model),
            callbacks=callbacks,
        )

    return run_trainer(make, context, validating)


def sequences(context: TrainContext) -> dict[str, Any]:
    """Return the trainer's arguments for sequences: one row each, padded to the longest of the batch, or packed rows.

    A packed sequence is as long as a whole padded batch and replaces it. Its rows do not attend to each other: the
    positions of each row start at 0, and the library derives a block-diagonal attention mask from them (eager and SDPA
    attention; flash attention needs no mask and is faster). Validation rows are not packed, so ``eval_loss`` does not
    depend on packing.
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
    """Return the prompt and the completion of each row as messages; the loss covers only the completion."""
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
    """Return the configuration of a new adapter on every linear layer (the library's default is two of them).

    None for a run that trains all weights or continues an adapter, which has its own configuration.
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
