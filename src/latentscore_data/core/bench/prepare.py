"""Preparation of a benchmark: its rows, its sources, its folder, and the services it needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from latentscore import RENDERER_VERSION
from latentscore.seeds import digest
from latentscore_data.core.base.errors import InputError, LsdataError, MissingError, raised_by
from latentscore_data.core.base.jsonl import read_rows
from latentscore_data.core.base.ledger import Ledger, SpendTracker
from latentscore_data.core.base.rows import ScoredRow, VibeRow, model_candidates, selection_scorers, spread
from latentscore_data.core.base.settings import BenchSettings, PromptsSettings, ScoringSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench.run import ceiling
from latentscore_data.core.bench.suites import suite_file, suite_name, suite_rows
from latentscore_data.core.bench.summary import RunFacts, SourceFacts
from latentscore_data.core.generators.registry import kind_of, parse_sources
from latentscore_data.core.generators.simple import FIRST_VALID, SEARCHED, STARTED, WINNERS, most_candidates, payload_in
from latentscore_data.core.generators.types import Depends, Generated, GeneratorDeps, KnownRows, SourceName
from latentscore_data.core.llm.client import connect
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.llm.prompts import OWN
from latentscore_data.core.llm.types import LLM
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.clap_index import ClapIndex
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.executor import Executor
from latentscore_data.core.scoring.registry import make_scorers, scorer_plans
from latentscore_data.core.scoring.renderer import LocalRenderer, MakeRenderer
from latentscore_data.core.scoring.service import ScoringService
from latentscore_data.core.scoring.types import EmbeddingScorer
from latentscore_data.core.vibes.dedupe import choose_embedder, load_embedder

BESIDE_WINNERS = " (N = 1)"
"""Suffix of the label of the first valid candidates, which are compared with the winners that a scorer selected."""


def rows_file(bench: BenchSettings, workspace: Workspace) -> Path | None:
    """Return the file of the rows: scored rows of the split, else its vibes; a user's suite; None for a bundled one."""
    if bench.suite is not None:
        return suite_file(bench.suite)
    scored = workspace.scored(bench.split)
    return scored if scored.exists() or not workspace.vibes(bench.split).exists() else workspace.vibes(bench.split)


def choose_rows(bench: BenchSettings, workspace: Workspace) -> Sequence[VibeRow]:
    """Return the rows that every source answers, at most ``bench.limit``.

    Raises :class:`InputError` for an invalid source or suite, :class:`MissingError` if there are no rows.
    """
    parse_sources(bench.sources)  # wrong input is an error before missing rows
    path = rows_file(bench, workspace)
    if bench.suite is not None:
        rows: Sequence[VibeRow] = suite_rows(bench.suite)
    else:
        rows = list(read_rows(path, ScoredRow)) if path is not None and path.exists() else []
    if not rows and bench.suite is not None:
        raise MissingError(
            f"{bench.suite} contains no prompts", 'write a line for each: {"vibe": "rain on a tin roof"}'
        )
    if not rows:
        raise MissingError(
            f"there are no {bench.split} rows under {workspace.root}",
            f"run lsdata configs --split {bench.split} first, choose another --split, or compare on a --suite",
        )
    return spread(rows, bench.limit, lambda row: row.source_id)


def training_rows(workspace: Workspace) -> list[ScoredRow]:
    """Return the SFT-Train rows with a config."""
    path = workspace.scored("SFT-Train")
    return [row for row in read_rows(path, ScoredRow) if row.config_payload] if path.exists() else []


def choose_sources(bench: BenchSettings, rows: Sequence[VibeRow]) -> list[SourceName]:
    """Return the sources of the run. Winners that a scorer selected get the first valid candidates (N = 1) and the
    results of searches as additional sources.

    The prompts of a suite have no configs, so ``dataset:`` sources are left out. Raises :class:`InputError` for an
    invalid source, and if no source is left.
    """
    sources = parse_sources(bench.sources)
    if bench.suite is not None:
        sources = [source for source in sources if not kind_of(source).holds_rows_only]
        if not sources:
            raise InputError(
                f"the suite {bench.suite} contains no configs, so a dataset source has nothing to show",
                "name another source, such as --source baseline:keywords",
            )
        return sources
    winners = next((source for source in sources if source.kind == "dataset" and source.name == WINNERS), None)
    if winners is None:
        return sources
    beside: list[SourceName] = []
    if any(payload_in(row, SEARCHED) for row in rows):
        labels = {source.label for source in sources}
        beside += [SourceName("dataset", name, name) for name in (SEARCHED, STARTED) if name not in labels]
    if selection_scorers(rows):
        beside.append(SourceName("dataset", FIRST_VALID, f"{winners.label}{BESIDE_WINNERS}"))
    named = {(source.kind, source.name) for source in sources}
    at = sources.index(winners) + 1
    sources[at:at] = [source for source in beside if (source.kind, source.name) not in named]
    return sources


