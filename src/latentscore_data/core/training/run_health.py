"""Looking at a run: its health while it trains, how different its answers are, and the picture of its loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentscore.labels import FIELDS

WINDOW = 10
"""Logged steps over which a run's health is judged."""

Line = dict[str, Any]


def health(history: Sequence[Line]) -> list[str]:
    """What is wrong with a run, and what to change; an empty list when nothing is.

    Judged on the last ``WINDOW`` logged steps; entropy is compared with the first ones.
    """
    findings: list[str] = []
    train = [line for line in history if "loss" in line]
    if any(not math.isfinite(line[name]) for line in history for name in ("loss", "eval_loss") if name in line):
        findings.append("the loss is not a number: lower optim.learning_rate or optim.max_grad_norm")
    recent = train[-WINDOW:]
    if len(recent) == WINDOW:
        if _mean(recent, "frac_reward_zero_std") > 0.8:
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
    """The values of one column, without those of steps that lack it or where it was no number."""
    return [line[name] for line in lines if math.isfinite(line.get(name, math.nan))]


def _mean(lines: Sequence[Line], name: str) -> float:
    values = finite(lines, name)
    return sum(values) / len(values) if values else 0.0


def label_entropy(configs: Sequence[Mapping[str, Any]]) -> float:
    """How different configs are: the entropy of the labels of each of the 34 fields as a share of the largest that so many
    configs can have, mean over the fields. 0 where all are alike, 1 where labels are spread evenly: a model whose answers have
    collapsed shows here."""
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
    """The run's curves as a PNG: the loss on training and validation rows, and the reward where there is one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = [("loss", "training loss"), ("eval_loss", "validation loss"), ("reward", "reward")]
    shown = [(name, label) for name, label in curves if finite(history, name)]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    left.set(title=title, xlabel="step", ylabel="loss")
    for name, label in shown:
        axes = left.twinx() if name == "reward" else left
        steps = [line["step"] for line in history if math.isfinite(line.get(name, math.nan))]
        values = finite(history, name)
        color = {"loss": "#324A5F", "eval_loss": "#C1666B", "reward": "#4B8F8C"}[name]
        axes.plot(steps, values, label=label, color=color, marker="o" if len(values) < 30 else None, markersize=3)
        if name == "reward":
            axes.set_ylabel("reward", color=color)
    left.grid(alpha=0.3)
    if any(name != "reward" for name, _ in shown):
        left.legend(loc="upper right")
    figure.savefig(path, dpi=120)
