"""Transports to model servers: an HTTP session for OpenAI's protocol, LiteLLM for all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import SecretStr

from latentscore.json_search import JsonObject
from latentscore_data.core.llm.endpoints import Endpoint, endpoint_of
from latentscore_data.core.llm.http_session import HTTPSession
from latentscore_data.core.llm.prices import reported_cost
from latentscore_data.core.llm.replies import Message, read_completion, read_message, whole
from latentscore_data.core.llm.routes import Route, load_litellm
from latentscore_data.core.llm.structured import Shape
from latentscore_data.core.llm.types import Messages, Sampling, T


@dataclass(frozen=True)
class Completion:
    """A server's answer before parsing. ``cost_usd`` is None if neither the server nor LiteLLM gives a cost."""

    message: Message
    finish_reason: str
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cost_usd: float | None = None

    @classmethod
    def of_litellm(cls, response: Any) -> Completion:
        """LiteLLM's object for an answer, which has cached and reasoning tokens at their own prices."""
        usage = getattr(response, "usage", None)
        choice = response.choices[0] if response.choices else None
        cost = getattr(response, "_hidden_params", {}).get("response_cost")
        return cls(
            read_message(choice.message if choice is not None else None),
            str(choice.finish_reason or "stop") if choice is not None else "stop",
            usage.model_dump() if usage is not None else {},
            float(cost) if cost else None,
        )

    def read(self, shape: Shape[T]) -> T:
        """The object in the answer. Raises :class:`BadAnswer`."""
        said = self.message
        return shape.read(said.text, self.finish_reason, said.thoughts, said.calls)

    @property
    def tokens_in(self) -> int:
        return whole(self.usage.get("prompt_tokens"))

    @property
    def tokens_out(self) -> int:
        return whole(self.usage.get("completion_tokens"))


class Transport(Protocol):
    """Sends one request and returns the response, without retries."""

    @property
    def secret(self) -> SecretStr | None:
        """The key of the requests, which must not appear in messages."""
        ...

    @property
    def timeout_seconds(self) -> float | None:
        """Time-out of a call in seconds; None for local models."""
        ...

    async def complete(self, messages: Messages, sampling: Sampling, response_format: JsonObject | None) -> Completion:
        """Return one chat completion. Raises exceptions that :func:`~latentscore_data.core.llm.retry.classify` classifies."""
        ...

    async def aclose(self) -> None:
        """Close the connections, in the event loop of the calls."""


def transport_for(route: Route, *, marks_prompt: bool, timeout_seconds: float, connections: int) -> Transport:
    """The transport of a route.

    ``marks_prompt`` marks the system message for providers that cache prompts on request; ``connections`` is the
    maximum number of open connections.
    """
    endpoint = endpoint_of(route)
    if endpoint is None:
        return LiteLLMTransport(route, marks_prompt, timeout_seconds)
    return OpenAITransport(endpoint, marks_prompt, timeout_seconds, connections)


class OpenAITransport:
    """OpenAI's protocol over one session. LiteLLM only builds the body for the provider."""

    def __init__(self, endpoint: Endpoint, marks_prompt: bool, timeout_seconds: float, connections: int) -> None:
        self.secret = endpoint.key
        self.timeout_seconds = timeout_seconds
        self._endpoint = endpoint
        self._marks_prompt = marks_prompt
        self._session = HTTPSession(endpoint.url, endpoint.headers, connections)

    async def complete(self, messages: Messages, sampling: Sampling, response_format: JsonObject | None) -> Completion:
        if self._marks_prompt:
            messages = [{**messages[0], "cache_control": {"type": "ephemeral"}}, *messages[1:]]
        answer = await self._session.post(self._endpoint.body(messages, sampling, response_format))
        message, finish_reason, usage = read_completion(answer)
        # OpenRouter tells the cost with each answer.
        cost = reported_cost(usage) if self._endpoint.provider == "openrouter" else None
        return Completion(message, finish_reason, usage, cost)

    async def aclose(self) -> None:
        await self._session.aclose()


class LiteLLMTransport:
    """The transport for all providers of LiteLLM."""

    def __init__(self, route: Route, marks_prompt: bool, timeout_seconds: float) -> None:
        self.secret = route.api_key
        self._model = route.model
        self.timeout_seconds = timeout_seconds
        self._extra: JsonObject = {}
        if route.api_base is not None:
            self._extra["api_base"] = route.api_base
        if route.api_key is not None:
            self._extra["api_key"] = route.api_key.get_secret_value()
        if marks_prompt:
            self._extra["cache_control_injection_points"] = [{"location": "message", "role": "system"}]

    async def complete(self, messages: Messages, sampling: Sampling, response_format: JsonObject | None) -> Completion:
        shape = {} if response_format is None else {"response_format": response_format}
        response = await load_litellm().acompletion(
            model=self._model,
            messages=messages,
            timeout=self.timeout_seconds,
            num_retries=0,
            max_retries=0,
            **sampling,
            **shape,
            **self._extra,
        )
        return Completion.of_litellm(response)

    async def aclose(self) -> None:
        await load_litellm().close_litellm_async_clients()
