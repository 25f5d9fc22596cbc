"""The stage bench: sources answer the same rows; every answer is rendered and scored, and one page compares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from latentscore import RENDERER_VERSION, schema_hash
from latentscore.json_search import JsonObject
from latentscore_data.core.base.display import progress, say
from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.base.jsonl import replace_json
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.manifest import StageFiles, write_manifest
from latentscore_data.core.base.rows import VibeRow, model_candidates
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench import prepare, run
from latentscore_data.core.bench.human import evaluate, write_pack
from latentscore_data.core.bench.prepare import Compared, missing, rows_file, sources_decide
from latentscore_data.core.bench.report import render_report
from latentscore_data.core.bench.run import RunFiles
from latentscore_data.core.bench.summary import summarise
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.generators.registry import kind_of, make_generator, parse_sources
from latentscore_data.core.generators.types import AnyGenerator, GeneratorDeps, SourceName
from latentscore_data.core.llm.batches.run import BatchRun
from latentscore_data.core.llm.plan import Plan, added_up
from latentscore_data.core.scoring.best_of import scorer_versions
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.executor import Executor, RemoteJobEstimate
from latentscore_data.core.scoring.registry import total_usage
from latentscore_data.core.scoring.renderer import LocalRenderer, MakeRenderer
from latentscore_data.core.stages.base import RunContext, Stage
from latentscore_data.core.stages.spending import (
    RunPlan,
    confirm_remote_jobs,
    confirm_spending,
)


def hosted_sources(settings: Settings) -> list[str]:
    """Return the hosted models among the sources."""
    return [source.name for source in parse_sources(settings.bench.sources) if source.kind == "litellm"]


def run_bench(
    settings: Settings, context: RunContext | None = None, *, human_pack: bool = False, of_the_chain: bool = True
) -> Summary:
    """Ask every source, score every answer, and write the table and the page. The caller holds the lock.

    A remote executor runs local models, renders and scores their answers and makes the clips; hosted models are called from
    this machine. ``of_the_chain`` is True for the run that run-all and status check, False for a run with its own name.
    """
    workspace, context = Workspace(settings.paths.root), context or RunContext()
    spend = context.spend
    compared = prepare.compared(settings.bench, workspace)
    rows, sources = compared.rows, compared.sources
    baseline = prepare.baseline_label(settings.bench, sources)
    files = run.RunFiles(workspace.bench_dir / prepare.run_name(settings.bench, settings.scoring, sources))
    executor = context.executor or make_executor("here", settings, say)
    # Errors of the remote executor come before those of keys, and before the cost question.
    there = remote_estimates(settings, compared, executor) if executor.remote else []
    with BatchRun("bench", settings.llm, workspace, hosted_sources(settings), spend=spend) as batches:
        batches.collect()
        for plan in plans(settings, workspace, compared):
            confirm_spending(plan, settings.llm, context.yes)
        make_renderer = agreed_renderer(settings, executor, there, context)
        with prepare.open_scoring(settings, workspace, context.trusted, make_renderer, spend) as (service, cache):
            needs = prepare.generator_deps(
                settings, workspace, rows, cache, executor=executor, ask_through=batches.connect, spend=spend
            )
            scorers = ", ".join(scorer.name for scorer in service.scorers)
            say(f"bench: {len(rows)} rows x {len(sources)} sources, scored by {scorers}")
            generators, asked = ask_sources(batches, needs, sources, rows, files, context)
            if batches.pending:
                return batches.bill(answers_so_far(asked))
            made_by = {generator.label: generator.fingerprint for generator in generators}
            samples = run.load_answers(files, rows, made_by, settings.bench.seed)
            floor = prepare.floor_source(service, baseline)
            sounds: JsonObject = {"keep_flac": settings.bench.keep_audio, "floor_source": floor}
            scored = run.score_answers(
                samples, service, files, **sounds, max_in_flight=service.at_once, progress=progress(),
                retry_failed=context.retry_failed, overwrite=context.overwritten(),
            )  # fmt: skip
            results = run.results_in_order(files, samples, service, **sounds)
            facts = prepare.run_facts(settings, workspace, files.folder.name, rows, sources, baseline, service)
            scored.count(total_usage(service.scorers))
            batches.bill(scored)
    table = summarise(results, facts)
    replace_json(files.summary, table)
    render_report(table, results, files.audio, files.report)
    summary = summarize_run(asked, scored, table, files)
    if human_pack:
        pack = write_pack(results, files.folder, settings.bench.human_pairs, settings.bench.seed)
        summary.outputs.append(str(pack))
    _write_manifests(settings, workspace, files, summary, of_the_chain=of_the_chain)
    return summary


def _write_manifests(
    settings: Settings, workspace: Workspace, files: RunFiles, summary: Summary, *, of_the_chain: bool
) -> None:
    """Write the run's manifest, and the stage's manifest, which describes the run of the current settings."""
    outputs = [files.results, files.summary]
    [of_the_stage] = stage_files(settings, workspace)
    of_the_run = replace(of_the_stage, manifest=files.manifest)
    write_manifest(of_the_run, workspace.root, [*outputs, files.report], summary)
    if of_the_chain:
        write_manifest(of_the_stage, workspace.root, outputs, summary)


def agreed_renderer(
    settings: Settings, executor: Executor, there: Sequence[RemoteJobEstimate], context: RunContext
) -> MakeRenderer:
    """Return the renderer of the executor; for a remote one, after its cost was confirmed."""
    if not executor.remote:
        return LocalRenderer
    confirm_remote_jobs(there, executor, settings, context)
    if executor.scorer_blocker(settings.scoring) is not None:
        return LocalRenderer
    return executor.make_renderer(keep_flac=settings.bench.keep_audio)


def ask_sources(
    batches: BatchRun,
    needs: GeneratorDeps,
    sources: Sequence[SourceName],
    rows: Sequence[VibeRow],
    files: RunFiles,
    context: RunContext,
) -> tuple[list[AnyGenerator], list[Summary]]:
    """Ask every source about every row. The answers are incomplete while questions are in ``batches``."""

    overwritten = {source.label: context.overwritten() for source in sources}

    def ask() -> tuple[list[AnyGenerator], list[Summary]]:
        made = [make_generator(source, needs) for source in sources]
        again: JsonObject = {"retry_failed": context.retry_failed, "progress": progress()}
        return made, [run.generate(one, rows, files, overwrite=overwritten[one.label], **again) for one in made]

    return batches.rounds(ask, progress())


def answers_so_far(asked: Sequence[Summary]) -> Summary:
    """Return the summary of a run with incomplete answers."""
    summary = Summary("bench")
    for part in asked:
        summary.add(part)
    return summary


def remote_estimates(settings: Settings, compared: Compared, executor: Executor) -> list[RemoteJobEstimate]:
    """Estimate the work on the executor: the answers of local models, and every sound of the run.

    Raises :class:`InputError` if no part of this run can run there.
    """
    rows, sources = compared.rows, compared.sources
    found = [one for s in sources for one in kind_of(s).estimate(s, len(rows), settings, executor)]
    if (reason := executor.scorer_blocker(settings.scoring)) is not None:
        if not found:
            executor.make_renderer()
        say(f"bench: the answers are scored here: {reason}")
        return found
    candidates = sum(len(model_candidates(row)) for row in rows)
    sounds = len(rows) * len(sources) + candidates
    return [*found, *executor.estimate_scoring(sounds, settings.scoring, clips=True)]


def plans(settings: Settings, workspace: Workspace, compared: Compared) -> list[Plan]:
    """Return the plans of the hosted models among sources and judges; none for free ones."""
    rows, sources = compared.rows, compared.sources
    asked = [plan for s in sources if (plan := kind_of(s).plan(s, rows, settings, workspace)) is not None]
    return asked + prepare.judges_plans(settings, rows, sources)


def check_run(plan: RunPlan, settings: Settings) -> None:
    """Raise the errors that the run would raise before any call, such as a source that cannot run or a refused plan."""
    for problem in missing(settings):
        raise problem
    plan.check(settings, SpendTracker())


def estimate(settings: Settings, workspace: Workspace, behind: str = "") -> Plan:
    """Estimate the cost of the hosted models among sources and judges, for run-all's plan. It is unknown without rows, or
    ``behind`` a stage that makes them again."""
    named = [*settings.bench.sources, *settings.scoring.scorers]
    if not any(name.startswith(("litellm:", "judge:")) for name in named):
        return added_up([])
    if behind in ("download", "vibes", "configs") and settings.bench.suite is None:
        return Plan("", cost_usd=None, basis=f"{behind} runs before it: its rows do not exist yet")
    try:
        found = plans(settings, workspace, prepare.compared(settings.bench, workspace))
    except MissingError as missing:
        return Plan("", cost_usd=None, basis=missing.message)
    return added_up(found)


def summarize_run(asked: Sequence[Summary], scored: Summary, table: JsonObject, files: RunFiles) -> Summary:
    """Return one summary of the run: finished samples, cost of models, and the score of each source."""
    summary = scored
    summary.stage = "bench"
    for part in asked:
        summary.seconds += part.seconds
        summary.add_bill(part)
        summary.failed.update(part.failed)
    headline = table["headline"]
    summary.details["scorer"] = headline
    for source in table["sources"]:
        summary.details[source["label"]] = in_words(source, headline)
    if table["few_documents"]:
        summary.details["note"] = table["few_documents"]
    summary.outputs = [str(files.report), str(files.summary), str(files.results)]
    summary.next_step = f"open {files.report}"
    return summary


def in_words(source: JsonObject, scorer: str) -> str:
    """Return a source's line for a terminal: mean, interval, and the share of answers that could be scored."""
    score = source["scores"][scorer]
    interval = f" [{score['low']:.3f}, {score['high']:.3f}]" if score["low"] is not None else ""
    fields = source["fields"]
    asked = f", {fields['mean']:.0%} of {fields['asked']} asked fields" if fields else ""
    return f"{score['mean']:.3f}{interval}, {score['scored'] / source['rows']:.0%} scored{asked}"


