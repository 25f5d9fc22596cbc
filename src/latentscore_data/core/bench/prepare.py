"""What a run compares: its rows, its sources with what is known of them, and the folder that fits both."""

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
"""How the label of the first valid candidates ends, which are shown beside winners that a scorer chose."""


def rows_file(bench: BenchSettings, workspace: Workspace) -> Path | None:
    """The file the rows come from: the scored rows of the split, else its vibes; the user's suite; None for a bundled one."""
    if bench.suite is not None:
        return suite_file(bench.suite)
    scored = workspace.scored(bench.split)
    return scored if scored.exists() or not workspace.vibes(bench.split).exists() else workspace.vibes(bench.split)


def choose_rows(bench: BenchSettings, workspace: Workspace) -> Sequence[VibeRow]:
    """The rows that every source answers. Raises :class:`MissingError` when the split has none."""
    parse_sources(bench.sources)  # what was typed is looked at before what lies in the workspace
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
    """The SFT-Train rows that hold a config; an empty list where there are none yet."""
    path = workspace.scored("SFT-Train")
    return [row for row in read_rows(path, ScoredRow) if row.config_payload] if path.exists() else []


def choose_sources(bench: BenchSettings, rows: Sequence[VibeRow]) -> list[SourceName]:
    """The sources of the run, with the N = 1 answers beside winners that a scorer chose, and with what searches found.

    In a suite nothing is held in the rows, so ``dataset:`` sources fall away. Raises :class:`InputError`.
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
    named = {(source.kind, source.name) for source in sources}
    if winners is not None and selection_scorers(rows) and ("dataset", FIRST_VALID) not in named:
        at = sources.index(winners) + 1
        sources.insert(at, SourceName("dataset", FIRST_VALID, f"{winners.label}{BESIDE_WINNERS}"))
    if winners is not None and any(payload_in(row, SEARCHED) for row in rows):
        labels = {source.label for source in sources}
        beside = [
            SourceName("dataset", name, name)
            for name in (SEARCHED, STARTED)
            if ("dataset", name) not in named and name not in labels
        ]
        at = sources.index(winners) + 1
        sources[at:at] = beside
    return sources


@dataclass(frozen=True)
class Compared:
    """What a run compares: every source answers every row."""

    rows: Sequence[VibeRow]
    sources: list[SourceName]


def compared(bench: BenchSettings, workspace: Workspace) -> Compared:
    """The rows and the sources of a run; the rows' file is read here and nowhere else. Raises what both choices raise."""
    rows = choose_rows(bench, workspace)
    return Compared(rows, choose_sources(bench, rows))


def baseline_label(bench: BenchSettings, sources: Sequence[SourceName]) -> str:
    """The label that the others are compared with. Raises :class:`InputError` for one that is not there."""
    labels = [source.label for source in sources]
    if bench.baseline is not None:
        if bench.baseline not in labels:
            raise InputError(f"there is no source {bench.baseline}", f"the baseline is one of {', '.join(labels)}")
        return bench.baseline
    chance = next((s.label for s in sources if s.kind == "baseline" and s.name == "random"), None)
    return chance or labels[0]


def run_name(bench: BenchSettings, scoring: ScoringSettings, sources: Sequence[SourceName]) -> str:
    """The folder of a run. The same comparison has the same folder, so the same command goes on where it stopped."""
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
    """The scoring service with the scorers of the settings, and its cache.

    ``trusted`` are the custom scorers that may run; ``make_renderer`` is for rendering elsewhere,
    ``spend`` what the run has spent. Raises :class:`MissingError` where weights, an extra or a key is missing.
    """
    with ScoreCache(workspace.score_cache) as cache:
        scorers = make_scorers(ScorerDeps.of_run(settings, workspace, cache, trusted, spend))
        with ScoringService(scorers, settings.scoring, cache, make_renderer=make_renderer) as service:
            yield service, cache


def judges_plans(settings: Settings, rows: Sequence[VibeRow], sources: Sequence[SourceName]) -> list[Plan]:
    """What judges that cost money would be asked: every answer, one source's against other vibes, and every candidate."""
    candidates = sum(len(model_candidates(row)) for row in rows)
    pairs = len(rows) * (len(sources) + 1) + candidates
    return scorer_plans(pairs, ScorerDeps(settings.scoring, settings.llm))


def scorer_names(service: ScoringService) -> list[str]:
    return [scorer.name for scorer in service.scorers]


def floor_source(service: ScoringService, baseline: str) -> str | None:
    """Sources whose audio is also scored against mismatched vibes: all (None), or only the baseline if scoring is expensive."""
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
    """What the generators may draw on; nothing expensive happens before one of them asks for it.

    ``ask_through`` makes the client of a hosted model, where that is not one that asks directly.
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
    """What the table says about the run; the candidates are scored here, for the ceiling."""
    names = scorer_names(service)
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
        ceiling_of=f"the best of {most} candidates of each row, chosen by the scorer itself" if most > 1 else "",
        resamples=settings.bench.resamples,
    )


def missing(settings: Settings) -> list[LsdataError]:
    """Wrong sources or a wrong baseline, hosted models that cannot be asked, and scorers that cannot run."""

    def check_sources() -> None:
        for source in parse_sources(settings.bench.sources):
            kind_of(source).check(source, settings)

    def check_baseline() -> None:
        # The label of the answers beside winners is known only once there are rows.
        if not (settings.bench.baseline or "").endswith(BESIDE_WINNERS):
            baseline_label(settings.bench, choose_sources(settings.bench, []))

    return raised_by(check_sources, check_baseline, lambda: make_scorers(ScorerDeps(settings.scoring, settings.llm)))


def sources_decide(settings: Settings, workspace: Workspace) -> Depends:
    """The settings and the versions that decide what these sources answer, each only where a source depends on it.

    Nothing is loaded and nothing need exist: this is also asked before there are rows or models.
    """
    try:
        sources = parse_sources(settings.bench.sources)
    except InputError:  # the run itself says so
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
    """Each source with the scorers that had a say in its answers."""
    rows_known = KnownRows(rows, known, runs, prompts)
    found: list[SourceFacts] = []
    for source in sources:
        note = kind_of(source).describe(source, rows_known)
        found.append(SourceFacts(source.label, source.kind, source.name, note.chosen_by, note.text))
    return found
