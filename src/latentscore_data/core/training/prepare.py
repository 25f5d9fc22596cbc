"""Preparation of a run from the workspace's rows: its spec, its folder and its data; plans of runs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from latentscore.files import user_path
from latentscore.forms import JSON, AnswerForm, form_named, form_of
from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import InputError, MissingError, require
from latentscore_data.core.base.jsonl import dump_line, read_rows, replace_bytes
from latentscore_data.core.base.layers import leaves
from latentscore_data.core.base.marks import marks_file, read_preferences
from latentscore_data.core.base.rows import ScoredRow, spread
from latentscore_data.core.base.settings import (
    DpoSettings,
    PromptsSettings,
    Recipe,
    ScoringSettings,
    TrainSettings,
)
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.prompts import OWN, own_system
from latentscore_data.core.models.base_models import absolute_base, adapter_base, check_base, load_tokenizer
from latentscore_data.core.models.runs import RunFolder, find_runs, newest_sft, slim
from latentscore_data.core.models.spec import (
    Choices,
    DataFact,
    Origins,
    TrainSpec,
    build_spec,
    check_run_id,
    effective_settings,
)
from latentscore_data.core.training.audit import Audit, audit, count_parameters
from latentscore_data.core.training.preference import marked_pairs, preference_pairs

log = logging.getLogger(__name__)

Rows = dict[str, list[ScoredRow]]
"""Rows by role: ``train`` and, where there are any, ``val``."""

NO_ADAPTER = "none"
"""``--adapter none``: GRPO or DPO starts from the base model, even if there are SFT runs."""

VALIDATION_SPLIT = "SFT-Val"


def limited(rows: Mapping[str, Sequence[ScoredRow]], spec: TrainSpec) -> dict[str, list[ScoredRow]]:
    """Return the rows by role; the spec's limit applies only to training rows."""
    return {
        role: spread(some, spec.limit if role == "train" else None, lambda row: row.source_id)
        for role, some in rows.items()
    }


@dataclass(frozen=True)
class Prepared:
    """A run that can start."""

    spec: TrainSpec
    origins: Origins
    folder: RunFolder
    rows: dict[str, list[ScoredRow]]
    lines: dict[str, list[bytes]]

    def limited_rows(self) -> dict[str, list[ScoredRow]]:
        """Return the rows within the spec's limit, by role."""
        return limited(self.rows, self.spec)

    def write_data(self) -> None:
        """Write the rows to the run folder, so that a resumed run uses the same rows.

        Replaces the rows of an earlier spec (``--force``).
        """
        for role in self.folder.other_rows(self.spec):
            replace_bytes(self.folder.data(role), self.lines[role])


def prepare(
    settings: TrainSettings,
    scoring: ScoringSettings,
    workspace: Workspace,
    choices: Choices,
    say: Callable[[str], None] = log.info,
    rows: Rows | None = None,
    prompts: PromptsSettings = OWN,
) -> Prepared:
    """Read the rows (or take ``rows``, by role) and resolve the spec. Writes nothing.

    Raises :class:`MissingError` if there are no rows to train on, and :class:`InputError` for invalid values and for an
    adapter that does not match the spec.
    """
    if choices.run_id is not None:
        check_run_id(choices.run_id)
    train = effective_settings(settings, choices)[0]
    rows = training_rows(workspace, choices.kind, train) if rows is None else rows
    is_dpo, form = choices.kind == "dpo", form_named(train.answer)
    if is_dpo:
        rows = pair_rows(rows, train.dpo, say, workspace.root, form)
    lines = {role: [dump_line(row) for row in slim(some, pairs=is_dpo)] for role, some in rows.items()}
    data = {
        role: DataFact(sha256=hashlib.sha256(b"".join(some)).hexdigest(), rows=len(some))
        for role, some in lines.items()
    }
    if choices.kind != "sft":
        choices = replace(choices, adapter=starting_point(settings, choices, workspace, say))
    spec, origins = build_spec(settings, choices, data, scoring, own_system(prompts, form))
    spec = spec.model_copy(update={"base_model": absolute_base(spec.base_model, workspace.train_dir)})
    for start in (workspace.train_dir / str(spec.adapter) / "final", Path(str(spec.adapter))):
        if (base := adapter_base(start)) is not None:
            check_adapter(spec, base)
        if start.is_dir() and (answers := form_of(start).name) != spec.answer:
            raise InputError(
                f"{spec.adapter} has the answer format {answers}, and train.answer is {spec.answer}",
                f"use --set answer={answers}, or another --adapter",
            )
    return Prepared(spec, origins, RunFolder(workspace.train_dir / spec.run_id), rows, lines)


