"""All checks of a workspace, in the order of the report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore.embed import Embedder
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import read_lines
from latentscore_data.core.base.rows import PUBLISHED_SPLITS
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench.suites import SUITES, suite_lines
from latentscore_data.core.checks.diversity import check_diversity, vendi_score
from latentscore_data.core.checks.duplicates import check_contamination, check_duplicates, check_splits
from latentscore_data.core.checks.origin import check_licenses, check_models, check_texts
from latentscore_data.core.checks.scores import check_scores, check_sounds
from latentscore_data.core.checks.types import Finding, Report, RowView, label_matrix, labels_of, read_views
from latentscore_data.core.texts.provenance import Origins
from latentscore_data.core.vibes.dedupe import choose_embedder, embed_stream, load_embedder, threshold_of


def run_checks(settings: Settings) -> Report:
    """Check the scored rows of the workspace. Raises :class:`InputError` when there are none."""
    workspace, chosen = Workspace(settings.paths.root), settings.check
    origins = Origins()
    views = read_views(workspace, origins.note)
    if not views:
        raise InputError(f"no scored rows in {workspace.configs_dir}", "run lsdata configs first")
    embedder = load_embedder(choose_embedder(settings.dedupe))
    threshold = threshold_of(settings.dedupe, embedder)
    vectors = embed_stream((view.vibe for view in views), embedder)
    origin = origins.joined(workspace, settings.export.source_licenses)
    findings = [
        *check_duplicates(views, vectors, threshold, chosen),
        *check_diversity(label_matrix(views), chosen),
        Finding("diversity", "different vibes (Vendi score)", f"{vendi_score(vectors):.1f} of {len(views):,}"),
        *check_contamination(views, vectors, _suites(settings, embedder), threshold, chosen),
        *check_splits(views, vectors, threshold, settings.splits.seed),
        *check_scores(views, chosen),
        *check_sounds(views, settings.scoring, chosen),
        *check_texts(views, chosen),
        *check_licenses(origin, settings.export.license),
        *check_models(views, chosen),
        *_since_export(views, workspace),
    ]
    return Report(findings, len(views))


def _suites(settings: Settings, embedder: Embedder) -> dict[str, tuple[Sequence[str], NDArray[np.float32]]]:
    texts = {name: [line["vibe"] for line in suite_lines(name)] for name in SUITES}
    for path in settings.check.suites:
        texts[str(path)] = [str(line.get("vibe") or line.get("vibe_original") or "") for _, line in read_lines(path)]
    return {name: (lines, embed_stream(lines, embedder)) for name, lines in texts.items()}


def _since_export(views: Sequence[RowView], workspace: Workspace) -> list[Finding]:
    """Return the differences to the rows of the last exported data set; an empty list without one."""
    folder = workspace.export_dir / "dataset" / "jsonl"
    before = {
        str(line["row_id"]): _fingerprint(str(line["vibe_original"]), labels_of(_config(line)))
        for name in PUBLISHED_SPLITS.values()
        if (path := folder / f"{name}.jsonl").exists()
        for _, line in read_lines(path)
    }
    if not before:
        return []
    now = {view.row_id: _fingerprint(view.vibe, view.config) for view in views}
    changed = sum(before[row] != now[row] for row in before.keys() & now.keys())
    value = f"{len(now.keys() - before.keys()):,} new, {len(before.keys() - now.keys()):,} gone, {changed:,} changed"
    return [Finding("changes", "rows since the last export of the data set", value)]


def _config(line: Mapping[str, Any]) -> Any:
    payload = line.get("config_payload")
    return payload.get("config") if isinstance(payload, Mapping) else None


def _fingerprint(vibe: str, config: bytes) -> bytes:
    return hashlib.blake2b(vibe.encode("utf-8", "surrogatepass") + b"\0" + config, digest_size=8).digest()
