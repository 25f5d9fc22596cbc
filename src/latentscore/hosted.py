"""Ask a hosted model for one config through LiteLLM: ``model="litellm:PROVIDER/MODEL"``.

For many questions use ``lsdata configs``, which has a cache, a cost estimate and a cap.
"""

from __future__ import annotations

import os
from typing import Any

from latentscore.config import MusicConfigPromptPayload, parse_payload
from latentscore.errors import InvalidConfigError, ModelError
from latentscore.json_search import search
from latentscore.prompt import config_system, vibe_message

ATTEMPTS = 2
"""If the first answer is unusable, a second question names the error."""
TIMEOUT_SECONDS = 120
REASON_CHARS = 300


def ask_hosted(name: str, text: str) -> MusicConfigPromptPayload:
    """Return the payload with which a LiteLLM model answers a text. Raises :class:`ModelError`."""
    # Prevents LiteLLM from downloading its price list when it is imported.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        import litellm
    except ImportError:
        raise ModelError(f"{name} needs litellm: pip install litellm") from None
    litellm.suppress_debug_info = True
    messages: list[dict[str, str]] = [
        {"role": "system", "content": config_system()},
        {"role": "user", "content": vibe_message(text)},
    ]
    fault = "the answer was empty"
    for _ in range(ATTEMPTS):
        try:
            reply: Any = litellm.completion(name, messages, timeout=TIMEOUT_SECONDS, max_retries=2, drop_params=True)
        except Exception as error:  # each provider has its own exception types
            raise ModelError(f"the call of {name} failed: {_shown(error)}") from None
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
    """Return the most likely payload in a model's reply. Raises :class:`InvalidConfigError` with the error of the most
    likely object."""
    fault: InvalidConfigError | None = None
    found = search(said)
    for one in (*found.said, *found.thoughts):
        try:
            return parse_payload(one.value)
        except InvalidConfigError as error:
            fault = fault or error
    raise fault or InvalidConfigError("answer", "it contains no JSON object")


def _shown(error: Exception) -> str:
    """Return the error in one line, without the values of environment variables that hold keys."""
    line = f"{type(error).__name__}: {' '.join(str(error).split())}"
    for name, value in os.environ.items():
        if name.endswith(("_KEY", "_TOKEN", "_SECRET")) and len(value) > 3:
            line = line.replace(value, f"${name}")
    return line[:REASON_CHARS]
