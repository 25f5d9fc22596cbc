"""The context of a training recipe: model, rows and progress; handling of the libraries' errors and output."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.core.base.jsonl import writing
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.models.base_models import Loaded, adapter_base, load_base, load_trained
from latentscore_data.core.models.ranks import first_alone
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.training.audit import Audit
from latentscore_data.core.training.prepare import check_adapter

Say = Callable[[str], None]


@dataclass(frozen=True)
class Watching:
    """The receivers of a run's progress, and its deadline."""

    say: Say
    on_checkpoint: Callable[[Path], None] | None = None
    """Called with the folder of each complete checkpoint."""
    deadline: float | None = None
    """Unix time in seconds after which the run stops."""


@dataclass(frozen=True)
class TrainContext:
    """One run, ready for its trainer: the model, and the rows within the token limit, by role."""

    spec: TrainSpec
    folder: RunFolder
    loaded: Loaded
    rows: dict[str, list[ScoredRow]]
    audit: Audit
    device: str
    watching: Watching


@contextlib.contextmanager
def disk_full(path: Path) -> Iterator[None]:
    """Convert errors of a full disk to :class:`OutputError`; those of a full GPU, and of a checkpoint whose base model is not
    the same any more, to :class:`InputError`."""
    try:
        with writing(path):
            yield
    except OutputError:
        raise
    except Exception as error:
        if "out of memory" in str(error):
            raise InputError(
                "the GPU has too little memory for this run",
                "use --set batch.per_device=1, a smaller --set max_tokens=..., or a larger GPU",
            ) from error
        if "size mismatch for" in str(error):
            raise InputError(
                f"the checkpoints of {path} do not fit the base model, which has changed since they were written",
                "use --resume never to begin again, or resume with the version of lsdata that wrote them",
            ) from error
        if "No space left" in str(error) or "os error 28" in str(error) or "file write failed" in str(error):
            raise OutputError(
                f"{path} cannot be written (no space left on device)",
                "free some disk space, or keep fewer checkpoints with --set checkpoint.keep=1, then run the same "
                "command again; it resumes from the newest checkpoint",
            ) from error
        raise


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Turn off the progress bars, log lines and FutureWarnings of the libraries; the run reports its own progress."""
    import datasets
    import transformers

    bars = datasets.are_progress_bars_disabled()
    verbosity = transformers.logging.get_verbosity()
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    trl = logging.getLogger("trl")
    level = trl.level
    trl.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        trl.setLevel(level)
        transformers.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()


def load_policy(spec: TrainSpec, folder: RunFolder, device: str) -> Loaded:
    """Load the model that GRPO and DPO start from: the adapter or model that the spec names, or its base model.

    Raises :class:`InputError` for an adapter of another base, or for an adapter if the spec trains all weights.
    """
    start = policy_folder(spec, folder)
    if start is not None and (base := adapter_base(start)) is not None:
        check_adapter(spec, base)
        return load_trained(start, runs=folder.path.parent, device=device, trainable=True, quantize=spec.quantize)
    name = spec.base_model if start is None else str(start)
    loaded = load_base(name, runs=folder.path.parent, device=device, quantize=spec.quantize)
    if spec.method == "full" and not Path(loaded.model.config._name_or_path or "-").is_dir():
        # The trainer loads the frozen reference model from the model's path. A random or a GGUF model has none.
        copy = folder.path / "reference"
        with first_alone() as first:
            if first:
                with disk_full(copy):
                    loaded.model.save_pretrained(copy)
                    loaded.tokenizer.save_pretrained(copy)
        return load_base(str(copy), device=device)
    return loaded


def policy_folder(spec: TrainSpec, folder: RunFolder) -> Path | None:
    """Return the folder of the adapter or model that the run continues, or None for the base model.

    Raises :class:`InputError` if it is missing.
    """
    if spec.adapter is None:
        return None
    for path in (folder.start, folder.path.parent / spec.adapter / "final", Path(spec.adapter)):
        if path.is_dir():
            return path
    raise InputError(f"{spec.adapter}, which the run should continue, is missing", "name it with --adapter")
