"""Conversion of a question to a line of a provider batch, and of a result line to the response of a direct call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, cast

from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.secrets import key_named
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.llm.batches.remote import (
    AnthropicBatches,
    AzureBatches,
    OpenAIBatches,
    Remote,
    TogetherBatches,
)
from latentscore_data.core.llm.parameters import Parameters
from latentscore_data.core.llm.replies import read_completion
from latentscore_data.core.llm.retry import CallError
from latentscore_data.core.llm.routes import load_litellm, route_to
from latentscore_data.core.llm.structured import MODES, Mode, Shape
from latentscore_data.core.llm.transport import Completion
from latentscore_data.core.llm.types import Messages, Sampling

BATCH_KEYS = {
    "openai": "OPENAI_API_KEY",
    "azure": "AZURE_API_KEY",
    "groq": "GROQ_API_KEY",
    "together_ai": "TOGETHERAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
}
"""Providers whose batch API is used at their own address, with the variable of the key."""
_CLIENTS = {"azure": AzureBatches, "together_ai": TogetherBatches}
"""Providers that deviate from OpenAI's protocol."""
_OPENAI_ADDRESS = "OPENAI_API_BASE"
"""LiteLLM's variable for another address; OpenAI's library itself reads ``OPENAI_BASE_URL``."""
_AZURE_ADDRESS = "AZURE_API_BASE"
_OF_LITELLM = frozenset({"stream", "extra_body", "max_retries", "fake_stream", "json_mode"})
"""Parameters that LiteLLM uses internally and does not send."""
_ANTHROPIC_ADDRESSES = ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL")

Protocol = Literal["openai", "anthropic"]


def check_batch(model: str, settings: LLMSettings) -> Protocol:
    """Return the protocol of a model's batch API. Raises :class:`InputError` for a model without a supported one."""
    if settings.api_base is not None:
        return "openai"
    provider = _split(model, settings)[1]
    if provider not in BATCH_KEYS:
        raise InputError(
            f"{model} cannot be used with batches: {provider} has no batch API that lsdata supports",
            f"leave --batch out, name a model of {', '.join(BATCH_KEYS)}, or give the address of a server that supports "
            "OpenAI's files and batches with --api-base",
        )
    return "anthropic" if provider == "anthropic" else "openai"


def _split(model: str, settings: LLMSettings) -> tuple[str, str, str | None]:
    """(bare name, provider, address) as LiteLLM knows them."""
    route = route_to(model, settings)
    bare, provider, _, base = load_litellm().get_llm_provider(route.model, api_base=route.api_base)
    return bare, provider, route.api_base or base


class Wording:
    """Builds the lines for one model and reads the results, as LiteLLM does for a direct call."""

    def __init__(self, model: str, settings: LLMSettings, refused: Sequence[str]) -> None:
        self.protocol = check_batch(model, settings)
        self._settings = settings
        self._litellm = load_litellm()
        self._model, self._provider, self._base = _split(model, settings)
        self._parameters = Parameters(model, route_to(model, settings))
        self._mode: Mode = MODES[0]
        self._betas: list[str] = []
        self._refused: set[str] = set()
        for one in refused:
            self.refuse(one)

    def refuse(self, refused: str) -> None:
        """Leave out a sampling parameter or a response format that the server refused before."""
        self._refused.add(refused)
        if refused in MODES:
            step = MODES.index(cast(Mode, refused)) + 1
            self._mode = MODES[max(MODES.index(self._mode), min(step, len(MODES) - 1))]
        else:
            self._parameters.refuse(refused)

    def learned(self, error: CallError) -> str | None:
        """Return the parameter or format to leave out after a refusal; None if there is none."""
        if error.refused is not None:
            return error.refused
        return self._mode if error.unstructured and self._mode != MODES[-1] else None

    def knows(self, refused: str) -> bool:
        """Return True if it is already left out."""
        return refused in self._refused

    def body(self, messages: Messages, sampling: Sampling, shape: Shape[Any]) -> JsonObject:
        """The body that a direct call would send."""
        given: JsonObject = {**self._parameters.taken(sampling)}
        messages, response_format = shape.asked(messages, self._mode)
        if response_format is not None:
            given["response_format"] = response_format
        options = self._litellm.utils.get_optional_params(self._model, custom_llm_provider=self._provider, **given)
        if self.protocol == "anthropic":
            return self._anthropic_body(messages, options)
        named = {name: value for name, value in options.items() if name not in _OF_LITELLM}
        return {"model": self._model, "messages": messages, **named}

    def _anthropic_body(self, messages: Messages, options: JsonObject) -> JsonObject:
        config = self._litellm.AnthropicConfig()
        beta = config.update_headers_with_optional_anthropic_beta({}, options).get("anthropic-beta")
        if beta and beta not in self._betas:
            self._betas.append(beta)
        body = config.transform_request(
            model=self._model, messages=messages, optional_params=options, litellm_params={}, headers={}
        )
        return {name: value for name, value in body.items() if name != "json_mode"}

    def completion(self, body: JsonObject) -> Completion:
        """What a direct call makes of the body of an answer. Raises :class:`ValueError` for a body that is none."""
        import httpx

        try:
            if self.protocol == "openai":
                return Completion(*read_completion(body))
            response = self._litellm.AnthropicConfig().transform_parsed_response(
                completion_response=body,
                raw_response=httpx.Response(200, json=body, request=httpx.Request("POST", "http://batch")),
                model_response=self._litellm.ModelResponse(),
                json_mode=True,
            )
            return Completion.of_litellm(response)
        except Exception as error:  # LiteLLM raises various exceptions for invalid bodies
            raise ValueError(f"not a chat completion ({type(error).__name__})") from None

    def remote(self) -> Remote:
        """The provider's batch API. Raises :class:`MissingError` for a key that is not set."""
        timeout = max(self._settings.timeout_seconds, 60.0)
        if self.protocol == "anthropic":
            base = next((found for name in _ANTHROPIC_ADDRESSES if (found := os.environ.get(name))), None)
            return AnthropicBatches(self._key(), base, timeout, self._betas)
        if self._settings.api_base is not None:
            return OpenAIBatches(self._key(), self._base, timeout)
        return _CLIENTS.get(self._provider, OpenAIBatches)(self._key(), self._address(), timeout)

    def _address(self) -> str | None:
        """Return the address of the provider's files and batches; None for the default of OpenAI's library."""
        if self._provider == "openai":
            return self._base or os.environ.get(_OPENAI_ADDRESS)
        if self._provider != "azure":
            return self._base
        resource = os.environ.get(_AZURE_ADDRESS, "").rstrip("/")
        if not resource:
            raise MissingError(f"azure needs {_AZURE_ADDRESS}", "put the address of the resource into the environment")
        return resource if resource.endswith("/v1") else f"{resource.removesuffix('/openai')}/openai/v1"

    def _key(self) -> str:
        if self._settings.api_base is not None:
            key = route_to(f"hosted_vllm/{self._model}", self._settings).api_key
            return key.get_secret_value() if key is not None else ""
        variable = BATCH_KEYS[self._provider]
        if not os.environ.get(variable):
            raise MissingError(
                f"{self._provider} needs {variable}", "put it into the environment or into .env (NAME=...)"
            )
        return key_named(variable).get_secret_value()
