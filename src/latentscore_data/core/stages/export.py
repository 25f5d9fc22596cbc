"""The stage export: models, maps, data sets, chat files and the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
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
from latentscore_data.core.export.folder import RECORD_FILE, new_folder, write_record
from latentscore_data.core.export.merge import find_source
from latentscore_data.core.export.push import check_push, push_folder
from latentscore_data.core.export.sounds import Sounds
from latentscore_data.core.export.tables import Table, split_name, write_table
from latentscore_data.core.export.terms import required
from latentscore_data.core.stages.base import RunContext, Stage
from latentscore_data.core.texts import provenance
from latentscore_data.core.texts.licenses import check_license
from latentscore_data.core.texts.provenance import Provenance, licenses_by_dataset


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
    """An export, and its target."""

    kind: str
    settings: Settings
    workspace: Workspace
    target: Path
    overwrite: bool
    started: float

    def folder(self) -> AbstractContextManager[Path]:
        """Context manager: a draft folder that is renamed to the target on success. The target is checked first, so the
        work is done inside."""
        return new_folder(self.target, self.overwrite)

    def publish(self, folder: Path, card: str, origin: Provenance, **facts: Any) -> None:
        """Write the card, the attribution and the record, which has the data for a push, because the folder may be pushed
        later. The record lists every file, so this comes last."""
        replace_text(folder / "README.md", card)
        replace_text(folder / provenance.ATTRIBUTION_FILE, provenance.attribution(origin))
        notices = {"repo_type": "dataset", "missing_notices": origin.missing_notices()}
        write_record(folder, self.kind, {**facts, **notices})

    def summary(self, done: int, details: JsonObject, next_step: str, missing: Sequence[str] = ()) -> Summary:
        """Return the summary of the export; ``{target}`` in ``next_step`` is replaced by the folder. ``missing`` are the
        licences and notices without which the folder cannot be pushed."""
        return Summary(
            f"export {self.kind}",
            done=done,
            seconds=time.monotonic() - self.started,
            details={**details, **({"cannot be pushed yet": "; ".join(missing)} if missing else {})},
            outputs=[str(self.target)],
            next_step=next_step.replace("{target}", str(self.target)),
        )


def export_one(kind: str, settings: Settings, *, out: Path | None = None, overwrite: bool = False) -> Summary:
    """Export one kind. Raises :class:`OutputError` for a target that must not be written; errors in what the user typed come
    first."""
    workspace = Workspace(settings.paths.root)
    target = target_of(kind, settings, workspace, out)
    return EXPORTS[kind](ExportJob(kind, settings, workspace, target, overwrite, time.monotonic()))


def _export_model(export: ExportJob) -> Summary:
    """Export a run or folder as safetensors and GGUF; every file is loaded again and compared before the folder is renamed."""
    settings, workspace, chosen = export.settings, export.workspace, export.settings.export
    for quantization in chosen.gguf:
        quantize.check_quantization(quantization)
    if chosen.terms is not None:
        required(chosen.terms)
    source = merge.find_source(chosen.model, workspace.train_dir)
    for module in ("torch", "transformers", "peft", *(["gguf"] if chosen.gguf else [])):
        require(module, "ml", "exporting a model")
    with export.folder() as folder:
        write = _write_adapter if chosen.adapter_only else _write_merged
        model = write(source, settings, workspace, folder)
        chain = merge.base_chain(model.base, workspace.train_dir)
        inherited = terms.terms_of(chain, model.model_type)
        facts = cards.ModelFacts(
            name=source.name,
            chain=chain,
            license=inherited.license if inherited else None,
            model=model,
            adapter=chosen.adapter_only,
            record=source.run.record() if source.run is not None else {},
            missing=terms.ship_terms(folder, inherited, chain, chosen.terms),
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
        },
        "python -c \"import latentscore as ls; ls.render('rain on a tin roof', model='local:{target}').save('rain.flac')\"",
        facts.missing,
    )


def _write_adapter(source: merge.Source, settings: Settings, workspace: Workspace, folder: Path) -> merge.WrittenModel:
    """Copy the adapter's files unchanged, with the public name of its base."""
    if settings.export.gguf:
        raise InputError("an adapter alone cannot be a GGUF file", "leave out --gguf or --adapter-only")
    base, parameters = merge.copy_adapter(source, folder)
    return merge.WrittenModel(base, merge.config_of(source, workspace.train_dir).model_type, parameters)


