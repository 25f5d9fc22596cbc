"""The stage export: models, maps, data sets, chat files and the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from latentscore_data import __version__
from latentscore_data.core.base.display import say
from latentscore_data.core.base.errors import LsdataError, install, require
from latentscore_data.core.base.jsonl import replace_bytes, replace_json
from latentscore_data.core.base.manifest import StageFiles, write_manifest
from latentscore_data.core.base.marks import bad_rows
from latentscore_data.core.base.rows import SPLITS
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.export import (
    cards,
    chat,
    dataset,
    gguf,
    maps,
    merge,
    pictures,
    provenance,
    quantize,
    report,
    terms,
)
from latentscore_data.core.export.folder import check_target, new_folder, write_record
from latentscore_data.core.export.licenses import check_license
from latentscore_data.core.export.merge import find_source
from latentscore_data.core.export.provenance import licenses_by_dataset
from latentscore_data.core.export.terms import required
from latentscore_data.core.stages.base import Stage


def target_of(kind: str, settings: Settings, workspace: Workspace, out: Path | None) -> Path:
    """The folder that an export of this kind writes."""
    if out is not None:
        return out
    name = kind
    if kind == "map":
        name = f"map-{settings.export.map_kind}"
    elif kind == "model":
        name = find_source(settings.export.model, workspace.train_dir).name
    return workspace.export_dir / name


@dataclass(frozen=True)
class ExportJob:
    """An export that may begin: its target can be written."""

    kind: str
    workspace: Workspace
    target: Path
    overwrite: bool
    started: float

    def folder(self) -> AbstractContextManager[Path]:
        """A draft that takes the target's name when the block ends well."""
        return new_folder(self.target, self.overwrite)

    def summary(self, done: int, details: dict[str, Any], next_step: str) -> Summary:
        """What was written; ``{target}`` in ``next_step`` stands for the folder."""
        return Summary(
            f"export {self.kind}",
            done=done,
            seconds=time.monotonic() - self.started,
            details=details,
            outputs=[str(self.target)],
            next_step=next_step.replace("{target}", str(self.target)),
        )


def open_export(kind: str, settings: Settings, out: Path | None, overwrite: bool) -> ExportJob:
    """The first step of every export. Raises :class:`OutputError`, before any work, for a target that may not be written."""
    workspace = Workspace(settings.paths.root)
    target = target_of(kind, settings, workspace, out)
    check_target(target, overwrite)
    return ExportJob(kind, workspace, target, overwrite, time.monotonic())


def run_export_model(settings: Settings, *, out: Path | None = None, overwrite: bool = False) -> Summary:
    """One run or folder as safetensors and GGUF; every file is loaded again and compared before the folder gets its name."""
    chosen = settings.export
    for quantization in chosen.gguf:
        quantize.check_quantization(quantization)
    export = open_export("model", settings, out, overwrite)
    workspace = export.workspace
    source = merge.find_source(chosen.model, workspace.train_dir)
    for module in ("torch", "transformers", "peft", *(["gguf"] if chosen.gguf else [])):
        require(module, "ml", "exporting a model")
    if chosen.gguf:
        # Merging takes minutes, so what cannot be said in a GGUF is found out before it.
        gguf.architecture_of(merge.config_of(source, workspace.train_dir))
    with export.folder() as folder:
        say(f"export model: merging {source.name}")
        merged = merge.merge(source, workspace.train_dir, folder)
        files: dict[str, merge.Parity] = {}
        tools: dict[str, str] = {}
        for quantization in chosen.gguf:
            # In a folder of their own: beside a tokenizer_config.json, transformers would mix the two tokenizers.
            path = folder / "gguf" / f"{source.name}-{quantization}.gguf"
            say(f"export model: writing {path.name}")
            version = quantize.write_quantized(folder, path, quantization, source.name, chosen.tokenizer)
            if version is not None:
                tools[quantize.TOOL] = version
            files[f"gguf/{path.name}"] = gguf.verify_gguf(path, quantization, merged.logits, merged.tokenizer)
        chain = merge.base_chain(merged.base or merge.base_of(source), workspace.train_dir)
        inherited = terms.terms_of(chain, merged.model_type)
        missing = terms.ship_terms(folder, inherited, chain, chosen.terms)
        origin = provenance.of_run(workspace, source.run, chosen.source_licenses)
        record = source.run.record() if source.run is not None else {}
        facts = cards.ModelFacts(
            source.name,
            chain,
            inherited.license if inherited else None,
            merged.parameters,
            merged.parity,
            files,
            record,
            missing,
            tools,
        )
        replace_bytes(folder / "README.md", [cards.model_card(facts, origin).encode()])
        if record:
            replace_json(folder / "training.json", merge.public_record(record))
        parity = {name: p.to_dict() for name, p in {"merged": merged.parity, **files}.items() if p is not None}
        write_record(
            folder,
            "model",
            {
                "repo_type": "model",
                "missing_notices": missing,
                "parity": parity,
                "base": [*map(merge.public_name, chain)],
                "tools": tools,
            },
        )
    worst = max((p.relative_error for p in files.values()), default=0.0)
    return export.summary(
        1 + len(files),
        {
            "source": source.name,
            "base": " <- ".join(chain),
            "parameters": merged.parameters,
            **({"merge error": f"{merged.parity.relative_error:.1e}"} if merged.parity else {}),
            **({"largest GGUF error": f"{worst:.2g}"} if files else {}),
            **({"cannot be pushed yet": "; ".join(missing)} if missing else {}),
        },
        "python -c \"import transformers; print(transformers.pipeline('text-generation', '{target}'))\"",
    )


