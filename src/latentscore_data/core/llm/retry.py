"""What can go wrong with a call and what happens then: one error table, retry, pace, adaptive concurrency, budget."""

from __future__ import annotations

import email.utils
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["auth", "bad request", "transient"]


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

    @property
    def crowded(self) -> bool:
        """True when the server says that we are too fast."""
        return self.status == 429 or (self.status in (503, 529) and self.retry_after is not None)


NOT_SENT = CallError("transient", None, "not sent")
"""For a slot that is given back unused: nothing is learned from it."""

# A 429 that waiting does not mend.
_QUOTA = re.compile(
    r"insufficient_quota|quota exceeded|exceeded your current quota|billing|credit balance|payment", re.IGNORECASE
)
_STRUCTURE = re.compile(r"response_format|json_schema|json_object|structured output|grammar|schema", re.IGNORECASE)

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


def classify(error: BaseException, now: Callable[[], float] = time.time) -> CallError:
    """The row of the table that a failed call belongs to."""
    name = type(error).__name__
    message = _one_line(str(error))
    status = getattr(error, "status_code", None)
    status = int(status) if isinstance(status, int) or (isinstance(status, str) and status.isdigit()) else None
    if isinstance(error, TimeoutError) or name == "Timeout":
        return CallError("transient", 408, "the call timed out", maybe_billed=True)
    if name == "APIConnectionError":
        return CallError("transient", None, f"connection failed: {message}", maybe_billed=True)
    if name == "ContentPolicyViolationError":
        return CallError("bad request", status, message)
    if status == 429 and _QUOTA.search(message):
        return CallError("auth", status, message)
    kind = _TABLE.get(status or 0, "bad request" if status and 400 <= status < 500 else "transient")
    refused_shape = kind == "bad request" and name != "ContextWindowExceededError" and bool(_STRUCTURE.search(message))
    return CallError(
        kind,
        status,
        message,
        retry_after_seconds(_headers(error), now),
        refused_shape or name == "UnsupportedParamsError",
    )


def _one_line(message: str, most: int = 300) -> str:
    line = " ".join(message.split())
    line = re.sub(r"^(litellm\.\w+: )+", "", line)
    return line if len(line) <= most else line[: most - 1] + "…"


def _headers(error: BaseException) -> Any:
    response = getattr(error, "response", None)
    for headers in (getattr(response, "headers", None), getattr(error, "litellm_response_headers", None)):
        if headers:
            return headers
    return {}


def retry_after_seconds(headers: Any, now: Callable[[], float] = time.time) -> float | None:
    """``Retry-After`` as seconds from now; the header holds seconds or a date. None without a usable one.

    A date is compared with the server's own ``Date``, where it sent one: our clock may be wrong.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if not value:
            continue
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            pass
        due = _unix_time(value)
        if due is not None:
            sent = _unix_time(headers.get("date"))
            return max(0.0, due - (sent if sent is not None else now()))
    return None


def _unix_time(date: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None


def retry_delay(attempt: int, retry_after: float | None, cap: float, rng: random.Random) -> float:
    """Seconds until the next try: full jitter on a doubling base, never earlier than the server asked, at most ``cap``."""
    jitter = rng.uniform(0, min(cap, 0.5 * 2 ** (attempt - 1)))
    if retry_after is None:
        return jitter
    # A little jitter on top, so that those refused together do not come back together.
    return min(cap, retry_after + rng.uniform(0, 0.25 * max(retry_after, 0.2)))
