"""The route to a model: its name for LiteLLM, the address, and the key."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import SecretStr

from latentscore.json_search import JsonObject
from latentscore_data.core.base.answerers import kind_of
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.proxies import call_directly, is_loopback
from latentscore_data.core.base.secrets import granted, key_named
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.llm.replies import flatten_message

log = logging.getLogger(__name__)

NO_KEY = "no-key"
"""Sent to a user's server, so that no library uses the provider's key."""

BASE_PROVIDERS = ("openai", "custom_openai", "hosted_vllm", "openrouter", "lm_studio", "llamafile", "litellm_proxy")
"""Prefixes that may be used with ``api_base``, because they only send an explicit key."""


@cache
def load_litellm() -> Any:
    """Import LiteLLM once, with its logging and downloads disabled."""
    # Without these, its import downloads a price list and loads all of .env, including addresses.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    # Its hundreds of thousands of objects are permanent: the garbage collector need not visit them during the import (a quarter of the
    # time) or afterwards.
    collects = gc.isenabled()
    gc.disable()
    try:
        import litellm
    finally:
        gc.freeze()
        if collects:
            gc.enable()
    call_directly()
    litellm.suppress_debug_info = True
    # It would download Llama's and Cohere's tokenizers from the hub, again for each text if the hub does not respond.
    litellm.disable_hf_tokenizer_download = True
    _read_all_messages()
    # Of the parts that it is not used to, which are read all the same.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "openai"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


def _read_all_messages() -> None:
    """Patch LiteLLM to read messages whose fields are lists of parts or objects; otherwise it raises and the answer is lost."""
    from litellm.litellm_core_utils.llm_response_utils import convert_dict_to_response

    read = convert_dict_to_response.extract_reasoning_content

    def read_flat(message: JsonObject) -> Any:
        flatten_message(message)
        return read(message)

    convert_dict_to_response.extract_reasoning_content = read_flat


@dataclass(frozen=True)
class Route:
    """The name for LiteLLM, the address, and the key for it."""

    model: str
    api_base: str | None = None
    api_key: SecretStr | None = None


def route_to(model: str, settings: LLMSettings) -> Route:
    """Return the route for calls of ``model``.

    With an ``api_base``, only the key that ``api_key_env`` names is sent, and to another machine only if a flag or the
    environment names it, so that a settings file from another source cannot send keys away.
    """
    if "://" in model:  # some LiteLLM providers accept an address here, which would bypass the checks of api_base
        raise InputError(f"{model} contains an address", "give the address with --api-base URL")
    if settings.api_base is None:
        if settings.api_key_env:
            raise InputError(
                f"the key in {settings.api_key_env} is for your own server, but there is no api_base",
                "give --api-base URL, or leave --api-key-env out and set the provider's own variable (NAME_API_KEY)",
            )
        return Route(model)
    prefix = model.split("/", 1)[0]
    if prefix not in BASE_PROVIDERS:
        if "/" in model and prefix in {str(getattr(p, "value", p)) for p in load_litellm().provider_list}:
            raise InputError(
                f"{model} cannot be sent to api_base {settings.api_base}: calls through {prefix} carry its own credentials",
                f"name the model with one of these prefixes: {', '.join(BASE_PROVIDERS)}",
            )
        model = f"hosted_vllm/{model}"
    if not settings.api_key_env:
        return Route(model, settings.api_base, SecretStr(NO_KEY))
    if not is_loopback(settings.api_base) and not granted(settings.api_key_env):
        raise InputError(
            f"the settings file requests sending the key in {settings.api_key_env} to {settings.api_base}",
            f"to allow this, pass --api-key-env {settings.api_key_env} "
            f"or LSDATA_LLM__API_KEY_ENV={settings.api_key_env}",
        )
    return Route(model, settings.api_base, key_named(settings.api_key_env))


def check_route(model: str, settings: LLMSettings) -> None:
    """Raise the error that would prevent the first call: an unknown name, a missing key. Uses no network."""
    if kind_of(model).here:
        return
    route = route_to(model, settings)
    litellm = load_litellm()
    try:
        litellm.get_llm_provider(route.model)
    except Exception:
        raise InputError(
            f"no provider is known for the model {model}",
            "write it as provider/model (openai/..., anthropic/..., ollama/...), or give --api-base",
        ) from None
    if route.api_base is None and route.api_key is None:
        found = litellm.validate_environment(route.model)
        if not found["keys_in_environment"] and found["missing_keys"]:
            names = " and ".join(found["missing_keys"])
            raise MissingError(f"{model} needs {names}", "put it into the environment or into .env (NAME=...)")


def key_names(model: str) -> str:
    named = f"{model.split('/', 1)[0].upper()}_API_KEY" if "/" in model else ""
    try:
        return " and ".join(load_litellm().validate_environment(model)["missing_keys"]) or named
    except Exception as error:
        log.debug("no key name known for %s: %s", model, type(error).__name__)
        return ""
