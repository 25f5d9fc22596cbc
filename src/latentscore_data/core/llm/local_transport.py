"""Transport to a local model: collects questions into batches and answers them in a separate thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from latentscore.api.answers import payload_text
from latentscore.config import MusicConfigPromptPayload
from latentscore.decoding import Prompt, Written
from latentscore.forms import JSON, Grammar, form_of
from latentscore.prompt import vibe_of
from latentscore_data.core.base.answerers import LOCAL
from latentscore_data.core.base.errors import InputError, LsdataError
from latentscore_data.core.llm.replies import Message
from latentscore_data.core.llm.transport import Completion
from latentscore_data.core.llm.types import Messages
from latentscore_data.core.models.engines import Engine, engine_for
from latentscore_data.core.models.local_names import place_of

MAX_TOKENS = 4096
"""Default maximum length of an answer, in tokens."""

GATHER_SECONDS = 0.25
"""Seconds that the first question of a batch waits for others if the model runs on another machine."""

Waiting = tuple[Prompt, "asyncio.Future[Written]"]


class LocalTransport:
    """The transport of one local model. Questions that arrive during a batch form the next batch."""

    secret = None
    timeout_seconds = None
    """None, because a question may wait for many batches, and there is no remote server that could hang."""

    def __init__(self, model: str, runs: Path, at_once: int, engine: Engine | None = None) -> None:
        """``engine`` runs the model on another machine; without it the model is loaded here."""
        self._stopped = threading.Event()
        self._engine = engine or engine_for(
            model.removeprefix(LOCAL.prefix), runs, f"answers of {model}", self._stopped
        )
        self._model = model
        self._form = form_of(place_of(model.removeprefix(LOCAL.prefix), runs))
        # Wait for questions that arrive at the same time, so that a remote machine is not started for a single
        # question.
        self._gather_seconds = GATHER_SECONDS if engine is not None else 0.0
        self._at_once = at_once
        self._waiting: list[Waiting] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decoding")
        self._decoding: asyncio.Task[None] | None = None

    async def complete(
        self, messages: Messages, sampling: dict[str, Any], response_format: dict[str, Any] | None
    ) -> Completion:
        """Return one answer as JSON; a line of labels is converted to a payload.

        Raises :class:`LsdataError` if the model cannot be loaded or was not trained for such a question.
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
        text = payload_text(self._form, written.text, vibe_of(str(messages[-1]["content"])))
        usage = {"prompt_tokens": written.tokens_in, "completion_tokens": written.tokens_out}
        return Completion(Message(text), "length" if written.cut else "stop", usage, written.cost_usd)

    def _asked(self, messages: Messages, response_format: dict[str, Any] | None) -> tuple[Messages, Grammar | None]:
        """Return the messages and the grammar for the model's answer format; unchanged for JSON."""
        named = (response_format or {}).get("json_schema")
        of_payload = named is not None and named["name"] == MusicConfigPromptPayload.__name__
        if self._form.name == JSON.name:
            return messages, self._form.grammar() if of_payload else named and named["schema"]
        if named is not None and not of_payload:
            raise InputError(
                f"{self._model} was trained to answer a vibe with labels, but the request is for {named['name']}",
                "use it for configs, one vibe per call (--vibes-per-call 1)",
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
        """Return the next batch: prompts with the same grammar and maximum length, in the order of arrival."""
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
                f"{len(prompts)} questions at once exceed the memory",
                "lower --max-concurrency, or use a smaller model",
            ) from error

    async def aclose(self) -> None:
        """Stop a batch that is being decoded, which nobody waits for any more."""
        self._stopped.set()
        if self._decoding is not None and not self._decoding.done():
            self._decoding.cancel()
        self._thread.shutdown()


def _kind(prompt: Prompt) -> tuple[int, int]:
    return prompt.max_tokens, id(prompt.grammar)
