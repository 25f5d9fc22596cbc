"""A local model that answers the questions of ``vibes`` and ``configs`` on a remote executor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from latentscore.decoding import Prompt, Written
from latentscore_data.core.base.answerers import LOCAL, kind_of
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.models.engines import Engine
from latentscore_data.core.scoring.executor import Executor, RemoteJobEstimate


class RemoteEngine:
    """Sends prompts in shards. Cache and cache keys of the answers are those of an engine on this machine.

    The cost of an answer is its share of the paid seconds of its shard. Raises :class:`InputError` for a model that cannot
    be made available there, and the errors of shards.
    """

    def __init__(self, name: str, executor: Executor, runs: Path) -> None:
        executor.require()
        executor.check_model(name, runs)
        self._name, self._executor, self._runs = name, executor, runs
        self._sent = False

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        """One answer per prompt, in order."""
        if not self._sent:
            self._executor.send_model(self._name, self._runs)
            self._sent = True
        common = {"model": self._name, "grammar": prompts[0].grammar}
        plain = [{name: value for name, value in asdict(prompt).items() if name != "grammar"} for prompt in prompts]
        written: list[Written] = []
        for part in self._executor.map("write_shard", "prompts", plain, common):
            cost = self._executor.price_per_second(gpu=True) * part["seconds"] / len(part["written"])
            written += [Written(**{**one, "cost_usd": cost}) for one in part["written"]]
        return written


def answers_estimates(plan: Plan, at_once: int, executor: Executor) -> list[RemoteJobEstimate]:
    """Estimate the answers of a plan on the executor, decoded ``at_once`` at a time; empty if the model does not run there,
    or if all answers are in the cache."""
    if not plan.calls or kind_of(plan.model) is not LOCAL:
        return []
    tokens = math.ceil(plan.tokens_out / plan.calls)
    found = executor.estimate_answers(plan.model, plan.calls, tokens, at_once)
    return [replace(one, booked=True) for one in found]


def engine_elsewhere(model: str, executor: Executor | None, runs: Path) -> Engine | None:
    """Return the engine of a local model on a remote executor; None if the model runs, or is called, from this machine."""
    if executor is None or not executor.remote or kind_of(model) is not LOCAL:
        return None
    return RemoteEngine(model.removeprefix(LOCAL.prefix), executor, runs)
