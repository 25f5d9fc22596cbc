"""Searches for better configs. The page requests one batch at a time, so that a closed page ends its search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentscore.json_search import JsonObject
from latentscore.labels import FIELDS
from latentscore_data.core.base.settings import SearchSettings
from latentscore_data.core.scoring.service import ScoredRender, ScoringService
from latentscore_data.core.search.searcher import Searcher, one_thread
from latentscore_data.core.search.vibe_search import VibeSearch
from latentscore_data.studio.kept import Kept

MOST_SEARCHES = 4
"""Largest number of searches, one for each page; the one that was used longest ago ends."""
MOST_NEAR = 1.0
"""Largest ``search.near`` on the page: with one piece as the start, a high value allows few changes, and a person
judges the result."""


@dataclass
class _Running:
    vibe: str
    search: VibeSearch
    renders: int


class Searches:
    """The searches of all pages. Methods block for a moment: call them in a thread.

    A surrogate is used if ``lsdata configs --search N`` has fitted it for this workspace; fitting takes a minute, which
    is too long for a page.
    """

    def __init__(self, service: ScoringService, settings: SearchSettings) -> None:
        self._service, self._settings = service, settings
        self._running: Kept[_Running] = Kept(MOST_SEARCHES, "search", "begin another with Better")

    def open(
        self, vibe: str, payload: Mapping[str, Any], locked: Sequence[str], renders: int, seed: int = 0
    ) -> JsonObject:
        """Start a search. Returns its name (``search``), ``renders``, and whether it has a ``surrogate``."""
        settings = self._settings.model_copy(
            update={"renders": renders, "judge": None, "near": min(self._settings.near, MOST_NEAR)}
        )
        with one_thread():
            searcher = Searcher(self._service, settings)
            if not searcher.is_fitted():
                searcher = Searcher(self._service, settings.model_copy(update={"surrogate_renders": 0}))
            search = searcher.search(vibe, [payload], [name for name in locked if name in FIELDS], seed)
        name = self._running.add(_Running(vibe, search, renders))
        return {"search": name, "renders": renders, "surrogate": searcher.surrogate is not None}

    def ask(self, name: str) -> tuple[str, list[Mapping[str, Any]]]:
        """Return the vibe and the payloads to render next, none at the end.

        Raises :class:`InputError` for a search that has ended.
        """
        with self._running.use(name) as running, one_thread():
            return running.vibe, list(running.search.ask())

    def tell(self, name: str, renders: Sequence[ScoredRender]) -> JsonObject:
        """Add the renders of the payloads. Returns the state of the search: ``spent`` and ``renders``, ``done``, and
        the best payload with its score.

        Raises :class:`InputError` for a search that has ended.
        """
        with self._running.use(name) as running, one_thread():
            if renders:
                running.search.tell(renders)
            found = running.search.found
            best = found.best()
            start = found.best("model")
        spent = len(found.payloads)
        done = not renders or spent >= running.renders
        if done:
            self._running.drop(name)
        score = None if best is None else found.renders[best].score(self._service.scorers[0].name)
        return {
            "spent": spent,
            "renders": running.renders,
            "done": done,
            "improved": best is not None and best != start,
            "payload": None if best is None else found.payloads[best],
            "score": None if score is None else score.final_score,
        }