@dataclass(frozen=True)
class Compared:
    """The rows and sources of a run: every source answers every row."""

    rows: Sequence[VibeRow]
    sources: list[SourceName]


def compared(bench: BenchSettings, workspace: Workspace) -> Compared:
    """Return the rows and sources of a run, reading the file of the rows once. Raises what :func:`choose_rows` and
    :func:`choose_sources` raise."""
    rows = choose_rows(bench, workspace)
    return Compared(rows, choose_sources(bench, rows))


def baseline_label(bench: BenchSettings, sources: Sequence[SourceName]) -> str:
    """Return the label of the baseline. Raises :class:`InputError` for a baseline that is not a source."""
    labels = [source.label for source in sources]
    if bench.baseline is not None:
        if bench.baseline not in labels:
            raise InputError(f"there is no source {bench.baseline}", f"the baseline is one of {', '.join(labels)}")
        return bench.baseline
    chance = next((s.label for s in sources if s.kind == "baseline" and s.name == "random"), None)
    return chance or labels[0]


def run_name(bench: BenchSettings, scoring: ScoringSettings, sources: Sequence[SourceName]) -> str:
    """Return the name of the run's folder. The same comparison has the same name, so the same command resumes it."""
    if bench.name:
        return bench.name
    what = digest(
        [(source.kind, source.name, source.label) for source in sources],
        bench.limit,
        scoring.scorers,
        scoring.seconds,
        scoring.seed,
        bench.seed,
        *([suite_rows(bench.suite)] if bench.suite and suite_file(bench.suite) else ()),
    )[:8]
    name = re.sub(r"[^A-Za-z0-9._-]", "-", suite_name(bench.suite)) if bench.suite else bench.split.lower()
    return f"{name}-{what}"


@contextmanager
def open_scoring(
    settings: Settings,
    workspace: Workspace,
    trusted: frozenset[str] = frozenset(),
    make_renderer: MakeRenderer = LocalRenderer,
    spend: SpendTracker | None = None,
) -> Iterator[tuple[ScoringService, ScoreCache]]:
    """Open the scoring service with the scorers of the settings, and its cache.

    ``trusted`` are the custom scorers that may run, ``make_renderer`` makes the renderer, ``spend`` counts the cost of
    the run. Raises :class:`MissingError` if weights, an extra or a key is missing.
    """
    with ScoreCache(workspace.score_cache) as cache:
        scorers = make_scorers(ScorerDeps.of_run(settings, workspace, cache, trusted, spend))
        with ScoringService(scorers, settings.scoring, cache, make_renderer=make_renderer) as service:
            yield service, cache


def judges_plans(settings: Settings, rows: Sequence[VibeRow], sources: Sequence[SourceName]) -> list[Plan]:
    """Return the calls of paid judges: every answer, the answers of one source against other vibes, every candidate."""
    candidates = sum(len(model_candidates(row)) for row in rows)
    pairs = len(rows) * (len(sources) + 1) + candidates
    return scorer_plans(pairs, ScorerDeps(settings.scoring, settings.llm))


def floor_source(service: ScoringService, baseline: str) -> str | None:
    """Return the source whose audio is also scored against vibes of other texts: the baseline, or None for all sources
    if scoring a second vibe is cheap (all scorers compare embeddings)."""
    return None if all(isinstance(scorer, EmbeddingScorer) for scorer in service.scorers) else baseline


