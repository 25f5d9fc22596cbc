"""The method of the search: it chooses the configs to render next, one generation after the other.

Each generation proposes a pool of configs: by the cross-entropy method (labels sampled by their frequency among the
best so far), and by crossover and mutation of the best. With a surrogate, its predictions evolve the pool and choose
the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from latentscore_data.core.search.prior import Prior
from latentscore_data.core.search.space import Codes, Floats, drawn, keys, mixed, one_hot

ELITE = 8
"""Number of best configs so far that the next generation is made from."""
PRIOR_SHARE = 0.5
"""Share of the prior in the probabilities of labels."""
POOL, ROUNDS, SURVIVORS = 600, 4, 100
"""Configs proposed in a generation; rounds in which the surrogate evolves them; configs that survive each round."""
EXPLORED = 0.25
"""Share of a batch that goes to the survivors with the largest uncertainty of the prediction."""
APART = 2
"""Smallest number of fields in which two configs of a batch differ."""

Predict = Callable[[Codes], Floats]
"""One value for each config, shape (configs,)."""


@dataclass(frozen=True)
class Prediction:
    """The surrogate's predictions for configs: the guide's score, and the uncertainty from 0 to 1."""

    score: Predict
    uncertainty: Predict


class Method:
    """Proposes configs (:meth:`ask`) and learns from their scores (:meth:`tell`).

    The same random generator, starts and scores give the same configs.
    """

    def __init__(self, prior: Prior, rng: np.random.Generator) -> None:
        self._prior, self._rng = prior, rng
        self.codes: Codes = np.empty((0, 34), dtype=np.int8)
        self.gains: Floats = np.empty(0)
        """The objective: the guide's score minus the prior's cost; -inf for a config without a score."""
        self._known: set[bytes] = set()

    def tell(self, codes: Codes, scores: Floats) -> None:
        """Add the guide's scores of rendered configs; NaN for a config without a score."""
        gains = np.where(np.isnan(scores), -np.inf, scores - self._prior.cost(codes))
        self.codes, self.gains = np.vstack([self.codes, codes]), np.concatenate([self.gains, gains])
        self._known.update(keys(codes))

    def ask(self, count: int, prediction: Prediction | None = None) -> Codes:
        """Return up to ``count`` configs to render next, none of them known, shape (configs, 34)."""
        parents = self._elite()
        chances = self._chances(parents)
        pool = np.vstack([drawn(chances, POOL // 3, self._rng), mixed(parents, POOL - POOL // 3, chances, self._rng)])
        if prediction is None:
            pool = self._fresh(pool)
            return pool[self._rng.permutation(len(pool))[:count]]
        return self._picked(self._evolved(pool, chances, prediction), count, prediction)

    def chance(self, count: int) -> Codes:
        """Return up to ``count`` configs that are sampled from the prior alone, none of them known."""
        return self._fresh(drawn(self._prior.chances, 8 * count + 8, self._rng))[:count]

    def _elite(self) -> Codes:
        playable = np.flatnonzero(np.isfinite(self.gains))
        if not len(playable):
            return drawn(self._prior.chances, ELITE, self._rng)
        return self.codes[playable[np.argsort(-self.gains[playable], kind="stable")[:ELITE]]]

    def _chances(self, parents: Codes) -> Floats:
        return PRIOR_SHARE * self._prior.chances + (1.0 - PRIOR_SHARE) * one_hot(parents).mean(axis=0)

    def _fresh(self, pool: Codes) -> Codes:
        """Return the configs that are not known yet, each once, in their order."""
        first = dict.fromkeys(keys(pool))
        fresh = [key for key in first if key not in self._known]
        return np.frombuffer(b"".join(fresh), dtype=np.int8).reshape(len(fresh), pool.shape[1]).copy()

    def _evolved(self, pool: Codes, chances: Floats, prediction: Prediction) -> Codes:
        """Return the survivors of :data:`ROUNDS` rounds of mutation and selection by predicted gain, the best first."""
        pool = self._fresh(pool)
        gains = self._predicted(pool, prediction)
        for _ in range(ROUNDS):
            best = pool[np.argsort(-gains, kind="stable")[:SURVIVORS]]
            children = mixed(best, POOL // 2, chances, self._rng, moves=1.5)
            pool = self._fresh(np.vstack([best, children]))
            gains = self._predicted(pool, prediction)
        return pool[np.argsort(-gains, kind="stable")[:SURVIVORS]]

    def _predicted(self, codes: Codes, prediction: Prediction) -> Floats:
        return prediction.score(codes) - self._prior.cost(codes)

    @staticmethod
    def _picked(survivors: Codes, count: int, prediction: Prediction) -> Codes:
        """Return the best survivors and some of the most uncertain, with at least :data:`APART` different fields."""
        by_uncertainty = np.argsort(-prediction.uncertainty(survivors), kind="stable")
        chosen: list[int] = []
        for order, most in ((np.arange(len(survivors)), count - int(count * EXPLORED)), (by_uncertainty, count)):
            for index in order.tolist():
                if len(chosen) < most and ((survivors[chosen] != survivors[index]).sum(axis=1) >= APART).all():
                    chosen.append(index)
        left = [index for index in range(len(survivors)) if index not in chosen]
        return survivors[(chosen + left)[:count]]