def starting_point(
    settings: TrainSettings, choices: Choices, workspace: Workspace, say: Callable[[str], None]
) -> str | None:
    """Return the run id or folder that GRPO or DPO continues: by default the newest finished SFT run of the base model,
    and None without one.

    Raises :class:`InputError` if it is missing or not finished.
    """
    named = choices.adapter
    if named == NO_ADAPTER:
        return None
    if named is not None:
        run = RunFolder(workspace.train_dir / named)
        if run.final.is_dir() and run.done:
            return named
        if user_path(named).is_dir():
            return str(user_path(named).resolve())
        known = [found.run_id for found in find_runs(workspace.train_dir) if found.done]
        raise InputError(
            f"--adapter {named} is neither a finished run nor a folder",
            f"finished runs: {', '.join(known) or 'none yet; run lsdata train sft first'}",
        )
    train = effective_settings(settings, choices)[0]
    base_model = absolute_base(train.base_model, workspace.train_dir)
    newest = newest_sft(workspace.train_dir, base_model, train.answer, say)
    if newest is None:
        say(
            f"no finished SFT run of {base_model}: {choices.kind.upper()} starts from the base model, which has not seen the format"
        )
        return None
    say(f"continuing from {newest.run_id}, the newest SFT run of {base_model} (--adapter names another)")
    return newest.run_id


def check_adapter(spec: TrainSpec, base: str) -> None:
    """Raise :class:`InputError` unless the spec can continue an adapter of ``base``."""
    if base != spec.base_model and not _same_path(base, spec.base_model):
        raise InputError(
            f"adapter {spec.adapter} was trained on {base}, not on {spec.base_model}",
            f"use --base-model {base}, or another --adapter",
        )
    if spec.method != "lora":
        raise InputError(
            f"{spec.adapter} is an adapter, and method full trains all weights", "leave --set method=full out"
        )


def _same_path(one: str, other: str) -> bool:
    """Return True for equal paths. Adapters made before version 0.2 may name their base by a relative path."""
    return Path(one).exists() and Path(one).resolve() == Path(other)


def split_of(kind: Recipe, settings: TrainSettings) -> str:
    """Return the split that a kind of training uses."""
    return {"sft": "SFT-Train", "grpo": "GRPO", "dpo": settings.dpo.split}[kind]


def training_files(workspace: Workspace, kind: Recipe, settings: TrainSettings) -> dict[str, Path]:
    """Return the files that a kind of training reads: ``train``, and ``val`` and ``marks`` if they exist."""
    files = {"train": workspace.scored(split_of(kind, settings))}
    if (validation := workspace.scored(VALIDATION_SPLIT)).exists():
        files["val"] = validation
    if kind == "dpo" and settings.dpo.marks != "no" and (marks := marks_file(workspace.root)).exists():
        files["marks"] = marks
    return files


def training_rows(workspace: Workspace, kind: Recipe, settings: TrainSettings) -> Rows:
    """Read the rows by role. Raises :class:`MissingError` if there are none to train on."""
    files = training_files(workspace, kind, settings)
    train = list(read_rows(files["train"], ScoredRow, torn="drop")) if files["train"].exists() else []
    split = split_of(kind, settings)
    if not train:
        raise MissingError(f"there are no {split} rows in {files['train']}", f"lsdata configs --split {split}")
    if not any(row.config_payload is not None for row in train):
        raise MissingError(
            f"none of the {len(train)} {split} rows holds a payload", f"lsdata configs --split {split} --retry-failed"
        )
    validation = list(read_rows(files["val"], ScoredRow, torn="drop")) if "val" in files else []
    return {"train": train, **({"val": validation} if validation else {})}


