"""DPO on pairs of a better and a worse answer to a vibe, with TRL's ``DPOTrainer``."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from latentscore.forms import completion_messages, prompt_messages
from latentscore.prompt import template_options
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.training.context import TrainContext
from latentscore_data.core.training.loop import MetricsCallback, common_arguments, run_trainer, validation_arguments
from latentscore_data.core.training.preference import pair_of
from latentscore_data.core.training.sft import lora_config


def train_dpo(context: TrainContext) -> tuple[Any, MetricsCallback]:
    """Train on the pairs of ``train`` (DPO, arXiv 2305.18290). Return the trainer and the run's metrics.

    The frozen reference is the model at the start of the run: a copy of the adapter that it continues, the base model
    under a new adapter, or a second copy of a model whose weights are all trained.
    """
    spec, loaded, tokenizer = context.spec, context.loaded, context.loaded.tokenizer
    validation = pairs(context.rows.get("val", []), tokenizer, spec)
    arguments = DPOConfig(
        **common_arguments(context),
        **validation_arguments(context, bool(validation)),
        max_length=context.audit.max_tokens,
        beta=spec.preference.beta,
        loss_type=["sigmoid", "sft"] if spec.preference.sft_weight else ["sigmoid"],
        loss_weights=[1.0, spec.preference.sft_weight] if spec.preference.sft_weight else None,
    )

    def make(callbacks: list[TrainerCallback]) -> DPOTrainer:
        return DPOTrainer(
            model=loaded.model,
            args=arguments,
            train_dataset=pairs(context.rows["train"], tokenizer, spec),
            eval_dataset=validation or None,
            processing_class=tokenizer,
            peft_config=lora_config(spec, loaded.model),
            callbacks=callbacks,
        )

    return run_trainer(make, context, bool(validation))


def pairs(rows: list[ScoredRow], tokenizer: Any, spec: TrainSpec) -> Dataset:
    """Return the prompt, the better and the worse answer of each row that holds a pair, as messages."""
    options = template_options(tokenizer.chat_template)
    return Dataset.from_list(
        [
            {
                "prompt": prompt_messages(row.vibe_for_training, spec.system, spec.form),
                "chosen": completion_messages(pair[0], spec.form),
                "rejected": completion_messages(pair[1], spec.form),
                **({"chat_template_kwargs": options} if options else {}),
            }
            for row in rows
            if (pair := pair_of(row)) is not None
        ]
    )
