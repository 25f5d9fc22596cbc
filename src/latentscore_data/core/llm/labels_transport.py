"""Transport to a served model that was trained to answer a vibe with a line of labels."""

from __future__ import annotations

from dataclasses import replace

from latentscore.api.answers import line_to_json
from latentscore.config import MusicConfigPromptPayload
from latentscore.forms import LABELS, LABELS_MOST_TOKENS
from latentscore.json_search import JsonObject
from latentscore.prompt import config_system, vibe_of
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.llm.replies import Message
from latentscore_data.core.llm.transport import Completion, Transport
from latentscore_data.core.llm.types import Messages, Sampling


class LabelsTransport:
    """Asks through another transport with the prompt of the training, and converts the line to a payload.

    A user's system message (``prompts.system``) is sent unchanged.
    """

    def __init__(self, model: str, inner: Transport) -> None:
        self.secret, self.timeout_seconds = inner.secret, inner.timeout_seconds
        self._model, self._inner = model, inner

    async def complete(self, messages: Messages, sampling: Sampling, response_format: JsonObject | None) -> Completion:
        """Return one answer, as JSON if the model wrote a complete line of labels. Raises :class:`InputError` for another
        question."""
        named = (response_format or {}).get("json_schema")
        if named is None or named["name"] != MusicConfigPromptPayload.__name__:
            raise InputError(
                f"{self._model} answers a vibe with labels (llm.labels), but another answer was requested",
                "use it for configs, one vibe per call (--vibes-per-call 1)",
            )
        system, question = messages[
            :2
        ]  # later messages repeat the question in a form that such a model was not trained on
        if system["content"] == config_system():
            system = {**system, "content": LABELS.system()}
        # No grammar is sent, because servers have different parameters for it; llama.cpp's takes the exported one with
        # --grammar-file. Without one, a model that was hardly trained writes until its room ends, so it gets no more
        # than a line needs.
        room = sampling.get("max_tokens") or LABELS_MOST_TOKENS
        sampling = {**sampling, "max_tokens": min(room, LABELS_MOST_TOKENS)}
        answer = await self._inner.complete([system, question], sampling, None)
        text = line_to_json((answer.message.text or "").strip(), vibe_of(str(question["content"])))
        return replace(answer, message=Message(text))

    async def aclose(self) -> None:
        await self._inner.aclose()
