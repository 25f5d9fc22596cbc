"""Questions to a local model: gathered into batches, answered in a thread of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from latentscore.config import MusicConfigPromptPayload
from latentscore.decoding import Prompt, Written
from latentscore.forms import JSON, Grammar, form_of
from latentscore.prompt import vibe_of
from latentscore_data.core.base.answerers import LOCAL
from latentscore_data.core.base.errors import InputError, LsdataError
from latentscore_data.core.llm.local.engines import Engine, engine_for
from latentscore_data.core.llm.local.names import place_of
from latentscore_data.core.llm.replies import Message
from latentscore_data.core.llm.transport import Completion, Messages

MAX_TOKENS = 4096
"""How long an answer may be where the question does not say."""

GATHER_SECONDS = 0.25
"""How long the first question of a batch waits for others where the model runs elsewhere."""

Waiting = tuple[Prompt, "asyncio.Future[Written]"]


class LocalTransport:
    """Answers of one local model. Whatever has come while a batch was decoded is the next one."""

    secret = None
    timeout_seconds = None
    """A question may wait for many batches: there is no remote server that could hang."""

    def __init__(self, model: str, runs: Path, at_once: int, engine: Engine | None = None) -> None:
        """``engine`` answers elsewhere; without one the model is loaded here."""
        self._engine = engine or engine_for(model.removeprefix(LOCAL.prefix), runs, f"answers of {model}")
        self._model = model
        self._form = form_of(place_of(model.removeprefix(LOCAL.prefix), runs))
        # Those who ask in the same moment come along; a machine elsewhere is not started for one question.
        self._gather_seconds = GATHER_SECONDS if engine is not None else 0.0
        self._at_once = at_once
        self._waiting: list[Waiting] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decoding")
        self._decoding: asyncio.Task[None] | None = None

    async def complete(
        self, messages: Messages, sampling: dict[str, Any], response_format: dict[str, Any] | None
    ) -> Completion:
        """One answer, always as JSON: that of a model which writes labels is expanded to the payload.

        Raises :class:`LsdataError` where the model cannot be loaded or was not trained to answer such a question.
        """
        asked, grammar = self._asked(messages, response_format)
        prompt = Prompt(
            asked,
            sampling.get("max_tokens") or MAX_TOKENS,
            grammar,
            sampling.get("temperature") or 0.0,
            sampling.get("top_p") or 1.0,
            sampling.get("seed") or 0,
            self._form.openings,
        )
        answer: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._waiting.append((prompt, answer))
        if self._decoding is None or self._decoding.done():
            self._decoding = asyncio.create_task(self._decode())
        written = await answer
        text = self._form.to_json(written.text, vibe_of(str(messages[-1]["content"])))
        usage = {"prompt_tokens": written.tokens_in, "completion_tokens": written.tokens_out}
        return Completion(Message(text), "length" if written.cut else "stop", usage, written.cost_usd)

    def _asked(self, messages: Messages, response_format: dict[str, Any] | None) -> tuple[Messages, Grammar | None]:
        """The messages and the grammar with which the model is asked: those of its form, or as they came for JSON."""
        named = (response_format or {}).get("json_schema")
        of_payload = named is not None and named["name"] == MusicConfigPromptPayload.__name__
        if self._form.name == JSON.name:
            return messages, self._form.grammar() if of_payload else named and named["schema"]
        if named is not None and not of_payload:
            raise InputError(
                f"{self._model} was trained to answer a vibe with labels, and is asked for {named['name']}",
                "ask it for configs, one vibe in a call (--vibes-per-call 1)",
            )
        return [{"role": "system", "content": self._form.system()}, messages[-1]], self._form.grammar()

    async def _decode(self) -> None:
        await asyncio.sleep(self._gather_seconds)
        while batch := self._next():
            prompts = [prompt for prompt, _ in batch]
            try:
                written = await asyncio.get_running_loop().run_in_executor(self._thread, self._write, prompts)
            except Exception as error:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), one in zip(batch, written, strict=True):
                if not answer.done():
                    answer.set_result(one)

    def _next(self) -> list[Waiting]:
        """The next batch: prompts that share grammar and length, in the order in which they came."""
        self._waiting = [waiting for waiting in self._waiting if not waiting[1].done()]
        alike = [w for w in self._waiting if _kind(w[0]) == _kind(self._waiting[0][0])][: self._at_once]
        taken = {id(waiting) for waiting in alike}
        self._waiting = [waiting for waiting in self._waiting if id(waiting) not in taken]
        return alike

    def _write(self, prompts: Sequence[Prompt]) -> list[Written]:
        try:
            return self._engine.write(prompts)
        except LsdataError:
            raise
        except Exception as error:
            if "out of memory" not in str(error):
                raise
            raise InputError(
                f"{len(prompts)} questions at once do not fit into memory",
                "ask fewer at once with --max-concurrency, or take a smaller model",
            ) from error

    async def aclose(self) -> None:
        """Wait for the batch that is being decoded."""
        if self._decoding is not None and not self._decoding.done():
            self._decoding.cancel()
        self._thread.shutdown()


def _kind(prompt: Prompt) -> tuple[int, int]:
    return prompt.max_tokens, id(prompt.grammar)
