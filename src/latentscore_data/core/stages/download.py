"""The stage download: a sample of texts from each data set."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import typer

from latentscore.json_search import JsonObject
from latentscore_data.core.base.display import clean, interactive, say
from latentscore_data.core.base.errors import InputError, LsdataError, MissingError, StoppedError, raised_by
from latentscore_data.core.base.jsonl import object_or_empty, replace_json, replace_rows
from latentscore_data.core.base.manifest import StageFiles, file_fact, write_manifest
from latentscore_data.core.base.settings import DownloadSettings, Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.stages.base import RunContext, Stage
from latentscore_data.core.texts.corpus import (
    Source,
    find_sources,
    local_files,
)
from latentscore_data.core.texts.corpus import in_words as files_in_words
from latentscore_data.core.texts.hub import HubPlan
from latentscore_data.core.texts.kinds import Fetch, fingerprint, kind_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


UNREAD_KEPT = 100
"""Maximum number of unread files that are listed, with the reason, in the description of a sample."""


def run_download(settings: Settings, context: RunContext | None = None) -> Summary:
    """Sample every data set that does not exist yet, one file each. The caller holds the lock."""
    workspace, context = Workspace(settings.paths.root), context or RunContext()
    started = time.monotonic()
    summary = Summary("download", unit="text")
    described: JsonObject = {}
    sources = chosen_sources(settings)
    _refuse_shared_files(sources, workspace)
    reasons = {source.name: _why_again(source, settings.download, workspace) for source in sources}
    waiting = [source for source in sources if context.overwrite or reasons[source.name] is not None]
    plans = _agree_on_fetching(waiting, settings.download, context.yes)
    for source in sources:
        path = workspace.texts(source.name)
        if source not in waiting:
            facts = read_facts(source, workspace)
            summary.skipped += int(facts["texts"])
            say(f"download: {source.name} is there ({facts['texts']} texts)")
        else:
            damage = reasons[source.name]
            say(f"download: {source.name} again: {damage}" if damage else f"download: {source.name} ...")
            fetch = Fetch(plans.get(source.name), _partial(source, workspace), context.overwrite)
            sample = kind_of(source).sample(source, settings.download, fetch)
            if sample.unread:
                say(f"download: {source.name}: {files_in_words(sample.unread)}")
            if not sample.texts:
                raise MissingError(f"{source.name} contains no texts", "check the data set and --text-field")
            replace_rows(path, sample.texts)
            facts = {
                "dataset": source.name,
                "fingerprint": fingerprint(source, settings.download),
                "texts": len(sample.texts),
                "seen": sample.seen,
                "empty": sample.empty,
                "how": sample.how,
                "unread": {one.file: one.reason for one in sample.unread[:UNREAD_KEPT]},
                "unread_files": len(sample.unread),
                **sample.facts,
            }
            replace_json(facts_file(source, workspace), facts)
            _partial(source, workspace).unlink(missing_ok=True)
            summary.done += len(sample.texts)
            say(f"download: {source.name}: {sample.how}" + (f"; {sample.empty} empty" if sample.empty else ""))
        described[source.name] = facts
        summary.outputs.append(str(path))
    summary.details["datasets"] = described
    summary.seconds = time.monotonic() - started
    summary.next_step = "lsdata vibes"
    outputs = [workspace.texts(source.name) for source in sources]
    _tell_of_others(outputs, workspace)
    write_manifest(stage_files(settings, workspace)[0], workspace.root, outputs, summary)
    return summary


def chosen_sources(settings: Settings) -> list[Source]:
    """The data sets of the settings. Raises :class:`InputError` where they name none."""
    if not settings.download.datasets:
        raise InputError(
            "download.datasets is empty: no data set is named",
            "name one there or with --dataset builtin; for texts that are there already: lsdata run-all --skip download",
        )
    return find_sources(settings.download.datasets)


def _refuse_shared_files(sources: list[Source], workspace: Workspace) -> None:
    """Raise :class:`InputError` for two data sets with the same output file, such as a folder rows and a file rows.jsonl."""
    owners: dict[Path, str] = {}
    for source in sources:
        path = workspace.texts(source.name)
        there = read_facts(source, workspace).get("dataset", source.name) if path.exists() else source.name
        if (owner := owners.setdefault(path, there)) != source.name:
            raise InputError(f"{path} holds the texts of {owner}, not of {source.name}", f"rename {source.name}")


def _tell_of_others(named: Collection[Path], workspace: Workspace) -> None:
    """List text files that no setting names. The next stage reads every file, and these may be there on purpose."""
    others = [path for path in workspace.text_files() if path not in named]
    if others:
        names, drop = ", ".join(path.name for path in others), shlex.join(map(str, others))
        say(f"download: not named by these settings, but read by vibes all the same: {names} (to drop: rm {drop})")


def _partial(source: Source, workspace: Workspace) -> Path:
    """Return the path for the data of an interrupted download from the hub."""
    return workspace.texts_dir / ".partial" / workspace.texts(source.name).name


def facts_file(source: Source, workspace: Workspace) -> Path:
    """Return the path of the description of a finished sample, beside its texts."""
    return workspace.texts(source.name).with_suffix(".json")


def read_facts(source: Source, workspace: Workspace) -> JsonObject:
    """The description of a finished sample; empty where there is none."""
    return object_or_empty(facts_file(source, workspace))


def is_there(source: Source, settings: DownloadSettings, workspace: Workspace) -> bool:
    return _why_again(source, settings, workspace) is None


def _why_again(source: Source, settings: DownloadSettings, workspace: Workspace) -> str | None:
    """Return the damage of a finished sample, an empty text if there is no such sample, or None if it is complete.

    Only lines are counted, because users may correct texts in place.
    """
    facts, path = read_facts(source, workspace), workspace.texts(source.name)
    if facts.get("fingerprint") != fingerprint(source, settings) or not path.exists():
        return ""
    lines, texts = file_fact(path).rows, facts.get("texts")
    return None if lines == texts else f"its file holds {lines} whole lines, and {texts} texts were drawn"


def _agree_on_fetching(sources: list[Source], settings: DownloadSettings, yes: bool) -> dict[str, HubPlan]:
    """Ask for confirmation before downloading from the hub; return the plans by name.

    Raises :class:`InputError` without a terminal, :class:`StoppedError` when the answer is no.
    """
    found = {source.name: kind_of(source).plan(source, settings) for source in sources}
    plans = {name: planned for name, planned in found.items() if planned is not None}
    for planned in plans.values():
        say(in_words(planned.to_dict(), settings))
    if not plans or yes:
        return plans
    if not interactive():
        raise InputError(
            f"{len(plans)} data sets would be fetched and there is no terminal to confirm it", "pass --yes"
        )
    if not typer.confirm("Fetch?", err=True):
        raise StoppedError("nothing was fetched", "choose other data sets with --dataset")
    return plans


def in_words(step: JsonObject, settings: DownloadSettings) -> str:
    from rich.filesize import decimal

    return clean(
        f"download: {step['dataset']}: {step['files']} files, {decimal(step['bytes'])}; {settings.sample_size} texts from "
        f"the beginnings of {step['read_from_files']} of them ({decimal(step['read_at_most_bytes'])} in all, streamed)"
    )


def stage_files(settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """Return the settings that determine the samples."""
    sources = find_sources(settings.download.datasets)
    return [
        StageFiles(
            typed=settings.typed,
            replaced=settings.replaced,
            stage="download",
            manifest=workspace.texts_dir / "manifest.json",
            inputs=[file for source in sources if source.path is not None for file in local_files(source.path)],
            settings=settings.download.model_dump(),
            versions={source.name: fingerprint(source, settings.download) for source in sources},
        )
    ]


def preflight(settings: Settings) -> list[LsdataError]:
    """Return errors of the data sets: none named, missing paths, the missing hub extra."""

    def check() -> None:
        for source in chosen_sources(settings):
            kind_of(source).check(source)

    return list(raised_by(check))


STAGE = Stage("download", stage_files, preflight, run_download)
