"""The stage configs: candidates for each vibe from a model, rendered, scored, and the best one kept."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

from latentscore import MusicConfigPromptPayload, schema_hash
from latentscore.json_search import JsonObject
from latentscore_data.core.base.display import progress, say
from latentscore_data.core.base.errors import InputError, LsdataError, raised_by
from latentscore_data.core.base.jsonl import Line, read_lines
from latentscore_data.core.base.ledger import Ledger, SpendTracker
from latentscore_data.core.base.manifest import FileFact, StageFiles, read_manifest, stale_reasons, write_manifest
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
from latentscore_data.core.search.rows import improver_for, with_judge
from latentscore_data.core.stages.base import RunContext, Stage
from latentscore_data.core.stages.spending import RunPlan, announce, confirm_remote_jobs, confirm_spending

log = logging.getLogger(__name__)


def choose_rows(
    settings: Settings, workspace: Workspace, only: str | None = None
) -> tuple[Workspace, VibeRows | list[VibeRow], str | None]:
    """The vibe rows to work on, where, and which half alone is to be done (``only``); the bundled sample rows, in a place of
    their own, where there are none yet.

    Where rows with configs were put there without vibes, the half is "score".
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
    """Candidates for the rows, then the winners. The lock is held by the caller.

    On a remote executor the candidates are rendered and scored there, and a local model answers there; hosted models
    are asked from here.
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
            confirm_remote_jobs(jobs, there, settings, context.yes, context.spend)
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
    """The summary of a run that has nothing to do, found by the manifests alone; None where something changed.

    Rows that failed for good stay failed.
    """
    halves: list[StageFiles] = []
    if only != "score":
        halves.append(generate_files(settings, workspace))
    if only != "generate":
        halves.append(score_files(settings, workspace, trusted))
    facts: dict[Path, FileFact] = {}
    if any(stale_reasons(half, workspace.root, facts) for half in halves):
        return None
    manifests = [read_manifest(half.manifest) or {} for half in halves]
    summary = Summary("configs", fresh=True)
    for manifest in manifests:
        summary.failed.update(manifest.get("failed", {}))
        summary.short += manifest.get("short", 0)
    last = manifests[-1]
    summary.skipped = last.get("done", 0) + last.get("skipped", 0)
    summary.outputs = [str(workspace.root / name) for name in last.get("outputs", {})]
    if only == "generate":
        return _with_next_step(summary, "lsdata configs --only score")
    about = {name: value for name, value in last["details"].items() if name in ("scorers", "converted", "search")}
    summary.details = {**about, **Counts().to_dict(), **winners(settings, workspace)}
    return _with_next_step(summary, "lsdata bench")


def _with_next_step(summary: Summary, step: str) -> Summary:
    summary.next_step = step
    return summary


def planned(
    rows: VibeRows | list[VibeRow], settings: Settings, workspace: Workspace, only: str | None, executor: Executor
) -> RunPlan:
    """What the run would ask of models: of the one that answers, then of judges that cost money; and what runs elsewhere."""
    settings = with_judge(settings)
    plans = [] if only == "score" else [make_plan_for(rows, settings, workspace)]
    if only != "generate":
        to_score = max(len(rows), count_inputs(settings, RowFiles(workspace)))
        plans += paid_scorers(settings, to_score, ScorerDeps(settings.scoring, settings.llm))
    remote = remote_estimates(rows, settings, RowFiles(workspace), executor, only) if executor.remote else []
    return RunPlan(plans, remote, executor)


def check_run(plan: RunPlan, settings: Settings, only: str | None, trusted: frozenset[str]) -> None:
    """Raise the errors that the run would raise before any call: a scorer that cannot run, a plan that is refused."""
    if only != "generate":
        make_scorers(ScorerDeps(with_judge(settings).scoring, settings.llm, trusted=trusted))
    plan.check(settings, SpendTracker())


def remote_estimates(
    rows: VibeRows | list[VibeRow], settings: Settings, files: RowFiles, executor: Executor, only: str | None = None
) -> list[RemoteJobEstimate]:
    """What is done on the executor: the answers of a local model, rendering and scoring.

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
    """The second half: score the candidates and keep the best. Its figures are added to those of the first."""
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
    for plan in paid_scorers(settings, rows, needs):
        confirm_spending(plan, settings.llm, context.yes)


