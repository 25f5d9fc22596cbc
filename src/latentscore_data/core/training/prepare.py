"""From the workspace's rows to a run that is ready to train: its spec, its folder, its data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from latentscore_data.core.errors import MissingError
from latentscore_data.core.jsonl_io import dump_line, read_rows, replace_bytes
from latentscore_data.core.rows import ScoredRow
from latentscore_data.core.settings import ScoringSettings, TrainSettings
from latentscore_data.core.training.runs import RunFolder, slim
from latentscore_data.core.training.spec import Choices, DataFact, Kind, Origins, TrainSpec, build_spec, check_run_id
from latentscore_data.core.workspace import Workspace

SPLIT_OF: dict[Kind, str] = {"sft": "SFT-Train", "grpo": "GRPO"}
VALIDATION_SPLIT = "SFT-Val"


@dataclass(frozen=True)
class Prepared:
    """A run that could start."""

    spec: TrainSpec
    origins: Origins
    folder: RunFolder
    rows: dict[str, list[ScoredRow]]
    lines: dict[str, list[bytes]]

    def write_data(self) -> None:
        """Put the rows into the run folder, so that a resumed run sees the rows it began with."""
        for role, lines in self.lines.items():
            path = self.folder.data(role)
            if not path.exists():
                replace_bytes(path, lines)


def prepare(settings: TrainSettings, scoring: ScoringSettings, workspace: Workspace, choices: Choices) -> Prepared:
    """Read the rows and resolve the spec. Nothing is written.

    Raises :class:`MissingError` when there are no rows to train on, and :class:`InputError` for values that do not fit.
    """
    if choices.run_id is not None:
        check_run_id(choices.run_id)
    rows = training_rows(workspace, choices.kind)
    lines = {role: [dump_line(row) for row in slim(some)] for role, some in rows.items()}
    data = {
        role: DataFact(sha256=hashlib.sha256(b"".join(some)).hexdigest(), rows=len(some))
        for role, some in lines.items()
    }
    spec, origins = build_spec(settings, choices, data, scoring)
    return Prepared(spec, origins, RunFolder(workspace.train_dir / spec.run_id), rows, lines)


def training_files(workspace: Workspace, kind: Kind) -> dict[str, Path]:
    """The files that a kind of training reads, by role; validation rows only where there are any."""
    files = {"train": workspace.scored(SPLIT_OF[kind])}
    if (validation := workspace.scored(VALIDATION_SPLIT)).exists():
        files["val"] = validation
    return files


def training_rows(workspace: Workspace, kind: Kind) -> dict[str, list[ScoredRow]]:
    """The rows by role. Raises :class:`MissingError` when there are none to train on."""
    files = training_files(workspace, kind)
    train = list(read_rows(files["train"], ScoredRow, torn="drop")) if files["train"].exists() else []
    split = SPLIT_OF[kind]
    if not train:
        raise MissingError(f"there are no {split} rows in {files['train']}", f"lsdata configs --split {split}")
    if not any(row.config_payload is not None for row in train):
        raise MissingError(
            f"none of the {len(train)} {split} rows holds a payload", f"lsdata configs --split {split} --retry-failed"
        )
    validation = list(read_rows(files["val"], ScoredRow, torn="drop")) if "val" in files else []
    return {"train": train, **({"val": validation} if validation else {})}
