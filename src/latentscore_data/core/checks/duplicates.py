"""Duplicates among vibes and among winners, contamination of training rows, and leakage of splits."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from latentscore_data.core.base.settings import CheckSettings
from latentscore_data.core.checks.types import Finding, RowView, share_finding
from latentscore_data.core.vibes.dedupe import first_of_each, nearest_similarity
from latentscore_data.core.vibes.splits import leakage

_BETWEEN_WORDS = re.compile(r"[\W_]+")

Vectors = NDArray[np.float32]


def plain(text: str) -> str:
    """Return the text without case, punctuation and repeated spaces."""
    return _BETWEEN_WORDS.sub(" ", text.lower()).strip()


def check_duplicates(
    views: Sequence[RowView], vectors: Vectors, threshold: float, settings: CheckSettings
) -> list[Finding]:
    """Measure exact duplicates and near-duplicates of vibes, and different vibes with the same winning config.

    ``vectors`` has one unit vector per view; ``threshold`` is the cosine of near-duplicates.
    """
    total = len(views)
    first: dict[str, int] = {}
    exact = [at for at, view in enumerate(views) if first.setdefault(plain(view.vibe), at) != at]
    rest = np.setdiff1d(np.arange(total), exact)
    stays = first_of_each(vectors[rest], threshold)
    near = [views[int(at)].row_id for at in rest[~stays]]
    vibes_of: dict[bytes, dict[str, str]] = defaultdict(dict)
    for view in views:
        if view.config:
            vibes_of[view.config].setdefault(plain(view.vibe), view.row_id)
    same = [row for vibes in vibes_of.values() if len(vibes) > 1 for row in list(vibes.values())[1:]]
    winners = sum(1 for view in views if view.config)
    limit = settings.max_duplicates
    return [
        share_finding("duplicates", "duplicate vibes", [views[at].row_id for at in exact], total, limit),
        share_finding("duplicates", f"vibes with a cosine of {threshold:.2f} or more", near, total, limit),
        share_finding("duplicates", "winning configs of another vibe", same, winners, settings.max_same_config),
    ]


def check_contamination(
    views: Sequence[RowView], vectors: Vectors, suites: Mapping[str, tuple[Sequence[str], Vectors]], threshold: float,
    settings: CheckSettings,
) -> list[Finding]:  # fmt: skip
    """Measure training rows that are also in TEST or in a prompt suite, exactly or as near-duplicates.

    ``suites`` has the texts and unit vectors of each suite.
    """
    trained = np.array([view.split in ("SFT-Train", "GRPO") for view in views], dtype=bool)
    rows = np.flatnonzero(trained)
    if not len(rows):
        return [Finding("contamination", "training rows", "none")]
    test = np.array([view.split == "TEST" for view in views], dtype=bool)
    held = {"TEST": ([view.vibe for view, held in zip(views, test, strict=True) if held], vectors[test]), **suites}
    said = [plain(views[int(at)].vibe) for at in rows]
    found: list[Finding] = []
    for name, (texts, others) in held.items():
        known = {plain(text) for text in texts} - {""}
        same = np.array([text in known for text in said], dtype=bool)
        near = same | (nearest_similarity(vectors[rows], others) >= threshold)
        ids = [views[int(at)].row_id for at in rows[near]]
        found.append(
            share_finding("contamination", f"training rows in {name}", ids, len(rows), settings.max_contaminated)
        )
    return found


def check_splits(views: Sequence[RowView], vectors: Vectors, threshold: float, seed: int) -> list[Finding]:
    """Measure the size and the sources of each split, and the leakage between TEST and training rows."""
    rows, sources = Counter(view.split for view in views), defaultdict[str, set[str]](set)
    for view in views:
        sources[view.split].add(view.source)
    found = [
        Finding("splits", split, f"{count:,} rows of {len(sources[split]):,} texts") for split, count in rows.items()
    ]
    names: dict[str, int] = {}
    numbers = np.array([names.setdefault(view.source, len(names)) for view in views])
    report = leakage(vectors, np.array([view.split for view in views]), numbers, threshold, seed)
    if report.mean_nearest is not None:
        found.append(Finding("splits", "nearest training row to a TEST row, mean cosine", f"{report.mean_nearest:.3f}"))
        found.append(
            Finding("splits", "TEST rows whose text is also trained on", f"{report.share_same_source or 0:.1%}")
        )
    return found