def evaluate_answers(answers: Sequence[Path], workspace: Workspace) -> Summary:
    """Evaluate a listening test: strengths with intervals, and the number of listeners who failed the catch trials."""
    found = evaluate(answers, workspace.bench_dir)
    summary = Summary("bench, people", done=found["answers"])
    summary.details.update({"listeners": found["listeners"], "left_out": found["left_out"]})
    for player in found["strengths"]:
        summary.details[player["label"]] = player["in_words"]
    summary.outputs = [found["written"]]
    return summary


def stage_files(settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """Return the inputs of the benchmark of these settings, and what determines its result."""
    inputs = [rows_file(settings.bench, workspace), workspace.scored("SFT-Train")]
    bench = settings.bench.model_dump(mode="json", exclude={"name", "batch_size", "human_pairs"})
    scoring = settings.scoring.model_dump(mode="json", exclude={"workers"})
    depends = sources_decide(settings, workspace)
    versions = {**depends.versions, "renderer": RENDERER_VERSION, "schema": schema_hash()}
    versions |= scorer_versions(ScorerDeps(settings.scoring, settings.llm))
    found = [path for path in inputs if path is not None and path.exists()]
    decisive = {**bench, **depends.settings, "scoring": scoring}
    flags = settings.typed, settings.replaced
    return [StageFiles("bench", workspace.bench_dir / "manifest.json", found, decisive, versions, *flags)]


STAGE = Stage("bench", stage_files, missing, run_bench, estimate=estimate, finished_mark="manifest.json")