def _write_merged(source: merge.Source, settings: Settings, workspace: Workspace, folder: Path) -> merge.WrittenModel:
    """Write the merged model as safetensors, its GGUF files, and a Modelfile for Ollama."""
    chosen = settings.export
    if chosen.gguf:
        # Merging takes minutes, so models that GGUF does not support are refused before it.
        gguf.architecture_of(merge.config_of(source, workspace.train_dir))
    say(f"export model: merging {source.name}")
    model, tokenizer, logits = merge.merge(source, workspace.train_dir, folder)
    for quantization in chosen.gguf:
        # In a subfolder, because transformers would mix the GGUF's tokenizer with a tokenizer_config.json beside it.
        path = folder / "gguf" / f"{source.name}-{quantization}.gguf"
        say(f"export model: writing {path.name}")
        version = quantize.write_quantized(folder, path, quantization, source.name, chosen.tokenizer)
        if version is not None:
            model.tools[quantize.TOOL] = version
        model.gguf[f"gguf/{path.name}"] = gguf.verify_gguf(path, quantization, logits, tokenizer)
    if model.gguf:
        quantize.write_modelfile(folder, source.name, next(iter(model.gguf)))
    return model


def _describe_model(folder: Path, facts: cards.ModelFacts, origin: Provenance | None) -> None:
    """Write the files beside the weights: the card, the run's public record and the export's record."""
    replace_text(folder / "README.md", cards.model_card(facts, origin))
    if facts.record:
        replace_json(folder / "training.json", merge.public_record(dict(facts.record)))
    parity = {
        name: asdict(p) for name, p in {"merged": facts.model.merged, **facts.model.gguf}.items() if p is not None
    }
    record = {
        "repo_type": "model",
        "missing_notices": facts.missing,
        "parity": parity,
        "base": [*map(merge.public_name, facts.chain)],
        "tools": facts.model.tools,
    }
    write_record(folder, "model", record)


def _export_map(export: ExportJob) -> Summary:
    """Embed the rows with a winner and write them to one folder, which is read back and compared before it is renamed."""
    settings, kind = export.settings.export, export.settings.export.map_kind
    source = maps.embedding_source(kind, export.settings)
    splits = dataset.readers(export.workspace.scored, settings.splits)
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
        origin = origins.joined(export.workspace, settings.source_licenses)
        card = cards.map_card(settings.name, kind, source.fingerprint, facts, counts, origin)
        export.publish(folder, card, origin, kind=f"map-{kind}", rows=facts.rows, embedder=source.fingerprint)
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