def paid_scorers(settings: Settings, rows: int, needs: ScorerDeps) -> list[Plan]:
    """What the scorers that cost money would be asked for so many rows.

    In a search the guide scores every render, the others score the model's candidates and the best of each batch.
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
    return [plan for name, pairs in counts.items() for plan in scorer_plans(pairs, _alone(name, needs))]


def _alone(name: str, needs: ScorerDeps) -> ScorerDeps:
    return replace(needs, scoring=needs.scoring.model_copy(update={"scorers": [name]}))


def announce_scorer(settings: Settings) -> None:
    """Print the selected scorer and the reason, if the setting is auto."""
    if "auto" in settings.scoring.scorers:
        name, why = resolve_auto(settings.scoring)
        say(f"configs: scorer: {name} ({why})")


SHOWN_WINNERS = 20


def winners(settings: Settings, workspace: Workspace) -> JsonObject:
    """The scores of all winners, and the first few winners themselves. A line that is no scored row is named in the log and
    left out."""
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
    """A scored row in short, and whether its scorer knew none of its words. Raises whatever a row without one leads to."""
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
    """Vibes from the command line as rows."""
    texts = [text.strip() for text in texts]
    if not all(texts):
        raise InputError("a vibe is empty", 'lsdata configs "slow rain on a tin roof"')
    return [VibeRow(row_id=text, dataset="typed", id_in_dataset=text, vibe_original=text) for text in texts]


def for_typed(settings: Settings) -> Settings:
    """The settings for vibes on the command line.

    Where nothing says how many candidates, the offline model gives its likeliest answer, the one of ``latentscore.render``.
    """
    named = settings.configs.model_fields_set
    if settings.model_of("configs") != BUILTIN or "n" in named:
        return settings
    likeliest = {"n": 1} if "temperature" in named else {"n": 1, "temperature": 0.0}
    return settings.model_copy(update={"configs": settings.configs.model_copy(update=likeliest)})


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
    """The first half: ask for the candidates."""
    workspace = files.workspace
    model, runs = settings.model_of("configs"), workspace.train_dir
    announce("configs", model, settings.llm, context.executor)
    engine = engine_elsewhere(model, context.executor, runs)
    kept = workspace.llm_cache, workspace.ledger
    with BatchRun("configs", settings.llm, *kept, [model], runs, engine, context.spend) as batches:
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
                version=version_of(settings.model_of("configs"), workspace.train_dir),
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
    """Ask before the model that answers the rows costs money."""
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
        workspace.llm_cache,
        settings.configs.vibes_per_call,
        workspace.train_dir,
    )


def generate_files(settings: Settings, workspace: Workspace) -> StageFiles:
    """What the first half reads, and what decides its result."""
    decides = ("n", "temperature", "top_p", "max_tokens", "limit", "splits", "seed")
    return StageFiles(
        typed=settings.typed,
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
    """Both halves, for run-all and status."""
    return [generate_files(settings, workspace), score_files(with_judge(settings), workspace)]


def preflight(settings: Settings) -> list[LsdataError]:
    """What is missing for this stage: a key, the weights of a scorer."""
    model = settings.model_of("configs")
    return raised_by(
        lambda: answerer(model).check(model, settings.llm, Workspace(settings.paths.root).train_dir),
        lambda: make_scorers(ScorerDeps(with_judge(settings).scoring, settings.llm)),
    )


def estimate(settings: Settings, workspace: Workspace, behind: str = "") -> Plan:
    """Calls and cost of this stage, of the model that answers and of paid judges; while there are
    no vibes, or ``behind`` a stage that makes them anew, of as many as there may be."""
    rows = [] if behind else VibeRows(workspace, settings.configs)
    plan = make_plan_for(rows, settings, workspace)
    if not plan.rows:
        one = make_plan_for(sample_rows(settings.configs)[:1], settings, workspace)
        plan = one.times(*expected_vibes(settings, workspace, new_texts=behind == "download"))
    settings = with_judge(settings)
    judges = paid_scorers(settings, plan.rows, ScorerDeps(settings.scoring, settings.llm))
    return added_up([plan, *judges])


def run_all_vibes(settings: Settings, context: RunContext) -> Summary:
    """The whole stage for run-all, under the lock that it holds. Raises :class:`MissingError` when there are no vibes."""
    workspace = Workspace(settings.paths.root)
    rows = VibeRows(workspace, settings.configs)
    require_rows(rows, settings.configs)
    return run_configs(settings, context, workspace=workspace, rows=rows)


STAGE = Stage("configs", stage_files, preflight, run_all_vibes, estimate=estimate)
