"""Money and tokens: what a run has used, and what all runs of a workspace have used together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Usage:
    """What one run's model calls came to. ``cost_usd`` leaves out the ``unpriced`` calls, whose price nobody knows."""

    calls: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    saved_usd: float = 0.0
    unpriced: int = 0
