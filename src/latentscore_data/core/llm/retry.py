"""What can go wrong with a call and what happens then: one error table, retry, pace, adaptive concurrency, budget."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from latentscore_data.core.base.secrets import without
from latentscore_data.core.llm.server_errors import WORDS_IN, CallFailed, ServerError, read_server_error

Kind = Literal["auth", "bad request", "transient", "answer"]
"""``answer``: the model wrote something that the server refused as no JSON."""


@dataclass(frozen=True)
class CallError:
    """A failed call, as the error table sees it. ``retry_after`` is what the server asked for, in seconds."""

    kind: Kind
    status: int | None
    message: str
    retry_after: float | None = None
    unstructured: bool = False
    """True when the server refused the way in which the answer's shape was asked for."""
    maybe_billed: bool = False
    """True when the server may have answered although we did not see it."""
    spent: bool = False
    """True when the account has nothing left."""
    too_fast: bool = False
    """True when the server says that we are too fast, whatever the status."""
    refused: str | None = None
    """The sampling parameter that the model does not take."""
    draw: str = ""
    """What the model wrote, with ``answer``."""

    @property
    def crowded(self) -> bool:
        """True when the server says that we are too fast."""
        return self.too_fast or self.status == 429 or (self.status in (503, 529) and self.retry_after is not None)

    @property
    def asks_differently(self) -> bool:
        """True when the same question may be answered if it is asked in another way."""
        return self.unstructured or self.refused is not None


NOT_SENT = CallError("transient", None, "not sent")
"""For a slot that is given back unused: nothing is learned from it."""

# Codes and types say more than words: "quota" is a spent balance with one provider and a minute's allowance with another.
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
"""Parameters that a model may refuse; of two that it does not take together, the first one is left out."""

_REFUSES = re.compile(
    r"unsupported|not support|n't support|deprecated|only[^.]{0,40}\b(1|default)\b|cannot both|not allowed|not permitted"
    r"|unknown|unrecognized|unexpected|extra inputs",
    re.IGNORECASE,
)
_JUDGED = (400, 403, 429)
"""Statuses that providers give for a spent balance, for calls that come too fast and for bad requests alike."""

_TABLE: dict[int, Kind] = {
    401: "auth",
    402: "auth",
    403: "auth",
    400: "bad request",
    404: "bad request",
    413: "bad request",
    422: "bad request",
    408: "transient",
    409: "transient",
    425: "transient",
    429: "transient",
}


def classify(error: BaseException, secret: SecretStr | None = None) -> CallError:
    """The row of the table that a failed call belongs to; ``secret`` is kept out of the message."""
    name = type(error).__name__
    if isinstance(error, TimeoutError) or name == "Timeout":
        return CallError("transient", 408, "the call timed out", maybe_billed=True)
    if isinstance(error, CallFailed):
        message = _one_line(without(str(error), secret))
        kind = "bad request" if error.final else "transient"
        return CallError(kind, error.status, message, maybe_billed=error.maybe_billed)
    server = read_server_error(error)
    # Taken out before the message is cut, which could leave half of it.
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
    """True for a spent balance; a quota that has a time at which it can be used again is none."""
    spent = {name for name in server.names if _SPENT.search(name)}
    if server.retry_after is not None and server.status == 429:
        # Some give the code of a spent quota for a limit per minute, too: then the type tells which one it is.
        spent = {name for name in spent if name in server.types or not _QUOTA.search(name)}
    if spent:
        return True
    if server.retry_after is not None:
        return False
    if _SPENT_WORDS.search(server.message[:WORDS_IN]):
        return True
    return server.status == 429 and not server.named(_TOO_FAST) and bool(_QUOTA_WORDS.search(server.message))


def _refused_parameter(server: ServerError) -> str | None:
    """The sampling parameter that the model does not take, if that is what the server says."""
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
    """Seconds until the next try: full jitter on a doubling base, never earlier than the server asked, at most ``cap``."""
    jitter = rng.uniform(0, min(cap, 0.5 * 2 ** (attempt - 1)))
    if retry_after is None:
        return jitter
    # A little jitter on top, so that those refused together do not come back together.
    return min(cap, retry_after + rng.uniform(0, 0.25 * max(retry_after, 0.2)))