def _export_dataset(export: ExportJob) -> Summary:
    """Write all scored rows as one repository: the configurations default, sft, preference and map, with card and notices."""
    settings, workspace, chosen = export.settings, export.workspace, export.settings.export
    check_license(chosen.license)
    source = maps.embedding_source("text", settings)
    left_out = bad_rows(workspace.root) if chosen.leave_out_bad else frozenset[str]()
    splits = dataset.readers(workspace.scored, chosen.splits, chosen.exclude, left_out)
    parquet = dataset.wants_parquet("always" if chosen.audio else chosen.parquet)
    with export.folder() as folder:
        with _sounds(folder, splits, settings) as sounds:
            tables = dataset.write_dataset(
                folder, splits, parquet=parquet, sounds=sounds, answers=_answers(settings, workspace)
            )
        tables += maps.write_map_table(folder, splits, source, parquet=parquet)
        origins = provenance.Origins()
        facts = dataset.count_rows(splits, origins.note)
        origin = origins.joined(workspace, chosen.source_licenses)
        card = _describe_dataset(folder, settings, facts, tables, origin, parquet)
        export.publish(folder, card, origin, rows=facts.rows)
    return export.summary(
        sum(facts.rows.values()),
        {
            "splits": ", ".join(f"{split_name(split)} {rows}" for split, rows in facts.rows.items()),
            "configurations": ", ".join(table.name for table in tables),
            "parquet": "yes" if parquet else f"no ({install('hub')} for it)",
            **facts.converted,
        },
        _load_with_datasets("'{target}'"),
        origin.missing_notices(),
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
    workers = scoring.workers or available_cores()
    return sounds.rendered(folder, dataset.all_rows(splits), scoring.seconds, scoring.seed, workers, progress())


def _describe_dataset(
    folder: Path,
    settings: Settings,
    facts: dataset.DatasetFacts,
    tables: list[Table],
    origin: Provenance,
    parquet: bool,
) -> str:
    """Write the files beside the rows, score pictures, Croissant metadata and citation; return the card."""
    chosen = settings.export
    cards.draw_scores(folder, facts)
    header = cards.license_header(origin, chosen.license)
    described = f"Short texts that name a mood, and ambient music configs for each: {sum(facts.rows.values()):,} rows."
    license_name = header.get("license_name") or header["license"]
    replace_json(
        folder / metadata.CROISSANT_FILE,
        metadata.croissant(chosen.name, described, license_name, tables, parquet=parquet),
    )
    spdx = header["license"] if header["license"] != "other" else None
    replace_text(folder / metadata.CITATION_FILE, metadata.citation(chosen.name, spdx))
    return cards.dataset_card(chosen.name, facts, tables, origin, chosen.license, _checks(settings), parquet=parquet)


def _export_chat(export: ExportJob) -> Summary:
    """The winners as messages, and the best against the worst candidate as preference pairs, as JSON lines."""
    settings, workspace = export.settings.export, export.workspace
    splits = dataset.readers(workspace.scored, settings.splits)
    pairs = partial(preference_lines, answers=_answers(export.settings, workspace))
    with export.folder() as folder:
        tables = [
            write_table(folder, name, name, dataset.lines_of(splits, form), parquet=False)
            for name, form in (("sft", sft_lines), ("preference", pairs))
        ]
        if not tables[0].rows:
            raise InputError("no row has a config, so there is nothing to learn from", "run lsdata configs first")
        origin = provenance.provenance(workspace, dataset.all_rows(splits), settings.source_licenses)
        card = cards.chat_card(settings.name, [table for table in tables if table.rows], origin)
        messages, pairs = (table.rows for table in tables)
        export.publish(folder, card, origin, messages=messages, pairs=pairs)
    return export.summary(
        sum(messages.values()),
        {"messages": sum(messages.values()), "preference pairs": sum(pairs.values())},
        _load_with_datasets("'{target}', 'sft'"),
    )


def _export_report(export: ExportJob) -> Summary:
    """The workspace on one page, with the sampled rows' winners rendered as they were scored."""
    settings, workspace = export.settings, export.workspace
    splits = dataset.readers(workspace.scored, SPLITS)
    with export.folder() as folder:
        origins = provenance.Origins()
        facts = dataset.count_rows(splits, origins.note)
        origin = origins.joined(workspace, settings.export.source_licenses)
        sample = report.choose_sample(dataset.all_rows(splits))
        players = report.write_report(
            folder, workspace, facts, origin, sample, _checks(settings), settings.scoring.seconds, settings.scoring.seed
        )
        write_record(folder, "report", {"players": players})
    return export.summary(players, {"players": players}, "open {target}/index.html")


def _checks(settings: Settings) -> list[cards.Cells]:
    """Return the findings of ``lsdata check``, without its renders: group, measure, value, limit, verdict."""
    silent = settings.changed(check={"sounds": 0})
    return [
        (found.group, found.name, found.value, found.limit, "" if found.verdict == "note" else found.verdict)
        for found in run_checks(silent).findings
    ]


EXPORTS: dict[str, Callable[[ExportJob], Summary]] = {
    "map": _export_map,
    "dataset": _export_dataset,
    "chat": _export_chat,
    "model": _export_model,
    "report": _export_report,
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
            summary = export_one(kind, settings, out=out, overwrite=overwrite)
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
    return list(raised_by(*checks, *(partial(require, *need) for need in needs)))


def run_export(settings: Settings, context: RunContext) -> Summary:
    """Export everything in ``export.kinds``, replacing earlier exports; pushes nothing."""
    started = time.monotonic()
    workspace = Workspace(settings.paths.root)
    whole = Summary("export")
    # The report comes last, because it lists the other exports.
    for kind in sorted(settings.export.kinds, key=lambda kind: kind == "report"):
        part = export_one(kind, settings, overwrite=True)
        whole.done += part.done
        whole.outputs += part.outputs
        whole.details[kind] = {name: value for name, value in part.details.items() if isinstance(value, str | int)}
    whole.seconds = time.monotonic() - started
    outputs = [path for folder in whole.outputs for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    write_manifest(stage_files(settings, workspace)[0], workspace.root, outputs, whole)
    return whole


STAGE = Stage("export", stage_files, preflight, run_export, finished_mark="export.json")