def run_export_map(settings: Settings, *, out: Path | None = None, overwrite: bool = False) -> Summary:
    """Rows with a winner, embedded, into one folder; opened again and compared before it takes its name."""
    from collections import Counter

    export = open_export("map", settings, out, overwrite)
    workspace, kind = export.workspace, settings.export.map_kind
    splits = dataset.readers(workspace.scored, settings.export.splits)
    source = maps.embedding_source(kind, settings)
    say(f"export map: {source.why}")
    with export.folder() as folder:
        facts = maps.write_map(folder, dataset.all_rows(splits), kind, source.vectors, source.fingerprint)
        maps.verify_map(folder, facts, source.embed_text)
        exported = [row for row in dataset.all_rows(splits) if row.config_payload is not None]
        origin = provenance.provenance(workspace, exported, settings.export.source_licenses)
        counts = Counter(str(row.split) for row in exported)
        card = cards.map_card(settings.export.name, kind, source.fingerprint, facts, counts, origin)
        replace_bytes(folder / "README.md", [card.encode()])
        replace_bytes(folder / provenance.ATTRIBUTION_FILE, [provenance.attribution(origin).encode()])
        write_record(
            folder, f"map-{kind}", {"rows": facts.rows, "embedder": source.fingerprint, **_hub(origin, "dataset")}
        )
    return export.summary(
        facts.rows,
        {"kind": kind, "embedder": source.fingerprint, "rows without a valid config": facts.without_config},
        "python -c \"import latentscore as ls; print(ls.lookup('{target}', 'rain on a tin roof').title)\"",
    )


def run_export_dataset(settings: Settings, *, out: Path | None = None, overwrite: bool = False) -> Summary:
    """All scored rows with their splits, as JSONL and Parquet, with card, score pictures and ATTRIBUTION."""
    check_license(settings.export.license)
    export = open_export("dataset", settings, out, overwrite)
    workspace = export.workspace
    left_out = bad_rows(workspace.root) if settings.export.leave_out_bad else frozenset[str]()
    splits = dataset.readers(workspace.scored, settings.export.splits, left_out)
    parquet = dataset.wants_parquet(settings.export.parquet)
    with export.folder() as folder:
        facts = dataset.write_dataset(folder, splits, parquet=parquet)
        dataset.verify_dataset(folder, facts)
        origin = provenance.provenance(workspace, dataset.all_rows(splits), settings.export.source_licenses)
        for scorer, scores in facts.candidates.items():
            series = {"all candidates": scores, "winners": facts.winners.get(scorer, [])}
            picture = pictures.histograms(f"{scorer} scores, share of each", series)
            replace_bytes(folder / cards.picture_name(scorer), [picture.encode()])
        card = cards.dataset_card(settings.export.name, facts, origin, settings.export.license)
        replace_bytes(folder / "README.md", [card.encode()])
        replace_bytes(folder / provenance.ATTRIBUTION_FILE, [provenance.attribution(origin).encode()])
        write_record(folder, "dataset", {"rows": facts.rows, **_hub(origin, "dataset")})
    missing = origin.missing_notices()
    return export.summary(
        sum(facts.rows.values()),
        {
            "splits": ", ".join(f"{dataset.split_name(split)} {rows}" for split, rows in facts.rows.items()),
            "parquet": "yes" if parquet else f"no ({install('hub')} for it)",
            **({"cannot be pushed yet": "; ".join(missing)} if missing else {}),
        },
        "python -c \"import datasets; print(datasets.load_dataset('{target}'))\"",
    )


