"""Validation of answers, and selection of the winner of N."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from pydantic import BaseModel, ValidationError

from latentscore.config import MusicConfigPrompt, MusicConfigPromptPayload, Palette

CHECKS = ("format_valid", "schema_valid", "palette_valid")


def validate_candidate(payload: Mapping[str, Any] | None) -> dict[str, float]:
    """1.0 or 0.0 for each check.

    ``format_valid``: a JSON object with the parts of an answer. ``schema_valid``: its config has all fields, with
    labels they may have. ``palette_valid``: three palettes of five colours, none repeated.
    """
    if payload is None:
        return dict.fromkeys(CHECKS, 0.0)
    palettes = payload.get("palettes")
    return {
        "format_valid": float(set(payload) == set(MusicConfigPromptPayload.model_fields)),
        "schema_valid": float(fits(MusicConfigPrompt, payload.get("config"))),
        "palette_valid": float(isinstance(palettes, list) and len(palettes) == 3 and all(map(_good_palette, palettes))),
    }


def is_playable(payload: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Return True for a payload whose config has all fields with valid labels."""
    return payload is not None and fits(MusicConfigPrompt, payload.get("config"))


def validate_candidates(payloads: Sequence[Mapping[str, Any] | None]) -> dict[str, list[float]]:
    """Return the results of all candidates, as a list for each check."""
    checked = [validate_candidate(payload) for payload in payloads]
    return {name: [check[name] for check in checked] for name in CHECKS}


def pick_winner(scores: Sequence[float | None]) -> int | None:
    """Return the index of the highest score, the first one of equal scores; None without scores."""
    known = [(score, -index) for index, score in enumerate(scores) if score is not None]
    return -max(known)[1] if known else None


def fits(shape: type[BaseModel], value: object) -> bool:
    """Return whether the value is one of that type."""
    try:
        shape.model_validate(value)
    except ValidationError:
        return False
    return True


def _good_palette(value: object) -> bool:
    try:
        return Palette.model_validate(value).duplicate_count() == 0
    except ValidationError:
        return False
