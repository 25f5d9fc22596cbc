"""One page over a whole workspace: what was made from what, how much of it, for how much, and how it sounds."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import latentscore
from latentscore import InvalidConfigError, parse_payload
from latentscore.files import read_whole
from latentscore.json_search import JsonObject
from latentscore.seeds import unit_hash
from latentscore_data import __version__
from latentscore_data.core.base import ledger
from latentscore_data.core.base.jsonl import count_lines, replace_bytes, replace_text
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.export.cards import draw_scores
from latentscore_data.core.export.dataset import DatasetFacts
from latentscore_data.core.scoring.clips import mp3_bytes
from latentscore_data.core.texts.provenance import Provenance

SAMPLE_ROWS = 8
MOST_SECONDS = 20.0
MP3_COMPRESSION = 0.5
"""libsndfile's compression level, 0 (best) to 1 (smallest)."""


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
    """Write ``index.html``, ``audio/`` and the score pictures; returns how many players the page has.

    ``checks`` are (group, measure, value, limit, verdict). The sample's winners are rendered with the ``seconds`` and the ``seed`` they were scored with, so that a reader
    hears what was scored.
    """
    rows = [_player(folder, row, min(seconds, MOST_SECONDS), seed) for row in sample]
    page = _template().render(
        version=__version__,
        flow=_flow(workspace, facts, origin),
        sources=_sources(origin),
        splits=[{"name": split, "rows": n, "texts": len(facts.sources[split])} for split, n in facts.rows.items()],
        money=_money(workspace),
        pictures=[{"file": file, "scorer": scorer} for scorer, file in draw_scores(folder, facts).items()],
        checks=checks,
        rows=rows,
        runs=_runs(workspace),
        benches=_benches(workspace),
        exports=_exports(workspace),
        manifests=[(stage, json.dumps(_decided(manifest), indent=2)) for stage, manifest in origin.manifests.items()],
    )
    replace_text(folder / "index.html", page)
    return sum(1 for row in rows if row["audio"])


def choose_sample(rows: Iterable[ScoredRow]) -> list[ScoredRow]:
    """Rows with a winner, drawn by a hash of their id: the same ones each time, from all over the data."""
    with_winner = (row for row in rows if row.config_payload is not None)
    return heapq.nsmallest(SAMPLE_ROWS, with_winner, key=lambda row: (unit_hash("report", row.row_id), row.row_id))


def _player(folder: Path, row: ScoredRow, seconds: float, seed: int) -> JsonObject:
    shown: JsonObject = {
        "vibe": row.vibe_original,
        "split": row.split or "",
        "source": f"{row.dataset} {row.id_in_dataset}",
        "scores": _winner_scores(row),
        "audio": "",
        "problem": "",
    }
    try:
        payload = parse_payload(row.config_payload)
        audio = latentscore.render(payload.config, seconds, seed)
    except InvalidConfigError as error:
        return {**shown, "title": "", "problem": str(error)}
    name = f"audio/{unit_hash('report', row.row_id):.12f}"[:-1].replace("0.", "") + ".mp3"
    tagged = audio.tagged(title=payload.title, vibe=row.vibe_original)
    replace_bytes(folder / name, [mp3_bytes(tagged, MP3_COMPRESSION)])
    return {
        **shown,
        "title": payload.title,
        "audio": name,
        "config": payload.config.model_dump(),
        "palettes": [palette.model_dump()["colors"] for palette in payload.palettes],
    }


def _winner_scores(row: ScoredRow) -> dict[str, str]:
    if row.best_index is None:
        return {}
    found = {
        name: scores[row.best_index] for name, scores in row.candidate_scores.items() if row.best_index < len(scores)
    }
    return {name: f"{score:.3f}" for name, score in found.items() if score is not None}


def _flow(workspace: Workspace, facts: DatasetFacts, origin: Provenance) -> list[JsonObject]:
    """Each stop of the journey with what it holds now; stops that were never reached are left out."""
    stops = [
        ("texts sampled", count_lines(workspace.text_files()), "lsdata download"),
        ("texts read by a model", count_lines([workspace.extracted]), "lsdata vibes"),
        ("vibes in splits", count_lines(workspace.vibe_files()), "lsdata vibes"),
        ("vibes with candidates", count_lines([workspace.candidates]), "lsdata configs"),
        ("candidates scored", max(map(len, facts.candidates.values()), default=0), "lsdata configs"),
        ("vibes with a winner", facts.with_config, "lsdata configs"),
    ]
    failed = {stage: sum(manifest.get("failed", {}).values()) for stage, manifest in origin.manifests.items()}
    rows = [{"what": what, "count": count, "command": command} for what, count, command in stops if count]
    return rows + [{"what": f"failed in {stage}", "count": n, "command": ""} for stage, n in failed.items() if n]


def _sources(origin: Provenance) -> list[JsonObject]:
    return [
        {
            "dataset": dataset,
            "texts": origin.texts_by_dataset[dataset],
            "rows": rows,
            "license": "; ".join(origin.licenses(dataset)),
        }
        for dataset, rows in sorted(origin.rows_by_dataset.items())
    ]


def _money(workspace: Workspace) -> list[JsonObject]:
    if not workspace.ledger.exists():
        return []
    return [
        {"stage": stage, "model": model, **vars(usage)}
        for (stage, model), usage in sorted(ledger.totals(workspace.ledger).items())
    ]


def _runs(workspace: Workspace) -> list[JsonObject]:
    found = []
    for path in sorted(workspace.train_dir.glob("*/run.json")):
        record = _json(path)
        metrics = {
            name: f"{value:.4g}" for name, value in record.get("metrics", {}).items() if isinstance(value, int | float)
        }
        found.append(
            {
                "id": path.parent.name,
                **{k: record.get(k, "") for k in ("kind", "base_model", "status")},
                "metrics": metrics,
            }
        )
    return found


def _benches(workspace: Workspace) -> list[dict[str, str]]:
    found = []
    for path in sorted(workspace.bench_dir.glob("*/summary.json")):
        page = path.with_name("report.html")
        # The report lies in .exports/report/.
        found.append(
            {
                "id": path.parent.name,
                "page": "../../" + page.relative_to(workspace.root).as_posix() if page.exists() else "",
            }
        )
    return found


def _exports(workspace: Workspace) -> list[dict[str, str]]:
    found = []
    for path in sorted(workspace.export_dir.glob("*/export.json")):
        if not path.parent.name.startswith("."):
            found.append(
                {"name": path.parent.name, "kind": str(_json(path).get("kind", "")), "page": f"../{path.parent.name}/"}
            )
    return found


def _json(path: Path) -> JsonObject:
    try:
        value = json.loads(read_whole(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _decided(manifest: Mapping[str, Any]) -> JsonObject:
    names = (
        "finished",
        "lsdata_version",
        "git_commit",
        "settings",
        "versions",
        "done",
        "skipped",
        "failed",
        "cost_usd",
        "details",
    )
    return {name: manifest[name] for name in names if name in manifest}


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Vibes, titles and names of data sets are untrusted: everything is escaped.
    loader = PackageLoader("latentscore_data.core.export")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.jinja")
