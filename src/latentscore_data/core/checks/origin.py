"""Permission to publish the rows: licences of the texts, terms of the models, and texts that need a review."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from latentscore_data.core.base.settings import CheckSettings
from latentscore_data.core.checks.types import Finding, RowView, share_finding
from latentscore_data.core.texts.provenance import UNKNOWN, Provenance, hub_license
from latentscore_data.core.vibes.tags import TAGS, tags_of

RESTRICTED_MODELS = (
    (r"(^|/)(gpt-|o[134](-|$)|chatgpt)|^openai/", "OpenAI", "openai.com/policies/row-terms-of-use"),
    (r"claude|^anthropic/", "Anthropic", "anthropic.com/legal/commercial-terms"),
    (r"gemini|^(vertex_ai|google)/", "Google", "ai.google.dev/gemini-api/terms"),
    (r"grok|^xai/", "xAI", "x.ai/legal/terms-of-service-enterprise"),
)
"""(pattern of the model's name, provider, its terms) of models whose answers may not be used to train competing models,
as of November 2026."""


def check_texts(views: Sequence[RowView], settings: CheckSettings) -> list[Finding]:
    """Measure the length of vibes, and those with each tag, which need a review before publication."""
    rows: dict[str, list[str]] = {tag: [] for tag in TAGS}
    words = 0
    for view in views:
        words += len(view.vibe.split())
        for tag in tags_of(view.vibe):
            rows[tag].append(view.row_id)
    found = [Finding("text", "words in a vibe, mean", f"{words / max(len(views), 1):.1f}")]
    return found + [
        share_finding("text", f"tagged {tag}", ids, len(views), settings.max_tagged) for tag, ids in rows.items()
    ]


def check_licenses(origin: Provenance, declared: str | None) -> list[Finding]:
    """Check that the licence of each text is known and allows the declared licence of the data set."""
    found = [Finding("provenance", "missing notice", problem, "fault") for problem in origin.missing_notices()]
    for name in origin.licenses():
        if name == UNKNOWN:
            continue
        conflict = _conflict(hub_license(name) or name.lower(), (declared or "").lower())
        verdict = "fault" if conflict else "ok"
        found.append(
            Finding("provenance", f"licence {name}", conflict or "compatible", verdict, declared or "none declared")
        )
    return found


def _conflict(source: str, declared: str) -> str:
    """Return why rows made from a work under ``source`` may not be published under ``declared``; an empty text if no
    reason is known."""
    if re.search(r"\bnd\b", source):
        return "allows no derivatives"
    if not declared:
        return ""
    if re.search(r"\bnc\b", source) and not re.search(r"\bnc\b", declared):
        return f"is not for commercial use, but {declared} is"
    if re.search(r"\bsa\b|^gpl|^gfdl|^odbl", source) and source != declared:
        return f"must keep its licence and cannot be passed on under {declared}"
    return ""


def check_models(views: Sequence[RowView], settings: CheckSettings) -> list[Finding]:
    """Check for models whose terms restrict training on their answers."""
    models = Counter(name for view in views for name in view.model.split("\n") if name)
    found: list[Finding] = []
    for name, rows in models.items():
        terms = next((entry for entry in RESTRICTED_MODELS if re.search(entry[0], name)), None)
        if terms is None:
            found.append(Finding("provenance", f"model {name}", f"{rows:,} answers"))
            continue
        allowed = settings.allow_restricted_models
        value = f"{rows:,} answers; {terms[1]} forbids training competing models on them ({terms[2]})"
        limit = "allowed by check.allow_restricted_models" if allowed else "not allowed"
        found.append(Finding("provenance", f"model {name}", value, "ok" if allowed else "fault", limit))
    return found
