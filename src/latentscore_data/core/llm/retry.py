"""Classification of failed calls in one error table, and the delay before a retry."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from latentscore_data.core.base.secrets import without
from latentscore_data.core.llm.server_errors import WORDS_IN, CallFailed, ServerError, read_server_error

Kind = Literal["auth", "bad request", "transient", "answer"]
"""``answer``: the server refused the model's text as invalid JSON."""


@dataclass(frozen=True)
class CallError:
    """A classified failure of a call. ``retry_after`` is the delay that the server requested, in seconds."""

    kind: Kind
    status: int | None
    message: str
    retry_after: float | None = None
    unstructured: bool = False
    """True if the server refused the response format."""
    maybe_billed: bool = False
    """True if the server may have answered and billed, although no answer arrived."""
    spent: bool = False
    """True if the account's balance is empty."""
    too_fast: bool = False
    """True if the server reports a rate limit, whatever the status."""
    refused: str | None = None
    """The sampling parameter that the model does not accept."""
    draw: str = ""
    """What the model wrote, with ``answer``."""

    @property
    def crowded(self) -> bool:
        """True if the server reports a rate limit or overload."""
        return self.too_fast or self.status == 429 or (self.status in (503, 529) and self.retry_after is not None)

    @property
    def asks_differently(self) -> bool:
        """True if the question may succeed with another response format or without a parameter."""
        return self.unstructured or self.refused is not None


NOT_SENT = CallError("transient", None, "not sent")
"""For an unused slot, which does not change the limit."""

# Codes and types are more reliable than words: "quota" means an empty balance for one provider and a rate limit for
# another.
_SPENT = re.compile(
    r"insufficient_?(quota|balance|credit|fund)|exceeded_current_quota|billing|arrear|payment_?required"
    r"|credits?_(exhausted|depleted)|out_of_credits"
)
_QUOTA = re.compile(r"insufficient_?quota|exceeded_current_quota")
_TOO_FAST = re.compile(
    r"rate_?limit|too_?many_?requests|throttl|resource_?exhausted|overloaded|quota_?exceeded|limit_(requests|burst)"
    r"|^(tokens|requests)$"
)
_SPENT_WORDS = re.compile(
    r"(credits?|balance|funds)\b[^.]{0,30}\b(too low|depleted|exhausted|insufficient|used up|run out|spent)"
    r"|(insufficient|not enough|no remaining|out of)\s(account\s)?(balance|credits?|funds)|payment required|in arrears",
    re.IGNORECASE,
)
_QUOTA_WORDS = re.compile(
    r"insufficient_quota|exceeded your current quota|\bbilling|credit balance|payment", re.IGNORECASE
)
_NO_JSON = re.compile(r"json_validate_failed|tool_use_failed|output_parse_failed|^model_error$")
_FILTERED = re.compile(r"content_?filter|content_?policy|responsible_?ai|moderation")
_TOO_LONG = re.compile(r"context_?length|string_above_max|too_?large|too_?long")
_STRUCTURE = re.compile(
    r"response_?format|response_?schema|json_schema|json_object|structured output|grammar|schema", re.IGNORECASE
)
_SHAPE_PARAM = re.compile(r"response_?format|text\.format|schema|output_(config|format)|tool|grammar", re.IGNORECASE)

SAMPLING = ("top_p", "temperature", "seed", "max_tokens")
"""Parameters that a model may refuse; of two that it does not accept together, the first one is left out."""

_REFUSES = re.compile(
    r"unsupported|not support|n't support|deprecated|only[^.]{0,40}\b(1|default)\b|cannot both|not allowed|not permitted"
    r"|unknown|unrecognized|unexpected|extra inputs",
    re.IGNORECASE,
)
_JUDGED = (400, 403, 429)
"""Statuses that providers use for empty balances, rate limits and bad requests."""

_TABLE: dict[int, Kind] = {
    401: "auth",
    402: "auth",
    403: "auth",
    408: "transient",
    409: "transient",
    425: "transient",
    429: "transient",
}
"""Other statuses from 400 to 499 are bad requests, and all others are transient."""


