"""The parts that all recipes share: the trainer's common arguments, its callbacks, the metrics file, resuming."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from latentscore_data.core.base.display import duration
from latentscore_data.core.base.errors import InputError, StoppedError
from latentscore_data.core.base.jsonl import Appender
from latentscore_data.core.models.checkpoints import mend_best, step_of
from latentscore_data.core.models.ranks import first_alone, is_first, world_size
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.training.choice import score_callbacks
from latentscore_data.core.training.context import TrainContext, Watching, disk_full, quiet_libraries
from latentscore_data.core.training.run_health import Line, health

LINES_EVERY_SECONDS = 10.0
CHECKPOINTS_PER_RUN = 10
LEAST_STEPS_BETWEEN_CHECKPOINTS = 5
MOST_STEPS_BETWEEN_CHECKPOINTS = 100


def steps_between_checkpoints(spec: TrainSpec, steps: int) -> int:
    """Return the steps between checkpoints: those of the spec, or ten checkpoints per run, 5 to 100 steps apart.

    So a crash loses few steps, and validation takes a small share of the time.
    """
    wanted = max(steps // CHECKPOINTS_PER_RUN, LEAST_STEPS_BETWEEN_CHECKPOINTS)
    return spec.checkpoint.every_steps or min(wanted, MOST_STEPS_BETWEEN_CHECKPOINTS, max(steps, 1))


def common_arguments(context: TrainContext) -> dict[str, Any]:
    """Return the arguments that the configurations of all trainers have in common."""
    import torch

    spec, steps, device = context.spec, context.audit.steps, context.device
    return {
        "output_dir": str(context.folder.checkpoints),
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": spec.optim.schedule,
        "warmup_steps": spec.optim.warmup,
        "weight_decay": spec.optim.weight_decay,
        "max_grad_norm": spec.optim.max_grad_norm,
        "max_steps": steps,
        "per_device_train_batch_size": spec.per_device,
        "gradient_accumulation_steps": spec.accumulation // world_size(),
        "activation_checkpointing": False,
        "logging_steps": 1,
        # By default a NaN loss is logged as 0, the best possible loss.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": steps_between_checkpoints(spec, steps),
        "save_total_limit": spec.checkpoint.keep,
        "seed": spec.seed,
        "data_seed": spec.seed,
        "use_cpu": device == "cpu",
        # Never float16: Gemma 3 overflows in it.
        "bf16": device == "cuda" and torch.cuda.is_bf16_supported(),
        "dataloader_pin_memory": device == "cuda",
        "report_to": spec.tracker,
        "run_name": spec.run_id,
        "disable_tqdm": True,
    }


def validation_arguments(context: TrainContext, validating: bool) -> dict[str, Any]:
    """Return the arguments to validate at each checkpoint and end with the best one, if ``validating``."""
    if not validating:
        return {"eval_strategy": "no"}
    return {
        "eval_strategy": "steps",
        "eval_steps": steps_between_checkpoints(context.spec, context.audit.steps),
        "per_device_eval_batch_size": context.spec.per_device,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{context.spec.choose_by.removeprefix('eval_')}",
        "greater_is_better": context.spec.choose_by == "score",
    }


class MetricsCallback(TrainerCallback):
    """Writes ``metrics.jsonl``, reports progress and complete checkpoints, and stops at the deadline."""

    def __init__(self, folder: RunFolder, watching: Watching) -> None:
        self.folder = folder
        self.history = folder.history()
        self.findings: list[str] = []
        self._say, self._on_checkpoint, self._deadline = watching.say, watching.on_checkpoint, watching.deadline
        self._out = Appender(folder.metrics)
        self._said = 0.0
        self._first: tuple[int, float] | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        line: Line = {"step": state.global_step, **{name: float(value) for name, value in (logs or {}).items()}}
        self.add(line)
        for finding in health(self.history):
            if finding not in self.findings:
                self.findings.append(finding)
                self._say(f"warning: {finding}")
        if "loss" in line and time.monotonic() - self._said > LINES_EVERY_SECONDS:
            self._said = time.monotonic()
            reward = f", reward {line['reward']:.3f}" if "reward" in line else ""
            left = self._time_left(state)
            self._say(f"step {state.global_step}/{state.max_steps}, loss {line['loss']:.4f}{reward}{left}")

    def add(self, line: Line) -> None:
        """Append a line to the run's metrics."""
        self.history.append(line)
        if is_first():
            self._out.append(line)

    def _time_left(self, state: TrainerState) -> str:
        """The remaining time, from the mean time per step in this process; empty before the second step."""
        now = time.monotonic()
        first, began = self._first = self._first or (state.global_step, now)
        if state.global_step == first:
            return ""
        seconds = (now - began) / (state.global_step - first) * (state.max_steps - state.global_step)
        return f", about {duration(seconds)} left"

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._deadline is not None and time.time() > self._deadline:
            raise StoppedError(
                f"run {self.folder.run_id} has reached its time-out at step {state.global_step} of {state.max_steps}",
                "raise train.modal.timeout_hours and start it again; it resumes from its newest checkpoint",
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._on_checkpoint is not None:
            self._on_checkpoint(self.folder.checkpoints / f"checkpoint-{state.global_step}")

    def close(self) -> None:
        self._out.close()


def run_trainer(
    make_trainer: Callable[[list[TrainerCallback]], Any], context: TrainContext, validating: bool
) -> tuple[Any, MetricsCallback]:
    """Train from the newest complete checkpoint, or from the start. Return the trainer and the run's metrics.

    ``make_trainer`` makes the trainer with the given callbacks. Only SFT and DPO stop early. Raises
    :class:`OutputError` if the disk is full, and :class:`InputError` if the GPU is out of memory or not even one step
    was trained.
    """
    folder, watching, patience = context.folder, context.watching, context.spec.checkpoint.early_stopping_patience
    stopping = [EarlyStoppingCallback(patience)] if validating and patience and context.spec.kind != "grpo" else []
    checkpoint = folder.newest_checkpoint(watching.say)
    folder.forget_after(step_of(checkpoint) if checkpoint else 0)
    if checkpoint:
        with first_alone() as first:
            if first:
                mend_best(checkpoint, watching.say)
        watching.say(f"resuming from {checkpoint.name}")
    watch = MetricsCallback(folder, watching)
    try:
        with score_callbacks(context, validating, watch.add) as scoring, disk_full(folder.path), quiet_libraries():
            trainer = make_trainer([watch, *scoring, *stopping])
            trainer.remove_callback(PrinterCallback)
            if checkpoint and _had_ended(trainer, checkpoint, context):
                watching.say(f"training had ended at {checkpoint.name}")
                watch.findings += health(watch.history)
            else:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        watch.close()
    if trainer.state.global_step == 0 < context.audit.steps:
        raise InputError(
            f"run {folder.run_id} ended before the first of its {context.audit.steps} steps",
            "use a smaller --set batch.size=..., or more rows",
        )
    return trainer, watch


def _had_ended(trainer: Any, checkpoint: Path, context: TrainContext) -> bool:
    """Return True if training had ended at ``checkpoint``; the trainer then holds the model that it ended with.

    A resumed trainer does not restore the patience counter of early stopping, and would train for a step or more. The
    counter is restored here, unless ``--force`` has changed the spec since.
    """
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    ended = state.global_step >= context.audit.steps
    changed = context.folder.record().get("changed_after") == checkpoint.name
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, EarlyStoppingCallback) and not changed:
            noted = cast("dict[str, Any]", state.stateful_callbacks).get("EarlyStoppingCallback", {})
            waited = noted.get("attributes", {}).get("early_stopping_patience_counter", 0)
            callback.early_stopping_patience_counter = waited
            ended = ended or waited >= callback.early_stopping_patience
    if ended:
        trainer.state = state
        best = checkpoint.parent / Path(state.best_model_checkpoint or checkpoint).name
        trainer._load_from_checkpoint(
            str(best if trainer.args.load_best_model_at_end and best.is_dir() else checkpoint)
        )
    return ended