def run_export_chat(settings: Settings, *, out: Path | None = None, overwrite: bool = False) -> Summary:
    """The winners as messages, and the best against the worst candidate as preference pairs."""
    export = open_export("chat", settings, out, overwrite)
    workspace = export.workspace
    splits = dataset.readers(workspace.scored, settings.export.splits)
    with export.folder() as folder:
        facts = chat.write_chat(folder, splits)
        origin = provenance.provenance(workspace, dataset.all_rows(splits), settings.export.source_licenses)
        replace_bytes(folder / "README.md", [cards.chat_card(settings.export.name, facts, origin).encode()])
        replace_bytes(folder / provenance.ATTRIBUTION_FILE, [provenance.attribution(origin).encode()])
        write_record(folder, "chat", {"messages": facts.messages, "pairs": facts.pairs, **_hub(origin, "dataset")})
    return export.summary(
        sum(facts.messages.values()),
        {"messages": sum(facts.messages.values()), "preference pairs": sum(facts.pairs.values())},
        "python -c \"import datasets; print(datasets.load_dataset('{target}', 'sft'))\"",
    )


def run_export_report(settings: Settings, *, out: Path | None = None, overwrite: bool = False) -> Summary:
    """The workspace on one page, with the sampled rows' winners rendered as they were scored."""
    export = open_export("report", settings, out, overwrite)
    workspace = export.workspace
    splits = dataset.readers(workspace.scored, SPLITS)
    facts = dataset.count_rows(splits)
    origin = provenance.provenance(workspace, dataset.all_rows(splits), settings.export.source_licenses)
    with export.folder() as folder:
        sample = report.choose_sample(dataset.all_rows(splits))
        players = report.write_report(
            folder, workspace, facts, origin, sample, settings.scoring.seconds, settings.scoring.seed
        )
        write_record(folder, "report", {"players": players})
    return export.summary(
        players,
        {"players": players},
        "open {target}/index.html",
    )


def _hub(origin: Any, repo_type: str) -> dict[str, Any]:
    """What a push needs to know, kept in the folder's own record: a folder can be pushed long after it was written."""
    return {"repo_type": repo_type, "missing_notices": origin.missing_notices()}


EXPORTS = {
    "map": run_export_map,
    "dataset": run_export_dataset,
    "chat": run_export_chat,
    "model": run_export_model,
    "report": run_export_report,
}


def stage_files(settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """What exports read, and the settings that decide them."""
    chosen = settings.export.model_dump(mode="json")
    inputs = [path for split in settings.export.splits if (path := workspace.scored(split)).exists()]
    if "model" in chosen["kinds"]:
        # A finished run's mark names every file of its result by hash.
        inputs += sorted(workspace.train_dir.glob("*/DONE"))
    embedder = settings.export.embedder or settings.dedupe.model
    return [
        StageFiles(
            "export",
            workspace.export_dir / "manifest.json",
            inputs,
            {**chosen, "embedder": embedder},
            {"lsdata": __version__},
            settings.typed,
        )
    ]


def preflight(settings: Settings) -> list[LsdataError]:
    """Extras and files that the chosen kinds need and that are missing, and licences that cannot be read."""
    problems: list[LsdataError] = []
    checks: list[Callable[[], object]] = [lambda: licenses_by_dataset(settings.export.source_licenses)]
    if "dataset" in settings.export.kinds:
        checks.append(lambda: check_license(settings.export.license))
    needs = [("pyarrow", "hub", "writing Parquet")] if settings.export.parquet == "always" else []
    if "model" in settings.export.kinds:
        needs += [(name, "ml", "exporting a model") for name in ("torch", "transformers", "peft")]
        if (text := settings.export.terms) is not None:
            checks.append(lambda: required(text))
    checks += [partial(require, *need) for need in needs]
    for check in checks:
        try:
            check()
        except LsdataError as problem:
            problems.append(problem)
    return problems


def run_stage_for_chain(settings: Settings, *, yes: bool = False) -> Summary:
    """Everything in ``export.kinds``, replacing what an earlier run exported; nothing is pushed."""
    started = time.monotonic()
    workspace = Workspace(settings.paths.root)
    whole = Summary("export")
    # The report comes last, because it lists the other exports.
    for kind in sorted(settings.export.kinds, key=lambda kind: kind == "report"):
        part = EXPORTS[kind](settings, overwrite=True)
        whole.done += part.done
        whole.outputs += part.outputs
        whole.details[kind] = {name: value for name, value in part.details.items() if isinstance(value, str | int)}
    whole.seconds = time.monotonic() - started
    outputs = [path for folder in whole.outputs for path in _files(Path(folder))]
    write_manifest(stage_files(settings, workspace)[0], workspace.root, outputs, whole)
    return whole


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(part for part in path.rglob("*") if part.is_file())


STAGE = Stage("export", stage_files, preflight, run_stage_for_chain, finished_mark="export.json")
