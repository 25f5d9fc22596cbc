"""The stage configs: candidates for each vibe from a model, rendered, scored, and the best one kept."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

from latentscore import MusicConfigPromptPayload, schema_hash
from latentscore.json_search import JsonObject
from latentscore_data.core.base.display import progress, say
from latentscore_data.core.base.errors import InputError, LsdataError, raised_by
from latentscore_data.core.base.jsonl import Line, read_lines
from latentscore_data.core.base.ledger import Ledger, SpendTracker
from latentscore_data.core.base.manifest import (
    FileFact,
    StageFiles,
    note_flags,
    read_manifest,
    stale_reasons,
    write_manifest,
)
from latentscore_data.core.base.row_files import RowFiles
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace, sample_root
from latentscore_data.core.compute.remote_answers import answers_estimates, engine_elsewhere
from latentscore_data.core.configs.adhoc import answer_typed
from latentscore_data.core.configs.candidate_generation import (
    VibeRows,
    generate,
    questions,
    require_rows,
    sample_rows,
)
from latentscore_data.core.llm.answerers import answerer, version_of
from latentscore_data.core.llm.batches.run import BatchRun
from latentscore_data.core.llm.builtin import MODEL as BUILTIN
from latentscore_data.core.llm.client import connect
from latentscore_data.core.llm.plan import Plan, added_up, example_answer, expected_vibes, make_plan
from latentscore_data.core.llm.prices import costs_nothing
from latentscore_data.core.llm.prompts import config_prompt_hash
from latentscore_data.core.scoring.best_of import count_inputs, run_scoring, score_files
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.executor import Executor, RemoteJobEstimate
from latentscore_data.core.scoring.registry import make_scorers, resolve_auto, scorer_names, scorer_plans
from latentscore_data.core.scoring.renderer import LocalRenderer, MakeRenderer
from latentscore_data.core.scoring.service import Counts
from latentscore_data.core.search.report import summary_lines
from latentscore_data.core.search.rows import check_judge, improver_for, with_judge
from latentscore_data.core.stages.base import RunContext, Stage
from latentscore_data.core.stages.spending import RunPlan, announce, confirm_remote_jobs, confirm_spending

log = logging.getLogger(__name__)


def choose_rows(
    settings: Settings, workspace: Workspace, only: str | None = None
) -> tuple[Workspace, VibeRows | list[VibeRow], str | None]:
    """Return the workspace, the vibe rows to work on, and the half to run (``only``).

    Without vibe rows, these are the bundled sample rows in a workspace of their own. If the workspace holds rows with configs
    but no vibes, the half is "score".
    """
    rows = VibeRows(workspace, settings.configs)
    has_configs = workspace.candidates.exists() or any(workspace.scored(s).exists() for s in settings.configs.splits)
    if has_configs and (only == "score" or (only is None and not len(rows))):
        if only is None:
            count = count_inputs(settings, RowFiles(workspace))
            say(f"configs: no vibe rows, so the {count} rows in {workspace.configs_dir} are scored")
        return workspace, rows if only == "score" else [], "score"
    if workspace.vibe_files() or workspace.text_files() or "TEST" not in settings.configs.splits:
        require_rows(rows, settings.configs)
        return workspace, rows, only
    workspace = Workspace(sample_root(workspace.root))
    rows = sample_rows(settings.configs)
    say(f"configs: there are no vibe rows yet, so here are the {len(rows)} bundled sample vibes ({workspace.root})")
    return workspace, rows, only


def run_configs(
    settings: Settings,
    context: RunContext | None = None,
    *,
    workspace: Workspace,
    rows: VibeRows | list[VibeRow],
    only: str | None = None,
) -> Summary:
    """Generate candidates for the rows, then select the winners. The caller holds the lock.

    A remote executor renders and scores the candidates and runs local models; hosted models are called from this machine.
    """
    settings, context = with_judge(settings), context or RunContext()
    if isinstance(rows, VibeRows) and not (context.retry_failed or context.overwrite):
        done = unchanged(settings, workspace, only, context.trusted)
        if done is not None:
            return done
    summary = Summary("configs")
    with RowFiles(workspace) as files:
        to_score = 0 if only == "generate" else max(len(rows), count_inputs(settings, files))
        make_renderer: MakeRenderer = LocalRenderer
        if (there := context.remote) is not None:
            jobs = remote_estimates(rows, settings, files, there, only)
            confirm_remote_jobs(jobs, there, settings, context)
            make_renderer = there.make_renderer() if to_score else LocalRenderer
        if only != "generate":
            check_scorers(settings, to_score, context)
        if only != "score":
            summary = run_generate(settings, files, rows, context)
        if summary.pending:
            return summary
        if only == "generate":
            summary.next_step = "lsdata configs --only score"
            return summary
        return run_score(summary, settings, files, context, make_renderer)


def unchanged(
    settings: Settings, workspace: Workspace, only: str | None, trusted: frozenset[str] = frozenset()
) -> Summary | None:
    """Return the summary of a run without work, from the manifests alone; None if something changed.

    Rows that failed permanently stay failed.
    """
    halves: list[StageFiles] = []
    if only != "score":
        halves.append(generate_files(settings, workspace))
    if only != "generate":
        halves.append(score_files(settings, workspace, trusted))
    facts: dict[Path, FileFact] = {}
    if any(stale_reasons(half, workspace.root, facts) for half in halves):
        return None
    for half in halves:
        note_flags(half)
    manifests = [read_manifest(half.manifest) or {} for half in halves]
    summary = Summary("configs", fresh=True)
    for manifest in manifests:
        summary.failed.update(manifest.get("failed", {}))
        summary.short += manifest.get("short", 0)
    last = manifests[-1]
    summary.skipped = last.get("done", 0) + last.get("skipped", 0)
    summary.outputs = [str(workspace.root / name) for name in last.get("outputs", {})]
    if only == "generate":
        summary.next_step = "lsdata configs --only score"
        return summary
    about = {name: value for name, value in last["details"].items() if name in ("scorers", "converted", "search")}
    summary.details = {**about, **Counts().to_dict(), **winners(settings, workspace)}
    summary.next_step = "lsdata bench"
    return summary


def planned(
    rows: VibeRows | list[VibeRow], settings: Settings, workspace: Workspace, only: str | None, executor: Executor
) -> RunPlan:
    """Return the plan of the run: the calls of the model that answers, then of paid judges, and the remote work."""
    settings = with_judge(settings)
    plans = [] if only == "score" else [make_plan_for(rows, settings, workspace)]
    if only != "generate":
        to_score = max(len(rows), count_inputs(settings, RowFiles(workspace)))
        plans += paid_scorers(settings, to_score, ScorerDeps(settings.scoring, settings.llm))
    remote = remote_estimates(rows, settings, RowFiles(workspace), executor, only) if executor.remote else []
    return RunPlan(plans, remote, executor)


def check_run(plan: RunPlan, settings: Settings, only: str | None, trusted: frozenset[str]) -> None:
    """Raise the errors that the run would raise before any call, such as a scorer that cannot run or a refused plan."""
    if only != "generate":
        check_judge(settings)
        make_scorers(ScorerDeps(with_judge(settings).scoring, settings.llm, trusted=trusted))
    plan.check(settings, SpendTracker())


def remote_estimates(
    rows: VibeRows | list[VibeRow], settings: Settings, files: RowFiles, executor: Executor, only: str | None = None
) -> list[RemoteJobEstimate]:
    """Estimate the work on the executor: the answers of a local model, rendering and scoring.

    Raises :class:`InputError` for scorers that must run here.
    """
    found: list[RemoteJobEstimate] = []
    if only != "score":
        found += answers_estimates(
            make_plan_for(rows, settings, files.workspace), settings.llm.max_concurrency, executor
        )
    to_score = 0 if only == "generate" else max(len(rows), count_inputs(settings, files))
    if to_score:
        executor.make_renderer()
        per_row = max(settings.configs.n, settings.search.renders or 0)
        found += executor.estimate_scoring(to_score * per_row, settings.scoring, clips=False)
    return found


def run_score(
    summary: Summary,
    settings: Settings,
    files: RowFiles,
    context: RunContext,
    make_renderer: MakeRenderer = LocalRenderer,
) -> Summary:
    """Run the second half: score the candidates and keep the best. Its counts are added to those of the first half."""
    workspace = files.workspace
    announce_scorer(settings)
    scored = run_scoring(
        settings,
        workspace,
        trusted=context.trusted,
        progress=progress(),
        retry_failed=context.retry_failed,
        overwrite=context.overwrite,
        make_renderer=make_renderer,
        make_improver=improver_for(settings, workspace),
        files=files,
        spend=context.spend,
    )
    summary.done = summary.skipped = 0  # the rows of the first half again
    summary.add(scored)
    summary.outputs = scored.outputs
    summary.details |= {
        **scored.details,
        "scorer": ", ".join(scored.details["scorers"]),
        **winners(settings, workspace),
    }
    for line in summary_lines(scored.details.get("search")):
        say(line)
    for note, count in summary.details["converted"].items():
        say(f"configs: {count} rows: {note}")
    if undecided := summary.details.get("without_known_words"):
        say(
            f"configs: acoustic knows no word of {undecided} of {len(summary.details['winner_scores'])} vibes; their "
            "first candidate is kept (--scorer clap or judge:MODEL can decide)"
        )
    in_sample = "" if workspace.root == settings.paths.root else f" --root {workspace.root}"
    summary.next_step = (
        'lsdata configs "slow rain on a tin roof" --audio out/, or the whole chain: lsdata run-all --sample'
        if in_sample
        else "lsdata bench"
    )
    return summary


def check_scorers(settings: Settings, rows: int, context: RunContext) -> None:
    """Check, before the first call, that every scorer can run, and ask before a judge costs money."""
    needs = ScorerDeps(settings.scoring, settings.llm, trusted=context.trusted)
    make_scorers(needs)
    check_judge(settings)
    for plan in paid_scorers(settings, rows, needs):
        confirm_spending(plan, settings.llm, context.yes)


def paid_scorers(settings: Settings, rows: int, needs: ScorerDeps) -> list[Plan]:
    """Return the plans of paid scorers for that many rows.

    In a search, the guide scores every render; the other scorers score the model's candidates and the best of each batch.
    """
    search, candidates = settings.search, settings.configs.n
    if search.renders is None:
        return scorer_plans(rows * candidates, needs)
    guide, *others = scorer_names(settings.scoring)
    batches = 3 + math.ceil(search.renders / search.batch)
    training = search.surrogate_renders
    counts = {
        guide: rows * max(search.renders, candidates) + training,
        **dict.fromkeys(others, rows * (candidates + batches)),
    }
    each = {name: replace(needs, scoring=needs.scoring.model_copy(update={"scorers": [name]})) for name in counts}
    return [plan for name, pairs in counts.items() for plan in scorer_plans(pairs, each[name])]


def announce_scorer(settings: Settings) -> None:
    """Print the selected scorer and the reason, if the setting is auto."""
    if "auto" in settings.scoring.scorers:
        name, why = resolve_auto(settings.scoring)
        say(f"configs: scorer: {name} ({why})")


SHOWN_WINNERS = 20


def winners(settings: Settings, workspace: Workspace) -> JsonObject:
    """Return the scores of all winners, and the first winners themselves. A line that is not a scored row is logged and left
    out."""
    undecided = 0
    scores: list[float] = []
    first: list[JsonObject] = []
    for split in settings.configs.splits:
        path = workspace.scored(split)
        for number, row in read_lines(path, torn="drop") if path.exists() else ():
            if row.get("input_fingerprint") is None:
                continue  # a row of another tool that was not scored here
            try:
                winner, unread = _winner(row)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError):
                log.warning("%s:%d: not a scored row; it is left out", path, number)
                continue
            scores.append(winner["score"])
            undecided += unread
            if len(first) < SHOWN_WINNERS:
                first.append(winner)
    without_words = {"without_known_words": undecided} if undecided else {}
    return {"winner_scores": scores, "winners": first, **without_words}


def _winner(row: Line) -> tuple[JsonObject, bool]:
    """Return a short form of a scored row, and whether its scorer knew none of its words. An invalid row raises some error."""
    best = row["best_index"]
    decided_by, scores = next(iter(row["candidate_scores"].items()), ("", []))
    palettes = row["config_payload"].get("palettes") or [{"colors": []}]
    unread = (row["scores_external"].get(decided_by) or {}).get("words") == 0
    return {
        "row_id": str(row["row_id"]),
        "vibe": str(row["vibe_original"]),
        "title": str(row["config_payload"].get("title") or "Untitled"),
        "best_index": best,
        "candidates": len(row["config_candidates"]),
        "score": float(scores[best]),
        "palette": {
            "colors": [{"hex": str(color["hex"]), "weight": color.get("weight")} for color in palettes[0]["colors"]]
        },
    }, unread


def typed_rows(texts: list[str]) -> list[VibeRow]:
    """Return vibes from the command line as rows. Raises :class:`InputError` for what is not a text, and for an empty one."""
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise InputError(f"a vibe must be a text, not {type(wrong[0]).__name__}", "give one, such as 'slow rain'")
    texts = [text.strip() for text in texts]
    if not all(texts):
        raise InputError("a vibe is empty", 'lsdata configs "slow rain on a tin roof"')
    return [VibeRow(row_id=text, dataset="typed", id_in_dataset=text, vibe_original=text) for text in texts]


def for_typed(settings: Settings) -> Settings:
    """Return the settings for vibes on the command line.

    If the number of candidates is not set, the offline model gives its likeliest answer, as in ``latentscore.render``.
    """
    named = settings.configs.model_fields_set
    if settings.model_of("configs") != BUILTIN or "n" in named:
        return settings
    likeliest = {"n": 1} if "temperature" in named else {"n": 1, "temperature": 0.0}
    return settings.changed(configs=likeliest)


def answer_vibes(
    texts: list[str], settings: Settings, workspace: Workspace, context: RunContext, audio: Path | None = None
) -> Summary:
    """Return the best of N for each text. Writes only the answer cache, the ledger and requested sound files."""
    rows, settings = typed_rows(texts), with_judge(settings)
    announce_scorer(settings)
    check_scorers(settings, len(rows), context)
    model = settings.model_of("configs")
    announce("configs", model, settings.llm)
    agree_on_model(rows, settings, workspace, yes=context.yes)
    llm = connect(
        model,
        settings.llm,
        cache_path=workspace.llm_cache,
        ledger=Ledger(workspace.ledger),
        stage="configs",
        per_call=settings.configs.vibes_per_call,
        runs=workspace.train_dir,
        spend=context.spend,
    )
    summary = answer_typed(
        rows,
        llm,
        settings,
        workspace,
        audio=audio,
        trusted=context.trusted,
        progress=progress(),
        spend=context.spend,
    )
    for line in summary_lines(summary.details.get("search")):
        say(line)
    return summary


def run_generate(settings: Settings, files: RowFiles, rows: VibeRows | list[VibeRow], context: RunContext) -> Summary:
    """Run the first half: ask the model for candidates."""
    workspace = files.workspace
    model = settings.model_of("configs")
    announce("configs", model, settings.llm, context.executor)
    engine = engine_elsewhere(model, context.executor, workspace.train_dir)
    with BatchRun("configs", settings.llm, workspace, [model], engine, context.spend) as batches:
        batches.collect()
        agree_on_model(rows, settings, workspace, yes=context.yes)
        overwrite = context.overwritten()

        def run() -> Summary:
            return generate(
                rows,
                batches.connect(model, settings.configs.vibes_per_call),
                settings.configs,
                workspace,
                api_base=settings.llm.base_for(model),
                prompts=settings.prompts,
                version=version_of(model, workspace.train_dir),
                max_concurrency=settings.llm.max_concurrency,
                retry_failed=context.retry_failed,
                overwrite=overwrite,
                progress=progress(),
                files=files,
            )

        summary = batches.bill(batches.rounds(run, progress()))
    summary.details["model"] = model
    if summary.pending:
        return summary
    summary.outputs = [str(workspace.candidates)]
    facts = {workspace.candidates: files.candidates.fact()}
    write_manifest(generate_files(settings, workspace), workspace.root, [workspace.candidates], summary, facts=facts)
    return summary


def agree_on_model(rows: VibeRows | list[VibeRow], settings: Settings, workspace: Workspace, *, yes: bool) -> None:
    """Ask for confirmation if the model that answers the rows costs money."""
    if not costs_nothing(settings.model_of("configs"), settings.llm):
        confirm_spending(make_plan_for(rows, settings, workspace), settings.llm, yes)


def make_plan_for(rows: VibeRows | list[VibeRow], settings: Settings, workspace: Workspace) -> Plan:
    """Return the calls and cost of the first half."""
    return make_plan(
        settings.model_of("configs"),
        (questions(row, settings.configs, settings.prompts) for row in rows),
        MusicConfigPromptPayload,
        example_answer(),
        settings.llm,
        workspace,
        settings.configs.vibes_per_call,
    )


def generate_files(settings: Settings, workspace: Workspace) -> StageFiles:
    """Return the inputs of the first half, and what determines its result."""
    decides = ("n", "temperature", "top_p", "max_tokens", "limit", "splits", "seed")
    return StageFiles(
        typed=settings.typed,
        replaced=settings.replaced,
        stage="configs",
        manifest=workspace.configs_dir / "generate.manifest.json",
        inputs=[path for split in settings.configs.splits if (path := workspace.vibes(split)).exists()],
        settings={
            "model": settings.model_of("configs"),
            "api_base": settings.llm.base_for(settings.model_of("configs")),
            **{name: getattr(settings.configs, name) for name in decides},
        },
        versions={
            "prompt": config_prompt_hash(settings.prompts),
            "schema": schema_hash(),
            "model": version_of(settings.model_of("configs"), workspace.train_dir),
        },
    )


def stage_files(settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """Return the files of both halves, for run-all and status."""
    return [generate_files(settings, workspace), score_files(with_judge(settings), workspace)]


def preflight(settings: Settings) -> list[LsdataError]:
    """Return what is missing for this stage, such as a key or the weights of a scorer."""
    model = settings.model_of("configs")
    runs = Workspace(settings.paths.root).train_dir
    answers = partial(answerer(model).check, model, settings.llm, runs)

    def scorers() -> None:
        make_scorers(ScorerDeps(with_judge(settings).scoring, settings.llm))

    return list(raised_by(answers, partial(check_judge, settings), scorers))


def estimate(settings: Settings, workspace: Workspace, behind: str = "") -> Plan:
    """Estimate calls and cost of the model that answers and of paid judges. Without vibes, or ``behind`` a stage that makes
    them again, for the expected number of vibes."""
    rows = [] if behind else VibeRows(workspace, settings.configs)
    plan = make_plan_for(rows, settings, workspace)
    if not plan.rows:
        one = make_plan_for(sample_rows(settings.configs)[:1], settings, workspace)
        plan = one.times(*expected_vibes(settings, workspace, new_texts=behind == "download"))
    settings = with_judge(settings)
    judges = paid_scorers(settings, plan.rows, ScorerDeps(settings.scoring, settings.llm))
    return added_up([plan, *judges])


def run_all_vibes(settings: Settings, context: RunContext) -> Summary:
    """Run the whole stage for run-all, which holds the lock. Raises :class:`MissingError` if there are no vibes."""
    workspace = Workspace(settings.paths.root)
    rows = VibeRows(workspace, settings.configs)
    require_rows(rows, settings.configs)
    return run_configs(settings, context, workspace=workspace, rows=rows)


STAGE = Stage("configs", stage_files, preflight, run_all_vibes, estimate=estimate)
