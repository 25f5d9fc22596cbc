"""The model client: takes a question and a type, returns an object of that type."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from latentscore_data.core.base.answerers import BUILTIN, HOSTED, kind_of
from latentscore_data.core.base.errors import LsdataError, MissingError
from latentscore_data.core.base.ledger import Ledger, SpendTracker, Usage
from latentscore_data.core.base.loop import RowFailure
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.base.writer import BackgroundWriter
from latentscore_data.core.llm.answerers import answerer
from latentscore_data.core.llm.builtin import BuiltinLLM
from latentscore_data.core.llm.cache import AnswerCache, Stored, cache_key
from latentscore_data.core.llm.limiter import AdaptiveLimiter, Budget
from latentscore_data.core.llm.packing import Asked, Packer, Together, packed_schema, taken_apart, together
from latentscore_data.core.llm.prices import (
    Price,
    answer_cost,
    cost_of_usage,
    litellm_version,
    price_of,
    unknown_price,
)
from latentscore_data.core.llm.replies import Message
from latentscore_data.core.llm.retry import NOT_SENT, CallError, classify, retry_delay
from latentscore_data.core.llm.routes import key_names
from latentscore_data.core.llm.structured import MODES, BadAnswer, Mode, Shape
from latentscore_data.core.llm.transport import Completion, Transport
from latentscore_data.core.llm.types import LLM, Answer, Messages, Question, Sampling, T
from latentscore_data.core.models.engines import Engine

log = logging.getLogger(__name__)


ASKED_AGAIN = 2
"""Maximum number of repeated questions after an unusable answer."""


def connect(
    model: str,
    settings: LLMSettings,
    *,
    cache_path: Path | None,
    ledger: Ledger | None,
    stage: str,
    per_call: int = 1,
    runs: Path = Path(),
    engine: Engine | None = None,
    spend: SpendTracker | None = None,
) -> LLM:
    """Return the client of ``model``: the offline model, or a :class:`ModelClient` (see :mod:`answerers`).

    With ``per_call`` above 1, that many questions that differ only in the user message share a call. ``runs`` is the
    folder of the training runs; ``engine`` runs a local model on another machine. ``spend`` is the run's spending,
    which counts towards the cap; None for a run with only this model.

    Raises :class:`MissingError` for a missing key and :class:`InputError` for an unknown name.
    """
    if kind_of(model) is BUILTIN:
        return BuiltinLLM(model)
    cache = AnswerCache(cache_path) if cache_path is not None else None
    return ModelClient(
        model,
        settings,
        cache=cache,
        ledger=ledger,
        stage=stage,
        per_call=per_call,
        runs=runs,
        engine=engine,
        spend=spend,
    )


@dataclass(frozen=True)
class _Reply:
    """One model answer before it is read: what the server said, and its entry in the cache, still without text."""

    said: Completion
    entry: Stored
    attempts: int

    def share(self, count: int) -> _Reply:
        """Return one question's share of a reply to ``count`` questions."""
        entry = self.entry
        cost = entry.cost_usd / count if entry.cost_usd is not None else None
        tokens = {"tokens_in": entry.tokens_in // count, "tokens_out": entry.tokens_out // count}
        return replace(self, entry=replace(entry, **tokens, cost_usd=cost))

    def stored(self, text: str, answer_type: type[BaseModel]) -> Stored:
        return replace(self.entry, answer=text, answer_type=answer_type.__name__)


class ModelClient:
    """The client of all models except the offline one: cache, retries, adaptive concurrency and budget."""

    def __init__(
        self,
        model: str,
        settings: LLMSettings,
        *,
        cache: AnswerCache | None = None,
        ledger: Ledger | None = None,
        stage: str = "",
        per_call: int = 1,
        price: Price | None = None,
        runs: Path = Path(),
        engine: Engine | None = None,
        spend: SpendTracker | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.cache = cache
        self.ledger = ledger
        self.stage = stage
        self.usage = Usage()
        self._runs, self._engine = runs, engine
        self._answerer = answerer(model)
        # A local model with other files is another model.
        self._known_as = self._answerer.version(model, runs)
        self._transport: Transport | None = None
        self._price = price
        self._mode: Mode = MODES[0]
        self._limiter = AdaptiveLimiter(
            settings.max_concurrency, settings.max_qps, settings.max_tokens_per_minute, wide=engine is not None
        )
        self._budget = Budget(settings.max_cost, spend)
        self._shapes: dict[type[BaseModel], Shape[Any]] = {}
        self._packed: dict[type[BaseModel], Shape[Together]] = {}
        self._asking: dict[str, asyncio.Task[Answer[Any]]] = {}
        self._packer = Packer(self._fetch_together, per_call) if per_call > 1 else None
        self._rng = random.Random()
        self._writer = BackgroundWriter(self._together)

    # -- asking

    def key(self, question: Question, answer_type: type[BaseModel]) -> str:
        """The cache key of a question."""
        schema = self._shape(answer_type).schema
        return cache_key(
            self._known_as,
            self.settings.base_for(self.model),
            question.messages,
            schema,
            question.sampling,
            question.sample_idx,
        )

    async def ask(self, question: Question, answer_type: type[T]) -> Answer[T]:
        key = self.key(question, answer_type)
        known = self.known(key, answer_type)
        if known is not None:
            return known
        # Rows with the same vibe have the same question and share one call.
        asking = self._asking.get(key)
        if asking is None:
            fetch = self._fetch if self._packer is None else self._packer.ask
            asking = asyncio.create_task(fetch(key, question, answer_type))
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(asking)

    def known(self, key: str, answer_type: type[T]) -> Answer[T] | None:
        """Return the answer from the cache and count it as a saved call; None if there is none."""
        stored = self.cache.get(key) if self.cache is not None else None
        known = _from_cache(stored, answer_type) if stored is not None else None
        if known is not None and self.cache is not None:
            self.cache.hits += 1
            self.usage.cached += 1
            self.usage.saved_usd += known.cost_usd or 0.0
        return known

    async def _fetch(self, key: str, question: Question, answer_type: type[T]) -> Answer[T]:
        """Ask until the answer is usable, at most ``ASKED_AGAIN`` more times, each time with the error of the last answer."""
        shape = self._shape(answer_type)
        messages = question.messages
        attempts, seconds, spent = 0, 0.0, Usage()
        for again in range(ASKED_AGAIN + 1):
            reply = await self._call(messages, question.sampling, shape)
            attempts += reply.attempts
            seconds += reply.entry.seconds
            spent.add(Usage.of_call(reply.entry.tokens_in, reply.entry.tokens_out, reply.entry.cost_usd))
            try:
                value = reply.said.read(shape)
            except BadAnswer as bad:
                entry = reply.stored(reply.said.message.shown, answer_type)
                await self._writer.write(self._keep_unusable, reply, key, bad.reason, entry)
                log.debug("%s: unusable answer (%s)", self.model, bad)
                if bad.reason == "filtered":
                    raise RowFailure("bad request", str(bad), None, attempts) from None
                if again == ASKED_AGAIN:
                    raise RowFailure("answer", str(bad), None, attempts) from None
                messages = asked_again(question.messages, reply.said.message.shown, bad)
                continue
            entry = reply.stored(value.model_dump_json(), answer_type)
            await self._writer.write(self._keep, reply, [(key, entry)])
            cost = None if spent.unpriced else spent.cost_usd
            tokens = {"tokens_in": spent.tokens_in, "tokens_out": spent.tokens_out}
            return _answer(value, replace(entry, **tokens, cost_usd=cost, seconds=seconds))
        raise AssertionError("the last round returns or raises")

    async def _fetch_together(self, batch: Sequence[Asked]) -> None:
        """Ask several questions in one call and store each answer separately; unanswered questions are then asked one by one."""
        left = list(batch)
        if len(batch) > 1:
            try:
                left = await self._ask_together(batch)
            except RowFailure as failure:
                log.debug("%s: a pack of %d failed (%s); asking one by one", self.model, len(batch), failure.message)
            except BaseException as error:
                for asked in batch:
                    asked.answer.set_exception(error)
                return
        await asyncio.gather(*(self._ask_alone(asked) for asked in left))

    async def _ask_together(self, batch: Sequence[Asked]) -> list[Asked]:
        """The questions that got no usable answer from the one call for all."""
        answer_type = batch[0].answer_type
        question = together([asked.question for asked in batch])
        shape = self._packed.get(answer_type)
        if shape is None:
            shape = self._packed[answer_type] = Shape(Together, self._hosted, packed_schema(answer_type))
        reply = await self._call(question.messages, question.sampling, shape)
        try:
            values = taken_apart(reply.said.read(shape), len(batch), answer_type)
        except BadAnswer as bad:
            await self._writer.write(self._book, reply)
            raise RowFailure("answer", str(bad)) from None
        share = reply.share(len(batch))
        found = [(asked, value) for asked, value in zip(batch, values, strict=True) if value is not None]
        entries = [(asked.key, share.stored(value.model_dump_json(), answer_type)) for asked, value in found]
        await self._writer.write(self._keep, reply, entries)
        for asked, value in found:
            asked.answer.set_result(_answer(value, share.entry))
        return [asked for asked, value in zip(batch, values, strict=True) if value is None]

    @contextmanager
    def _together(self) -> Generator[None]:
        """Context manager for one group of writes: the ledger is written after the answers are stored."""
        with ExitStack() as stack:
            for kept in (self.ledger, self.cache):
                if kept is not None:
                    stack.enter_context(kept.together())
            yield

    # The writer stores the answer first and then books its cost, so that a failure of the ledger cannot lose an answer.

    def _keep(self, reply: _Reply, entries: Sequence[tuple[str, Stored]]) -> None:
        try:
            if self.cache is not None and entries:
                self.cache.put(entries)
        finally:
            self._book(reply)

    def _keep_unusable(self, reply: _Reply, key: str, reason: str, entry: Stored) -> None:
        try:
            if self.cache is not None:
                self.cache.put_negative(key, reason, entry)
        finally:
            self._book(reply)

    def _book(self, reply: _Reply) -> None:
        if self.ledger is not None:
            entry = reply.entry
            self.ledger.record(self.stage, self.model, entry.tokens_in, entry.tokens_out, entry.cost_usd)

    async def _ask_alone(self, asked: Asked) -> None:
        try:
            asked.answer.set_result(await self._fetch(asked.key, asked.question, asked.answer_type))
        except BaseException as error:
            asked.answer.set_exception(error)

    # -- calling

    async def _call(self, messages: Messages, sampling: Sampling, shape: Shape[Any]) -> _Reply:
        """Return one answer from the model, with retries after server and network failures; it is not yet stored or booked."""
        transport = self._open()
        tokens_in, audio_in = rough_tokens(messages)
        tokens_out = int(sampling.get("max_tokens", 4096))
        worst_tokens = tokens_in + audio_in + tokens_out
        worst = self._price.of(tokens_in, tokens_out, audio_in) if self._price is not None else 0.0
        attempt = 0
        while True:
            attempt += 1
            started = await self._limiter.enter(worst_tokens, again=attempt > 1)
            reserved = 0.0
            try:
                reserved = await self._budget.reserve(worst)
                self._limiter.check()
            except BaseException:
                self._budget.settle(reserved, 0.0)
                self._limiter.leave(started, NOT_SENT)
                raise
            mode, sent = self._mode, self._parameters.taken(sampling)
            try:
                async with asyncio.timeout(transport.timeout_seconds):
                    asked, response_format = shape.asked(messages, mode)
                    answer = await transport.complete(asked, sent, response_format)
            except (asyncio.CancelledError, LsdataError):
                self._budget.settle(reserved, reserved)
                self._limiter.leave(started, NOT_SENT)
                raise
            except Exception as error:
                call_error = classify(error, secret=transport.secret)
                self._budget.settle(reserved, reserved if call_error.maybe_billed else 0.0)
                if call_error.kind == "auth":
                    # Closed before the slot is released, so that no waiting call starts.
                    self._limiter.close(self._refused_key(call_error))
                self._limiter.leave(started, call_error)
            else:
                cost = self._cost(answer)
                self._budget.settle(reserved, cost or 0.0)
                self._limiter.leave(started, None, answer.tokens_in + answer.tokens_out - worst_tokens)
                return self._reply(answer, cost, time.monotonic() - started, attempt)
            if call_error.kind == "auth":
                raise self._refused_key(call_error) from None
            if call_error.kind == "answer":
                # The model's text that its server refused as invalid JSON: an unusable answer, without reported tokens.
                cost = 0.0 if self._price is not None and self._price.free else None
                said = Completion(Message(call_error.draw), "stop")
                return self._reply(said, cost, time.monotonic() - started, attempt)
            if self._asks_differently(call_error, mode, sent):
                attempt -= 1
                continue
            if call_error.kind == "bad request":
                raise RowFailure("bad request", call_error.message, call_error.status, attempt) from None
            if attempt >= self.settings.max_attempts:
                raise RowFailure("transient", call_error.message, call_error.status, attempt) from None
            delay = retry_delay(attempt, call_error.retry_after, self.settings.retry_cap_seconds, self._rng)
            log.debug("%s: %s; again in %.1f s", self.model, call_error.message, delay)
            await self._limiter.rest(delay)

    def _asks_differently(self, call_error: CallError, mode: Mode, sent: Sampling) -> bool:
        """Leave out the parameter that the server refused; return False if there is none."""
        if call_error.refused is not None and call_error.refused in sent:
            self._parameters.refuse(call_error.refused)
            return True
        return call_error.unstructured and self._step_down(mode)

    def _step_down(self, mode: Mode) -> bool:
        """Switch to the next response format; return False if there is none left."""
        if mode != self._mode:
            return True  # another call has already switched
        step = MODES.index(self._mode) + 1
        if step == len(MODES):
            return False
        self._mode = MODES[step]
        log.warning("%s does not accept %s; using %s instead", self.model, mode, self._mode)
        return True

    def _reply(self, answer: Completion, cost: float | None, seconds: float, attempts: int) -> _Reply:
        spent = answer.tokens_in, answer.tokens_out
        self.usage.add(Usage.of_call(*spent, cost))
        version, how = litellm_version(), answer.finish_reason
        entry = Stored("", self.model, how, *spent, cost, round(seconds, 4), litellm_version=version)
        return _Reply(answer, entry, attempts)

    def _cost(self, answer: Completion) -> float | None:
        if self._engine is not None:
            return answer.cost_usd
        price = self._price
        looked_up = price is not None and not price.free and not price.declared and answer.cost_usd is None
        worked_out = cost_of_usage(self.model, answer.usage) if looked_up else answer.cost_usd
        return answer_cost(price, answer.usage, worked_out)

    # -- what is made once

    def _open(self) -> Transport:
        if self._transport is not None:
            return self._transport
        if self._engine is None:
            self._answerer.check(self.model, self.settings, self._runs)
        self._price = self._price or price_of(self.model, self.settings)
        if self._price is None and self.settings.max_cost is not None:
            raise unknown_price(self.model, self.settings.max_cost)
        self._transport, self._parameters = self._answerer.open(self.model, self.settings, self._runs, self._engine)
        return self._transport

    @property
    def _hosted(self) -> bool:
        """True for a provider's server, which refuses schema keywords that a local server's grammar needs."""
        return kind_of(self.model) is HOSTED and self.settings.api_base is None

    def _shape(self, answer_type: type[T]) -> Shape[T]:
        shape = self._shapes.get(answer_type)
        if shape is None:
            shape = self._shapes[answer_type] = Shape(answer_type, self._hosted)
        return shape

    def _refused_key(self, call_error: CallError) -> MissingError:
        names = self.settings.api_key_env
        if not names and self.settings.api_base is None:
            names = key_names(self.model)
        where = f" at {self.settings.api_base}" if self.settings.api_base else ""
        status = f" ({call_error.status})" if call_error.status else ""
        remedy = (
            f"set {names} to a key that works, in the environment or in .env"
            if names
            else "name the variable that holds the key with --api-key-env NAME"
        )
        if call_error.spent:
            remedy = "add credit or raise the limit with the provider, then run the same command again"
        return MissingError(f"{self.model}{where} refused the call{status}: {call_error.message}", remedy)

    # -- the end

    def drain(self) -> None:
        self._limiter.close()

    async def aclose(self) -> None:
        self._writer.close()
        if self.cache is not None:
            self.cache.close()
        if self.ledger is not None:
            self.ledger.add_cached(self.stage, self.model, self.usage.cached, self.usage.saved_usd)
            self.ledger.close()
        if self._transport is not None:
            await self._transport.aclose()


def _from_cache(stored: Stored, answer_type: type[T]) -> Answer[T] | None:
    """Parse a cached answer; None if a damaged file made it invalid."""
    try:
        value = answer_type.model_validate_json(stored.answer)
    except ValidationError:
        return None
    return _answer(value, stored, cached=True)


def _answer(value: T, entry: Stored, cached: bool = False) -> Answer[T]:
    spent = entry.tokens_in, entry.tokens_out, entry.cost_usd, entry.seconds
    return Answer(value, *spent, entry.finish_reason, cached, entry.model)


def asked_again(messages: Messages, text: str, bad: BadAnswer) -> Messages:
    """Return the question with the unusable answer and its error."""
    if bad.reason == "truncated":
        wish = "It was cut off because it was too long. Answer again, complete and much shorter."
    elif bad.reason == "empty":
        wish = "There was no answer. Answer with the JSON object."
    else:
        wish = (
            f"That answer cannot be used ({bad}). Answer again with the whole corrected JSON object and nothing else."
        )
    said = [{"role": "assistant", "content": text[:8000]}] if text and bad.reason != "truncated" else []
    return [*messages, *said, {"role": "user", "content": wish}]


def rough_tokens(messages: Messages) -> tuple[int, int]:
    """Return an upper estimate of (text tokens, audio tokens) without a tokenizer: three ASCII characters per token,
    one token per byte of other text; 32 tokens per second of the judge's audio, and at least 2000.
    """
    text, audio = 16, 0
    for message in messages:
        content = message["content"]
        for part in content if isinstance(content, list) else [{"text": str(content)}]:
            if "text" in part:
                ascii_bytes = len(part["text"].encode("ascii", "ignore"))
                text += ascii_bytes // 3 + len(part["text"].encode("utf-8", "replace")) - ascii_bytes
            else:
                audio += max(2000, len(str(part)) // 2000)
    return text, audio
