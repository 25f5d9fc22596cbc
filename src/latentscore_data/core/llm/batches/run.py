"""The provider batches of one stage: collect finished ones, submit new questions, wait."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from latentscore.json_search import JsonObject
from latentscore_data.core.base.answerers import HOSTED, kind_of
from latentscore_data.core.base.closing import Closing
from latentscore_data.core.base.display import money, say
from latentscore_data.core.base.errors import InputError, MissingError, StoppedError
from latentscore_data.core.base.jsonl import replace_bytes
from latentscore_data.core.base.ledger import Ledger, SpendTracker, Usage, has_batch
from latentscore_data.core.base.proxies import call_directly
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.base.summary import Progress as Display
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.batch_state import (
    FILE_NAME,
    IN_FLIGHT,
    Batch,
    BatchState,
    age_in_words,
    open_batches,
)
from latentscore_data.core.llm.batches.client import BatchLLM
from latentscore_data.core.llm.batches.ingest import Harvest, custom_id, number_of, read_file
from latentscore_data.core.llm.batches.remote import Progress, Remote, Request, UnknownOutcomeError
from latentscore_data.core.llm.batches.wording import Wording
from latentscore_data.core.llm.cache import AnswerCache
from latentscore_data.core.llm.client import asked_again, connect, rough_tokens
from latentscore_data.core.llm.prices import price_of, unknown_price
from latentscore_data.core.llm.structured import BadAnswer, Shape
from latentscore_data.core.llm.types import LLM, Question
from latentscore_data.core.models.engines import Engine

R = TypeVar("R")

SETTLE_SECONDS = 30.0
"""Seconds after an interrupted submission in which the provider may not yet list the batch."""


@dataclass(frozen=True)
class _Line:
    """A question for a batch. ``worst_usd`` is the maximum cost of its answer."""

    key: str
    answer_type: str
    body: JsonObject
    worst_usd: float


class BatchRun(Closing):
    """Asks the questions of a stage: with provider batches if they are requested or still open, otherwise directly.

    Used under the workspace's lock. ``models`` are the stage's models, ``engine`` runs a local model on another machine,
    ``spend`` is the run's spending.
    """

    def __init__(
        self,
        stage: str,
        settings: LLMSettings,
        workspace: Workspace,
        models: Sequence[str],
        engine: Engine | None = None,
        spend: SpendTracker | None = None,
    ) -> None:
        self.stage = stage
        self.usage = Usage()
        """The usage of the answers that this run collected."""
        self._settings = settings
        self._cache_path, self._ledger = workspace.llm_cache, workspace.ledger
        self._models = [model for model in models if kind_of(model) is HOSTED]
        self._runs, self._engine = workspace.train_dir, engine
        self._spend = spend or SpendTracker()
        self._folder = self._cache_path.with_name("batches")
        path = self._cache_path.with_name(FILE_NAME)
        wanted = bool(self._models) and (settings.batch or path.exists())
        self._state = BatchState(path) if wanted else None
        if settings.batch and not self._models:
            say(f"{stage}: no batches: none of its models is hosted")
        self._clients: list[BatchLLM] = []
        self._wordings: dict[str, Wording] = {}
        self._remotes: dict[str, Remote] = {}
        self._bought: set[str] = set()
        self._held_back = 0
        self._done_before = 0

    def close(self) -> None:
        for remote in self._remotes.values():
            remote.close()
        if self._state is not None:
            self._state.close()

    # -- for the stage

    def connect(self, model: str, vibes_per_call: int = 1) -> LLM:
        """Return the client of ``model``. Questions for batches are collected until :meth:`rounds` submits them."""
        ledger, state = Ledger(self._ledger), self._state if model in self._models else None
        in_flight = state.keys_in_flight() if state is not None else set[str]()
        trials = state.trials() if state is not None else {}
        if state is None or not (self._settings.batch or in_flight or trials):
            return connect(
                model, self._settings, cache_path=self._cache_path, ledger=ledger, stage=self.stage,
                per_call=vibes_per_call, runs=self._runs, engine=self._engine, spend=self._spend,
            )  # fmt: skip
        if self._settings.batch:
            self._wording(model)  # a model without batches is refused before the first row
        client = BatchLLM(
            model,
            self._settings,
            self._cache_path,
            ledger,
            self.stage,
            direct=not self._settings.batch,
            in_flight=in_flight,
            trials=trials,
            bought=self._bought,
            spend=self._spend,
        )
        self._clients.append(client)
        return client

    def rounds(self, run: Callable[[], R], display: Display | None = None) -> R:
        """Run the stage's loop and submit the collected questions; with waiting, repeat this whenever a batch has
        ended.

        If questions are still in batches afterwards, ``pending`` is above 0.
        """
        while True:
            self._clients.clear()
            found = run()
            if self._state is None:
                return found
            self._submit(self._state)
            if not self.pending:
                self._end_run(self._state)
                return found
            if not self._settings.batch_wait:
                self._say_open(self._state)
                return found
            if isinstance(found, Summary):
                self._done_before += found.done
            self._wait(self._state, display or Display())

    def bill(self, summary: Summary) -> Summary:
        """Add the usage of the batches and the number of pending questions to the summary."""
        summary.add_usage(self.usage)
        # Rows from an earlier round of this run do not count as done before the run.
        summary.done += self._done_before
        summary.skipped -= self._done_before
        summary.pending = self.pending
        if summary.pending:
            summary.next_step = "run the same command again to collect the answers (lsdata batches lists the batches)"
        return summary

    @property
    def pending(self) -> int:
        """The number of questions of this stage that are in batches, or held back by the cap."""
        return self._held_back + len({key for client in self._clients for key in client.waiting | client.wanted.keys()})

    def collect(self) -> None:
        """Advance every batch of the stage's models as far as possible: find, poll, download, store, book."""
        if self._state is None:
            return
        for batch in self._state.batches("prepared", "uploaded", *IN_FLIGHT):
            if batch.model in self._models:
                self._advance(self._state, batch)

    # -- advancing a batch from any state in which a process was stopped

    def _advance(self, state: BatchState, batch: Batch) -> None:
        if batch.api_base != self._settings.api_base:
            where = batch.api_base or "the provider's own address"
            say(f"{self.stage}: batch {batch.tag} is at {where}; name it with --api-base to collect it")
            return
        if batch.state in ("prepared", "uploaded"):
            # It cost nothing. Its questions are asked again, within the cap of this run.
            if batch.file_id:
                self._remote(batch.model).drop_file(batch.file_id)
            state.drop(batch.tag)
            return
        if batch.state == "submitting" and not self._adopt(state, batch):
            return
        if batch.state == "open" and not self._poll(state, batch):
            return
        self._keep(state, batch)

    def _adopt(self, state: BatchState, batch: Batch, not_these: frozenset[str] = frozenset()) -> bool:
        """Search for a batch whose submission was interrupted; return False if the provider never received it."""
        known = {one.remote_id for one in state.batches() if one.remote_id} | not_these
        remote, since = self._remote(batch.model), batch.submitted or batch.created
        find = partial(remote.find, batch.tag, batch.file_id or "", since, batch.questions, known)
        found = find()
        if not found and (left := (batch.submitted or 0.0) + SETTLE_SECONDS - time.time()) > 0:
            time.sleep(min(left, SETTLE_SECONDS))
            found = find()
        if not found:
            say(f"{self.stage}: batch {batch.tag} never reached the provider; its questions are asked again")
            state.drop(batch.tag)
            return False
        # If only the number of questions matches, prefer an ended batch, whose results can be checked.
        best = max(found, key=lambda one: one.ended)
        batch.remote_id, batch.doubtful, batch.state = best.remote_id, not remote.certain, "open"
        state.save(batch)
        return True

    def _poll(self, state: BatchState, batch: Batch, tried: frozenset[str] = frozenset()) -> bool:
        """Query the progress of the batch and download it once it has ended; return False while it is open.

        Results without the tag of the batch belong to another one; then the next possible batch that was not ``tried``
        is searched for.
        """
        remote, path = self._remote(batch.model), self._file(batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            progress = remote.progress(batch.remote_id or "")
            if progress is None:
                say(f"{self.stage}: the provider no longer has batch {batch.tag}; its questions are asked again")
                progress = Progress(batch.remote_id or "", "gone", True)
                replace_bytes(path, [], 0o600)
            _note(batch, progress)
            state.save(batch)
            if not progress.ended:
                return False
            if not path.exists():
                lines = (line.rstrip(b"\r\n") + b"\n" for line in remote.results(progress.remote_id))
                replace_bytes(path, lines, 0o600)
        if not batch.doubtful:
            return True
        if any(number_of(one.custom_id, batch.tag) is not None for one in read_file(path, remote)):
            batch.doubtful = False
            state.save(batch)
            return True
        path.unlink(missing_ok=True)
        tried |= {batch.remote_id or ""}
        batch.remote_id = None
        return self._adopt(state, batch, tried) and self._poll(state, batch, tried)

    def _keep(self, state: BatchState, batch: Batch) -> None:
        """Store the answers in the cache, then book the cost, then close the batch.

        Each step can be repeated: the cache replaces entries, the ledger is checked for the batch, and closing is one
        transaction.
        """
        path, remote = self._file(batch), self._remote(batch.model)
        price = price_of(batch.model, self._settings, batch=True)
        lines, trials = state.lines(batch.tag), state.trials()
        harvest = Harvest(batch, lines, trials, self._wording(batch.model), price, self._settings)
        harvest.read(read_file(path, remote))
        with AnswerCache(self._cache_path) as cache:
            cache.put(harvest.entries)
            self._book(state, batch, harvest.usage)
            for refused in harvest.refused:
                state.add_refusal(batch.model, batch.api_base, refused)
                self._wording(batch.model).refuse(refused)
            state.finish(batch, harvest.trials.values(), [key for key, _ in harvest.entries])
            for key, reason, entry in harvest.unusable:
                cache.put_negative(key, reason, entry)
        path.unlink(missing_ok=True)
        self._bought.update(key for key, _ in harvest.entries)
        answered = f"{len(harvest.entries):,} of {batch.questions:,} questions answered, {money(batch.cost_usd)}"
        say(f"{self.stage}: batch {batch.tag} {batch.remote_status}: {answered}")
        if harvest.stop is not None:
            raise MissingError(
                f"batch {batch.tag}: {batch.model} refused a question: {harvest.stop.message}",
                "set a valid key or add credit with the provider, then run the same command again",
            )
        if batch.remote_status.startswith("failed"):
            raise InputError(
                f"the provider refused batch {batch.tag} ({batch.remote_status})", "fix that, or leave --batch out"
            )

    def _book(self, state: BatchState, batch: Batch, usage: Usage) -> None:
        if batch.state != "booking" or not has_batch(self._ledger, batch.tag):
            batch.state = "booking"
            state.save(batch)
            if usage.calls:
                Ledger(self._ledger).record_batch(batch.stage, batch.model, usage, batch.tag)
            self.usage.add(usage)
            self._spend.spent += usage.cost_usd
        batch.cost_usd = None if usage.unpriced and not usage.cost_usd else usage.cost_usd

    # -- submitting

    def _submit(self, state: BatchState) -> None:
        """Submit the collected questions as batches, as far as the cap allows."""
        self._held_back = 0
        for client in self._clients:
            if client.wanted:
                wanted, client.wanted = client.wanted, {}
                lines = list(self._lines(state, client, wanted))
                allowed = self._allowed(state, lines)
                self._held_back += len(lines) - len(allowed)
                for part in _parts(allowed, self._remote(client.model)):
                    self._submit_one(state, client.model, part)
                client.waiting.update(line.key for line in allowed)
        if self._held_back:
            say(
                f"{self.stage}: {self._held_back:,} questions wait for open batches, whose maximum cost reaches --max-cost"
            )

    def _lines(
        self, state: BatchState, client: BatchLLM, wanted: dict[str, tuple[Question, type[BaseModel]]]
    ) -> Iterator[_Line]:
        wording, trials = self._wording(client.model), state.trials()
        price = price_of(client.model, self._settings, batch=True)
        if price is None and self._settings.max_cost is not None:
            raise unknown_price(client.model, self._settings.max_cost)
        shapes: dict[str, Shape[Any]] = {}
        for key, (question, answer_type) in wanted.items():
            name = answer_type.__name__
            shape = shapes.setdefault(name, Shape(answer_type, self._settings.api_base is None))
            messages, trial = question.messages, trials.get(key)
            if trial is not None and trial.unusable:
                messages = asked_again(messages, trial.said, BadAnswer(trial.reason, trial.detail))
            tokens_in, audio_in = rough_tokens(messages)
            worst = price.of(tokens_in, question.max_tokens or 4096, audio_in) if price is not None else 0.0
            yield _Line(key, name, wording.body(messages, question.sampling, shape), worst)

    def _allowed(self, state: BatchState, lines: list[_Line]) -> list[_Line]:
        """Return the lines that fit into the cap of the whole run, from the first batch to the last answer.

        Raises :class:`StoppedError` if none fits and no batch is open that may cost less than its maximum.
        """
        cap = self._settings.max_cost
        if cap is None:
            return lines
        of_run = [one for one in state.batches() if self._is_of_run(one)]
        open_usd = sum(one.worst_usd or 0.0 for one in of_run if one.in_flight and one.state != "booking")
        paid_before = sum(one.cost_usd or 0.0 for one in of_run if one.state == "collected") - self.usage.cost_usd
        left = cap - open_usd - max(0.0, paid_before) - self._spend.spent + 1e-12
        fitting: list[_Line] = []
        for line in lines:
            left -= line.worst_usd
            if left < 0:
                break
            fitting.append(line)
        if not fitting and not any(one.in_flight for one in of_run):
            raise StoppedError(
                f"the next batch could raise the cost above --max-cost {cap:g} (spent ${self._spend.spent:.4f})",
                "raise --max-cost and run the same command again; everything paid for is kept",
            )
        return fitting

    def _submit_one(self, state: BatchState, model: str, lines: Sequence[_Line]) -> None:
        """Submit one batch, recorded before and after each step at the provider."""
        remote = self._remote(model)
        tag = secrets.token_hex(6)
        batch = Batch(tag, self.stage, model, self._settings.api_base, "prepared", len(lines), time.time())
        batch.worst_usd = sum(line.worst_usd for line in lines)
        state.add(batch, [(line.key, line.answer_type) for line in lines])
        requests = [Request(custom_id(tag, number), line.body) for number, line in enumerate(lines)]
        if remote.uploads:
            batch.file_id = remote.upload(tag, requests)
            batch.state = "uploaded"
            state.save(batch)
        batch.state, batch.submitted = "submitting", time.time()
        state.save(batch)
        try:
            progress = remote.submit(tag, batch.file_id or "", requests)
        except UnknownOutcomeError:
            raise
        except BaseException as error:
            if isinstance(error, Exception):  # refused, so it was not started
                remote.drop_file(batch.file_id or "")
                state.drop(tag)
            raise
        batch.state = "open"
        _note(batch, progress)
        state.save(batch)
        most = f", at most {money(batch.worst_usd)}" if batch.worst_usd else ""
        say(f"{self.stage}: batch {tag} submitted: {len(lines):,} questions to {model}{most}")

    # -- waiting and the end

    def _wait(self, state: BatchState, display: Display) -> None:
        """Wait until a batch has ended and collect it."""
        open_before = self._open(state)
        summary, total = Summary(f"{self.stage}: batches"), sum(batch.questions for batch in open_before)
        display.start(summary.stage, total)
        unreachable = 0
        try:
            while True:
                try:
                    self.collect()
                    unreachable = 0
                except StoppedError as error:  # temporary network failures are expected during a long wait
                    unreachable += 1
                    if unreachable >= self._settings.max_attempts:
                        raise
                    say(f"{self.stage}: {error.message}; asking again")
                left = self._open(state)
                summary.done = total - sum(batch.questions - batch.done for batch in left)
                if failed := sum(batch.failed for batch in left):
                    summary.failed["line"] = failed
                display.update(summary, sum(batch.questions - batch.done - batch.failed for batch in left))
                if len(left) < len(open_before) or not left:
                    return
                time.sleep(self._settings.batch_poll_seconds)
        finally:
            display.finish(summary)

    def _open(self, state: BatchState) -> list[Batch]:
        return [batch for batch in state.batches(*IN_FLIGHT) if batch.model in self._models]

    def _say_open(self, state: BatchState) -> None:
        for batch in self._open(state):
            say(
                f"{self.stage}: batch {batch.tag} {batch.remote_status or batch.state}: {batch.done:,} of "
                f"{batch.questions:,} done, {age_in_words(batch)} old"
            )

    def _end_run(self, state: BatchState) -> None:
        """When no batch is open, delete the failures that were reported, so that the next run asks these questions again."""
        state.forget({key for client in self._clients for key in client.delivered})
        for batch in state.batches("collected"):
            if self._is_of_run(batch):
                batch.run_over = True
                state.save(batch)

    def _is_of_run(self, batch: Batch) -> bool:
        return batch.stage == self.stage and batch.model in self._models and not batch.run_over

    def _file(self, batch: Batch) -> Path:
        return self._folder / f"{batch.tag}.jsonl"

    def _wording(self, model: str) -> Wording:
        if model not in self._wordings:
            assert self._state is not None
            refused = self._state.refusals(model, self._settings.api_base)
            self._wordings[model] = Wording(model, self._settings, refused)
        return self._wordings[model]

    def _remote(self, model: str) -> Remote:
        if model not in self._remotes:
            call_directly(self._settings.api_base)
            self._remotes[model] = self._wording(model).remote()
        return self._remotes[model]


def _note(batch: Batch, progress: Progress) -> None:
    batch.remote_id, batch.remote_status = progress.remote_id, progress.status
    batch.done, batch.failed = progress.done, progress.failed


def _parts(lines: Sequence[_Line], remote: Remote) -> Iterator[list[_Line]]:
    """Split the lines into batches of the provider's maximum size."""
    part: list[_Line] = []
    size = 0
    for line in lines:
        # The envelope of a body is short; 5 % is a sufficient margin.
        length = len(str(line.body)) * 21 // 20 + 200
        if part and (len(part) >= remote.most_requests or size + length > remote.most_bytes):
            yield part
            part, size = [], 0
        part.append(line)
        size += length
    if part:
        yield part


def refresh_batches(path: Path, settings: LLMSettings) -> None:
    """Query the providers for the progress of the open batches and record it."""
    for state, batch, remote in _reachable(path, settings):
        progress = remote.progress(batch.remote_id or "")
        if progress is not None:
            _note(batch, progress)
            state.save(batch)


def cancel_batches(path: Path, settings: LLMSettings, tags: Sequence[str]) -> None:
    """Cancel the open batches of these tags, or ``all``.

    Raises :class:`InputError` for a tag that is not open, or whose batch at the provider is uncertain.
    """
    there = {batch.tag: batch for batch in open_batches(path)}
    wanted = set(there) if "all" in tags else set(tags)
    if unknown := wanted - set(there):
        raise InputError(f"no batch {', '.join(sorted(unknown))} is open", "lsdata batches lists those that are")
    for state, batch, remote in _reachable(path, settings):
        if batch.tag not in wanted:
            continue
        if batch.doubtful:
            raise InputError(
                f"batch {batch.tag} was interrupted while it was submitted, and its results will identify it",
                "run the command that submitted it again",
            )
        _note(batch, remote.cancel(batch.remote_id or ""))
        state.save(batch)
        say(f"batches: {batch.tag} is {batch.remote_status}")


def _reachable(path: Path, settings: LLMSettings) -> Iterator[tuple[BatchState, Batch, Remote]]:
    """Yield the open batches whose provider these settings can reach."""
    if not path.exists():
        return
    with BatchState(path) as state:
        for batch in state.batches("open"):
            if batch.api_base != settings.api_base:
                say(f"batches: {batch.tag} is at {batch.api_base or 'the provider'}: name it with LSDATA_LLM__API_BASE")
                continue
            call_directly(settings.api_base)
            with Wording(batch.model, settings, []).remote() as remote:
                yield state, batch, remote
