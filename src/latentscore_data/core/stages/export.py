"""The stage export: models, maps, data sets, chat files and the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentscore.forms import form_of
from latentscore.installed import available_cores, install
from latentscore.json_search import JsonObject
from latentscore_data import __version__
from latentscore_data.core.base.display import progress, say
from latentscore_data.core.base.errors import InputError, LsdataError, raised_by, require
from latentscore_data.core.base.jsonl import replace_json, replace_text
from latentscore_data.core.base.manifest import StageFiles, write_manifest
from latentscore_data.core.base.marks import Preference, bad_rows, marks_file, read_preferences
from latentscore_data.core.base.rows import SPLITS, ScoredRow
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.checks.run import run_checks
from latentscore_data.core.export import (
    cards,
    dataset,
    gguf,
    maps,
    merge,
    metadata,
    quantize,
    report,
    sounds,
    terms,
)
from latentscore_data.core.export.chat import preference_lines, sft_lines
from latentscore_data.core.export.folder import RECORD_FILE, check_target, new_folder, write_record
from latentscore_data.core.export.merge import find_source
from latentscore_data.core.export.push import check_push, push_folder
from latentscore_data.core.export.sounds import Sounds
from latentscore_data.core.export.tables import Table, split_name, write_table
from latentscore_data.core.export.terms import required
from latentscore_data.core.stages.base import RunContext, Stage
from latentscore_data.core.texts import provenance
from latentscore_data.core.texts.licenses import check_license
from latentscore_data.core.texts.provenance import licenses_by_dataset


def target_of(kind: str, settings: Settings, workspace: Workspace, out: Path | None) -> Path:
    """Return the folder of an export of this kind."""
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
    """An export whose target can be written."""

    kind: str
    workspace: Workspace
    target: Path
    overwrite: bool
    started: float

    def folder(self) -> AbstractContextManager[Path]:
        """Context manager: a draft folder that is renamed to the target on success."""
        return new_folder(self.target, self.overwrite)

    def summary(self, done: int, details: JsonObject, next_step: str) -> Summary:
        """Return the summary of the export; ``{target}`` in ``next_step`` is replaced by the folder."""
        return Summary(
            f"export {self.kind}",
            done=done,
            seconds=time.monotonic() - self.started,
            details=details,
            outputs=[str(self.target)],
            next_step=next_step.replace("{target}", str(self.target)),
        )


def open_export(kind: str, settings: Settings, out: Path | None, overwrite: bool) -> ExportJob:
    """Return the job of an export. Raises :class:`OutputError`, before any work, for a target that must not be written."""
    workspace = Workspace(settings.paths.root)
    target = target_of(kind, settings, workspace, out)
    check_target(target, overwrite)
    return ExportJob(kind, workspace, target, overwrite, time.monotonic())


@dataclass(frozen=True)
class WrittenModel:
    """The weights of an export, and their numerical errors."""

    base: str
    model_type: str
    parameters: int
    merged: merge.Parity | None = None
    gguf: dict[str, merge.Parity] = field(default_factory=dict[str, merge.Parity])
    tools: dict[str, str] = field(default_factory=dict[str, str])
    """External programs that made a GGUF file -> their version."""


def run_export_model(settings: Settings, *, out: Path | None = None, overwrite: bool = False) -> Summary:
    """Export a run or folder as safetensors and GGUF; every file is loaded again and compared before the folder is renamed."""
    chosen = settings.export
    for quantization in chosen.gguf:
        quantize.check_quantization(quantization)
    if chosen.terms is not None:
        required(chosen.terms)
    export = open_export("model", settings, out, overwrite)
    workspace = export.workspace
    source = merge.find_source(chosen.model, workspace.train_dir)
    for module in ("torch", "transformers", "peft", *(["gguf"] if chosen.gguf else [])):
        require(module, "ml", "exporting a model")
    with export.folder() as folder:
        write = _write_adapter if chosen.adapter_only else _write_merged
        model = write(source, settings, workspace, folder)
        chain = merge.base_chain(model.base, workspace.train_dir)
        inherited = terms.terms_of(chain, model.model_type)
        missing = terms.ship_terms(folder, inherited, chain, chosen.terms)
        facts = cards.ModelFacts(
            name=source.name,
            chain=chain,
            license=inherited.license if inherited else None,
            parameters=model.parameters,
            adapter=chosen.adapter_only,
            merged=model.merged,
            gguf=model.gguf,
            record=source.run.record() if source.run is not None else {},
            missing=missing,
            tools=model.tools,
            answer=form_of(source.weights).name,
        )
        _describe_model(
            folder, facts, provenance.of_run(workspace, source.run and source.run.path, chosen.source_licenses)
        )
    worst = max((p.relative_error for p in model.gguf.values()), default=0.0)
    return export.summary(
        1 + len(model.gguf),
        {
            "source": source.name,
            "base": " <- ".join(chain),
            "parameters": model.parameters,
            **({"merge error": f"{model.merged.relative_error:.1e}"} if model.merged else {}),
            **({"largest GGUF error": f"{worst:.2g}"} if model.gguf else {}),
            **({"cannot be pushed yet": "; ".join(missing)} if missing else {}),
        },
        "python -c \"import latentscore as ls; ls.render('rain on a tin roof', model='local:{target}').save('rain.flac')\"",
    )


def _write_adapter(source: merge.Source, settings: Settings, workspace: Workspace, folder: Path) -> WrittenModel:
    """Copy the adapter's files unchanged, with the public name of its base."""
    if settings.export.gguf:
        raise InputError("an adapter alone cannot be a GGUF file", "leave out --gguf or --adapter-only")
    base, parameters = merge.copy_adapter(source, folder)
    return WrittenModel(base, merge.config_of(source, workspace.train_dir).model_type, parameters)


