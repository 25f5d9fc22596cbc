"""OpenRouter's public model list: download on demand to a dated file, and the prices in it."""

from __future__ import annotations

import math
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, cast

import orjson
from pydantic import BaseModel, ConfigDict, Field

from latentscore.files import read_whole
from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import InputError, MissingError, one_line
from latentscore_data.core.base.jsonl import replace_json
from latentscore_data.core.base.proxies import call_directly, check_address

ADDRESS_VARIABLE = "OPENROUTER_API_BASE"
"""Variable with another address of OpenRouter's API; LiteLLM reads the same one."""
ADDRESS = "https://openrouter.ai/api/v1"
MOST_BYTES = 32 * 2**20
TIMEOUT_SECONDS = 30.0


Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ListedPrice(BaseModel):
    """US dollars per token of one model; None if the list has no separate price."""

    model_config = ConfigDict(strict=True, extra="forbid")

    prompt: Usd
    completion: Usd
    cached: Usd | None = None
    audio: Usd | None = None


class PriceList(BaseModel):
    """Prices by OpenRouter's name of the model (``google/gemini-2.5-flash``), and the day of the list."""

    date: str
    models: dict[str, ListedPrice] = Field(alias="usd_per_token")


def fetch_list(folder: Path) -> tuple[Path, int]:
    """Download the list into ``folder``; return the file and the number of models with a price.

    Sends no key and no workspace data. Raises :class:`MissingError` if the list cannot be downloaded and
    :class:`InputError` for an invalid address in ``OPENROUTER_API_BASE``.
    """
    base = os.environ.get(ADDRESS_VARIABLE) or ADDRESS
    try:
        check_address(base)
    except ValueError as error:
        raise InputError(f"{ADDRESS_VARIABLE}: {error}", f"unset it, or write it like {ADDRESS}") from None
    url = f"{base.rstrip('/')}/models"
    prices = _prices(_get(url))
    if not prices:
        raise MissingError(f"{url} sent no model with a price", "check the address and try again")
    date = time.strftime("%Y-%m-%d", time.gmtime())
    path = folder / f"openrouter-{date}.json"
    replace_json(path, {"source": url, "date": date, "usd_per_token": prices})
    return path, len(prices)


def newest_list(folder: Path | None) -> PriceList | None:
    """The newest fetched list, or None where none was fetched. Raises :class:`InputError` for a damaged file."""
    found = sorted(folder.glob("openrouter-*.json")) if folder is not None else []
    return _read(found[-1], found[-1].stat().st_mtime_ns) if found else None


@lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int) -> PriceList:
    """Read the list in a file; ``changed_ns`` is its modification time, so that the cached result is not used for a new list."""
    try:
        return PriceList.model_validate_json(read_whole(path))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the price list {path} cannot be read ({type(error).__name__})", "lsdata doctor --fetch prices"
        ) from None


def _get(url: str) -> Any:
    import httpx

    call_directly(url)
    try:
        with (
            httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as client,
            client.stream("GET", url) as answer,
        ):
            answer.raise_for_status()
            content = bytearray()
            for part in answer.iter_bytes():
                content += part
                if len(content) > MOST_BYTES:
                    raise MissingError(f"{url} sent more than {MOST_BYTES // 2**20} MiB", "check the address")
        return orjson.loads(bytes(content))
    except httpx.HTTPStatusError as error:
        raise MissingError(f"{url} answered {error.response.status_code}", "try again later") from None
    except httpx.HTTPError as error:
        raise MissingError(
            f"{url} cannot be reached ({one_line(error)})", "check the connection and try again"
        ) from None
    except orjson.JSONDecodeError:
        raise MissingError(f"{url} did not send JSON", "check the address") from None


def _prices(answer: Any) -> dict[str, dict[str, float]]:
    """Return US dollars per token by model; models without a fixed price (-1) or with an invalid entry are left out."""
    entries = cast(JsonObject, answer).get("data") if isinstance(answer, dict) else None
    found: dict[str, dict[str, float]] = {}
    for entry in cast("list[Any]", entries) if isinstance(entries, list) else []:
        pricing = entry.get("pricing") if isinstance(entry, dict) else None
        if not isinstance(pricing, dict) or not isinstance(name := entry.get("id"), str):
            continue
        given = {ours: _usd(pricing.get(theirs)) for ours, theirs in _FIELDS.items()}
        known = {field: usd for field, usd in given.items() if usd is not None}
        if {"prompt", "completion"} <= known.keys():
            found[name] = known
    return found


_FIELDS = {"prompt": "prompt", "completion": "completion", "cached": "input_cache_read", "audio": "audio"}


def _usd(value: Any) -> float | None:
    """Parse a price, which the list writes as text; None if it is invalid."""
    try:
        usd = float(value)
    except (TypeError, ValueError):
        return None
    return usd if math.isfinite(usd) and usd >= 0 else None
