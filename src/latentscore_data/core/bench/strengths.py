"""Strengths from pairwise answers: the Bradley-Terry model with Davidson's ties (1970), and bootstrap intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentscore.json_search import JsonObject
from latentscore.seeds import rng_for
from latentscore_data.core.bench.stats import too_few
from latentscore_data.core.scoring.bootstrap import interval_tails


@dataclass(frozen=True)
class Game:
    """One answer to "which fits better?": ``choice`` is 0 for ``a``, 1 for ``b`` and 2 for a tie.

    Games of one ``document`` are resampled together.
    """

    a: str
    b: str
    choice: int
    document: str

    def outcome(self, label: str) -> str:
        """Return ``won``, ``lost`` or ``tied`` for one of the two players."""
        if self.choice == 2:
            return "tied"
        return "won" if (self.choice == 0) == (self.a == label) else "lost"


@dataclass(frozen=True)
class Player:
    """A log strength (zero is the mean of all players) and its 95 % interval (None below eight documents)."""

    label: str
    strength: float
    low: float | None
    high: float | None
    won: int
    lost: int
    tied: int

    @property
    def in_words(self) -> str:
        interval = f" [{self.low:+.2f}, {self.high:+.2f}]" if self.low is not None and self.high is not None else ""
        return f"{self.strength:+.2f}{interval}, {self.won} won, {self.lost} lost, {self.tied} tied"

    def to_dict(self) -> JsonObject:
        return {**vars(self), "in_words": self.in_words}


def fit(games: Sequence[Game], *, seed: int = 0, resamples: int = 400) -> tuple[list[Player], float]:
    """Return the players of at least one game, the strongest first, and Davidson's tie parameter (0: no ties).

    Intervals are quantiles over ``resamples`` draws of whole documents, for these listeners: answers of one listener
    are not resampled together.
    """
    labels = sorted({label for game in games for label in (game.a, game.b)})
    numbered = [(labels.index(game.a), labels.index(game.b), game.choice) for game in games]
    strengths, tie = bradley_terry(numbered, len(labels))
    documents = [game.document for game in games]
    spread = _resampled(numbered, documents, len(labels), seed, resamples)
    players: list[Player] = []
    for i in np.argsort(-strengths):
        low, high = None, None
        if spread is not None:
            low, high = map(float, np.quantile(spread[:, i], interval_tails(len(set(documents)))))
        record = Counter(game.outcome(labels[i]) for game in games if labels[i] in (game.a, game.b))
        players.append(Player(labels[i], float(strengths[i]), low, high, record["won"], record["lost"], record["tied"]))
    return players, tie


PRIOR_GAMES = 0.1
"""Weight of the prior between each two players that met (half a win of either), so that the strength of an unbeaten
player is finite."""


def bradley_terry(
    games: Sequence[tuple[int, int, int]],
    players: int,
    prior: float = PRIOR_GAMES,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> tuple[NDArray[np.float64], float]:
    """Return maximum-likelihood log strengths with mean zero, shape (players,), and Davidson's tie parameter nu.

    A game is (a, b, outcome), where the outcome is 0 (a won), 1 (b won) or 2 (tie). Davidson (1970):
    P(a) : P(b) : P(tie) = e^a : e^b : nu e^((a+b)/2). ``pairs`` are the players that the prior ties, by default those
    that met.
    """
    array = np.asarray(games, dtype=np.int64)
    tally: Counter[tuple[int, int, int]] = Counter(map(tuple, array.tolist()))
    rows = np.array(list(tally), dtype=np.int64)
    met = np.array(_pairs(games) if pairs is None else pairs, dtype=np.int64)

    # The games, and the prior for each two players that met: half of its weight is a win of either.
    a = np.concatenate([rows[:, 0], met[:, 0], met[:, 0]])
    b = np.concatenate([rows[:, 1], met[:, 1], met[:, 1]])
    outcome = np.concatenate([rows[:, 2], np.zeros(len(met), dtype=np.int64), np.ones(len(met), dtype=np.int64)])
    weights = np.concatenate([np.array(list(tally.values()), dtype=np.float64), np.full(2 * len(met), prior / 2)])

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the negative log likelihood and its gradient."""
        strengths, log_tie = parameters[:-1], float(parameters[-1])
        logits = np.stack([strengths[a], strengths[b], log_tie + (strengths[a] + strengths[b]) / 2])
        log_chances = logits - np.logaddexp.reduce(logits, axis=0)
        each = np.arange(len(outcome))
        # Only differences of strengths are determined; this term fixes their sum without changing the differences.
        value = -float(weights @ log_chances[outcome, each]) + 1e-3 * float(strengths.sum()) ** 2 + 1e-4 * log_tie**2
        by_logit = weights * np.exp(log_chances)
        by_logit[outcome, each] -= weights
        gradient = np.full(players + 1, 2e-3 * float(strengths.sum()))
        np.add.at(gradient, a, by_logit[0] + by_logit[2] / 2)
        np.add.at(gradient, b, by_logit[1] + by_logit[2] / 2)
        gradient[-1] = float(by_logit[2].sum()) + 2e-4 * log_tie
        return value, gradient

    from scipy import optimize

    start, bounds = np.zeros(players + 1), [(-12, 12)] * (players + 1)
    best = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    strengths = best.x[:-1] - best.x[:-1].mean()
    return strengths, float(np.exp(best.x[-1]))


def _pairs(games: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Return the players that met, each pair once."""
    return sorted({(min(a, b), max(a, b)) for a, b, _ in games})


def _resampled(
    games: Sequence[tuple[int, int, int]], documents: Sequence[str], players: int, seed: int, resamples: int
) -> NDArray[np.float64] | None:
    """Return strengths of resampled source documents, shape (resamples, players); None below eight documents."""
    names = sorted(set(documents))
    if too_few(len(names)):
        return None
    of_document = [[game for game, d in zip(games, documents, strict=True) if d == name] for name in names]
    # A resample may lack a player; with the prior of all games its strength is still determined.
    pairs = _pairs(games)
    rng = rng_for(seed, "listeners")
    found = []
    for _ in range(resamples):
        drawn = [game for i in rng.integers(len(names), size=len(names)) for game in of_document[int(i)]]
        found.append(bradley_terry(drawn, players, pairs=pairs)[0])
    return np.array(found)
