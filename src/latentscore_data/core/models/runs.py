"""The run folder: ``.modal_outputs/<run_id>/``, the same on this machine and on Modal's volume.

spec.json        the training spec, written before the run starts
data/            the rows of the run, as they were when it started
start/           the adapter that GRPO or DPO continues, if it does not come from a run beside this one
checkpoints/     checkpoint-N, complete if checkpoints.damage finds nothing
metrics.jsonl    one line per logged step
loss.png         the plot of the metrics
final/           the adapter (or the whole model) with its tokenizer
run.json         the record: status, figures, health, versions
DONE             written last; lists the files of the run with their SHA-256
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from latentscore.files import read_whole
from latentscore_data.core.base.errors import InputError, VerificationError
from latentscore_data.core.base.jsonl import read_lines, read_object, read_rows, replace_json, replace_rows, writing
from latentscore_data.core.base.manifest import file_fact
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.models.checkpoints import newest_whole
from latentscore_data.core.models.ranks import is_first
from latentscore_data.core.models.spec import TrainSpec, differences

log = logging.getLogger(__name__)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path, self.run_id = path, path.name
        self.spec_file = path / "spec.json"
        self.record_file = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.picture = path / "loss.png"
        self.checkpoints = path / "checkpoints"
        self.final = path / "final"
        self.start = path / "start"
        self.done_mark = path / "DONE"
        self.uploaded_mark = path / "UPLOADED"
        """On Modal's volume, the DONE mark of a model that was trained on this machine and uploaded."""

    def data(self, role: str) -> Path:
        return self.path / "data" / f"{role}.jsonl"

    @property
    def done(self) -> bool:
        return self.done_mark.exists()

    def spec(self) -> TrainSpec | None:
        """The spec of the run, or None without one. Raises :class:`InputError` for an invalid or older spec."""
        if not self.spec_file.exists():
            return None
        try:
            return TrainSpec.model_validate_json(read_whole(self.spec_file))
        except (ValidationError, ValueError, OSError):
            raise InputError(
                f"{self.spec_file} is not a training spec of this version", "use another --run-id, or --resume never"
            ) from None

    def record(self) -> dict[str, Any]:
        """The content of ``run.json``; empty without one. Raises :class:`InputError` for a damaged file."""
        if not self.record_file.exists():
            return {}
        remedy = "delete it: it is written again by the same training command"
        record = read_object(self.record_file, remedy)
        if wrong := [name for name in ("spec", "versions", "metrics") if not isinstance(record.get(name, {}), dict)]:
            raise InputError(f"{self.record_file} is damaged ({wrong[0]} is not a table)", remedy)
        return record

    def note(self, **facts: Any) -> None:
        """Add facts to ``run.json``, in the first process of the run."""
        if is_first():
            replace_json(self.record_file, {**self.record(), **facts})

    def newest_checkpoint(self, say: Callable[[str], None] = log.debug) -> Path | None:
        """The newest complete checkpoint, or None; ``say`` gets a line for each newer one that is damaged."""
        return newest_whole(self.checkpoints, say)

    def rows(self, role: str) -> list[ScoredRow]:
        """The rows of a role; empty without a file."""
        path = self.data(role)
        return list(read_rows(path, ScoredRow)) if path.exists() else []

    def other_rows(self, spec: TrainSpec) -> list[str]:
        """The roles whose rows in this folder are missing, or differ from those of the spec."""
        paths = {role: self.data(role) for role in spec.data}
        return [
            role
            for role, path in paths.items()
            if not path.exists() or file_fact(path).sha256 != spec.data[role].sha256
        ]

    def history(self) -> list[dict[str, Any]]:
        """The logged steps. NaN, which JSON does not have, is null in the file."""
        lines = read_lines(self.metrics, torn="drop") if self.metrics.exists() else ()
        return [{name: math.nan if value is None else value for name, value in line.items()} for _, line in lines]

    def forget_after(self, step: int) -> None:
        """Drop the logged steps after ``step``, which a resumed run repeats."""
        if self.metrics.exists() and is_first():
            replace_rows(self.metrics, [line for line in self.history() if line.get("step", 0) <= step])

    def mark_done(self) -> None:
        """Write the DONE mark with the SHA-256 of each file; it must be written last."""
        kept = [self.spec_file, self.record_file, self.metrics, self.picture, *sorted(self.final.rglob("*"))]
        files = {path.relative_to(self.path).as_posix(): asdict(file_fact(path)) for path in kept if path.is_file()}
        replace_json(self.done_mark, {"run_id": self.run_id, "files": files})

    def verify(self) -> None:
        """Compare every file with the DONE mark. Raises :class:`VerificationError` for the first that differs."""
        remedy = f"lsdata train fetch {self.run_id}"
        listed = read_object(self.done_mark, remedy).get("files")
        if not isinstance(listed, dict) or not all(isinstance(fact, dict) for fact in listed.values()):
            raise VerificationError(f"{self.done_mark} lists no files", remedy)
        for name, fact in listed.items():
            path = self.path / name
            if not path.is_file() or file_fact(path).sha256 != fact.get("sha256"):
                raise VerificationError(f"{path} differs from the file that the run wrote", remedy)