def classify(error: BaseException, secret: SecretStr | None = None) -> CallError:
    """Classify a failed call; ``secret`` is removed from the message."""
    name = type(error).__name__
    if isinstance(error, TimeoutError) or name == "Timeout":
        return CallError("transient", 408, "the call timed out", maybe_billed=True)
    if isinstance(error, CallFailed):
        message = _one_line(without(str(error), secret))
        kind = "bad request" if error.final else "transient"
        return CallError(kind, error.status, message, maybe_billed=error.maybe_billed)
    server = read_server_error(error)
    # Removed before the message is cut, which could leave a part of it.
    message = _one_line(without(server.message, secret))
    if "Invalid response object" in str(error):
        return CallError("transient", None, "the server's answer is not a chat completion", maybe_billed=True)
    if name == "APIConnectionError":
        return CallError("transient", None, f"connection failed: {message}", maybe_billed=True)
    if server.draw is not None or (server.status in (400, 422) and server.named(_NO_JSON)):
        return CallError("answer", server.status, message, maybe_billed=True, draw=server.draw or "")
    if name == "ContentPolicyViolationError" or server.named(_FILTERED):
        return CallError("bad request", server.status, message)
    return _by_status(server, message, name)


def _by_status(server: ServerError, message: str, name: str) -> CallError:
    status, retry_after = server.status, server.retry_after
    kind = _TABLE.get(status or 0, "bad request" if status and 400 <= status < 500 else "transient")
    if status in _JUDGED:
        if _is_spent(server):
            return CallError("auth", status, message, spent=True)
        if status == 429 or server.named(_TOO_FAST) or retry_after is not None:
            return CallError("transient", status, message, retry_after, too_fast=True)
    if kind != "bad request" or server.named(_TOO_LONG) or name == "ContextWindowExceededError":
        return CallError(kind, status, message, retry_after, spent=status == 402)
    refused = _refused_parameter(server)
    unstructured = refused is None and _refuses_shape(server, name)
    return CallError(kind, status, message, retry_after, unstructured, refused=refused)


def _is_spent(server: ServerError) -> bool:
    """Return True for an empty balance; a quota with a retry time is not one."""
    spent = {name for name in server.names if _SPENT.search(name)}
    if server.retry_after is not None and server.status == 429:
        # Some providers use the code of an exceeded quota also for a limit per minute; the type distinguishes them.
        spent = {name for name in spent if name in server.types or not _QUOTA.search(name)}
    if spent:
        return True
    if server.retry_after is not None:
        return False
    if _SPENT_WORDS.search(server.message[:WORDS_IN]):
        return True
    return server.status == 429 and not server.named(_TOO_FAST) and bool(_QUOTA_WORDS.search(server.message))


def _refused_parameter(server: ServerError) -> str | None:
    """Return the sampling parameter that the server refused, or None."""
    said = server.message[:WORDS_IN]
    if server.param is not None:
        found = [name for name in SAMPLING if name == server.param]
    else:
        found = [name for name in SAMPLING if re.search(rf"\b{name}\b", said)]
    if not found or not (_REFUSES.search(said) or server.named(_REFUSES)):
        return None
    if found[0] == "max_tokens" and "max_completion_tokens" not in said:
        return None
    return found[0]


def _refuses_shape(server: ServerError, name: str) -> bool:
    if server.param is not None:
        return bool(_SHAPE_PARAM.search(server.param))
    return name == "UnsupportedParamsError" or bool(_STRUCTURE.search(server.message))


def _one_line(message: str, most: int = 300) -> str:
    line = " ".join(message.split())
    line = re.sub(r"^(litellm\.\w+: )+", "", line)
    return line if len(line) <= most else line[: most - 1] + "…"


def retry_delay(attempt: int, retry_after: float | None, cap: float, rng: random.Random) -> float:
    """Return seconds until the next attempt: exponential backoff with full jitter, at least ``retry_after``, at most ``cap``."""
    jitter = rng.uniform(0, min(cap, 0.5 * 2 ** (attempt - 1)))
    if retry_after is None:
        return jitter
    # With additional jitter, so that calls that were refused together are not retried together.
    return min(cap, retry_after + rng.uniform(0, 0.25 * max(retry_after, 0.2)))
