"""lsdata configs: N music configs for each vibe from a model, and the one that sounds most like it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from latentscore import MusicConfigPromptPayload, schema_hash
from latentscore_data.commands._models import announce, confirm_remote_jobs, confirm_spending, show_plan, trust_key_to
from latentscore_data.commands._options import (
    DryRunOption,
    LimitOption,
    ModelOption,
    OnOption,
    OverwriteOption,
    RetryFailedOption,
    ScorerOption,
    SecondsOption,
    SeedOption,
    TrustScorersOption,
    WorkersOption,
    YesOption,
    calls_models,
    load,
    show,
)
from latentscore_data.core.base.display import (
    OUTPUT,
    clean,
    console,
    palette_blocks,
    print_json,
    progress,
    say,
    shorten,
)
from latentscore_data.core.base.errors import InputError, LsdataError
from latentscore_data.core.base.jsonl import read_lines
from latentscore_data.core.base.ledger import Ledger
from latentscore_data.core.base.manifest import StageFiles, write_manifest
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import Settings, chosen
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace, sample_root
from latentscore_data.core.compute.estimates import RemoteJobEstimate
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.compute.types import Executor
from latentscore_data.core.configs.adhoc import answer_typed
from latentscore_data.core.configs.candidate_generation import (
    Source,
    VibeRows,
    example_answer,
    generate,
    model_version,
    questions,
    require_rows,
    sample_rows,
)
from latentscore_data.core.llm.client import connect
from latentscore_data.core.llm.plan import Plan, added_up, expected_vibes, make_plan
from latentscore_data.core.llm.prices import costs_nothing
from latentscore_data.core.llm.prompts import config_prompt_hash
from latentscore_data.core.llm.routes import check_route
from latentscore_data.core.llm.types import LLM
from latentscore_data.core.scoring.best_of import count_inputs, run_scoring, score_files
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorers, resolve_auto, scorer_plans
from latentscore_data.core.scoring.renderer import LocalRenderer, MakeRenderer


@calls_models
def configs(
    vibe: Annotated[list[str] | None, typer.Argument(help="Vibes to answer right here; no rows are written.")] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="Candidates per vibe (default 5).", min=1, max=256)] = None,
    model: ModelOption = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.", min=0, max=2)] = None,
    scorer: ScorerOption = None,
    limit: LimitOption = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Only rows of this split: SFT-Train, SFT-Val, GRPO or TEST. Repeatable."),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Only one half: generate or score.")] = None,
    seconds: SecondsOption = None,
    batch_size: Annotated[int | None, typer.Option(help="Vibes asked for in one call.", min=1, max=64)] = None,
    workers: WorkersOption = None,
    on: OnOption = None,
    audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With VIBE: write the winners' sound here, as FLAC.")
    ] = None,
    trust_settings: TrustScorersOption = False,
    seed: SeedOption = None,
    retry_failed: RetryFailedOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    *,
    calls: dict[str, Any],
) -> None:
    """Ask a model for N configs per vibe, render and score them, and keep the best.

    Examples:

        lsdata configs --n 8
        lsdata configs "slow rain on a tin roof" --n 8 --audio out/
        lsdata configs --model openai/gpt-4o-mini --max-cost 5
    """
    if only not in (None, "generate", "score"):
        raise InputError(f"--only {only!r} is unknown", "halves: generate, score")
    if audio is not None and not vibe:
        raise InputError(
            "--audio goes with vibes on the command line", 'lsdata configs "slow rain on a tin roof" --audio out/'
        )
    settings = load(
        configs=chosen(
            model=model, n=n, temperature=temperature, limit=limit, splits=split, batch_size=batch_size, seed=seed
        ),
        scoring=chosen(scorers=scorer, seconds=seconds, workers=workers),
        llm=calls,
    )
    executor = make_executor(on or "local", settings, say)
    if executor.remote and vibe:
        raise InputError("vibes on the command line are answered here", f"leave --on {on} out")
    trust_key_to(settings.llm, calls.get("api_key_env"))
    trusted = frozenset(settings.scoring.scorers if trust_settings else scorer or ())
    workspace = Workspace(settings.paths.root)
    if vibe:
        if dry_run:
            show_plan(make_plan_for(typed_rows(vibe), settings, workspace))
            return
        show_answers(answer_vibes(vibe, settings, workspace, audio=audio, trusted=trusted, yes=yes))
        return
    workspace, rows = choose_rows(settings, workspace, only)
    if not len(rows) and only is None:
        say(
            f"configs: no vibe rows, so the {count_inputs(settings, workspace)} rows in {workspace.configs_dir} are scored"
        )
        only = "score"
    if dry_run:
        show_plan(make_plan_for(rows, settings, workspace))
        if executor.remote and only != "generate":
            for estimate in remote_estimates(settings, len(rows), executor):
                say(estimate.in_words(settings.train.modal))
        return
    with workspace.lock("configs"):
        summary = run_configs(
            settings,
            workspace=workspace,
            rows=rows,
            only=only,
            trusted=trusted,
            yes=yes,
            retry_failed=retry_failed,
            overwrite=overwrite,
            executor=executor,
        )
    show_winners(summary)
    show(summary)


def model_name(settings: Settings) -> str:
    """The model this stage asks."""
    return settings.configs.model or settings.llm.model


def choose_rows(
    settings: Settings, workspace: Workspace, only: str | None = None
) -> tuple[Workspace, Source | list[VibeRow]]:
    """The vibe rows to work on and where; the bundled sample rows, in a place of their own, where there are none yet.

    No rows where there is nothing to generate for: with ``only`` "score", or where scored rows were put there without vibes.
    """
    rows = VibeRows(workspace, settings.configs)
    has_configs = workspace.candidates.exists() or any(workspace.scored(s).exists() for s in settings.configs.splits)
    if has_configs and (only == "score" or (only is None and not len(rows))):
        return workspace, rows if only == "score" else []
    if workspace.vibe_files() or workspace.text_files() or "TEST" not in settings.configs.splits:
        require_rows(rows, settings.configs)
        return workspace, rows
    workspace = Workspace(sample_root(workspace.root))
    rows = sample_rows(settings.configs)
    say(f"configs: there are no vibe rows yet, so here are the {len(rows)} bundled sample vibes ({workspace.root})")
    return workspace, rows


def run_configs(
    settings: Settings,
    *,
    workspace: Workspace,
    rows: Source | list[VibeRow],
    only: str | None = None,
    trusted: frozenset[str] = frozenset(),
    yes: bool = False,
    retry_failed: bool = False,
    overwrite: bool = False,
    executor: Executor | None = None,
) -> Summary:
    """Candidates for the rows, then the winners. The lock is held by the caller.

    Models are asked from here in any case; on a remote ``executor`` the candidates are rendered and scored there.
    """
    summary = Summary("configs")
    to_score = 0 if only == "generate" else max(len(rows), count_inputs(settings, workspace))
    make_renderer: MakeRenderer = LocalRenderer
    if executor is not None and executor.remote and to_score:
        make_renderer = remote_renderer(settings, to_score, executor, yes=yes)
    if only != "generate":
        check_scorers(settings, to_score, trusted=trusted, yes=yes)
    if only != "score":
        summary = run_generate(
            settings, workspace=workspace, rows=rows, yes=yes, retry_failed=retry_failed, overwrite=overwrite
        )
    if only == "generate":
        summary.next_step = "lsdata configs --only score"
        return summary
    return run_score(
        summary,
        settings,
        workspace,
        trusted=trusted,
        retry_failed=retry_failed,
        overwrite=overwrite,
        make_renderer=make_renderer,
    )


def remote_estimates(settings: Settings, rows: int, executor: Executor) -> list[RemoteJobEstimate]:
    """What rendering and scoring takes on the executor. Raises :class:`InputError` for scorers that must run here."""
    executor.make_renderer()
    return executor.estimate_scoring(rows * settings.configs.n, settings.scoring, clips=False)


def remote_renderer(settings: Settings, rows: int, executor: Executor, *, yes: bool) -> MakeRenderer:
    """The renderer of a remote executor, once its cost was shown and agreed to."""
    confirm_remote_jobs(remote_estimates(settings, rows, executor), settings.train.modal, yes)
    return executor.make_renderer()


def run_score(
    summary: Summary,
    settings: Settings,
    workspace: Workspace,
    *,
    trusted: frozenset[str] = frozenset(),
    retry_failed: bool = False,
    overwrite: bool = False,
    make_renderer: MakeRenderer = LocalRenderer,
) -> Summary:
    """The second half: listen to the candidates and keep the best. Its figures are added to those of the first."""
    announce_scorer(settings)
    scored = run_scoring(
        settings,
        workspace,
        trusted=trusted,
        progress=progress(),
        retry_failed=retry_failed,
        overwrite=overwrite,
        make_renderer=make_renderer,
    )
    summary.done, summary.skipped = scored.done, scored.skipped
    summary.add_bill(scored)
    summary.failed += scored.failed
    summary.short += scored.short
    summary.unfinished += scored.unfinished
    summary.seconds += scored.seconds
    summary.outputs = scored.outputs
    summary.details |= {
        **scored.details,
        "scorer": ", ".join(scored.details["scorers"]),
        **winners(settings, workspace),
    }
    for note, count in summary.details["converted"].items():
        say(f"configs: {count} rows from elsewhere: {note}")
    if undecided := summary.details.get("without_known_words"):
        say(
            f"configs: acoustic reads nothing in {undecided} of {len(summary.details['winner_scores'])} vibes; there the "
            "first answer stands (--scorer clap or judge:MODEL would decide)"
        )
    in_sample = "" if workspace.root == settings.paths.root else f" --root {workspace.root}"
    summary.next_step = (
        'lsdata configs "slow rain on a tin roof" --audio out/, or the whole chain: lsdata run-all --sample'
        if in_sample
        else "lsdata bench"
    )
    return summary


def check_scorers(settings: Settings, rows: int, *, trusted: frozenset[str], yes: bool) -> None:
    """Before anything is asked: whoever listens must be able to, and a judge that costs money must be agreed to."""
    needs = ScorerDeps(settings.scoring, settings.llm, trusted=trusted)
    make_scorers(needs)
    for plan in scorer_plans(rows * settings.configs.n, needs):
        confirm_spending(plan, settings.llm, yes)


def announce_scorer(settings: Settings) -> None:
    """Who listens, and why, where the settings leave it open."""
    if "auto" in settings.scoring.scorers:
        name, why = resolve_auto(settings.scoring)
        say(f"configs: {name} listens ({why})")


SHOWN_WINNERS = 20


def winners(settings: Settings, workspace: Workspace) -> dict[str, Any]:
    """The scores of all winners, and the first few winners themselves."""
    undecided = 0
    scores: list[float] = []
    first: list[dict[str, Any]] = []
    for split in settings.configs.splits:
        path = workspace.scored(split)
        for _, row in read_lines(path, torn="drop") if path.exists() else ():
            if row.get("input_fingerprint") is None:
                continue  # somebody put it there, and it was not scored here
            best = row["best_index"]
            decided_by = next(iter(row["candidate_scores"]))
            scores.append(row["candidate_scores"][decided_by][best])
            undecided += (row["scores_external"].get(decided_by) or {}).get("words") == 0
            if len(first) < SHOWN_WINNERS:
                payload = row["config_payload"]
                first.append(
                    {
                        "row_id": row["row_id"],
                        "vibe": row["vibe_original"],
                        "title": payload.get("title") or "Untitled",
                        "best_index": best,
                        "candidates": len(row["config_candidates"]),
                        "score": scores[-1],
                        "palette": next(iter(payload.get("palettes") or ()), {"colors": []}),
                    }
                )
    without_words = {"without_known_words": undecided} if undecided else {}
    return {"winner_scores": scores, "winners": first, **without_words}


def show_winners(summary: Summary) -> None:
    """The first winners as a table: the vibe, the title, who won with which score, and the first palette."""
    found: list[dict[str, Any]] = summary.details.get("winners", [])
    if OUTPUT.json or not found:
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("vibe", "title", "won", "score", "palette", box=None)
    for winner in found:
        table.add_row(
            Text(shorten(winner["vibe"], 40)),
            Text(shorten(winner["title"], 30)),
            f"{winner['best_index'] + 1} of {winner['candidates']}",
            f"{winner['score']:.3f}",
            palette_blocks(winner["palette"]),
        )
    console().print(table)


def typed_rows(texts: list[str]) -> list[VibeRow]:
    """Vibes from the command line as rows."""
    texts = [text.strip() for text in texts]
    if not all(texts):
        raise InputError("a vibe is empty", 'lsdata configs "slow rain on a tin roof"')
    return [VibeRow(row_id=text, dataset="typed", id_in_dataset=text, vibe_original=text) for text in texts]


def answer_vibes(
    texts: list[str],
    settings: Settings,
    workspace: Workspace,
    *,
    audio: Path | None,
    trusted: frozenset[str],
    yes: bool,
) -> Summary:
    """The best of N for each text. Nothing is written but the answer cache, the ledger and the sound that was asked for."""
    rows = typed_rows(texts)
    announce_scorer(settings)
    check_scorers(settings, len(rows), trusted=trusted, yes=yes)
    llm = agreed_model(rows, settings, workspace, yes=yes)
    return answer_typed(rows, llm, settings, workspace, audio=audio, trusted=trusted, progress=progress())


def show_answers(summary: Summary) -> None:
    """Each winner with its palettes and its words; or one JSON document."""
    if OUTPUT.json:
        print_json(summary.to_dict())
        raise typer.Exit(summary.exit_code)
    from rich.padding import Padding
    from rich.text import Text

    out = console()
    for answer in summary.details["answers"]:
        out.print(Text.assemble((clean(answer["vibe"]), "bold")))
        payload = answer["config_payload"]
        if payload is None:
            out.print(Padding(Text(clean(answer["failure"]), style="red"), (0, 0, 1, 2)))
            continue
        won = f"{answer['best_index'] + 1} of {len(answer['scores'])}, {answer['scorer']} {answer['score']:.3f}"
        out.print(Padding(Text.assemble((clean(payload["title"]), "italic"), f"   {won}"), (0, 2)))
        if answer.get("note"):
            out.print(Padding(Text(clean(answer["note"]), style="yellow"), (0, 2)))
        for palette in payload["palettes"]:
            out.print(Padding(palette_blocks(palette), (0, 2)))
        words = "  ".join(f"{name} {str(word).lower()}" for name, word in payload["config"].items())
        out.print(Padding(Text(clean(words), style="dim"), (0, 2)))
        if answer.get("audio_file"):
            out.print(Padding(Text(clean(answer["audio_file"])), (0, 2)))
        out.print()
    raise typer.Exit(summary.exit_code)


def run_generate(
    settings: Settings,
    *,
    workspace: Workspace,
    rows: Source | list[VibeRow],
    yes: bool = False,
    retry_failed: bool = False,
    overwrite: bool = False,
) -> Summary:
    """The first half: ask for the candidates."""
    llm = agreed_model(rows, settings, workspace, yes=yes)
    summary = generate(
        rows,
        llm,
        settings.configs,
        workspace,
        api_base=settings.llm.base_for(llm.model),
        max_concurrency=settings.llm.max_concurrency,
        retry_failed=retry_failed,
        overwrite=overwrite,
        progress=progress(),
    )
    summary.outputs = [str(workspace.candidates)]
    summary.details["model"] = llm.model
    write_manifest(generate_files(settings, workspace), workspace.root, [workspace.candidates], summary)
    return summary


def agreed_model(rows: Source | list[VibeRow], settings: Settings, workspace: Workspace, *, yes: bool) -> LLM:
    """What answers the rows, announced and, where it costs money, agreed to."""
    model = model_name(settings)
    announce("configs", model, settings.llm)
    if not costs_nothing(model, settings.llm):
        confirm_spending(make_plan_for(rows, settings, workspace), settings.llm, yes)
    return connect(
        model,
        settings.llm,
        cache_path=workspace.llm_cache,
        ledger=Ledger(workspace.ledger),
        stage="configs",
        batch_size=settings.configs.batch_size,
    )


def make_plan_for(rows: Source | list[VibeRow], settings: Settings, workspace: Workspace) -> Plan:
    """What the first half would ask and cost."""
    return make_plan(
        model_name(settings),
        (questions(row, settings.configs) for row in rows),
        MusicConfigPromptPayload,
        example_answer(),
        settings.llm,
        workspace.llm_cache,
        settings.configs.batch_size,
    )


def generate_files(settings: Settings, workspace: Workspace) -> StageFiles:
    """What the first half reads, and what decides its result."""
    decides = ("n", "temperature", "top_p", "max_tokens", "limit", "splits", "seed")
    return StageFiles(
        stage="configs",
        manifest=workspace.configs_dir / "generate.manifest.json",
        inputs=[path for split in settings.configs.splits if (path := workspace.vibes(split)).exists()],
        settings={
            "model": model_name(settings),
            "api_base": settings.llm.api_base,
            **{name: getattr(settings.configs, name) for name in decides},
        },
        versions={
            "prompt": config_prompt_hash(),
            "schema": schema_hash(),
            "model": model_version(model_name(settings)),
        },
    )


def stage_files(settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """Both halves, for run-all and status."""
    return [generate_files(settings, workspace), score_files(settings, workspace)]


def preflight(settings: Settings) -> list[LsdataError]:
    """What is missing for this stage: a key, the weights of a scorer."""
    problems: list[LsdataError] = []
    checks = (
        lambda: check_route(model_name(settings), settings.llm),
        lambda: make_scorers(ScorerDeps(settings.scoring, settings.llm)),
    )
    for check in checks:
        try:
            check()
        except LsdataError as error:
            problems.append(error)
    return problems


def estimate(settings: Settings, workspace: Workspace, behind: str = "") -> dict[str, Any]:
    """Calls and cost of this stage, of the model that answers and of judges that listen, as things stand; while there are
    no vibes, or ``behind`` a stage that makes them anew, of as many as there may be."""
    rows = [] if behind else VibeRows(workspace, settings.configs)
    plan = make_plan_for(rows, settings, workspace)
    if not plan.rows:
        one = make_plan_for(sample_rows(settings.configs)[:1], settings, workspace)
        plan = one.times(*expected_vibes(settings, workspace, new_texts=behind == "download"))
    judges = scorer_plans(plan.rows * settings.configs.n, ScorerDeps(settings.scoring, settings.llm))
    return {**plan.to_dict(), **added_up([plan, *judges])}


def run_stage_for_chain(settings: Settings, *, yes: bool) -> Summary:
    """The whole stage for run-all, under the lock that it holds. Raises :class:`MissingError` when there are no vibes."""
    workspace = Workspace(settings.paths.root)
    rows = VibeRows(workspace, settings.configs)
    require_rows(rows, settings.configs)
    return run_configs(settings, workspace=workspace, rows=rows, yes=yes)
