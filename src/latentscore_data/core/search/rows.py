"""Searches for the rows of a run: candidates with their origin, and the judge's decision over all rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import Line, read_lines, replace_rows
from latentscore_data.core.base.names import model_text
from latentscore_data.core.base.rows import ConfigRow, source_id
from latentscore_data.core.base.settings import SearchSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm import builtin
from latentscore_data.core.scoring.best_of import Choice, Improved, MakeImprover, details_of
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.candidate_validation import is_playable, validate_candidates
from latentscore_data.core.scoring.registry import resolve_auto, scorer_names
from latentscore_data.core.scoring.renderer import MakeRenderer
from latentscore_data.core.scoring.service import ScoredRender, ScoringService
from latentscore_data.core.search.prior import share_kept
from latentscore_data.core.search.report import Run, run_of
from latentscore_data.core.search.searcher import SEARCH_VERSION, Searcher, one_thread
from latentscore_data.core.search.vibe_search import Found

ROWS_IN_FLIGHT = (3, 8)
"""Smallest and largest number of concurrent searches, which keep renderers busy; each has a surrogate of 60 MB."""
KNOWN = 400
"""Largest number of the run's own candidates that the surrogate is fitted on."""


def with_judge(settings: Settings) -> Settings:
    """Return the settings with the judge among the scorers, so that it is checked, paid and stored like the others;
    ``auto`` is resolved."""
    judge = settings.search.judge
    if settings.search.renders is None or judge is None:
        return settings
    if judge == "auto":
        judge = resolve_auto(settings.scoring)[0]
        settings = settings.changed(search={"judge": judge})
    if judge in scorer_names(settings.scoring):
        return settings
    return settings.changed(scoring={"scorers": [*settings.scoring.scorers, judge]})


def check_judge(settings: Settings) -> None:
    """Raise :class:`InputError` if the judge of the search is its guide, which prefers whatever it found."""
    judge = with_judge(settings).search.judge
    if settings.search.renders is not None and [judge] == scorer_names(settings.scoring)[:1]:
        raise InputError(
            f"judge and guide of the search are the same scorer: {judge} would judge its own choices",
            "name another scorer with --judge, or first with --scorer",
        )


def improver_for(settings: Settings, workspace: Workspace | None = None) -> MakeImprover | None:
    """Return what :func:`run_scoring` needs to search; None if the settings request no search.

    The surrogate is also fitted on the candidates of the ``workspace``.
    """
    if settings.search.renders is None:
        return None
    known = [] if workspace is None else _known_configs(workspace.candidates, settings.configs.limit)
    return partial(_open_improver, settings, known)


def _known_configs(candidates: Path, limit: int | None) -> list[JsonObject]:
    """Return the config of the first valid candidate of up to ``KNOWN`` rows. These are rendered in any case."""
    found: list[JsonObject] = []
    for _, line in islice(read_lines(candidates, "drop"), limit) if candidates.exists() else ():
        found += [one["config"] for one in line.get("config_candidates") or () if is_playable(one)][:1]
        if len(found) == KNOWN:
            break
    return found


@contextmanager
def _open_improver(
    settings: Settings,
    known: Sequence[Mapping[str, Any]],
    service: ScoringService,
    cache: ScoreCache,
    make_renderer: MakeRenderer,
) -> Iterator[RowSearch]:
    # Found configs are scored by the guide alone; the others score the model's candidates and the best of each batch.
    with (
        one_thread(),
        ScoringService(service.scorers[:1], settings.scoring, cache, make_renderer=make_renderer) as guided,
    ):
        yield RowSearch(Searcher(guided, settings.search, known), service, settings.search)


