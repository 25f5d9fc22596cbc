"""Best-of-N: score every candidate and select the winner of each row."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.errors import LsdataError, MissingError
from latentscore_data.core.base.jsonl import Line, typed_row
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.loop import Job, RowFailure, run_stage
from latentscore_data.core.base.manifest import StageFiles, write_manifest
from latentscore_data.core.base.row_files import RowFiles
from latentscore_data.core.base.row_index import FROM_ELSEWHERE
from latentscore_data.core.base.rows import (
    SPLITS,
    ConfigRow,
    ScoredRow,
    Split,
    model_candidates,
    share_out,
    spread,
    text_of,
)
from latentscore_data.core.base.settings import ScoringSettings, Settings
from latentscore_data.core.base.summary import Progress, Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.candidate_validation import pick_winner
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorer, make_scorers, scorer_names, total_usage
from latentscore_data.core.scoring.renderer import LocalRenderer, MakeRenderer
from latentscore_data.core.scoring.service import (
    ScoredRender,
    ScoringService,
    config_hash,
    config_of,
    current_renderer_version,
)
from latentscore_data.core.scoring.types import UNFINISHED, Scorer

ROWS_IN_FLIGHT = 8
"""Number of rows in flight: enough to keep renderers and batches full, few enough to fit in memory."""


@dataclass(frozen=True)
class Choice:
    """The results of one vibe's candidates: a scored render for each, None for a missing candidate."""

    scored_renders: list[ScoredRender | None]
    scorer: str
    """The scorer that selects the winner."""

    @property
    def best_index(self) -> int | None:
        return pick_winner(self.scores(self.scorer))

    def scores(self, scorer: str) -> list[float | None]:
        found = [
            None if scored_render is None else scored_render.score(scorer) for scored_render in self.scored_renders
        ]
        return [None if score is None else score.final_score for score in found]

    def may_pass(self, scorer: str) -> bool:
        """Return True if a candidate without a score may get one in the next run."""
        found = [one.unscored(scorer) for one in self.scored_renders if one is not None]
        return any(unscored is not None and unscored.may_pass for unscored in found)

    def reasons(self, scorer: str) -> dict[int, str]:
        """Return the reasons of candidates without a score, by index."""
        found = {
            i: scored_render.unscored(scorer)
            for i, scored_render in enumerate(self.scored_renders)
            if scored_render is not None
        }
        return {i: unscored.reason for i, unscored in found.items() if unscored is not None}


@dataclass(frozen=True)
class Improved:
    """The candidates of a row and those found by a search, with all scores; ``columns`` are added to the row."""

    row: ConfigRow
    choice: Choice
    best_index: int
    columns: Line


class Improver(Protocol):
    """Finds better candidates than those of a row."""

    @property
    def fingerprint(self) -> str:
        """Return a hash of everything that determines the result."""
        ...

    @property
    def rows_in_flight(self) -> int:
        """Number of rows that are improved at the same time."""
        ...

    async def improve(self, row: ConfigRow, choice: Choice) -> Improved:
        """Return the row with the found candidates; ``choice`` is the result for its own candidates."""
        ...

    def drain(self) -> None:
        """Start no more renders, because the run is stopping."""
        ...

    def settle(self, files: Sequence[Path]) -> JsonObject:
        """Decide over all rows of the run whether the found candidates win; return the report."""
        ...


MakeImprover = Callable[[ScoringService, ScoreCache, MakeRenderer], AbstractContextManager[Improver]]


def submit_all(
    service: ScoringService, vibe: str, payloads: Sequence[Mapping[str, Any] | None], *, want_audio: bool = False
) -> list[Future[ScoredRender] | None]:
    """Return futures of the scored renders of one vibe's candidates."""
    return [None if p is None else service.submit(vibe, p, want_audio=want_audio) for p in payloads]


def choose(
    service: ScoringService, vibe: str, payloads: Sequence[Mapping[str, Any] | None], *, want_audio: bool = False
) -> Choice:
    """Score the candidates of one vibe and wait for the result. With ``want_audio`` each scored render has its audio."""
    futures = submit_all(service, vibe, payloads, want_audio=want_audio)
    return Choice([None if future is None else future.result() for future in futures], service.scorers[0].name)