def _write_merged(source: merge.Source, settings: Settings, workspace: Workspace, folder: Path) -> WrittenModel:
    """Write the merged model as safetensors, its GGUF files, and a Modelfile for Ollama."""
    chosen = settings.export
    if chosen.gguf:
        # Merging takes minutes, so models that GGUF does not support are refused before it.
        gguf.architecture_of(merge.config_of(source, workspace.train_dir))
    say(f"export model: merging {source.name}")
    merged = merge.merge(source, workspace.train_dir, folder)
    base = merged.base or merge.base_of(source)
    model = WrittenModel(base, merged.model_type, merged.parameters, merged.parity)
    for quantization in chosen.gguf:
        # In a subfolder, because transformers would mix the GGUF's tokenizer with a tokenizer_config.json beside it.
        path = folder / "gguf" / f"{source.name}-{quantization}.gguf"
        say(f"export model: writing {path.name}")
        version = quantize.write_quantized(folder, path, quantization, source.name, chosen.tokenizer)
        if version is not None:
            model.tools[quantize.TOOL] = version
        model.gguf[f"gguf/{path.name}"] = gguf.verify_gguf(path, quantization, merged.logits, merged.tokenizer)
    if model.gguf:
        quantize.write_modelfile(folder, source.name, next(iter(model.gguf)))
    return model


def _describe_model(folder: Path, facts: cards.ModelFacts, origin: provenance.Provenance | None) -> None:
    """Write the files beside the weights: the card, the run's public record and the export's record."""
    replace_text(folder / "README.md", cards.model_card(facts, origin))
    if facts.record:
        replace_json(folder / "training.json", merge.public_record(dict(facts.record)))
    parity = {name: asdict(p) for name, p in {"merged": facts.merged, **facts.gguf}.items() if p is not None}
    record = {
        "repo_type": "model",
        "missing_notices": facts.missing,
        "parity": parity,
        "base": [*map(merge.public_name, facts.chain)],
        "tools": facts.tools,
    }
    write_record(folder, "model", record)


