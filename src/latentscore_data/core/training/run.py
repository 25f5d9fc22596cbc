"""One training run, from its folder's spec and rows to its model: on a laptop, on a GPU, or inside Modal."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from latentscore.forms import FORM_FILE, JSON
from latentscore_data import __version__
from latentscore_data.core.base.errors import LsdataError, MissingError, OutputError, require
from latentscore_data.core.base.jsonl import replace_json
from latentscore_data.core.base.manifest import utc_now
from latentscore_data.core.base.rows import selection_scorers
from latentscore_data.core.models.base_models import BASE_FILE, adapter_base, load_base, pick_device, weights_digest
from latentscore_data.core.models.ranks import is_first
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.training.audit import audit, count_parameters
from latentscore_data.core.training.context import (
    TrainContext,
    Watching,
    disk_full,
    load_policy,
    policy_folder,
    quiet_libraries,
)
from latentscore_data.core.training.prepare import limited
from latentscore_data.core.training.run_health import draw, finite

log = logging.getLogger(__name__)

RECIPES = {
    "sft": "latentscore_data.core.training.sft:train_sft",
    "grpo": "latentscore_data.core.training.grpo:train_grpo",
    "dpo": "latentscore_data.core.training.dpo:train_dpo",
}
"""The function of each recipe, (context, reward) -> (trainer, metrics). Only the one that runs is imported: TRL is slow."""

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers", "numpy")

Reward = Callable[[Sequence[str], Sequence[str]], Sequence[Any]]
"""One's own reward: (vibes, answers) -> a number for each."""


def run_training(
    spec: TrainSpec,
    out_dir: Path,
    on_checkpoint: Callable[[Path], None] | None = None,
    *,
    say: Callable[[str], None] = log.info,
    reward: Reward | None = None,
    deadline: float | None = None,
) -> dict[str, Any]:
    """Train as the spec says, in a run folder that ``runs.open_run`` and its ``data/`` have made ready.

    Goes on from the newest complete checkpoint; a finished run is left as it is. ``on_checkpoint`` is called with each
    complete checkpoint, and once more with ``out_dir`` at the end. Returns what ``run.json`` holds. ``reward`` replaces
    the reward of a GRPO spec; after ``deadline`` (Unix time) the run stops with :class:`StoppedError`. Raises children of
    :class:`LsdataError`.
    """
    folder = RunFolder(out_dir)
    if folder.done:
        say(f"run {folder.run_id} is finished")
        return folder.record()
    for module in ("torch", "transformers", "trl", "peft"):
        require(module, "ml", "training")
    check_tracker(spec)
    started = time.monotonic()
    before = float(folder.record().get("seconds", 0.0))
    if folder.record().get("spec_hash", spec.hash()) != spec.hash() and (newest := folder.newest_checkpoint()):
        folder.note(changed_after=newest.name)
    folder.note(
        run_id=folder.run_id,
        kind=spec.kind,
        method=spec.method,
        base_model=spec.base_model,
        adapter=spec.adapter,
        status="running",
        error=None,
        started=folder.record().get("started") or utc_now(),
        spec=spec.model_dump(mode="json"),
        spec_hash=spec.hash(),
        versions=versions(),
    )
    try:
        facts = _train(spec, folder, on_checkpoint, say, reward, deadline)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        if not isinstance(error, OutputError):
            folder.note(
                status="interrupted" if stopped else "failed",
                error=None if stopped else error.message if isinstance(error, LsdataError) else repr(error)[:500],
                seconds=before + time.monotonic() - started,
            )
        raise
    if not is_first():
        return folder.record()
    folder.note(**facts, status="finished", finished=utc_now(), seconds=round(before + time.monotonic() - started, 3))
    draw(folder.history(), f"{folder.run_id}: {spec.base_model}", folder.picture)
    folder.mark_done()
    if on_checkpoint is not None:
        on_checkpoint(out_dir)
    return folder.record()


