"""Servers with OpenAI's protocol: address, headers and body of a request, as LiteLLM would send them."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from latentscore.json_search import JsonObject
from latentscore_data.core.base.names import json_bytes
from latentscore_data.core.base.proxies import proxy_for
from latentscore_data.core.llm.routes import BASE_PROVIDERS, Route, load_litellm
from latentscore_data.core.llm.types import Messages, Sampling

_HOSTED = {
    "openai": ("https://api.openai.com/v1", ("OPENAI_BASE_URL", "OPENAI_API_BASE"), ("OPENAI_API_KEY",)),
    "openrouter": (
        "https://openrouter.ai/api/v1",
        ("OPENROUTER_API_BASE",),
        ("OPENROUTER_API_KEY", "OR_API_KEY"),
    ),
}
"""By provider: its address, and the environment variables for another address and for the key."""

_PATH = "/chat/completions"


class Endpoint:
    """One model at one address. ``own`` is true for a server that the user named, which gets no organization headers."""

    def __init__(self, provider: str, model: str, base: str, key: SecretStr | None, *, own: bool) -> None:
        litellm = load_litellm()
        self.provider = provider
        self.url = _with_path(base)
        self.key = key
        self.headers = _headers(provider, key, own)
        self._model = model
        self._optional_params = litellm.utils.get_optional_params
        self._config = litellm.utils.ProviderConfigManager.get_provider_chat_config(
            model, litellm.types.utils.LlmProviders(provider)
        )
        self._given = {"custom_llm_provider": provider, "api_base": base}
        self._mapped: dict[Any, tuple[Any, JsonObject]] = {}

    def body(self, messages: Messages, sampling: Sampling, response_format: JsonObject | None) -> bytes:
        """Return the request as JSON. Raises LiteLLM's ``UnsupportedParamsError`` for parameters that the model does not
        accept."""
        made = self._config.transform_request(
            model=self._model,
            messages=[{**message} for message in messages],  # LiteLLM modifies them
            optional_params={**self._parameters(sampling, response_format)},
            litellm_params=self._given,
            headers={},
        )
        made.update(made.pop("extra_body", None) or {})
        made.pop("stream", None)
        return json_bytes(made)

    def _parameters(self, sampling: Sampling, response_format: JsonObject | None) -> JsonObject:
        """Return the parameters under the provider's names, computed once for all seeds."""
        key = (id(response_format), *((name, value if name != "seed" else None) for name, value in sampling.items()))
        if key not in self._mapped:
            shape = {} if response_format is None else {"response_format": response_format}
            made = self._optional_params(model=self._model, custom_llm_provider=self.provider, **sampling, **shape)
            made.pop("max_retries", None)
            self._mapped[key] = response_format, made  # the format is kept, so that its id stays its own
        made = self._mapped[key][1]
        return {**made, "seed": sampling["seed"]} if "seed" in made else made


def endpoint_of(route: Route) -> Endpoint | None:
    """Return the endpoint of a route, or None if LiteLLM must send the requests."""
    litellm = load_litellm()
    model, provider, key, base = litellm.get_llm_provider(
        route.model,
        api_base=route.api_base,
        api_key=route.api_key.get_secret_value() if route.api_key is not None else None,
    )
    if provider not in BASE_PROVIDERS or _uses_responses(litellm, provider, model):
        return None
    if route.api_base is None and provider in _HOSTED:
        default, addresses, keys = _HOSTED[provider]
        base, key = _first(*addresses) or default, _first(*keys)
    if not base or ((base_proxy := proxy_for(base)) and not base_proxy.startswith("http")):
        return None  # aiohttp does not support SOCKS
    return Endpoint(provider, model, base, SecretStr(key) if key else None, own=route.api_base is not None)


def _uses_responses(litellm: Any, provider: str, model: str) -> bool:
    """True for a model that OpenAI serves under another protocol, which LiteLLM translates."""
    entry = litellm.model_cost.get(model) or litellm.model_cost.get(f"{provider}/{model}") or {}
    return provider == "openai" and (model.startswith("responses/") or entry.get("mode") == "responses")


def _headers(provider: str, key: SecretStr | None, own: bool) -> dict[str, str]:
    made = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": f"latentscore-data/{version('latentscore-data')}",
    }
    if key is not None:
        made["Authorization"] = f"Bearer {key.get_secret_value()}"
    if provider == "openai" and not own:
        made["OpenAI-Organization"] = _first("OPENAI_ORGANIZATION", "OPENAI_ORG_ID")
        made["OpenAI-Project"] = _first("OPENAI_PROJECT_ID")
    if provider == "openrouter" and not own:
        made["HTTP-Referer"] = _first("OR_SITE_URL")
        made["X-Title"] = _first("OR_APP_NAME") or "latentscore-data"
    return {name: value for name, value in made.items() if value}


def _with_path(base: str) -> str:
    """Return the address for chat completions, derived from ``api_base`` as in LiteLLM; a query stays at the end."""
    parts = urlsplit(base)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(_PATH) else path + _PATH))


def _first(*names: str) -> str:
    """Return the value of the first of these variables that is set, or an empty text."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")
