"""The stage vibes: extract vibe rows from texts, drop near-duplicates, draw splits, add noise."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from latentscore.json_search import JsonObject
from latentscore_data.core.base.answerers import LOCAL, kind_of
from latentscore_data.core.base.display import progress, say
from latentscore_data.core.base.errors import InputError, LsdataError, MissingError, raised_by
from latentscore_data.core.base.jsonl import read_rows
from latentscore_data.core.base.loop import Job, run_stage
from latentscore_data.core.base.manifest import StageFiles, read_manifest, write_manifest
from latentscore_data.core.base.row_index import RowIndex
from latentscore_data.core.base.rows import SPLITS, SourceText, Split, VibeRow
from latentscore_data.core.base.sample import sample_texts
from latentscore_data.core.base.settings import EXACT_UP_TO, Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.remote_answers import answers_estimates, engine_elsewhere
from latentscore_data.core.compute.remote_embedding import embed_on, embeds_elsewhere
from latentscore_data.core.llm.answerers import answerer, version_of
from latentscore_data.core.llm.batches.run import BatchRun
from latentscore_data.core.llm.extraction import (
    ask_for_vibes,
    extracted_rows,
    read_texts,
    text_key,
    usable_fingerprints,
)
from latentscore_data.core.llm.plan import Plan, expected_texts, make_plan
from latentscore_data.core.llm.prices import costs_nothing
from latentscore_data.core.llm.prompts import vibes_prompt_hash, vibes_question
from latentscore_data.core.llm.types import LLM
from latentscore_data.core.scoring.executor import Executor, RemoteJobEstimate
from latentscore_data.core.stages.base import RunContext, Stage
from latentscore_data.core.stages.spending import announce, confirm_remote_jobs, confirm_spending
from latentscore_data.core.vibes.curation import Arranged, arrange
from latentscore_data.core.vibes.dedupe import choose_embedder, load_embedder, minilm_missing
from latentscore_data.core.vibes.excerpts import vibes_for
from latentscore_data.core.vibes.schema import answer_type, vibe_schema_hash

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path


def run_vibes(settings: Settings, context: RunContext | None = None) -> Summary:
    """Extract vibe rows, then arrange them. The caller holds the lock. A remote executor runs a local model and embeds the
    rows of a large run."""
    workspace, context = Workspace(settings.paths.root), context or RunContext()
    require_texts(workspace)
    choice = choose_embedder(settings.dedupe)
    say(f"vibes: near-duplicates by {choice.name} ({choice.why})")
    summary = extract(settings, workspace, context)
    if summary.pending:
        return summary
    if summary.failed and not summary.done and not summary.skipped:
        say("vibes: no text was answered, so the existing rows are kept")
        summary.next_step = "fix the cause, then run the same command again"
        return summary
    arranged = arrange_rows(settings, workspace, context.executor)
    report(arranged)
    summary.details.update(arranged.to_dict(), model=settings.model_of("vibes"), dedupe_model=choice.name)
    outputs = [workspace.vibes(split) for split in SPLITS]
    summary.outputs = [str(path) for path in outputs]
    summary.next_step = "lsdata configs"
    write_manifest(stage_files(settings, workspace)[0], workspace.root, [workspace.extracted, *outputs], summary)
    return summary


def require_texts(workspace: Workspace) -> None:
    """Raise :class:`MissingError` if there are no texts."""
    if not any(path.stat().st_size for path in workspace.text_files()):
        raise MissingError(f"there are no texts in {workspace.texts_dir}", "run lsdata download first")


def texts(settings: Settings, workspace: Workspace) -> Iterator[SourceText]:
    """Yield the texts to read, up to ``vibes.limit``."""
    return read_texts(workspace.text_files(), settings.vibes.limit)


def extract(settings: Settings, workspace: Workspace, context: RunContext) -> Summary:
    """Ask the model about each text without an answer; appends one line per text to ``extracted.jsonl``."""
    model = settings.model_of("vibes")
    announce("vibes", model, settings.llm, context.executor)
    if (there := context.remote) is not None:
        confirm_remote_jobs(remote_estimates(settings, workspace, there), there, settings, context)
    engine = engine_elsewhere(model, context.executor, workspace.train_dir)
    with BatchRun("vibes", settings.llm, workspace, [model], engine, context.spend) as batches:
        batches.collect()
        if not costs_nothing(model, settings.llm):
            confirm_spending(make_plan_for(settings, workspace), settings.llm, context.yes)
        overwrite = context.overwritten()
        summary = batches.rounds(
            lambda: ask_about_texts(
                batches.connect(model),
                settings,
                workspace,
                retry_failed=context.retry_failed,
                overwrite=overwrite,
            ),
            progress(),
        )
        return batches.bill(summary)


def remote_estimates(settings: Settings, workspace: Workspace, executor: Executor) -> list[RemoteJobEstimate]:
    """Estimate a local model's answers on the executor. Raises :class:`InputError` if no part of the run uses it."""
    model, embedder = settings.model_of("vibes"), choose_embedder(settings.dedupe).name
    if kind_of(model) is not LOCAL and not embeds_elsewhere(embedder, executor):
        raise InputError(
            f"vibes: no part of this run uses {executor.name}: {model} answers and {embedder} embeds here",
            "use --model local:NAME, or leave --on out",
        )
    return answers_estimates(make_plan_for(settings, workspace), settings.llm.max_concurrency, executor)


