"""Questions to a served model that learned to answer a vibe with a line of labels."""

from __future__ import annotations

from dataclasses import replace

from latentscore.config import MusicConfigPromptPayload
from latentscore.forms import LABELS, LABELS_MOST_TOKENS
from latentscore.json_search import JsonObject
from latentscore.prompt import config_system, vibe_of
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.llm.replies import Message
from latentscore_data.core.llm.transport import Completion, Transport
from latentscore_data.core.llm.types import Messages, Sampling


class LabelsTransport:
    """Asks another transport as such a model was trained to be asked, and expands its line to the payload.

    A system message of the user's own (``prompts.system``) is sent as it is.
    """

    def __init__(self, model: str, inner: Transport) -> None:
        self.secret, self.timeout_seconds = inner.secret, inner.timeout_seconds
        self._model, self._inner = model, inner

    async def complete(self, messages: Messages, sampling: Sampling, response_format: JsonObject | None) -> Completion:
        """One answer, as JSON where the model wrote a whole line of labels. Raises :class:`InputError` for another question."""
        named = (response_format or {}).get("json_schema")
        if named is None or named["name"] != MusicConfigPromptPayload.__name__:
            raise InputError(
                f"{self._model} answers a vibe with labels (llm.labels), and is asked for another thing",
                "ask it for configs, one vibe in a call (--vibes-per-call 1)",
            )
        system, question = messages[:2]  # what follows asks again, in words that such a model never saw
        if system["content"] == config_system():
            system = {**system, "content": LABELS.system()}
        # No grammar is sent: servers spell that differently. llama.cpp's takes the exported one with --grammar-file.
        # Without one, a model that was hardly trained writes until its room ends, so it gets no more than a line needs.
        room = sampling.get("max_tokens") or LABELS_MOST_TOKENS
        sampling = {**sampling, "max_tokens": min(room, LABELS_MOST_TOKENS)}
        answer = await self._inner.complete([system, question], sampling, None)
        text = LABELS.to_json((answer.message.text or "").strip(), vibe_of(str(question["content"])))
        return replace(answer, message=Message(text))

    async def aclose(self) -> None:
        await self._inner.aclose()
