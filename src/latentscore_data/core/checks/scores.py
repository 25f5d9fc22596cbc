"""Scores of the winners, agreement of scorers, and faults of the winners' audio."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

import latentscore
from latentscore import MusicConfigPrompt
from latentscore.seeds import unit_hash
from latentscore_data.core.base.settings import CheckSettings, ScoringSettings
from latentscore_data.core.checks.types import Finding, RowView, share_finding
from latentscore_data.core.search.space import decode

MIN_PAIRS = 10
"""Smallest number of rows for a correlation."""
LOUDNESS_LUFS = -16.0
LOUDNESS_TOLERANCE_LU = 3.0
CLIPPING_DBFS = -0.1
SILENCE_PEAK_DBFS = -60.0


def check_scores(views: Sequence[RowView], settings: CheckSettings) -> list[Finding]:
    """Measure the distribution of scores, the agreement of scorers, and the rows with an unreliable choice."""
    by_scorer: dict[str, dict[int, float]] = {}
    for at, view in enumerate(views):
        for scorer, score in view.scores:
            by_scorer.setdefault(scorer, {})[at] = score
    found = [_spread(scorer, np.array(list(scores.values()))) for scorer, scores in by_scorer.items()]
    for (one, a), (other, b) in combinations(by_scorer.items(), 2):
        both = sorted(a.keys() & b.keys())
        found.append(_agreement(f"{one} and {other}", [a[at] for at in both], [b[at] for at in both]))
    chosen = [view for view in views if view.margin is not None]
    close = [view.row_id for view in chosen if view.margin is not None and view.margin < settings.hair]
    if chosen:
        name = f"winners less than {settings.hair:g} above the next candidate"
        found.append(share_finding("scores", name, close, len(chosen), settings.max_by_a_hair))
    unread = [view.row_id for view in views if view.unread]
    found.append(
        share_finding("scores", "vibes without any word that the scorer knows", unread, len(views), settings.max_unread)
    )
    return found


def _spread(scorer: str, scores: NDArray[np.float64]) -> Finding:
    low, middle, high = np.percentile(scores, [5, 50, 95])
    return Finding("scores", scorer, f"median {middle:.3f}, 5 % {low:.3f}, 95 % {high:.3f}, n {len(scores):,}")


def _agreement(name: str, a: Sequence[float], b: Sequence[float]) -> Finding:
    """Measure Spearman's rank correlation with a 95 % interval (Bonett and Wright 2000)."""
    from scipy.stats import spearmanr

    if len(a) < MIN_PAIRS:
        return Finding("scores", f"agreement of {name}", f"only {len(a)} rows have both")
    if len(set(a)) == 1 or len(set(b)) == 1:
        return Finding("scores", f"agreement of {name}", "one of them never varies", "fault", "varies")
    rho = float(spearmanr(a, b)[0])  # type: ignore[arg-type]
    spread = 1.96 * np.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    low, high = np.tanh(np.arctanh(np.clip(rho, -0.999999, 0.999999)) + np.array([-spread, spread]))
    verdict = "fault" if high < 0 else "ok"
    return Finding("scores", f"agreement of {name}", f"rho {rho:.2f} ({low:.2f} to {high:.2f})", verdict, "not below 0")


def check_sounds(views: Sequence[RowView], scoring: ScoringSettings, settings: CheckSettings) -> list[Finding]:
    """Render a sample of winners as they were scored, and measure silence, clipping and loudness."""
    winners = [view for view in views if view.config]
    sample = sorted(winners, key=lambda view: unit_hash("check", view.row_id))[: settings.sounds]
    if not sample:
        return []
    silent, clipped, off = list[str](), list[str](), list[str]()
    for view in sample:
        config = MusicConfigPrompt(**decode(np.frombuffer(view.config, dtype=np.int8)))
        audio = latentscore.render(config, scoring.seconds, scoring.seed)
        peak = audio.true_peak_dbfs()
        if peak < SILENCE_PEAK_DBFS:
            silent.append(view.row_id)
        elif abs(audio.loudness_lufs() - LOUDNESS_LUFS) > LOUDNESS_TOLERANCE_LU:
            off.append(view.row_id)
        if peak > CLIPPING_DBFS:
            clipped.append(view.row_id)
    loudness = f"winners off {LOUDNESS_LUFS:g} LUFS by more than {LOUDNESS_TOLERANCE_LU:g} LU"
    named = (("silent winners", silent), (f"winners with peaks over {CLIPPING_DBFS:g} dBTP", clipped), (loudness, off))
    return [share_finding("sounds", name, ids, len(sample), 0.0) for name, ids in named]