def ask_about_texts(
    llm: LLM, settings: Settings, workspace: Workspace, *, retry_failed: bool, overwrite: set[str] | None
) -> Summary:
    """Run the row loop over the texts."""
    base = settings.llm.base_for(llm.model)
    version = version_of(settings.model_of("vibes"), workspace.train_dir)
    index = RowIndex(workspace.extracted, "source_id")

    def fingerprint(text: SourceText) -> str:
        usable = usable_fingerprints(text, version, settings.vibes, base)
        entry = index.entries.get(text_key(text))
        found = entry is not None and overwrite is None and entry.fingerprint
        return found if found and found in usable else usable[0]

    job: Job[SourceText] = Job(
        name="vibes",
        unit="text",
        key=text_key,
        fingerprint=fingerprint,
        work=partial(ask_for_vibes, llm=llm, settings=settings.vibes),
        client=llm,
        line_key="source_id",
    )
    with index:
        return run_stage(
            job,
            texts(settings, workspace),
            workspace.extracted,
            workspace.failures("vibes"),
            # Twice the number of concurrent calls, so that the model is not idle while texts wait for a retry.
            max_in_flight=2 * settings.llm.max_concurrency,
            total=sum(1 for _ in texts(settings, workspace)),
            retry_failed=retry_failed,
            overwrite=overwrite,
            progress=progress(),
            index=index,
        )


def arrange_rows(settings: Settings, workspace: Workspace, executor: Executor | None = None) -> Arranged:
    """Convert all answers to rows, drop near-duplicates, draw splits, add noise, and write one file per split.

    The answers of texts beyond ``vibes.limit`` stay in the files; otherwise the next stage would drop their paid configs.
    """
    choice = choose_embedder(settings.dedupe)
    embedder = load_embedder(choice)
    version = version_of(settings.model_of("vibes"), workspace.train_dir)
    base = settings.llm.base_for(settings.model_of("vibes"))
    wanted: dict[str, Collection[str] | None] = {
        text_key(t): usable_fingerprints(t, version, settings.vibes, base) for t in texts(settings, workspace)
    }
    if settings.vibes.limit is not None:
        wanted |= {key: None for t in read_texts(workspace.text_files()) if (key := text_key(t)) not in wanted}
    return arrange(
        lambda: extracted_rows(workspace.extracted, wanted, settings.vibes),
        workspace,
        embedder,
        dedupe=settings.dedupe,
        splits=settings.splits,
        noise=settings.noise,
        filled=filled_before(settings, workspace),
        embed_by=embed_on(executor, choice.name, embedder, say),
        from_elsewhere=rows_put_there(workspace),
    )


def rows_put_there(workspace: Workspace) -> Iterator[tuple[Split, VibeRow]]:
    """Yield the rows in ``.vibes/`` that belong to no text of this workspace; they are from other tools."""
    if not workspace.vibe_files():
        return
    with RowIndex(workspace.extracted, "source_id") as index:
        ours = index.entries.keys() | {text_key(text) for text in read_texts(workspace.text_files())}
    files: list[tuple[Split, Path]] = [(split, workspace.vibes(split)) for split in SPLITS]
    for split, path in files:
        for row in read_rows(path, VibeRow) if path.exists() else ():
            if row.source_id not in ours:
                yield split, row


def filled_before(settings: Settings, workspace: Workspace) -> dict[str, Split]:
    """Return the sources that the last run put into an otherwise empty split; they stay there when texts are added."""
    manifest = read_manifest(workspace.vibes_dir / "manifest.json") or {}
    same = all(
        manifest.get("settings", {}).get(f"splits.{name}") == getattr(settings.splits, name)
        for name in ("split_by", "test", "val", "seed")
    )
    return dict(manifest.get("details", {}).get("filled", {})) if same else {}