def generator_deps(
    settings: Settings,
    workspace: Workspace,
    rows: Sequence[VibeRow],
    cache: ScoreCache,
    *,
    executor: Executor | None = None,
    ask_through: Callable[[str], LLM] | None = None,
    spend: SpendTracker | None = None,
) -> GeneratorDeps:
    """Return the dependencies of generators. Expensive ones are created when a generator uses them.

    ``ask_through`` makes the client of a hosted model; without it, the client calls the model directly.
    """

    def ask(model: str) -> LLM:
        return connect(
            model,
            settings.llm,
            cache_path=workspace.llm_cache,
            ledger=Ledger(workspace.ledger),
            stage="bench",
            runs=workspace.train_dir,
            spend=spend,
        )

    def book(model: str, answers: Sequence[Generated]) -> None:
        with closing(Ledger(workspace.ledger)) as ledger, ledger.together():
            for answer in answers:
                ledger.record("bench", model, answer.tokens_in or 0, answer.tokens_out or 0, answer.cost_usd)
        if spend is not None:
            spend.spent += sum(answer.cost_usd or 0.0 for answer in answers)

    return GeneratorDeps(
        bench=settings.bench,
        configs=settings.configs,
        prompts=settings.prompts,
        embedder=lambda: load_embedder(choose_embedder(settings.dedupe)),
        sounds=lambda: ClapIndex(settings.scoring, cache),
        connect=ask_through or ask,
        training_rows=lambda: training_rows(workspace),
        executor=executor,
        runs=workspace.train_dir,
        max_concurrency=settings.llm.max_concurrency,
        base_for=settings.llm.base_for,
        rows=rows,
        book=book,
    )


def run_facts(
    settings: Settings,
    workspace: Workspace,
    name: str,
    rows: Sequence[VibeRow],
    sources: Sequence[SourceName],
    baseline: str,
    service: ScoringService,
) -> RunFacts:
    """Return the facts of the run for its table. The candidates are scored here, for the ceiling."""
    names = [scorer.name for scorer in service.scorers]
    most = most_candidates(rows)
    return RunFacts(
        name=name,
        title=f"{suite_name(settings.bench.suite)} prompts" if settings.bench.suite else f"{settings.bench.split} rows",
        created=datetime.now(UTC).isoformat(timespec="minutes"),
        sources=describe_sources(sources, rows, training_rows(workspace), workspace.train_dir, settings.prompts),
        scorers=names,
        baseline=baseline,
        seconds=settings.scoring.seconds,
        seed=settings.scoring.seed,
        split=None if settings.bench.suite else settings.bench.split,
        suite=suite_name(settings.bench.suite) if settings.bench.suite else None,
        fingerprints={
            "renderer": RENDERER_VERSION,
            "rows": digest(*(digest(row.row_id, row.vibe_original) for row in rows))[:16],
            **{f"scorer {scorer.name}": scorer.fingerprint for scorer in service.scorers},
        },
        ceiling=ceiling(rows, service, names) if most > 1 else {},
        ceiling_of=f"the best of {most} candidates of each row, selected by the scorer itself" if most > 1 else "",
        resamples=settings.bench.resamples,
    )


def missing(settings: Settings) -> list[LsdataError]:
    """Return the problems of these settings: invalid sources or baseline, models that cannot be called, scorers that
    cannot run."""

    def check_sources() -> None:
        for source in parse_sources(settings.bench.sources):
            kind_of(source).check(source, settings)

    def check_baseline() -> None:
        # Whether the N = 1 source exists is known only when there are rows.
        if not (settings.bench.baseline or "").endswith(BESIDE_WINNERS):
            baseline_label(settings.bench, choose_sources(settings.bench, []))

    def check_scorers() -> None:
        make_scorers(ScorerDeps(settings.scoring, settings.llm))

    return list(raised_by(check_sources, check_baseline, check_scorers))


def sources_decide(settings: Settings, workspace: Workspace) -> Depends:
    """Return the settings and versions that the answers of these sources depend on.

    Nothing is loaded, and rows and models need not exist.
    """
    try:
        sources = parse_sources(settings.bench.sources)
    except InputError:  # reported by the run itself
        return Depends()
    depends = [kind_of(source).depends(source, settings, workspace) for source in sources]
    return Depends(
        {name: value for one in depends for name, value in one.settings.items()},
        {name: value for one in depends for name, value in one.versions.items()},
    )


def describe_sources(
    sources: Sequence[SourceName],
    rows: Sequence[VibeRow],
    known: Sequence[ScoredRow],
    runs: Path,
    prompts: PromptsSettings = OWN,
) -> list[SourceFacts]:
    """Return each source with the scorers that selected its answers or its training data."""
    rows_known = KnownRows(rows, known, runs, prompts)
    notes = [kind_of(source).describe(source, rows_known) for source in sources]
    return [
        SourceFacts(source.label, source.kind, source.name, note.chosen_by, note.text)
        for source, note in zip(sources, notes, strict=True)
    ]
