"""The method of the search: which configs to render next, generation by generation.

Each generation proposes a pool of configs by the cross-entropy method (labels drawn by the chances among the best so far) and
by crossing and changing the best; the surrogate, where there is one, evolves the pool and picks the batch that is rendered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from latentscore_data.core.search.prior import Prior
from latentscore_data.core.search.space import Codes, Floats, drawn, keys, mixed, one_hot

ELITE = 8
"""Best configs so far that the next generation is made from."""
PRIOR_SHARE = 0.5
"""How much of the label chances stays with the prior."""
POOL, ROUNDS, SURVIVORS = 600, 4, 100
"""Configs proposed in a generation; rounds in which the surrogate evolves them, and how many live on in each."""
DOUBTED = 0.25
"""Share of a batch that goes to configs whose vectors are least known, among the survivors."""
APART = 2
"""Fields in which two configs of a batch differ at least."""

Predict = Callable[[Codes], Floats]
"""The guide's scores of configs, as predicted; shape (configs,)."""


@dataclass(frozen=True)
class Foresight:
    """What the surrogate says of configs: the guide's score, and how little is known of each (0 to 1)."""

    score: Predict
    doubt: Predict


class Method:
    """Ask for configs, tell their scores. Deterministic: the same generator, starts and scores give the same configs."""

    def __init__(self, prior: Prior, rng: np.random.Generator) -> None:
        self._prior, self._rng = prior, rng
        self.codes: Codes = np.empty((0, 34), dtype=np.int8)
        self.gains: Floats = np.empty(0)
        """What is maximised: the guide's score minus the prior's cost; -inf where a config could not be scored."""
        self._known: set[bytes] = set()

    def tell(self, codes: Codes, scores: Floats) -> None:
        """Take over the guide's scores of rendered configs; NaN for one without a score."""
        gains = np.where(np.isnan(scores), -np.inf, scores - self._prior.cost(codes))
        self.codes, self.gains = np.vstack([self.codes, codes]), np.concatenate([self.gains, gains])
        self._known.update(keys(codes))

    def ask(self, count: int, foresight: Foresight | None = None) -> Codes:
        """``count`` configs to render next, none of them known already."""
        parents = self._elite()
        chances = self._chances(parents)
        pool = np.vstack([drawn(chances, POOL // 3, self._rng), mixed(parents, POOL - POOL // 3, chances, self._rng)])
        if foresight is None:
            pool = self._fresh(pool)
            return pool[self._rng.permutation(len(pool))[:count]]
        return self._picked(self._evolved(pool, chances, foresight), count, foresight)

    def chance(self, count: int) -> Codes:
        """``count`` configs drawn by the prior alone, none of them known already."""
        return self._fresh(drawn(self._prior.chances, 8 * count + 8, self._rng))[:count]

    def _elite(self) -> Codes:
        playable = np.flatnonzero(np.isfinite(self.gains))
        if not len(playable):
            return drawn(self._prior.chances, ELITE, self._rng)
        return self.codes[playable[np.argsort(-self.gains[playable], kind="stable")[:ELITE]]]

    def _chances(self, parents: Codes) -> Floats:
        return PRIOR_SHARE * self._prior.chances + (1.0 - PRIOR_SHARE) * one_hot(parents).mean(axis=0)

    def _fresh(self, pool: Codes) -> Codes:
        """The configs that are not known yet, each once, in their order."""
        first = dict.fromkeys(keys(pool))
        fresh = [key for key in first if key not in self._known]
        return np.frombuffer(b"".join(fresh), dtype=np.int8).reshape(len(fresh), pool.shape[1]).copy()

    def _evolved(self, pool: Codes, chances: Floats, foresight: Foresight) -> Codes:
        """The survivors of a few rounds in which the predicted gain decides, the best first."""
        pool = self._fresh(pool)
        gains = self._predicted(pool, foresight)
        for _ in range(ROUNDS):
            best = pool[np.argsort(-gains, kind="stable")[:SURVIVORS]]
            children = mixed(best, POOL // 2, chances, self._rng, moves=1.5)
            pool = self._fresh(np.vstack([best, children]))
            gains = self._predicted(pool, foresight)
        return pool[np.argsort(-gains, kind="stable")[:SURVIVORS]]

    def _predicted(self, codes: Codes, foresight: Foresight) -> Floats:
        return foresight.score(codes) - self._prior.cost(codes)

    @staticmethod
    def _picked(survivors: Codes, count: int, foresight: Foresight) -> Codes:
        """The best and some of the least known, all of them apart from each other."""
        by_doubt = np.argsort(-foresight.doubt(survivors), kind="stable")
        doubted = int(count * DOUBTED)
        chosen: list[int] = []
        for at, most in ((np.arange(len(survivors)), count - doubted), (by_doubt, count)):
            for index in at.tolist():
                if len(chosen) >= most:
                    break
                if index not in chosen and _is_apart(survivors, index, chosen):
                    chosen.append(index)
        left = [index for index in range(len(survivors)) if index not in chosen]
        return survivors[(chosen + left)[:count]]


def _is_apart(codes: Codes, index: int, chosen: list[int]) -> bool:
    return not chosen or int((codes[chosen] != codes[index]).sum(axis=1).min()) >= APART