@dataclass
class RowSearch:
    """Improves rows by search. ``everyone`` is the service of all scorers."""

    searcher: Searcher
    everyone: ScoringService
    settings: SearchSettings

    @property
    def fingerprint(self) -> str:
        # The offline model's fingerprint covers the lexicon, which finds named fields, and the starter set (the map).
        return digest(SEARCH_VERSION, model_text(self.settings), builtin.fingerprint())

    @property
    def rows_in_flight(self) -> int:
        fewest, most = ROWS_IN_FLIGHT
        return min(max(fewest, self.everyone.at_once // self.settings.batch), most)

    def drain(self) -> None:
        """Start no more renders of searches, because the run is stopping."""
        self.searcher.service.drain()

    async def improve(self, row: ConfigRow, choice: Choice) -> Improved:
        """Search from the row's candidates. All scorers score the best config of each batch."""
        vibe, given = row.vibe_original, row.config_candidates
        own = [at for at, one in enumerate(given) if is_playable(one)]
        found = await self._search(vibe, [one for one in given if is_playable(one)])
        # The row keeps the indices of all model candidates, including empty and unplayable ones.
        place = [*own, *range(len(given), len(given) + len(found.payloads) - len(own))]
        renders = dict(enumerate(choice.scored_renders))
        renders |= dict(zip(place[len(own) :], found.renders[len(own) :], strict=True))
        for at in dict.fromkeys(best for _, best in found.incumbents):
            renders[place[at]] = await asyncio.wrap_future(self.everyone.submit(vibe, found.payloads[at]))
        candidates = [*given, *(dict(one) for one in found.payloads[len(own) :])]
        all_renders = [renders[at] for at in range(len(candidates))]
        start = choice.best_index
        assert start is not None
        scores = Choice(all_renders, choice.scorer).scores(choice.scorer)
        best = found.best()
        # The start is kept unless the guide's score of the found config is higher.
        best = start if best is None or (scores[place[best]] or 0.0) <= (scores[start] or 0.0) else place[best]
        update = {"config_candidates": candidates, "validation_scores": validate_candidates(candidates)}
        columns = {
            "candidate_origins": ["model"] * len(given) + found.origins[len(own) :],
            "search": self._column(found, place, start, best, all_renders, candidates),
        }
        return Improved(row.model_copy(update=update), Choice(all_renders, choice.scorer), best, columns)

    async def _search(self, vibe: str, model: Sequence[Mapping[str, Any]]) -> Found:
        search = await asyncio.to_thread(self.searcher.search, vibe, model)
        while payloads := await asyncio.to_thread(search.ask):
            futures = [self.searcher.service.submit(vibe, one) for one in payloads]
            renders = await asyncio.gather(*map(asyncio.wrap_future, futures))
            await asyncio.to_thread(search.tell, renders)
        return search.found

    def _column(
        self,
        found: Found,
        place: Sequence[int],
        start: int,
        best: int,
        renders: Sequence[ScoredRender | None],
        candidates: Sequence[Mapping[str, Any] | None],
    ) -> JsonObject:
        def external(at: int) -> JsonObject:
            render = renders[at]
            return {} if render is None else details_of(render, self.everyone.scorers)

        def scores(at: int) -> dict[str, float]:
            return {name: details["final_score"] for name, details in external(at).items()}

        def kept(at: int) -> float | None:
            return share_kept((candidates[at] or {})["config"], found.prior.named)

        return {
            "guide": self.searcher.guide.name,
            "judge": self.settings.judge,
            "renders": len(found.payloads),
            "surrogate_r2": self.searcher.r2,
            "start_index": start,
            "found_index": best,
            "named": sorted(found.prior.named),
            "start_kept": kept(start),
            "found_kept": kept(best),
            "curve": [{"renders": spent, "scores": scores(place[at])} for spent, at in found.incumbents],
            "external": {str(at): external(at) for at in sorted({start, best})},
        }

    def settle(self, files: Sequence[Path]) -> JsonObject:
        """Apply the judge's decision over all rows of the run: without its agreement, the starts win.

        Returns the result of the run with ``renders``, the number of new renders.
        """
        run = run_of(self._searched(files), self.settings.judge)
        for path in files:
            _replace_where(path, partial(_decided, run=run))
        return {**run.to_dict(), "renders": self.searcher.service.counts.renders}

    def _searched(self, files: Sequence[Path]) -> list[tuple[str, JsonObject]]:
        """Return (source document, search column) of each row that was searched with this judge."""
        lines = (line for path in files if path.exists() for _, line in read_lines(path, "drop"))
        return [
            (source_id(str(line.get("dataset")), str(line.get("id_in_dataset"))), line["search"])
            for line in lines
            if line.get("search") and line["search"]["judge"] == self.settings.judge
        ]


def _decided(line: Line, run: Run) -> Line:
    """Return the row with the winner that the run decided on."""
    search = line.get("search")
    if not search or search["judge"] != run.judge:
        return line
    best = search["found_index"] if run.agrees else search["start_index"]
    if best == line["best_index"]:
        return line
    external = {**line["scores_external"], **search["external"][str(best)]}
    return {
        **line,
        "best_index": best,
        "config_payload": line["config_candidates"][best],
        "scores_external": external,
    }


def _replace_where(path: Path, change: Callable[[Line], Line]) -> None:
    """Rewrite the file if a line changes."""
    if path.exists() and any(change(line) is not line for _, line in read_lines(path, "drop")):
        replace_rows(path, (change(line) for _, line in read_lines(path, "drop")))