def report(arranged: Arranged) -> None:
    """Print the sizes of the splits, and the similarity of test rows to training rows."""
    if arranged.from_elsewhere:
        say(f"vibes: {arranged.from_elsewhere} rows from other tools stay in the files")
    rows = ", ".join(f"{split} {count}" for split, count in arranged.rows.items())
    say(f"vibes: {arranged.rows_in} rows, {arranged.near_duplicates} near-duplicates dropped; {rows}")
    for how, leak in (("by source", arranged.leakage), ("if split by row", arranged.leakage_if_split_by_row)):
        if leak is not None and leak.mean_nearest is not None:
            say(
                f"vibes: leakage {how}: nearest training row to a TEST row {leak.mean_nearest:.2f} on average, "
                f"{leak.highest:.2f} at most; {leak.share_above_threshold:.0%} at or above {arranged.dedupe_threshold:.2f}; "
                f"{leak.share_same_source:.0%} from a source that is trained on"
            )


def make_plan_for(settings: Settings, workspace: Workspace) -> Plan:
    """Return the plan of the model's calls and their cost."""
    read = texts(settings, workspace)
    if not settings.vibes.characters:
        read = _without_answer(read, settings, workspace)
    return _plan_of((text.text for text in read), settings, workspace)


def _without_answer(read: Iterable[SourceText], settings: Settings, workspace: Workspace) -> Iterator[SourceText]:
    """Yield the texts without a usable answer. An answer with characters is usable, but has another cache key."""
    model = settings.model_of("vibes")
    version, base = version_of(model, workspace.train_dir), settings.llm.base_for(model)
    with RowIndex(workspace.extracted, "source_id") as index:
        for text in read:
            entry = index.entries.get(text_key(text))
            if entry is None or entry.fingerprint not in usable_fingerprints(text, version, settings.vibes, base)[1:]:
                yield text


def _plan_of(read: Iterable[str], settings: Settings, workspace: Workspace) -> Plan:
    example = vibes_for(next(sample_texts()).text, max_vibes=settings.vibes.max_vibes)
    return make_plan(
        settings.model_of("vibes"),
        ([vibes_question(text, settings.vibes)] for text in read),
        answer_type(settings.vibes.characters),
        example.model_dump_json(),
        settings.llm,
        workspace,
    )


def stage_files(settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """What the stage reads, and what decides its result."""
    decides: JsonObject = {
        "model": settings.model_of("vibes"),
        "api_base": settings.llm.api_base,
        **{name: value for name, value in settings.vibes.model_dump().items() if name != "model"},
        "dedupe.model": choose_embedder(settings.dedupe).version,
        "dedupe.threshold": settings.dedupe.threshold,
        # Only where it was changed, so that manifests from before it stay fresh.
        **({"dedupe.exact_up_to": limit} if (limit := settings.dedupe.exact_up_to) != EXACT_UP_TO else {}),
        **{f"splits.{name}": value for name, value in settings.splits.model_dump().items()},
        **{f"noise.{name}": value for name, value in settings.noise.model_dump().items()},
    }
    characters = settings.vibes.characters
    versions = {"prompt": vibes_prompt_hash(characters), "schema": vibe_schema_hash(characters)}
    if (kind := kind_of(settings.model_of("vibes"))).here:
        versions[kind.name] = version_of(settings.model_of("vibes"), workspace.train_dir)
    return [
        StageFiles(
            typed=settings.typed,
            replaced=settings.replaced,
            stage="vibes",
            manifest=workspace.vibes_dir / "manifest.json",
            inputs=workspace.text_files(),
            settings=decides,
            versions=versions,
        )
    ]


def preflight(settings: Settings) -> list[LsdataError]:
    """Return what is missing for this stage, such as a key or an embedder's library or weights."""
    model = settings.model_of("vibes")
    runs = Workspace(settings.paths.root).train_dir
    problems = list(raised_by(lambda: answerer(model).check(model, settings.llm, runs)))
    if settings.dedupe.model == "minilm" and (why := minilm_missing()):
        problems.append(
            MissingError(f"dedupe.model is minilm, but {why.message}", f"{why.remedy}, or set dedupe.model = 'words'")
        )
    return problems


def estimate(settings: Settings, workspace: Workspace, behind: str = "") -> Plan:
    """Estimate calls and cost of this stage. Without texts, or ``behind`` a stage that fetches them again, for the expected
    number of texts."""
    if not behind and (plan := make_plan_for(settings, workspace)).rows:
        return plan
    longest = "word " * settings.vibes.max_input_words
    texts = expected_texts(settings, workspace, new_texts=bool(behind))
    return _plan_of([longest], settings, workspace).times(*texts)


STAGE = Stage("vibes", stage_files, preflight, run_vibes, estimate=estimate)