def run_export_map(settings: Settings, *, out: Path | None = None, overwrite: bool = False) -> Summary:
    """Embed the rows with a winner and write them to one folder, which is read back and compared before it is renamed."""
    kind = settings.export.map_kind
    source = maps.embedding_source(kind, settings)
    export = open_export("map", settings, out, overwrite)
    workspace = export.workspace
    splits = dataset.readers(workspace.scored, settings.export.splits)
    say(f"export map: {source.why}")
    with export.folder() as folder:
        origins, counts, converted = provenance.Origins(), Counter[str](), Counter[str]()

        def read() -> Iterator[ScoredRow]:
            for row in dataset.all_rows(splits):
                converted.update(row.converted)
                if row.config_payload is not None:
                    origins.note(row)
                    counts[str(row.split)] += 1
                yield row

        facts = maps.write_map(folder, read(), kind, source.vectors, source.fingerprint)
        maps.verify_map(folder, facts, source.embed_text)
        origin = origins.joined(workspace, settings.export.source_licenses)
        card = cards.map_card(settings.export.name, kind, source.fingerprint, facts, counts, origin)
        replace_text(folder / "README.md", card)
        replace_text(folder / provenance.ATTRIBUTION_FILE, provenance.attribution(origin))
        write_record(
            folder, f"map-{kind}", {"rows": facts.rows, "embedder": source.fingerprint, **_hub(origin, "dataset")}
        )
    return export.summary(
        facts.rows,
        {
            "kind": kind,
            "embedder": source.fingerprint,
            "rows without a valid config": facts.without_config,
            **converted,
        },
        "python -c \"import latentscore as ls; print(ls.lookup('{target}', 'rain on a tin roof').title)\"",
    )


def run_export_dataset(settings: Settings, *, out: Path | None = None, overwrite: bool = False) -> Summary:
    """Write all scored rows as one repository: the configurations default, sft, preference and map, with card and notices."""
    chosen = settings.export
    check_license(chosen.license)
    source = maps.embedding_source("text", settings)
    export = open_export("dataset", settings, out, overwrite)
    workspace = export.workspace
    left_out = bad_rows(workspace.root) if chosen.leave_out_bad else frozenset[str]()
    splits = dataset.readers(workspace.scored, chosen.splits, chosen.exclude, left_out)
    parquet = dataset.wants_parquet("always" if chosen.audio else chosen.parquet)
    with export.folder() as folder:
        with _sounds(folder, splits, settings) as sounds:
            tables = dataset.write_dataset(
                folder, splits, parquet=parquet, sounds=sounds, answers=_answers(settings, workspace)
            )
        tables += maps.write_map_table(folder, splits, source, parquet=parquet)
        origins, converted = provenance.Origins(), Counter[str]()

        def note(row: ScoredRow) -> None:
            origins.note(row)
            converted.update(row.converted)

        facts = dataset.count_rows(splits, note)
        origin = origins.joined(workspace, chosen.source_licenses)
        _describe_dataset(folder, settings, facts, tables, origin, parquet)
        write_record(folder, "dataset", {"rows": facts.rows, **_hub(origin, "dataset")})
    missing = origin.missing_notices()
    return export.summary(
        sum(facts.rows.values()),
        {
            "splits": ", ".join(f"{split_name(split)} {rows}" for split, rows in facts.rows.items()),
            "configurations": ", ".join(table.name for table in tables),
            "parquet": "yes" if parquet else f"no ({install('hub')} for it)",
            **converted,
            **({"cannot be pushed yet": "; ".join(missing)} if missing else {}),
        },
        _load_with_datasets("'{target}'"),
    )


def _load_with_datasets(arguments: str) -> str:
    """Return the command that loads an export with ``datasets``; it installs that package first if it is missing."""
    load = f'python -c "import datasets; print(datasets.load_dataset({arguments}))"'
    return load if find_spec("datasets") else f"{install('hub')} && {load}"


def _answers(settings: Settings, workspace: Workspace) -> list[Preference]:
    """Return the studio's answers to "which fits better?" if preference pairs use them."""
    if not settings.export.marks:
        return []
    found = read_preferences(workspace.root)
    say(f"export: {len(found)} answers of people for preference pairs")
    return found


