"""A hosted model through LiteLLM, asked for one config: ``model="litellm:PROVIDER/MODEL"``.

``lsdata configs`` asks many questions with a cache, a plan and a cap; this asks one, which costs what one answer costs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from latentscore.config import MusicConfigPromptPayload, parse_payload
from latentscore.errors import InvalidConfigError, ModelError
from latentscore.prompt import config_system, vibe_message

ATTEMPTS = 2
"""A second question, which names the fault, goes to a model whose first answer cannot be used."""
TIMEOUT_SECONDS = 120
REASON_CHARS = 300


def ask_hosted(name: str, text: str) -> MusicConfigPromptPayload:
    """The payload with which a LiteLLM model answers a text. Raises :class:`ModelError`."""
    # Otherwise LiteLLM fetches its price list when it is imported.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        import litellm
    except ImportError:
        raise ModelError(f"asking {name} needs litellm: pip install litellm") from None
    litellm.suppress_debug_info = True
    messages: list[dict[str, str]] = [
        {"role": "system", "content": config_system()},
        {"role": "user", "content": vibe_message(text)},
    ]
    fault = "it said nothing"
    for _ in range(ATTEMPTS):
        try:
            reply: Any = litellm.completion(name, messages, timeout=TIMEOUT_SECONDS, max_retries=2, drop_params=True)
        except Exception as error:  # each provider has its own kinds
            raise ModelError(f"{name} could not be asked: {_shown(error)}") from None
        said = str(reply.choices[0].message.content or "") if reply.choices else ""
        try:
            return read_payload(said)
        except InvalidConfigError as error:
            fault = str(error)
        messages += [
            {"role": "assistant", "content": said},
            {
                "role": "user",
                "content": f"This cannot be used ({fault}). Answer with the whole JSON object, corrected.",
            },
        ]
    raise ModelError(f"{name} gave no usable answer: {fault}")


def read_payload(said: str) -> MusicConfigPromptPayload:
    """The first payload in what a model said. Raises :class:`InvalidConfigError` with the fault of the best try."""
    fault = InvalidConfigError("answer", "it holds no JSON object")
    for value in _objects(said):
        try:
            return parse_payload(value)
        except InvalidConfigError as error:
            fault = error
    raise fault


def _objects(said: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder(strict=False)
    at = said.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(said, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield value
        at = said.find("{", end)


def _shown(error: Exception) -> str:
    """The error in one line, without the values of variables that hold keys."""
    line = f"{type(error).__name__}: {' '.join(str(error).split())}"
    for name, value in os.environ.items():
        if name.endswith(("_KEY", "_TOKEN", "_SECRET")) and len(value) > 3:
            line = line.replace(value, f"${name}")
    return line[:REASON_CHARS]
