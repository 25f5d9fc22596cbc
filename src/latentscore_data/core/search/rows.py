"""Searching for rows: every candidate with its origin in the row, and the judge's word on the whole run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from latentscore_data.core.base.jsonl import read_lines, replace_rows
from latentscore_data.core.base.loop import Line
from latentscore_data.core.base.rows import ConfigRow, source_id
from latentscore_data.core.base.seeds import digest
from latentscore_data.core.base.settings import SearchSettings, Settings
from latentscore_data.core.configs.candidate_validation import validate_candidates
from latentscore_data.core.scoring.best_of import Choice, Improved, MakeImprover, details_of
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.renderer import MakeRenderer
from latentscore_data.core.scoring.service import ScoredRender, ScoringService
from latentscore_data.core.search.prior import share_kept
from latentscore_data.core.search.report import Run, run_of
from latentscore_data.core.search.searcher import SEARCH_VERSION, Searcher, one_thread
from latentscore_data.core.search.vibe_search import Found

ROWS_IN_FLIGHT = 3
"""Searches at the same time: enough to keep two renderers busy, few enough for the memory that surrogates take."""


def with_judge(settings: Settings) -> Settings:
    """The settings with the search's judge among the scorers, so that it is checked, paid for and stored like the others."""
    judge = settings.search.judge
    if settings.search.renders is None or judge is None or judge in settings.scoring.scorers:
        return settings
    scoring = settings.scoring.model_copy(update={"scorers": [*settings.scoring.scorers, judge]})
    return settings.model_copy(update={"scoring": scoring})


def improver_for(settings: Settings) -> MakeImprover | None:
    """What :func:`run_scoring` needs to search; None where the settings ask for no search."""
    return None if settings.search.renders is None else partial(_open_improver, settings)


@contextmanager
def _open_improver(
    settings: Settings, service: ScoringService, cache: ScoreCache, make_renderer: MakeRenderer
) -> Iterator[RowSearch]:
    # What is found is scored by the guide alone; the others score the model's candidates and the best so far.
    with (
        one_thread(),
        ScoringService(service.scorers[:1], settings.scoring, cache, make_renderer=make_renderer) as guided,
    ):
        yield RowSearch(Searcher(guided, settings.search), service, settings.search)


@dataclass
class RowSearch:
    """Improves rows by search. ``everyone`` is the service of all scorers."""

    searcher: Searcher
    everyone: ScoringService
    settings: SearchSettings

    @property
    def fingerprint(self) -> str:
        return digest(SEARCH_VERSION, self.settings.model_dump_json(exclude={"judge"}), self.settings.judge or "")

    @property
    def rows_in_flight(self) -> int:
        return max(ROWS_IN_FLIGHT, self.everyone.at_once // self.settings.batch)

    def prepare(self) -> None:
        self.searcher.prepare()

    async def improve(self, row: ConfigRow, choice: Choice) -> Improved:
        """Search from the row's candidates; every scorer scores each best so far."""
        vibe = row.vibe_original
        found = await self._search(vibe, [one for one in row.config_candidates if one is not None])
        own = [at for at, one in enumerate(row.config_candidates) if one is not None]
        # The row keeps the empty places among the model's candidates.
        place = {
            at: own[at] if at < len(own) else len(row.config_candidates) + at - len(own)
            for at in range(len(found.payloads))
        }
        renders = dict(enumerate(choice.scored_renders))
        renders |= {place[at]: render for at, render in enumerate(found.renders) if at >= len(own)}
        for at in dict.fromkeys(best for _, best in found.incumbents):
            renders[place[at]] = await self._by_everyone(vibe, found.payloads[at])
        candidates = [*row.config_candidates, *(dict(one) for one in found.payloads[len(own) :])]
        origins = ["model"] * len(row.config_candidates) + found.origins[len(own) :]
        start = place[found.best("model") or 0]
        best = place[found.best() or 0]
        update = {"config_candidates": candidates, "validation_scores": validate_candidates(candidates)}
        columns = {
            "candidate_origins": origins,
            "search": self._column(found, place, start, best, [renders[at] for at in range(len(candidates))]),
        }
        return Improved(
            row.model_copy(update=update),
            Choice([renders[at] for at in range(len(candidates))], choice.scorer),
            best,
            columns,
        )

    async def _search(self, vibe: str, model: Sequence[Mapping[str, Any]]) -> Found:
        search = self.searcher.search(vibe, model)
        while payloads := await asyncio.to_thread(search.ask):
            futures = [self.searcher.service.submit(vibe, one) for one in payloads]
            renders = await asyncio.gather(*map(asyncio.wrap_future, futures))
            await asyncio.to_thread(search.tell, renders)
        return search.found

    async def _by_everyone(self, vibe: str, payload: Mapping[str, Any]) -> ScoredRender:
        return await asyncio.wrap_future(self.everyone.submit(vibe, payload))

    def _column(
        self, found: Found, place: Mapping[int, int], start: int, best: int, renders: Sequence[ScoredRender | None]
    ) -> dict[str, Any]:
        def scores(at: int) -> dict[str, float]:
            render = renders[at]
            named = {} if render is None else details_of(render, self.everyone.scorers)
            return {name: details["final_score"] for name, details in named.items()}

        def external(at: int) -> dict[str, Any]:
            render = renders[at]
            return {} if render is None else details_of(render, self.everyone.scorers)

        configs = {at: found.payloads[index]["config"] for index, at in place.items()}
        return {
            "guide": self.searcher.guide.name,
            "judge": self.settings.judge,
            "renders": len(found.payloads),
            "surrogate_r2": self.searcher.r2,
            "start_index": start,
            "found_index": best,
            "named": sorted(found.prior.named),
            "start_kept": share_kept(configs[start], found.prior.named),
            "found_kept": share_kept(configs[best], found.prior.named),
            "curve": [{"renders": spent, "scores": scores(place[at])} for spent, at in found.incumbents],
            "external": {str(at): external(at) for at in {start, best}},
        }

    def settle(self, files: Sequence[Path]) -> dict[str, Any]:
        """Let the judge decide over all rows of the run; where it does not agree, the starts stay."""
        run = run_of(self._searched(files), self.settings.judge)
        for path in files:
            _replace_where(path, partial(_decided, run=run))
        return {**run.to_dict(), "renders": self.searcher.service.counts.renders}

    def _searched(self, files: Sequence[Path]) -> list[tuple[str, dict[str, Any]]]:
        """(source document, search column) of each row that was searched with this judge."""
        lines = (line for path in files if path.exists() for _, line in read_lines(path, "drop"))
        return [
            (source_id(str(line.get("dataset")), str(line.get("id_in_dataset"))), line["search"])
            for line in lines
            if line.get("search") and line["search"]["judge"] == self.settings.judge
        ]


def _decided(line: Line, run: Run) -> Line:
    """The row with the winner that the run decided on."""
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
    """Write the file again if a line changes."""
    if path.exists() and any(change(line) is not line for _, line in read_lines(path, "drop")):
        replace_rows(path, (change(line) for _, line in read_lines(path, "drop")))