def _train(
    spec: TrainSpec,
    folder: RunFolder,
    on_checkpoint: Callable[[Path], None] | None,
    say: Callable[[str], None],
    reward: Reward | None,
    deadline: float | None,
) -> dict[str, Any]:
    device = pick_device(spec.device)
    if spec.kind == "sft":
        loaded = load_base(spec.base_model, runs=folder.path.parent, device=device, quantize=spec.quantize)
    else:
        loaded = load_policy(spec, folder, device)
    rows = limited({role: folder.rows(role) for role in spec.data}, spec)
    report, kept = audit(spec, rows, loaded.tokenizer)
    count_parameters(report, spec, folder.path.parent)
    # In the benchmark, a model that learned a scorer's choices is marked under that scorer.
    chosen_by = selection_scorers(kept["train"]) if spec.kind != "grpo" else ()
    folder.note(audit=asdict(report), device=device, chosen_by=chosen_by)
    watching = Watching(say, on_checkpoint, deadline) if is_first() else Watching(log.debug)
    context = TrainContext(spec, folder, loaded, kept, report, device, watching)
    trainer, watch = resolve_name(RECIPES[spec.kind])(context, reward)
    if is_first():
        save_final(trainer, spec, folder)
    return {"metrics": figures(watch.history), "health": watch.findings}


def check_tracker(spec: TrainSpec) -> None:
    """Raise :class:`MissingError` unless the library that gets the metrics is here."""
    if spec.tracker != "none" and importlib.util.find_spec(spec.tracker) is None:
        raise MissingError(
            f"train.tracker is {spec.tracker}, which is not installed",
            f"pip install {spec.tracker}, or --set tracker=none",
        )


def save_final(trainer: Any, spec: TrainSpec, folder: RunFolder) -> None:
    """The adapter, or the whole model, with its tokenizer."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    with disk_full(folder.path), quiet_libraries():
        if spec.method == "lora":
            model.peft_config["default"].base_model_name_or_path = adapter_base_name(spec, folder)
            # A run that goes on from an adapter holds a frozen copy of where it started as a second adapter; only the trained one is kept.
            model.save_pretrained(str(folder.final), selected_adapters=["default"], save_embedding_layers=False)
            if spec.quantize == "none":  # packed weights have no digest that whole ones could be compared with
                base = {"name": adapter_base_name(spec, folder), "weights": weights_digest(model)}
                replace_json(folder.final / BASE_FILE, base)
        else:
            model.save_pretrained(str(folder.final))
        trainer.processing_class.save_pretrained(str(folder.final))
    if spec.answer != JSON.name:
        replace_json(folder.final / FORM_FILE, {"answer": spec.answer, "system": spec.system})


def adapter_base_name(spec: TrainSpec, folder: RunFolder) -> str:
    """What an adapter is put on: the base model, or the fully trained model that GRPO put a new adapter on."""
    start = policy_folder(spec, folder)
    return spec.base_model if start is None or adapter_base(start) is not None else str(spec.adapter)


def figures(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The run in a few numbers: first and last loss, best validation loss and score, reward at either end; all of them finite."""
    found: dict[str, float] = {}
    for name in ("loss", "reward", "entropy"):
        values = finite(history, name)
        if values:
            tail = max(1, min(5, len(values) // 4))
            found[f"first_{name}"] = sum(values[:tail]) / tail
            # A run that diverged has no last value: that of its good days would make it look like the others.
            if math.isfinite(next(line[name] for line in reversed(history) if name in line)):
                found[f"last_{name}"] = sum(values[-tail:]) / tail
    if validated := finite(history, "eval_loss"):
        found["best_eval_loss"] = min(validated)
    if scored := finite(history, "eval_score"):
        found["best_eval_score"] = max(scored)
    found["steps"] = max((line["step"] for line in history), default=0)
    return found


def versions() -> dict[str, str]:
    """What the result depends on besides spec and rows."""
    found = {"lsdata": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
