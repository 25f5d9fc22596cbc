"""The run folder: ``.modal_outputs/<run_id>/``, the same on a laptop, on a GPU and on Modal's volume.

spec.json        what was asked, written before anything starts
data/            the rows the run is made from, as they were when it started
start/           the adapter that GRPO or DPO goes on from, when it does not come from a run beside this one
checkpoints/     checkpoint-N, complete when checkpoints.damage finds nothing
metrics.jsonl    one line per logged step
loss.png         the same as a picture
final/           the adapter (or the whole model) with its tokenizer
run.json         what came out: status, figures, health, versions
DONE             written last; lists the files of final/ with their SHA-256
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
        """What the DONE mark of a run that was trained here is called beside the copy of its model on Modal's volume."""

    def data(self, role: str) -> Path:
        return self.path / "data" / f"{role}.jsonl"

    @property
    def done(self) -> bool:
        return self.done_mark.exists()

    def spec(self) -> TrainSpec | None:
        """The spec the folder was started with, or None where there is none. Raises :class:`InputError`."""
        if not self.spec_file.exists():
            return None
        try:
            return TrainSpec.model_validate_json(read_whole(self.spec_file))
        except (ValidationError, ValueError, OSError):
            raise InputError(
                f"{self.spec_file} is not a training spec of this version", "use another --run-id, or --resume never"
            ) from None

    def record(self) -> dict[str, Any]:
        """``run.json``, empty where there is none."""
        if not self.record_file.exists():
            return {}
        remedy = "delete it: it is written again by the same training command"
        record = read_object(self.record_file, remedy)
        if wrong := [name for name in ("spec", "versions", "metrics") if not isinstance(record.get(name, {}), dict)]:
            raise InputError(f"{self.record_file} is damaged ({wrong[0]} is not a table)", remedy)
        return record

    def note(self, **facts: Any) -> None:
        """Add facts to ``run.json``; of several processes that train together only the first does."""
        if not is_first():
            return
        replace_json(self.record_file, {**self.record(), **facts})

    def newest_checkpoint(self, say: Callable[[str], None] = log.debug) -> Path | None:
        """The newest complete checkpoint; ``say`` gets a line for each newer one that is damaged."""
        return newest_whole(self.checkpoints, say)

    def rows(self, role: str) -> list[ScoredRow]:
        path = self.data(role)
        return list(read_rows(path, ScoredRow)) if path.exists() else []

    def other_rows(self, spec: TrainSpec) -> list[str]:
        """The roles whose rows are not here, or are not those of the spec."""
        paths = {role: self.data(role) for role in spec.data}
        return [
            role
            for role, path in paths.items()
            if not path.exists() or file_fact(path).sha256 != spec.data[role].sha256
        ]

    def history(self) -> list[dict[str, Any]]:
        """The logged steps so far. JSON knows no NaN: a number that was none is written as null and is NaN again here."""
        lines = read_lines(self.metrics, torn="drop") if self.metrics.exists() else ()
        return [{name: math.nan if value is None else value for name, value in line.items()} for _, line in lines]

    def forget_after(self, step: int) -> None:
        """Drop the logged steps that a resumed run will do again."""
        if self.metrics.exists() and is_first():
            replace_rows(self.metrics, [line for line in self.history() if line.get("step", 0) <= step])

    def clear(self) -> None:
        """Back to an empty folder."""
        if self.path.exists():
            with writing(self.path):
                shutil.rmtree(self.path)

    def mark_done(self) -> None:
        """List what must arrive whole, last of all."""
        kept = [self.spec_file, self.record_file, self.metrics, self.picture, *sorted(self.final.rglob("*"))]
        files = {path.relative_to(self.path).as_posix(): asdict(file_fact(path)) for path in kept if path.is_file()}
        replace_json(self.done_mark, {"run_id": self.run_id, "files": files})

    def verify(self) -> None:
        """Compare every file with the DONE mark. Raises :class:`VerificationError` naming the first that differs."""
        remedy = f"lsdata train fetch {self.run_id}"
        listed = read_object(self.done_mark, remedy).get("files")
        if not isinstance(listed, dict) or not all(isinstance(fact, dict) for fact in listed.values()):
            raise VerificationError(f"{self.done_mark} lists no files", remedy)
        for name, fact in listed.items():
            path = self.path / name
            if not path.is_file() or file_fact(path).sha256 != fact.get("sha256"):
                raise VerificationError(f"{path} differs from the file that the run wrote", remedy)


def open_run(folder: RunFolder, spec: TrainSpec, *, resume: bool, force: bool) -> None:
    """Make the folder ready for this spec: new, resumed, or begun again. Raises :class:`InputError` when it holds a run
    of another spec."""
    if not resume:
        folder.clear()
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
    """``final`` itself. Raises :class:`InputError` when it is the ``final/`` of a run that has not come to its end."""
    run = RunFolder(final.absolute().parent)
    if final.name == run.final.name and run.spec_file.exists() and not run.done and not run.uploaded_mark.exists():
        raise InputError(
            f"run {run.run_id} is not finished, so its model may be incomplete",
            "run the command that started it again; it resumes from its newest checkpoint",
        )
    return final


def find_runs(train_dir: Path) -> Iterator[RunFolder]:
    """The runs in a workspace, the newest first."""
    specs = sorted(train_dir.glob("*/spec.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return (RunFolder(path.parent) for path in specs)


def find_run(train_dir: Path, run_id: str) -> RunFolder:
    """A run by its id. Raises :class:`InputError` naming those there are."""
    folder = RunFolder(train_dir / run_id)
    if not folder.spec_file.exists():
        known = ", ".join(run.run_id for run in find_runs(train_dir)) or "none yet"
        raise InputError(f"no run {run_id!r} in {train_dir} (known: {known})", "see lsdata train status")
    return folder


def newest_finished(
    train_dir: Path,
    kind: str,
    base_model: str,
    say: Callable[[str], None],
    skip: Sequence[str] = (),
    answer: str = "json",
) -> RunFolder | None:
    """The newest finished run of a kind on a base model that answers in this form; one that cannot be read is reported and skipped, and so are those
    whose ids begin with one of ``skip``."""
    for run in find_runs(train_dir):
        if not run.done or run.run_id.startswith(tuple(skip)):
            continue
        try:
            spec = run.spec()
        except InputError as error:
            say(f"run {run.run_id} is skipped: {error.message}")
            continue
        if spec is not None and (spec.kind, spec.base_model, spec.answer) == (kind, base_model, answer):
            return run
    return None


def slim(rows: Iterable[ScoredRow], *, pairs: bool = False) -> Iterator[dict[str, Any]]:
    """Rows as training needs them: who they are, both wordings, the answer and the winners' scores; with ``pairs`` the
    two answers of a preference pair as well."""
    for row in rows:
        yield {
            "row_id": row.row_id,
            "dataset": row.dataset,
            "id_in_dataset": row.id_in_dataset,
            "vibe_level": row.vibe_level,
            "vibe_scope": row.vibe_scope,
            "vibe_original": row.vibe_original,
            "vibe_noisy": row.vibe_noisy,
            "split": row.split,
            "config_payload": row.config_payload,
            "candidate_scores": row.candidate_scores,
            **({"config_candidates": row.config_candidates} if pairs else {}),
        }