def _sounds(
    folder: Path, splits: Mapping[str, dataset.Rows], settings: Settings
) -> AbstractContextManager[Sounds | None]:
    """Return the winners' sounds if the column ``audio`` is requested, rendered with the seed of their scores."""
    if not settings.export.audio:
        return nullcontext()
    scoring = settings.scoring
    counter, shown = Summary("export audio"), progress()

    def step(total: int) -> None:
        if counter.done == 0:
            shown.start("export audio", total)
        counter.done += 1
        shown.update(counter, 0)
        if counter.done == total:
            shown.finish(counter)

    workers = scoring.workers or available_cores()
    return sounds.rendered(folder, dataset.all_rows(splits), scoring.seconds, scoring.seed, workers, step)


def _describe_dataset(
    folder: Path,
    settings: Settings,
    facts: dataset.DatasetFacts,
    tables: list[Table],
    origin: provenance.Provenance,
    parquet: bool,
) -> None:
    """The files beside the rows: score pictures, card, attribution, Croissant metadata and citation."""
    chosen = settings.export
    cards.draw_scores(folder, facts)
    checks = _checks(settings)
    card = cards.dataset_card(chosen.name, facts, tables, origin, chosen.license, checks, parquet=parquet)
    replace_text(folder / "README.md", card)
    replace_text(folder / provenance.ATTRIBUTION_FILE, provenance.attribution(origin))
    header = cards.license_header(origin, chosen.license)
    described = f"Short texts that name a mood, and ambient music configs for each: {sum(facts.rows.values()):,} rows."
    license_name = header.get("license_name") or header["license"]
    replace_json(
        folder / metadata.CROISSANT_FILE,
        metadata.croissant(chosen.name, described, license_name, tables, parquet=parquet),
    )
    spdx = header["license"] if header["license"] != "other" else None
    replace_text(folder / metadata.CITATION_FILE, metadata.citation(chosen.name, spdx))


def run_export_chat(settings: Settings, *, out: Path | None = None, overwrite: bool = False) -> Summary:
    """The winners as messages, and the best against the worst candidate as preference pairs, as JSON lines."""
    export = open_export("chat", settings, out, overwrite)
    workspace = export.workspace
    splits = dataset.readers(workspace.scored, settings.export.splits)
    pairs = partial(preference_lines, answers=_answers(settings, workspace))
    with export.folder() as folder:
        tables = [
            write_table(folder, name, name, dataset.lines_of(splits, form), parquet=False)
            for name, form in (("sft", sft_lines), ("preference", pairs))
        ]
        if not tables[0].rows:
            raise InputError("no row has a config, so there is nothing to learn from", "run lsdata configs first")
        origin = provenance.provenance(workspace, dataset.all_rows(splits), settings.export.source_licenses)
        written = [table for table in tables if table.rows]
        replace_text(folder / "README.md", cards.chat_card(settings.export.name, written, origin))
        replace_text(folder / provenance.ATTRIBUTION_FILE, provenance.attribution(origin))
        messages, pairs = (table.rows for table in tables)
        write_record(folder, "chat", {"messages": messages, "pairs": pairs, **_hub(origin, "dataset")})
    return export.summary(
        sum(messages.values()),
        {"messages": sum(messages.values()), "preference pairs": sum(pairs.values())},
        _load_with_datasets("'{target}', 'sft'"),
    )


def run_export_report(settings: Settings, *, out: Path | None = None, overwrite: bool = False) -> Summary:
    """The workspace on one page, with the sampled rows' winners rendered as they were scored."""
    export = open_export("report", settings, out, overwrite)
    workspace = export.workspace
    splits = dataset.readers(workspace.scored, SPLITS)
    origins = provenance.Origins()
    facts = dataset.count_rows(splits, origins.note)
    origin = origins.joined(workspace, settings.export.source_licenses)
    with export.folder() as folder:
        sample = report.choose_sample(dataset.all_rows(splits))
        players = report.write_report(
            folder, workspace, facts, origin, sample, _checks(settings), settings.scoring.seconds, settings.scoring.seed
        )
        write_record(folder, "report", {"players": players})
    return export.summary(
        players,
        {"players": players},
        "open {target}/index.html",
    )


