"""The report: one page about a workspace, with its sources, numbers, costs and some of its sounds."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import latentscore
from latentscore import InvalidConfigError, parse_payload
from latentscore.json_search import JsonObject
from latentscore.seeds import digest, unit_hash
from latentscore_data import __version__
from latentscore_data.core.base import ledger
from latentscore_data.core.base.jsonl import count_lines, object_or_empty, replace_bytes, replace_text
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.export.cards import draw_scores, load_template
from latentscore_data.core.export.dataset import DatasetFacts
from latentscore_data.core.scoring.clips import mp3_bytes
from latentscore_data.core.texts.provenance import Provenance

SAMPLE_ROWS = 8
MOST_SECONDS = 20.0
MP3_COMPRESSION = 0.5
"""libsndfile's compression level, from 0 (best quality) to 1 (smallest file)."""

SHOWN = (
    "finished", "lsdata_version", "git_commit", "settings", "versions", "done", "skipped", "failed", "cost_usd", "details",
)  # fmt: skip
"""The shown parts of a stage's manifest."""


def write_report(
    folder: Path,
    workspace: Workspace,
    facts: DatasetFacts,
    origin: Provenance,
    sample: Iterable[ScoredRow],
    checks: Sequence[tuple[str, ...]],
    seconds: float,
    seed: int,
) -> int:
    """Write ``index.html``, ``audio/`` and the plots of scores; return the number of players on the page.

    ``checks`` are (group, measure, value, limit, verdict). The winners of ``sample`` are rendered with the ``seed`` and
    (up to 20 s) the ``seconds`` of their scores.
    """
    rows = [_player(folder, row, min(seconds, MOST_SECONDS), seed) for row in sample]
    draw_scores(folder, facts)
    # Vibes, titles and names of data sets are untrusted, so everything is escaped.
    page = load_template("report.html.jinja", escape_html=True).render(
        version=__version__,
        flow=_flow(workspace, facts, origin),
        origin=origin,
        facts=facts,
        costs=sorted(ledger.totals(workspace.ledger).items()),
        checks=checks,
        rows=rows,
        runs=[(path.parent.name, object_or_empty(path)) for path in sorted(workspace.train_dir.glob("*/run.json"))],
        benches=[
            (path.parent.name, path.with_name("report.html").exists())
            for path in sorted(workspace.bench_dir.glob("*/summary.json"))
        ],
        exports=[
            (path.parent.name, object_or_empty(path).get("kind", ""))
            for path in sorted(workspace.export_dir.glob("*/export.json"))
            if not path.parent.name.startswith(".")
        ],
        manifests=[
            (stage, json.dumps({name: manifest[name] for name in SHOWN if name in manifest}, indent=2))
            for stage, manifest in origin.manifests.items()
        ],
    )
    replace_text(folder / "index.html", page)
    return sum(1 for row in rows if row["audio"])


def choose_sample(rows: Iterable[ScoredRow]) -> list[ScoredRow]:
    """Return the rows with a winner that have the lowest hashes of their ids: a reproducible sample."""
    with_winner = (row for row in rows if row.config_payload is not None)
    return heapq.nsmallest(SAMPLE_ROWS, with_winner, key=lambda row: (unit_hash("report", row.row_id), row.row_id))


def _player(folder: Path, row: ScoredRow, seconds: float, seed: int) -> JsonObject:
    shown: JsonObject = {
        "vibe": row.vibe_original,
        "split": row.split or "",
        "source": f"{row.dataset} {row.id_in_dataset}",
        "scores": {name: f"{score:.3f}" for name, score in row.winner_scores.items()},
        "audio": "",
        "problem": "",
    }
    try:
        payload = parse_payload(row.config_payload)
        audio = latentscore.render(payload.config, seconds, seed)
    except InvalidConfigError as error:
        return {**shown, "title": "", "problem": str(error)}
    name = f"audio/{digest(row.row_id)[:12]}.mp3"
    tagged = audio.tagged(title=payload.title, vibe=row.vibe_original)
    replace_bytes(folder / name, [mp3_bytes(tagged, MP3_COMPRESSION)])
    return {
        **shown,
        "title": payload.title,
        "audio": name,
        "config": payload.config.model_dump(),
        "palettes": [palette.model_dump()["colors"] for palette in payload.palettes],
    }


def _flow(workspace: Workspace, facts: DatasetFacts, origin: Provenance) -> list[JsonObject]:
    """Return the number of rows after each step of the chain that has any, and the failures of each stage."""
    steps = [
        ("texts sampled", count_lines(workspace.text_files()), "lsdata download"),
        ("texts read by a model", count_lines([workspace.extracted]), "lsdata vibes"),
        ("vibes in splits", count_lines(workspace.vibe_files()), "lsdata vibes"),
        ("vibes with candidates", count_lines([workspace.candidates]), "lsdata configs"),
        ("candidates scored", max(map(len, facts.candidates.values()), default=0), "lsdata configs"),
        ("vibes with a winner", facts.with_config, "lsdata configs"),
    ]
    failed = {stage: sum(manifest.get("failed", {}).values()) for stage, manifest in origin.manifests.items()}
    rows = [{"what": what, "count": count, "command": command} for what, count, command in steps if count]
    return rows + [{"what": f"failed in {stage}", "count": n, "command": ""} for stage, n in failed.items() if n]
