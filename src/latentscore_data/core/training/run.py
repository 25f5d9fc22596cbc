"""One training run, from the spec and the rows in its folder to its model, in this process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import math
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
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
from latentscore_data.core.base.settings import Recipe
from latentscore_data.core.models.base_models import (
    BASE_FILE,
    adapter_base,
    check_base,
    load_base,
    pick_device,
    weights_digest,
)
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

RECIPES: dict[Recipe, str] = {
    "sft": "latentscore_data.core.training.sft:train_sft",
    "grpo": "latentscore_data.core.training.grpo:train_grpo",
    "dpo": "latentscore_data.core.training.dpo:train_dpo",
}
"""The function of each recipe, (context) -> (trainer, metrics). Imported by name, because TRL is slow to import."""

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers", "numpy")


def run_training(
    spec: TrainSpec,
    out_dir: Path,
    on_checkpoint: Callable[[Path], None] | None = None,
    *,
    say: Callable[[str], None] = log.info,
    deadline: float | None = None,
) -> dict[str, Any]:
    """Train as the spec says, in a run folder that :func:`open_run` has opened and whose ``data/`` is written.

    Resumes from the newest complete checkpoint; a finished run is not trained again. ``on_checkpoint`` is called with
    each complete checkpoint, and with ``out_dir`` at the end. Returns the content of ``run.json``. Raises
    :class:`StoppedError` after ``deadline`` (Unix time in seconds), and other subclasses of :class:`LsdataError`.
    """
    folder = RunFolder(out_dir)
    if folder.done:
        say(f"run {folder.run_id} is finished")
        return folder.record()
    check_libraries(spec)
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
    watching = Watching(say, on_checkpoint, deadline) if is_first() else Watching(log.debug)
    try:
        facts = _train(spec, folder, watching)
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


def _train(spec: TrainSpec, folder: RunFolder, watching: Watching) -> dict[str, Any]:
    device = pick_device(spec.device)
    if spec.kind == "sft":
        loaded = load_base(spec.base_model, runs=folder.path.parent, device=device, quantize=spec.quantize)
    else:
        loaded = load_policy(spec, folder, device)
    rows = limited({role: folder.rows(role) for role in spec.data}, spec)
    report, kept = audit(spec, rows, loaded.tokenizer)
    count_parameters(report, spec, folder.path.parent)
    # The benchmark marks the scores that a model gets from the scorer that chose its training rows.
    chosen_by = selection_scorers(kept["train"]) if spec.kind != "grpo" else ()
    folder.note(audit=asdict(report), device=device, chosen_by=chosen_by)
    context = TrainContext(spec, folder, loaded, kept, report, device, watching)
    trainer, watch = resolve_name(RECIPES[spec.kind])(context)
    if is_first():
        save_final(trainer, spec, folder)
    return {"metrics": figures(watch.history), "health": watch.findings}


def check_start(spec: TrainSpec, runs: Path) -> None:
    """Raise :class:`MissingError` if a library, the base model or the GPU of a run is missing here.

    ``runs`` is the folder of the training runs, whose ids are also names of base models. Loads no model, downloads and
    writes nothing.
    """
    check_libraries(spec)
    check_base(spec.base_model, runs=runs)
    pick_device(spec.device)


def check_libraries(spec: TrainSpec) -> None:
    """Raise :class:`MissingError` unless the libraries of training and the tracker's are installed."""
    for module in ("torch", "transformers", "trl", "peft", "datasets"):
        require(module, "ml", "training")
    if spec.tracker != "none" and importlib.util.find_spec(spec.tracker) is None:
        raise MissingError(
            f"train.tracker is {spec.tracker}, which is not installed",
            f"pip install {spec.tracker}, or --set tracker=none",
        )


def save_final(trainer: Any, spec: TrainSpec, folder: RunFolder) -> None:
    """Write the adapter or the whole model, its tokenizer, and the form of its answers to ``final/``."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    with disk_full(folder.path), quiet_libraries():
        if spec.method == "lora":
            start = policy_folder(spec, folder)
            # GRPO and DPO can put a new adapter on a fully trained model.
            base = spec.base_model if start is None or adapter_base(start) is not None else str(spec.adapter)
            model.peft_config["default"].base_model_name_or_path = base
            # A run that continues an adapter has a frozen copy of it as a second adapter, which is not saved.
            model.save_pretrained(str(folder.final), selected_adapters=["default"], save_embedding_layers=False)
            if spec.quantize == "none":  # the digest of 4-bit weights differs from that of the base's files
                replace_json(folder.final / BASE_FILE, {"name": base, "weights": weights_digest(model)})
        else:
            model.save_pretrained(str(folder.final))
        trainer.processing_class.save_pretrained(str(folder.final))
    if spec.answer != JSON.name:
        replace_json(folder.final / FORM_FILE, {"answer": spec.answer, "system": spec.system})


def figures(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return loss, reward and entropy at the run's start and end, and the best validation loss and score."""
    found: dict[str, float] = {}
    for name in ("loss", "reward", "entropy"):
        values = finite(history, name)
        if values:
            tail = max(1, min(5, len(values) // 4))
            found[f"first_{name}"] = sum(values[:tail]) / tail
            # A run that diverged has no last value: its last finite value would hide this.
            if math.isfinite(next(line[name] for line in reversed(history) if name in line)):
                found[f"last_{name}"] = sum(values[-tail:]) / tail
    if validated := finite(history, "eval_loss"):
        found["best_eval_loss"] = min(validated)
    if scored := finite(history, "eval_score"):
        found["best_eval_score"] = max(scored)
    found["steps"] = max((line["step"] for line in history), default=0)
    return found


def versions() -> dict[str, str]:
    """Return the versions of the platform and the libraries, on which the result depends."""
    found = {"lsdata": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
