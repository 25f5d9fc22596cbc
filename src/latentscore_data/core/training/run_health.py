"""The health of a training run, the label entropy of its answers, and the plot of its loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentscore.labels import FIELDS

WINDOW = 10
"""Number of logged steps from which a run's health is judged."""

Line = dict[str, Any]


def health(history: Sequence[Line]) -> list[str]:
    """Return a line for each problem of a run, with its remedy.

    Uses the last ``WINDOW`` logged steps; entropy is compared with the first ``WINDOW`` steps.
    """
    findings: list[str] = []
    train = [line for line in history if "loss" in line]
    if any(not math.isfinite(line[name]) for line in history for name in ("loss", "eval_loss") if name in line):
        findings.append("the loss is not a number: lower optim.learning_rate or optim.max_grad_norm")
    recent = train[-WINDOW:]
    if len(recent) == WINDOW:
        if _mean(recent, "equal_groups") > 0.8:
            findings.append(
                "most groups have equal rewards, so there is no gradient: raise grpo.temperature or "
                "grpo.generations, or train SFT longer first"
            )
        if _mean(recent, "completions/clipped_ratio") > 0.5:
            findings.append(
                "most completions are cut at the limit: raise grpo.max_completion_tokens, or train SFT first so that "
                "answers end"
            )
        before, now = _mean(train[:WINDOW], "entropy"), _mean(recent, "entropy")
        if len(train) >= 2 * WINDOW and before > 0 and now < 0.1 * before:
            findings.append(
                f"entropy fell from {before:.2f} to {now:.2f}, the policy is collapsing: raise grpo.beta or lower "
                "optim.learning_rate"
            )
    return findings


def finite(lines: Sequence[Line], name: str) -> list[float]:
    """Return the finite values of a column."""
    return [line[name] for line in lines if math.isfinite(line.get(name, math.nan))]


def _mean(lines: Sequence[Line], name: str) -> float:
    values = finite(lines, name)
    return sum(values) / len(values) if values else 0.0


def label_entropy(configs: Sequence[Mapping[str, Any]]) -> float:
    """Return how different the configs are, from 0 (all equal) to 1 (labels evenly distributed).

    It is the mean over the fields of the labels' entropy, divided by the largest entropy that so many configs can have.
    A model that gives the same answer to all vibes has a low value.
    """
    if len(configs) < 2:
        return 0.0
    shares: list[float] = []
    for name, spec in FIELDS.items():
        labels = [config[name] for config in configs]
        parts = [labels.count(label) / len(labels) for label in spec.labels]
        bits = -sum(part * math.log2(part) for part in parts if part)
        shares.append(bits / math.log2(min(len(spec.labels), len(configs))))
    return sum(shares) / len(shares)


def draw(history: Sequence[Line], title: str, path: Path) -> None:
    """Write the run's curves as a PNG: training loss, validation loss and, on an axis of its own, the reward."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.add_subplot()
    left.set(title=title, xlabel="step", ylabel="loss")
    left.grid(alpha=0.3)
    curves = (
        ("loss", "training loss", "#324A5F"),
        ("eval_loss", "validation loss", "#C1666B"),
        ("reward", "reward", "#4B8F8C"),
    )
    for name, label, color in curves:
        if values := finite(history, name):
            steps = [line["step"] for line in history if math.isfinite(line.get(name, math.nan))]
            axes = left.twinx() if name == "reward" else left
            axes.plot(steps, values, label=label, color=color, marker="o" if len(values) < 30 else None, markersize=3)
            if name == "reward":
                axes.set_ylabel("reward", color=color)
            else:
                left.legend(loc="upper right")
    figure.savefig(path, dpi=120)