def pair_rows(rows: Rows, dpo: DpoSettings, say: Callable[[str], None], root: Path, form: AnswerForm = JSON) -> Rows:
    """Return the rows with a preference pair as candidates. Other validation rows keep their winner.

    Raises :class:`MissingError` if no row gives a pair.
    """
    marked = marked_pairs(rows["train"], read_preferences(root)) if dpo.marks != "no" else []
    if dpo.marks == "only" and not marked:
        raise MissingError(
            f"{marks_file(root)} contains no answers on the {len(rows['train'])} rows of {dpo.split}",
            "answer some in lsdata studio (Data, Which fits better?), or --set dpo.marks=also",
        )
    found = preference_pairs([] if dpo.marks == "only" else rows["train"], dpo, marked, form)
    if not found.pairs:
        raise MissingError(
            f"none of the {len(rows['train'])} rows gives a preference pair ({found.reasons()})",
            f"make several candidates per vibe: lsdata configs --split {dpo.split} --n 5 (--set dpo.margin=0 keeps near ties)",
        )
    by_people = f", {len(marked)} of them judged by people" if marked else ""
    left_out = f"; rows without one: {found.reasons()}" if found.left_out else ""
    say(f"{len(found.pairs)} preference pairs{by_people}{left_out}")
    validation = rows.get("val", [])
    pairs = {pair.row.row_id: pair.as_row() for pair in preference_pairs(validation, dpo, form=form).pairs}
    others = [pairs.get(row.row_id) or row.model_copy(update={"config_candidates": []}) for row in validation]
    return {"train": [pair.as_row() for pair in found.pairs], **({"val": others} if others else {})}


def check_lengths(run: Prepared, say: Callable[[str], None]) -> None:
    """Raise :class:`InputError` if all rows of a remote run are too long; report if tokens cannot be counted."""
    try:
        tokenizer = load_tokenizer(run.spec.base_model, runs=run.folder.path.parent)
    except MissingError as error:
        say(f"the rows are tokenized on Modal: {error.message}")
        return
    audit(run.spec, run.limited_rows(), tokenizer)


def plan(run: Prepared, estimate: Callable[[TrainSpec, Audit], JsonObject]) -> dict[str, Any]:
    """Return the plan of a run: the resolved spec with the values' origins, the audit, and the ``estimate``.

    Loads the tokenizer and the architecture of the base model, no weights. If they are missing, the plan has neither
    audit nor estimate, and names them under ``missing``. Raises what training raises before its first step.
    """
    values = leaves(run.spec.model_dump(mode="json", exclude={"data", "scoring", "run_id", "system"}))
    prompt = "the package's own" if run.spec.system is None else f"{len(run.spec.system):,} characters"
    spec = {
        **{name: (value, run.origins.get(name, "run")) for name, value in values},
        "system prompt": (prompt, "default" if run.spec.system is None else "prompts"),
    }
    found: dict[str, Any] = {"run_id": run.spec.run_id, "spec": spec, "audit": {}, "modal": {}, "missing": []}
    runs = run.folder.path.parent
    try:
        report, _ = audit(run.spec, run.limited_rows(), load_tokenizer(run.spec.base_model, runs=runs))
        count_parameters(report, run.spec, runs)
    except MissingError as error:
        return {**found, "missing": [str(error)]}
    return {**found, "audit": asdict(report), "modal": estimate(run.spec, report)}


def plan_without_rows(settings: TrainSettings, choices: Choices, error: MissingError, runs: Path) -> dict[str, Any]:
    """Return the plan of a run without rows: its values with their origins, and everything that is missing."""
    train, origins = effective_settings(settings, choices)
    missing = [str(error)]
    try:
        require("transformers", "ml", "training")
        check_base(train.base_model, runs=runs)
    except MissingError as other:
        missing.append(str(other))
    other_kinds = {"sft", "grpo", "dpo"} - {choices.kind}
    values = leaves(train.model_dump(mode="json", exclude={"skip", "recipes", "on", "modal", *other_kinds}))
    spec = {name: (value, origins.get(name, "default")) for name, value in values}
    return {"run_id": choices.run_id, "spec": spec, "audit": {}, "modal": {}, "missing": missing}