def run_scoring(
    settings: Settings,
    workspace: Workspace,
    *,
    scorers: Sequence[Scorer] | None = None,
    trusted: frozenset[str] = frozenset(),
    progress: Progress | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    make_renderer: MakeRenderer = LocalRenderer,
    make_improver: MakeImprover | None = None,
    files: RowFiles | None = None,
    spend: SpendTracker | None = None,
) -> Summary:
    """Score ``.processed/candidates.jsonl`` into ``.processed/<SPLIT>.jsonl``, and write the manifest.

    Rows of other tools in ``.processed/<SPLIT>.jsonl`` are scored in place and never removed. The first scorer selects the
    winner, against ``vibe_original``; the scores of all are stored. Rows that were scored with the same candidates, scorers,
    seconds, seed and renderer are skipped. ``trusted`` are the custom scorers that may run, ``make_improver`` makes a search
    that adds candidates, ``files`` are the indexes of the files. Raises :class:`MissingError` without candidates, and the
    errors of :func:`make_scorers` and :func:`run_stage`.
    """
    files = files or RowFiles(workspace)
    for split in settings.configs.splits:
        files.name_rows(workspace.scored(split))
    inputs = _inputs(settings, files)
    if not inputs and not workspace.candidates.exists():
        raise MissingError("there are no candidates to score", "run: lsdata configs")
    with ScoreCache(workspace.score_cache) as cache:
        if scorers is None:
            scorers = make_scorers(ScorerDeps.of_run(settings, workspace, cache, trusted, spend))
        with ExitStack() as open_until_done:
            service = open_until_done.enter_context(
                ScoringService(scorers, settings.scoring, cache, make_renderer=make_renderer)
            )
            improver = make_improver and open_until_done.enter_context(make_improver(service, cache, make_renderer))
            total = Summary("score", details={"scorers": [s.name for s in scorers], "workers": service.workers})
            job = scoring_job(service, settings.scoring, retry_failed=retry_failed, improver=improver)
            at_once = max(ROWS_IN_FLIGHT, service.at_once // settings.configs.n)
            converted: Counter[str] = Counter()
            for split, rows in inputs.items():
                part = run_stage(
                    job, _noting(rows.read(split, files), converted), workspace.scored(split),
                    workspace.failures("score"), max_in_flight=improver.rows_in_flight if improver else at_once,
                    total=len(rows), retry_failed=retry_failed, overwrite=set() if overwrite else None,
                    progress=progress, index=files.scored(split),
                )  # fmt: skip
                total.add(part)
            if improver is not None:
                total.details["search"] = _settled(improver, [workspace.scored(split) for split in inputs], files)
            total.details["from_elsewhere"] = sum(len(rows.put_there) for rows in inputs.values())
            total.details["converted"] = dict(converted)
            _count_work(total, service)
    prune_moved(files)
    outputs = workspace.scored_files()
    total.outputs = [str(path) for path in outputs]
    write_manifest(score_files(settings, workspace, trusted), workspace.root, outputs, total, facts=files.facts())
    return total


def _settled(improver: Improver, paths: Sequence[Path], files: RowFiles) -> JsonObject:
    """Return the improver's decision over all rows; it may have rewritten the files."""
    report = improver.settle(paths)
    for path in paths:
        files.forget(path)
    return report


def _count_work(total: Summary, service: ScoringService) -> None:
    """Add the numbers of renders, scores and model calls to the summary."""
    total.count(total_usage(service.scorers))
    scored = max(service.counts.scored.values(), default=0)
    total.details |= service.counts.to_dict()
    # Only some scorers count the work of their model.
    total.details["model_work"] = {
        scorer.name: dict(counts) for scorer in service.scorers if (counts := getattr(scorer, "counts", None))
    }
    total.details["candidates_per_second"] = round(scored / max(total.seconds, 1e-9), 2)


def scoring_job(
    service: ScoringService,
    settings: ScoringSettings,
    *,
    retry_failed: bool = False,
    improver: Improver | None = None,
) -> Job[ConfigRow]:
    """One row: its candidates are rendered, scored and compared; with ``retry_failed`` also where a score is missing for good.

    An ``improver`` then adds candidates of its own.
    """
    names = [scorer.name for scorer in service.scorers]
    made_by = digest(
        *(scorer.fingerprint for scorer in service.scorers),
        settings.seconds,
        settings.seed,
        current_renderer_version(),
        *([improver.fingerprint] if improver else []),
    )

    def fingerprint(row: ConfigRow) -> str:
        configs = (config_hash(config_of(candidate)) for candidate in row.config_candidates)
        return digest(made_by, row.vibe_original, *configs)

    async def work(row: ConfigRow) -> Line:
        if not any(row.config_candidates):
            raise RowFailure("answer", "there is no candidate to score")
        futures = submit_all(service, row.vibe_original, row.config_candidates)
        scored = iter(await asyncio.gather(*(asyncio.wrap_future(future) for future in futures if future is not None)))
        choice = Choice([None if future is None else next(scored) for future in futures], names[0])
        if choice.best_index is None:
            raise _nothing_scored(choice)
        if improver is None:
            return _scored_line(row, choice, choice.best_index, service)
        improved = await improver.improve(row, choice)
        return _scored_line(improved.row, improved.choice, improved.best_index, service) | improved.columns

    def drain() -> None:
        service.drain()
        if improver is not None:
            improver.drain()

    return Job(
        "score",
        lambda row: row.row_id,
        fingerprint,
        work,
        complete=lambda line: not (line.get(UNFINISHED) or (retry_failed and _is_short(line))),
        short=_is_short,
        refresh=_refreshed,
        drain=drain,
    )


def _is_short(line: Line) -> bool:
    """Return True if a scorer has no score for a candidate of the model. Candidates of a search are scored only by the guide."""
    candidates = line["config_candidates"]
    origins = line.get("candidate_origins") or ["model"] * len(candidates)
    own = [at for at, candidate in enumerate(candidates) if candidate is not None and origins[at] == "model"]
    return any(at >= len(scores) or scores[at] is None for scores in line["candidate_scores"].values() for at in own)


def _refreshed(row: ConfigRow, line: Line) -> Line:
    """Return the line with the current values of its row. The config determines the sound; title, palettes and thoughts may
    have changed."""
    carried = _carried(row)
    candidates = list(row.config_candidates)
    if line.get("candidate_origins"):
        candidates += line["config_candidates"][len(candidates) :]
        carried.pop("validation_scores", None)
    best = candidates[line["best_index"]]
    return {**line, **carried, "config_candidates": candidates, "config_payload": best}


def _carried(row: ConfigRow) -> Line:
    return row.model_dump(mode="json", exclude_unset=True, exclude={"input_fingerprint"})


def _scored_line(row: ConfigRow, choice: Choice, best: int, service: ScoringService) -> Line:
    winner = choice.scored_renders[best]
    assert winner is not None
    line = _carried(row)
    line.pop("candidate_failures", None)
    kept_scores, kept_details = _scores_by_others(row, choice, service)
    line["candidate_scores"] = {scorer.name: choice.scores(scorer.name) for scorer in service.scorers} | kept_scores
    line["scores_external"] = kept_details | details_of(winner, service.scorers)
    line["best_index"] = best
    line["config_payload"] = row.config_candidates[best]
    reasons = {scorer.name: choice.reasons(scorer.name) for scorer in service.scorers}
    if any(reasons.values()):
        line["candidate_failures"] = {
            name: {str(index): reason for index, reason in found.items()} for name, found in reasons.items() if found
        }
    if any(choice.may_pass(scorer.name) for scorer in service.scorers):
        line[UNFINISHED] = True
    return line


def details_of(scored: ScoredRender, scorers: Sequence[Scorer]) -> JsonObject:
    """Return the scores of a candidate by scorer, as in the row's ``scores_external``."""
    return {
        scorer.name: {**score.to_dict(), "fingerprint": scorer.fingerprint}
        for scorer in scorers
        if (score := scored.score(scorer.name)) is not None
    }


def _scores_by_others(
    row: ConfigRow, choice: Choice, service: ScoringService
) -> tuple[dict[str, list[float | None]], JsonObject]:
    """Return the scores of other scorers for the candidates of a row from another tool, and for its winner if it is the same."""
    if not isinstance(row, ScoredRow):
        return {}, {}
    ours = {scorer.name for scorer in service.scorers}
    count = len(choice.scored_renders)
    scores = {name: given for name, given in row.candidate_scores.items() if name not in ours and len(given) == count}
    details = {name: given for name, given in row.scores_external.items() if name not in ours}
    return scores, details if row.best_index == choice.best_index else {}


def _nothing_scored(choice: Choice) -> RowFailure:
    kinds = [
        scored_render.unscored(choice.scorer) for scored_render in choice.scored_renders if scored_render is not None
    ]
    reasons = Counter(unscored.reason for unscored in kinds if unscored is not None)
    if all(unscored is not None and unscored.kind == "request" for unscored in kinds):
        kind = "bad request"
    elif all(unscored is not None and unscored.kind not in ("scorer", "request") for unscored in kinds):
        kind = "render"
    else:
        kind = "score"
    causes = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
    return RowFailure(kind, f"no candidate could be scored ({causes})")


def score_files(settings: Settings, workspace: Workspace, trusted: frozenset[str] = frozenset()) -> StageFiles:
    """Return the inputs of scoring, and everything that determines its result."""
    needs = ScorerDeps(settings.scoring, settings.llm, trusted=trusted)
    return StageFiles(
        typed=settings.typed,
        replaced=settings.replaced,
        stage="score",
        manifest=workspace.configs_dir / "score.manifest.json",
        inputs=[workspace.candidates] if workspace.candidates.exists() else [],
        settings={
            "scorers": scorer_names(settings.scoring),
            "seconds": settings.scoring.seconds,
            "seed": settings.scoring.seed,
            "splits": settings.configs.splits,
            "limit": settings.configs.limit,
            **({"search": settings.search.model_dump(mode="json")} if settings.search.renders is not None else {}),
        },
        versions={
            "renderer": current_renderer_version(),
            **scorer_versions(needs),
        },
    )


def scorer_versions(needs: ScorerDeps) -> dict[str, str]:
    """Return the fingerprints of the scorers in the settings, for a manifest."""
    return {f"scorer {name}": _fingerprint(name, needs) for name in scorer_names(needs.scoring)}


def _fingerprint(name: str, needs: ScorerDeps) -> str:
    try:
        return make_scorer(name, needs).fingerprint
    except LsdataError as error:
        # Freshness is also checked for a scorer that cannot run; the run itself raises the error.
        return f"unavailable: {error.message}"


@dataclass(frozen=True)
class SplitInputs:
    """The ids of the rows of one split to score."""

    generated: Sequence[str]
    """Rows of ``candidates.jsonl``."""
    put_there: Sequence[str]
    """Rows of other tools in the split's file."""

    def __len__(self) -> int:
        return len(self.generated) + len(self.put_there)

    def read(self, split: Split, files: RowFiles) -> Iterator[ConfigRow]:
        """Yield the newest line of each row."""
        candidates, scored = files.candidates, files.scored(split)
        for line in candidates.lines(self.generated):
            yield typed_row({**line, "split": split}, ConfigRow, f"{candidates.path}: row {line['row_id']}")
        for line in scored.lines(self.put_there):
            given = {**line, "split": line.get("split") or split, FROM_ELSEWHERE: True}
            row = typed_row(given, ScoredRow, f"{scored.path}: row {line['row_id']}")
            if row.candidate_origins:
                # An earlier search added candidates.
                own = {"config_candidates": model_candidates(row), "candidate_origins": [], "search": None}
                row = row.model_copy(update=own)
            # In a row with a config and no candidates, the config is the only candidate.
            yield row if row.config_candidates else row.model_copy(update={"config_candidates": [row.config_payload]})


def _inputs(settings: Settings, files: RowFiles) -> dict[Split, SplitInputs]:
    """Return the rows to score in each selected split, limited by the settings."""
    homes = files.homes()
    there: list[SplitInputs] = []
    for split in settings.configs.splits:
        put_there = files.put_there(split, homes)
        generated = [row_id for row_id, home in homes.items() if home == split and row_id not in put_there]
        there.append(SplitInputs(generated, [row_id for row_id, has_config in put_there.items() if has_config]))
    found: dict[Split, SplitInputs] = {}
    shares = share_out(settings.configs.limit, list(map(len, there)))
    for split, rows, share in zip(settings.configs.splits, there, shares, strict=True):
        generated = spread(rows.generated, share, text_of)
        if share:
            found[split] = SplitInputs(generated, spread(rows.put_there, share - len(generated), text_of))
    return found


def count_inputs(settings: Settings, files: RowFiles) -> int:
    """Return the number of rows to score. Raises :class:`InputError` for a row that cannot be read."""
    return sum(map(len, _inputs(settings, files).values()))


def _noting(rows: Iterator[ConfigRow], converted: Counter[str]) -> Iterator[ConfigRow]:
    """Yield the rows, and count the conversions of their configs."""
    for row in rows:
        converted.update(row.converted)
        yield row


def prune_moved(files: RowFiles) -> None:
    """Drop the scored rows whose candidates moved to another split."""
    homes = files.homes()
    for split in SPLITS:
        index = files.scored(split)
        stays = [key for key, entry in index.entries.items() if not entry.ours or homes.get(key, split) == split]
        if len(stays) < len(index.entries):
            index.keep(stays)
