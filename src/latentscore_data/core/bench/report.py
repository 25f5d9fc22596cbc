"""The page of a benchmark: one HTML file that contains its data, and MP3 files beside it. It uses no network.

Without a table (``summary=None``) the page has only players, for rows that were not compared.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from latentscore import FIELDS
from latentscore.json_search import JsonObject
from latentscore.labels import PALETTE_WEIGHTS
from latentscore_data.core.base.jsonl import replace_bytes
from latentscore_data.core.base.names import json_bytes
from latentscore_data.core.base.rows import BenchRow
from latentscore_data.core.bench.summary import final_score

THINKING_SHOWN = 500
"""Longest reasoning of a payload on the page, in characters; results.jsonl has all of it."""

NOT_DRAWN = ("fingerprints", "created", "levels", "scopes")
"""Keys of the summary that the page's script does not use."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def render_report(
    summary: JsonObject | None,
    rows: Sequence[BenchRow],
    audio_dir: Path,
    out: Path,
    *,
    heading: str | None = None,
) -> Path:
    """Write the page to ``out`` atomically, and return ``out``.

    ``summary`` is the content of ``summary.json``. ``rows`` are samples; samples with the same ``row_id`` are shown
    side by side, one for each ``source``. The last part of their ``audio_file`` is a file in ``audio_dir``. Titles,
    vibes and reasons are untrusted; the page shows them as text.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    def asset(name: str) -> str:
        return files("latentscore_data.core.bench").joinpath(name).read_text(encoding="utf-8")

    labels = (
        [source["label"] for source in summary["sources"]] if summary else list(dict.fromkeys(r.source for r in rows))
    )
    data = {
        "summary": {name: value for name, value in summary.items() if name not in NOT_DRAWN}
        if summary
        else {"headline": None, "scorers": [], "sources": []},
        "fields": [[name, spec.labels] for name, spec in FIELDS.items()],
        "sources": labels,
        "rows": page_rows(rows, labels),
        "audio": _folder_url(audio_dir, out),
    }
    script = asset("report.js")
    vibes = len(data["rows"])
    page = (
        Environment(autoescape=True)
        .from_string(asset("report.html.jinja"))
        .render(
            heading=heading or (f"{summary['title']}, {len(labels)} sources" if summary else f"{vibes} vibes"),
            eyebrow="Benchmark" if summary else "Listening page",
            lead=in_short(summary) if summary else "Each vibe with its piece.",
            facts=_facts(summary, vibes) if summary else [("Vibes", vibes)],
            method=method(summary)
            if summary
            else ["The sound was rendered from the configs; nothing here was compared."],
            fingerprints=sorted(summary["fingerprints"].items()) if summary else [],
            scored=summary is not None,
            css=Markup(asset("report.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            data=Markup(json_for_html(data)),
        )
    )
    replace_bytes(out, [page.encode("utf-8", "replace")])
    return out


def json_for_html(value: Any) -> str:
    """Return the value as JSON in which no text can end a ``<script>`` element."""
    text = json_bytes(value).decode()
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def page_rows(rows: Sequence[BenchRow], labels: Sequence[str]) -> list[JsonObject]:
    """Return the data of the page: one entry per vibe with one sample per source, with names of one letter."""
    found: dict[str, JsonObject] = {}
    for row in rows:
        entry = found.setdefault(
            row.row_id,
            {
                "v": row.vibe_original,
                "l": row.vibe_level,
                "s": row.vibe_scope,
                "d": row.id_in_dataset,
                "x": [None] * len(labels),
            },
        )
        for short, long in (("e", "expect"), ("c", "clean")):
            if (value := getattr(row, long, None)) is not None:
                entry[short] = value
        entry["x"][labels.index(row.source)] = _sample(row)
    return list(found.values())


def _sample(row: BenchRow) -> JsonObject:
    payload = row.config_payload or {}
    scores = {name: round(score, 4) for name in row.scores if (score := final_score(row, name)) is not None}
    sample: JsonObject = {
        "t": payload.get("title"),
        "p": [pack_palette(palette) for palette in payload.get("palettes", [])] or None,
        "g": pack_config(payload["config"]) if payload.get("config") else None,
        "k": str(payload.get("thinking") or "")[:THINKING_SHOWN] or None,
        "a": quote(Path(row.audio_file).name) if row.audio_file else None,
        "w": getattr(row, "peaks", None),
        "y": scores or None,
        "f": row.failure,
    }
    return {name: value for name, value in sample.items() if value is not None}


def pack_config(config: Mapping[str, Any]) -> str:
    """Return the config as one character per field: the index of its label, in base 36."""
    return "".join(_DIGITS[spec.labels.index(config[name])] for name, spec in FIELDS.items())


def pack_palette(palette: Mapping[str, Any]) -> str:
    """Return the palette as ``RRGGBBw`` per colour, where w is the index of its weight."""
    return "".join(
        f"{str(color['hex']).lstrip('#').upper()}{PALETTE_WEIGHTS.index(color['weight'])}"
        for color in palette["colors"]
    )


def _folder_url(audio_dir: Path, out: Path) -> str:
    relative = os.path.relpath(audio_dir.resolve(), out.parent.resolve())
    return quote(Path(relative).as_posix()) + "/"


def _facts(summary: JsonObject, vibes: int) -> list[tuple[str, str]]:
    return [
        ("Vibes", str(vibes)),
        ("Source documents", str(summary["documents"])),
        ("Judged by", summary["headline"]),
        ("Audio", f"{summary['seconds']:g} s each, seed {summary['seed']}"),
        ("Made", summary["created"].replace("T", " ").replace("+00:00", " UTC")),
    ]


def in_short(summary: JsonObject) -> str:
    """Return the result of the table in one or two sentences that claim no more than the tests show."""
    scorer, baseline = summary["headline"], summary["baseline"]
    first = summary["sources"][0]
    score = first["scores"][scorer]
    if not score["scored"]:
        return f"No answer has a {scorer} score."
    text = f"“{first['label']}” has the highest mean {scorer} score of {score['mean']:.3f}"
    if scorer in first["chosen_by"]:
        text += f" (its answers were selected by {scorer} itself)"
    difference = first["versus_baseline"][scorer]
    if difference is None:
        return f"{text}; it is the baseline, and no source has a higher mean."
    text += f", {difference['mean']:+.3f} against {baseline}"
    if difference["p_holm"] is None:
        return f"{text}. {difference['reason'].capitalize()}: the order is not reliable."
    if difference["p_holm"] >= 0.05:
        return f"{text}: no more than chance could explain (p = {difference['p_holm']:.2f} after Holm's correction)."
    p = "p < 0.001" if difference["p_holm"] < 0.001 else f"p = {difference['p_holm']:.3f}"
    better = [
        source["label"]
        for source in summary["sources"]
        if (d := source["versus_baseline"][scorer]) and d["p_holm"] is not None and d["p_holm"] < 0.05 and d["mean"] > 0
    ]
    rest = f" {len(better)} of {len(summary['sources']) - 1} sources beat {baseline}." if len(better) > 1 else ""
    return f"{text} ({p} after Holm's correction).{rest}"


def method(summary: JsonObject) -> list[str]:
    """Return the paragraphs of the page's section on the method."""
    rows = summary["rows"]
    paragraphs = [
        f"Every source answered the same {rows} vibes. Each answer was rendered once, {summary['seconds']:g} s with "
        f"seed {summary['seed']}, and every scorer got the same audio. A sample without a score counts with the floor.",
        "Intervals are 95 % bootstrap intervals that resample whole source documents, because wordings of one scene are "
        "not independent. Differences are paired, row by row; p-values come from flipping the sign of whole documents and "
        "are corrected with Holm's method over the sources.",
        f"The floor is {summary['floor'][summary['headline']]['of']}."
        + (f" The ceiling is {summary['ceiling_of']}." if summary["ceiling_of"] else ""),
        "A score is one scorer's rating. It does not measure taste, sounds that the scorer cannot detect, or "
        "vibes unlike these.",
    ]
    if "acoustic" in summary["scorers"]:
        paragraphs.append(
            "The acoustic scorer measures descriptors of the audio against what the words of the vibe ask for. "
            "builtin/keywords interprets a vibe's words with the same axes: a high score of it, or of data made by "
            "it, may only mean that both interpret a word in the same way."
        )
    return paragraphs
