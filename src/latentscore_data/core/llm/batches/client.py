"""A model client that answers from the cache and collects the other questions for a provider batch."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from pydantic import BaseModel

from latentscore_data.core.base.ledger import Ledger, SpendTracker
from latentscore_data.core.base.loop import NotAttempted, RowFailure
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.llm.batch_state import Trial
from latentscore_data.core.llm.cache import AnswerCache
from latentscore_data.core.llm.client import ModelClient
from latentscore_data.core.llm.types import Answer, Question, T


class BatchLLM(ModelClient):
    """Leaves a row undone (:class:`NotAttempted`) while one of its questions is in a batch or must be submitted in one.

    With ``direct``, questions that are in no batch are asked at once; otherwise they are added to ``wanted``.
    ``bought`` are the questions whose answers this run has collected; they do not count as saved by the cache.
    """

    def __init__(
        self,
        model: str,
        settings: LLMSettings,
        cache_path: Path,
        ledger: Ledger,
        stage: str,
        *,
        direct: bool,
        in_flight: AbstractSet[str],
        trials: Mapping[str, Trial],
        bought: AbstractSet[str],
        spend: SpendTracker | None = None,
    ) -> None:
        super().__init__(model, settings, cache=AnswerCache(cache_path), ledger=ledger, stage=stage, spend=spend)
        self.wanted: dict[str, tuple[Question, type[BaseModel]]] = {}
        self.waiting: set[str] = set()
        self.delivered: set[str] = set()
        """Questions whose final failure was reported to their row."""
        self._direct, self._in_flight, self._trials, self._bought = direct, in_flight, trials, bought

    def known(self, key: str, answer_type: type[T]) -> Answer[T] | None:
        cached, saved = self.usage.cached, self.usage.saved_usd
        found = super().known(key, answer_type)
        if found is not None and key in self._bought:
            self.usage.cached, self.usage.saved_usd = cached, saved
        return found

    async def _fetch(self, key: str, question: Question, answer_type: type[T]) -> Answer[T]:
        if key in self._in_flight:
            self.waiting.add(key)
            raise NotAttempted
        trial = self._trials.get(key)
        if trial is not None and trial.failure:
            self.delivered.add(key)
            raise RowFailure(trial.failure, trial.message, trial.status, trial.unusable + trial.faults)
        if self._direct:
            return await super()._fetch(key, question, answer_type)
        self.wanted[key] = (question, answer_type)
        raise NotAttempted