def open_run(folder: RunFolder, spec: TrainSpec, *, resume: bool, force: bool) -> None:
    """Prepare the folder for a run of this spec: a new one, or with ``resume`` the one in the folder.

    Raises :class:`InputError` if the folder holds a run of another spec, unless ``force``.
    """
    if not resume and folder.path.exists():
        with writing(folder.path):
            shutil.rmtree(folder.path)
    old = folder.spec()
    if old is not None and not force and (changed := differences(old, spec)):
        raise InputError(
            f"run {folder.run_id} exists with another spec ({'; '.join(changed[:3])}"
            + (f" and {len(changed) - 3} more)" if len(changed) > 3 else ")"),
            "use another --run-id, start again with --resume never, or continue with --force",
        )
    if old is not None and old != spec:
        folder.done_mark.unlink(missing_ok=True)
    replace_json(folder.spec_file, spec.model_dump(mode="json"))


def finished_final(final: Path) -> Path:
    """Return ``final``. Raises :class:`InputError` if it is the ``final/`` of a run that is not finished."""
    run = RunFolder(final.absolute().parent)
    if final.name == run.final.name and run.spec_file.exists() and not run.done and not run.uploaded_mark.exists():
        raise InputError(
            f"run {run.run_id} is not finished, so its model may be incomplete",
            "run the command that started it again; it resumes from its newest checkpoint",
        )
    return final


def find_runs(train_dir: Path) -> Iterator[RunFolder]:
    """Return the runs in a folder of runs, newest first."""
    specs = sorted(train_dir.glob("*/spec.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return (RunFolder(path.parent) for path in specs)


def find_run(train_dir: Path, run_id: str) -> RunFolder:
    """Return a run by its id. Raises :class:`InputError` for an unknown id."""
    folder = RunFolder(train_dir / run_id)
    if not folder.spec_file.exists():
        known = ", ".join(run.run_id for run in find_runs(train_dir)) or "none yet"
        raise InputError(f"no run {run_id!r} in {train_dir} (known: {known})", "see lsdata train status")
    return folder


def newest_sft(
    train_dir: Path, base_model: str, answer: str, say: Callable[[str], None], skip: Sequence[str] = ()
) -> RunFolder | None:
    """Return the newest finished SFT run on a base model whose answers have this form, or None.

    Runs whose ids begin with one of ``skip`` do not count. A run that cannot be read is reported and skipped.
    """
    for run in find_runs(train_dir):
        if not run.done or run.run_id.startswith(tuple(skip)):
            continue
        try:
            spec = run.spec()
        except InputError as error:
            say(f"run {run.run_id} is skipped: {error.message}")
            continue
        if spec is not None and (spec.kind, spec.base_model, spec.answer) == ("sft", base_model, answer):
            return run
    return None


TRAINING_FIELDS = (
    "row_id", "dataset", "id_in_dataset", "vibe_level", "vibe_scope", "vibe_original", "vibe_noisy", "split",
    "config_payload", "candidate_scores",
)  # fmt: skip
"""The fields of a row that training uses. Their order is part of the hash of a run's rows."""


def slim(rows: Iterable[ScoredRow], *, pairs: bool = False) -> Iterator[dict[str, Any]]:
    """Return the rows with only :data:`TRAINING_FIELDS`; with ``pairs`` also the two answers of a preference pair."""
    names = (*TRAINING_FIELDS, "config_candidates") if pairs else TRAINING_FIELDS
    return ({name: getattr(row, name) for name in names} for row in rows)