def _checks(settings: Settings) -> list[cards.Cells]:
    """Return the findings of ``lsdata check``, without its renders: group, measure, value, limit, verdict."""
    silent = settings.model_copy(update={"check": settings.check.model_copy(update={"sounds": 0})})
    return [
        (found.group, found.name, found.value, found.limit, "" if found.verdict == "note" else found.verdict)
        for found in run_checks(silent).findings
    ]


def _hub(origin: Any, repo_type: str) -> JsonObject:
    """Return the data for a push, which is stored in the folder, because it may be pushed later."""
    return {"repo_type": repo_type, "missing_notices": origin.missing_notices()}


EXPORTS = {
    "map": run_export_map,
    "dataset": run_export_dataset,
    "chat": run_export_chat,
    "model": run_export_model,
    "report": run_export_report,
}


def export_and_push(
    kind: str,
    settings: Settings,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    push: str | None = None,
    public: bool = False,
) -> Summary:
    """Export under the lock, and upload. A push without an export uploads an existing export."""
    if push is not None:
        check_push(push)
    workspace = Workspace(settings.paths.root)
    with workspace.lock("export"):
        target = target_of(kind, settings, workspace, out)
        if push is not None and not overwrite and (target / RECORD_FILE).is_file():
            summary = Summary(f"export {kind}", outputs=[str(target)])
        else:
            summary = EXPORTS[kind](settings, out=out, overwrite=overwrite)
        if push is not None:
            say(f"export {kind}: pushing {target} to {push}")
            summary.details["pushed to"] = push_folder(target, push, public=public)
            summary.next_step = ""
    return summary


def stage_files(settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """Return the inputs of exports, and the settings that determine them."""
    chosen = settings.export.model_dump(mode="json")
    inputs = [path for split in settings.export.splits if (path := workspace.scored(split)).exists()]
    if (settings.export.marks or settings.export.leave_out_bad) and (marks := marks_file(workspace.root)).exists():
        inputs.append(marks)
    if "model" in chosen["kinds"]:
        # A finished run's mark contains the hashes of all its files.
        inputs += sorted(workspace.train_dir.glob("*/DONE"))
    decisive = {**chosen, "embedder": maps.chosen_embedder(settings).version}
    if settings.export.map_kind == "audio":
        decisive["clap"] = [settings.scoring.clap_backend, settings.scoring.clap_model]
    if {"dataset", "report"} & set(chosen["kinds"]):  # they contain the findings of lsdata check
        limits = settings.check.model_dump(mode="json", exclude={"sounds"})
        decisive |= {f"check.{name}": value for name, value in limits.items()}
        decisive["dedupe.threshold"] = settings.dedupe.threshold
        inputs += [path for path in settings.check.suites if path.exists()]
    return [
        StageFiles(
            "export",
            workspace.export_dir / "manifest.json",
            inputs,
            decisive,
            {"lsdata": __version__},
            settings.typed,
            settings.replaced,
        )
    ]


def preflight(settings: Settings) -> list[LsdataError]:
    """Return the missing extras and files of the chosen kinds, and the errors of licences."""
    checks: list[Callable[[], object]] = [lambda: licenses_by_dataset(settings.export.source_licenses)]
    if "dataset" in settings.export.kinds:
        checks.append(lambda: check_license(settings.export.license))
    needs = [("pyarrow", "hub", "writing Parquet")] if settings.export.parquet == "always" else []
    if "model" in settings.export.kinds:
        needs += [(name, "ml", "exporting a model") for name in ("torch", "transformers", "peft")]
        if (text := settings.export.terms) is not None:
            checks.append(lambda: required(text))
    return raised_by(*checks, *(partial(require, *need) for need in needs))


def run_export(settings: Settings, context: RunContext) -> Summary:
    """Export everything in ``export.kinds``, replacing earlier exports; pushes nothing."""
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


STAGE = Stage("export", stage_files, preflight, run_export, finished_mark="export.json")
