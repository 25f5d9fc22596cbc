"""Reading the results of a provider batch: answers for the cache, errors of the others, and the cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
from pydantic import BaseModel

from latentscore import MusicConfigPromptPayload
from latentscore.json_search import JsonObject
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.llm.batch_state import Batch, Trial
from latentscore_data.core.llm.batches.remote import Remote, Result
from latentscore_data.core.llm.batches.wording import Wording
from latentscore_data.core.llm.cache import Stored
from latentscore_data.core.llm.client import ASKED_AGAIN
from latentscore_data.core.llm.prices import Price, answer_cost, litellm_version
from latentscore_data.core.llm.replies import Message
from latentscore_data.core.llm.retry import CallError
from latentscore_data.core.llm.structured import BadAnswer, Shape
from latentscore_data.core.vibes.schema import TextScenes, TextVibes

ANSWER_TYPES: dict[str, type[BaseModel]] = {
    one.__name__: one for one in (TextVibes, TextScenes, MusicConfigPromptPayload)
}
"""The answer types of questions in batches, by name."""


def custom_id(tag: str, number: int) -> str:
    """Return the id of a line, with characters that both protocols allow."""
    return f"{tag}-{number}"


def number_of(name: str, tag: str) -> int | None:
    """The number of a line of that batch; None for a line of another one."""
    found, _, number = name.rpartition("-")
    return int(number) if found == tag and number.isdigit() and len(number) < 10 else None


def read_file(path: Path, remote: Remote) -> Iterator[Result]:
    """Yield the results in a downloaded file; invalid lines are skipped, and their questions count as unanswered."""
    with path.open("rb") as file:
        for raw in file:
            try:
                line = orjson.loads(raw)
            except orjson.JSONDecodeError:
                continue
            found = remote.read(line) if isinstance(line, dict) else None
            if found is not None:
                yield found


@dataclass
class Harvest:
    """The results of one batch.

    Results may be in any order, repeated (the first is used), incomplete, or for unknown lines (skipped).
    """

    batch: Batch
    lines: Mapping[int, tuple[str, str]]
    """Key and name of the answer type of each line, by its number."""
    before: Mapping[str, Trial]
    """The attempts at the questions before this batch, by key."""
    wording: Wording
    price: Price | None
    settings: LLMSettings
    entries: list[tuple[str, Stored]] = field(default_factory=list)
    unusable: list[tuple[str, str, Stored]] = field(default_factory=list)
    """(key, reason, answer) of answers that cannot be used."""
    trials: dict[str, Trial] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    refused: set[str] = field(default_factory=set)
    """Parameters that the server refused."""
    stop: CallError | None = None
    """An invalid key or an empty balance."""

    def __post_init__(self) -> None:
        hosted = self.settings.api_base is None
        self._shapes = {name: Shape(kind, hosted) for name, kind in ANSWER_TYPES.items()}

    def read(self, results: Iterator[Result]) -> None:
        """Add all results, and a failure for each question without one."""
        seen: set[int] = set()
        for result in results:
            number = number_of(result.custom_id, self.batch.tag)
            if number is None or number in seen or number not in self.lines:
                continue
            seen.add(number)
            key, answer_type = self.lines[number]
            if result.body is not None:
                self._answer(key, answer_type, result.body)
            elif result.error is not None and not result.passed:
                self._error(key, result.error)
        cancelled = self.batch.remote_status.startswith("cancel")
        for number in self.lines.keys() - seen if not cancelled else ():
            self._fault(self.lines[number][0], "the provider gave no answer")

    def _answer(self, key: str, answer_type: str, body: JsonObject) -> None:
        try:
            answer = self.wording.completion(body)
        except ValueError as error:
            self.usage.add(Usage.of_call(0, 0, None))  # paid, but its cost is unreadable
            self._fault(key, str(error))
            return
        said, spent = answer.message, (answer.tokens_in, answer.tokens_out)
        cost = answer_cost(self.price, answer.usage)
        self.usage.add(Usage.of_call(*spent, cost))
        version = {"litellm_version": litellm_version(), "answer_type": answer_type}
        stored = Stored("", self.batch.model, answer.finish_reason, *spent, cost, 0.0, **version)
        try:
            value = answer.read(self._shapes[answer_type])
        except BadAnswer as bad:
            self.unusable.append((key, bad.reason, replace(stored, answer=said.shown)))
            self._unusable(key, bad, said)
            return
        self.entries.append((key, replace(stored, answer=value.model_dump_json())))

    def _error(self, key: str, error: CallError) -> None:
        if error.kind == "auth":
            self.stop = error
        elif error.kind == "answer":
            bad = BadAnswer("malformed", error.message)
            self.usage.add(Usage.of_call(0, 0, None))  # paid, but its cost is unreadable
            self._unusable(key, bad, Message(error.draw))
        elif (refused := self.wording.learned(error)) is not None and not self.wording.knows(refused):
            self.refused.add(refused)
        elif error.kind == "bad request" and refused is None:
            before = self._trial(key)
            self.trials[key] = replace(before, failure="bad request", message=error.message, status=error.status)
        else:
            self._fault(key, error.message, error.status)

    def _unusable(self, key: str, bad: BadAnswer, said: Message) -> None:
        before = self._trial(key)
        count = before.unusable + 1
        failure = "bad request" if bad.reason == "filtered" else "answer" if count > ASKED_AGAIN else ""
        self.trials[key] = replace(
            before, unusable=count, reason=bad.reason, detail=bad.detail, said=said.shown[:8000], failure=failure,
            message=str(bad) if failure else "",
        )  # fmt: skip

    def _fault(self, key: str, message: str, status: int | None = None) -> None:
        before = self._trial(key)
        faults = before.faults + 1
        failure = "transient" if faults >= self.settings.max_attempts else ""
        self.trials[key] = replace(
            before, faults=faults, failure=failure, message=message if failure else "", status=status
        )

    def _trial(self, key: str) -> Trial:
        return self.before.get(key) or Trial(key)
