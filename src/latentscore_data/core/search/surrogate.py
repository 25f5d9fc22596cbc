"""The surrogate: predicts a scorer's vectors from labels without rendering, with a Gaussian process for each dimension.

The kernel is ``s + c * s**2`` with ``s = sum(w_f * k_f)`` over the 34 fields, so each field and each pair of fields has
its own effect. The weights ``w`` (automatic relevance determination) maximize the likelihood of the training vectors
(Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter 5). ``k_f`` is 1 for equal labels, else
0; on ordered fields it decreases with the distance. The mean of such a process is a quadratic form of the 185 one-hot
columns, so the cost of a prediction does not depend on the number of training configs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from latentscore_data.core.search.space import LABELS, ORDERED, SIZES, STARTS, Codes, Floats, one_hot

Places = tuple[NDArray[np.intp], NDArray[np.intp]]

HELD_OUT = 0.2
"""Share of the configs that R2 is measured on. They are added to the process afterwards."""
WEIGHTS_FROM = 320
"""Largest number of configs that the weights are fitted on: the time grows with the third power."""
STEPS = 30
"""Largest number of iterations of the fit."""
MOST_DIMENSIONS = 32
"""Vectors with more dimensions are reduced to this many principal components."""
STIFF = 0.02
"""Weight of the penalty on the distance of the logarithms from :data:`START`."""
SURROGATE_VERSION = 1
"""Incremented if the same configs and vectors would give other weights."""
START = np.log(np.array([0.5 / len(SIZES)] * len(SIZES) + [0.3, 0.3]))
"""Initial logarithms of field weights, ``c`` and noise variance, in units of the variance of the values."""

BOUNDS = [(-12.0, 3.0)] * (len(START) - 1) + [(-6.0, 3.0)]
"""Bounds of the logarithms. The noise has a lower bound, because a kernel of many configs without noise is singular."""


def _field_kernels() -> Floats:
    """Return the kernels of all fields as one block-diagonal matrix, shape (185, 185)."""
    blocks = np.zeros((LABELS, LABELS))
    for start, size, ordered in zip(STARTS, SIZES, ORDERED, strict=True):
        away = abs(np.subtract.outer(np.arange(size), np.arange(size))) / max(1, size - 1)
        blocks[start : start + size, start : start + size] = np.exp(-2.0 * away) if ordered else np.eye(size)
    return blocks


KERNELS = _field_kernels()
FIELD_OF = np.repeat(np.arange(len(SIZES)), SIZES)
"""The index of the field of each of the 185 labels."""


@dataclass(frozen=True)
class _Process:
    """The Gaussian process of one dimension: its fitted logarithms and its standardized training values."""

    logs: Floats
    lower: Floats
    """Cholesky factor of the training kernel, shape (configs, configs)."""
    values: Floats

    def kernel(self, ours: Floats, theirs: Floats) -> Floats:
        inner = (ours * np.exp(self.logs[FIELD_OF])) @ KERNELS @ theirs.T
        return inner + np.exp(self.logs[-2]) * inner * inner

    @classmethod
    def trained(cls, logs: Floats, table: Floats, values: Floats) -> Self:
        made = cls(logs, np.empty((0, 0)), values)
        gram = made.kernel(table, table) + np.exp(logs[-1]) * np.eye(len(table))
        return cls(logs, np.linalg.cholesky(gram), values)

    def with_more(self, table: Floats, new: Floats, values: Floats) -> Self:
        """Return the process with more configs; the Cholesky factor is extended by their rows."""
        from scipy.linalg import solve_triangular

        beside = solve_triangular(self.lower, self.kernel(table, new), lower=True).T
        corner = self.kernel(new, new) + np.exp(self.logs[-1]) * np.eye(len(new)) - beside @ beside.T
        top = np.hstack([self.lower, np.zeros((len(table), len(new)))])
        lower = np.vstack([top, np.hstack([beside, np.linalg.cholesky(corner)])])
        return type(self)(self.logs, lower, np.concatenate([self.values, values]))

    def form(self, table: Floats) -> tuple[Floats, Floats]:
        """Return the mean as a linear and a quadratic form of the one-hot columns, shapes (185,) and (185, 185)."""
        from scipy.linalg import cho_solve

        dual = cho_solve((self.lower, True), self.values)
        columns = (table @ KERNELS) * np.exp(self.logs[FIELD_OF])
        return dual @ columns, np.exp(self.logs[-2]) * (columns.T * dual) @ columns

    def variance(self, table: Floats, asked: Floats) -> Floats:
        """Return the posterior variance of each config as a share of its prior variance, shape (configs,)."""
        from scipy.linalg import solve_triangular

        known = solve_triangular(self.lower, self.kernel(table, asked), lower=True)
        inner = np.einsum("ij,ij->i", (asked * np.exp(self.logs[FIELD_OF])) @ KERNELS, asked)
        before = inner + np.exp(self.logs[-2]) * inner * inner
        return np.clip(1.0 - (known * known).sum(axis=0) / before, 0.0, 1.0)


class Surrogate:
    """Predicts vectors of configs. ``r2`` is the mean over dimensions on held-out configs."""

    def __init__(self, processes: list[_Process], table: Floats, scale: _Scale, r2_by_dimension: Floats) -> None:
        self._processes, self._table, self._scale = processes, table, scale
        self.weights = np.stack([process.logs for process in processes])
        """The fitted logarithms of each dimension, shape (dimensions, 36). Only they are slow to fit."""
        self.r2_by_dimension = r2_by_dimension
        forms = [process.form(table) for process in processes]
        self._linear = np.stack([linear for linear, _ in forms], axis=1).astype(np.float32)
        self._quadratic = np.stack([quadratic for _, quadratic in forms]).astype(np.float32)

    @property
    def r2(self) -> float:
        return float(self.r2_by_dimension.mean())

    @classmethod
    def fit(cls, codes: Codes, vectors: Floats, weights: Floats | None = None) -> Self:
        """Return a surrogate of configs (n, 34) and their vectors (n, dim). The last configs are held out for R2.

        ``weights`` are the :attr:`weights` of an earlier surrogate of the same configs and vectors.
        """
        scale = _Scale.of(vectors)
        table, values = one_hot(codes), scale.down(vectors)
        seen = round(len(table) * (1.0 - HELD_OUT))
        some = slice(min(seen, WEIGHTS_FROM))
        logs = _fitted(table[some], values[some]) if weights is None else list(weights)
        known = [_Process.trained(log, table[:seen], column[:seen]) for log, column in zip(logs, values.T, strict=True)]
        first = cls(known, table[:seen], scale, np.zeros(1))
        missed = ((scale.up(first._values(table[seen:])) - vectors[seen:]) ** 2).sum(axis=0)
        spread = ((vectors[seen:] - vectors[seen:].mean(axis=0)) ** 2).sum(axis=0)
        r2 = 1.0 - missed / np.maximum(spread, 1e-12)
        whole = [
            p.with_more(table[:seen], table[seen:], column[seen:]) for p, column in zip(known, values.T, strict=True)
        ]
        return cls(whole, table, scale, r2)

    def with_more(self, codes: Codes, vectors: Floats) -> Surrogate:
        """Return a surrogate with more configs; this one does not change."""
        new, values = one_hot(codes), self._scale.down(vectors)
        grown = [p.with_more(self._table, new, column) for p, column in zip(self._processes, values.T, strict=True)]
        return Surrogate(grown, np.vstack([self._table, new]), self._scale, self.r2_by_dimension)

    def predict(self, codes: Codes) -> Floats:
        """Return predicted vectors, shape (configs, dim)."""
        return self._scale.up(self._values(one_hot(codes)))

    def uncertainty(self, codes: Codes) -> Floats:
        """Return the relative posterior variance of each config, from 0 to 1, shape (configs,): the mean of up to 6
        dimensions."""
        table = one_hot(codes)
        some = self._processes[:: max(1, len(self._processes) // 6)]
        return np.mean([process.variance(self._table, table) for process in some], axis=0)

    def _values(self, table: Floats) -> Floats:
        narrow = table.astype(np.float32)
        pairs = [np.einsum("ij,ij->i", narrow @ form, narrow) for form in self._quadratic]
        # In single precision, the last digits depend on the number of threads.
        return np.round((narrow @ self._linear + np.stack(pairs, axis=1)).astype(np.float64), 4)


@dataclass(frozen=True)
class _Scale:
    """Converts vectors to standardized values (of principal components for many dimensions) and back."""

    mean: Floats
    spread: Floats
    components: Floats | None
    unit: bool
    """Whether the vectors have length 1; then predictions are normalized, too."""

    @classmethod
    def of(cls, vectors: Floats) -> _Scale:
        mean = vectors.mean(axis=0)
        unit = bool(np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3))
        components = None
        if vectors.shape[1] > MOST_DIMENSIONS:
            components = np.linalg.svd(vectors - mean, full_matrices=False)[2][:MOST_DIMENSIONS]
        centred = vectors - mean if components is None else (vectors - mean) @ components.T
        return cls(mean, np.maximum(centred.std(axis=0), 1e-9), components, unit)

    def down(self, vectors: Floats) -> Floats:
        centred = vectors - self.mean
        centred = centred if self.components is None else centred @ self.components.T
        return np.clip(centred / self.spread, -4.0, 4.0)

    def up(self, values: Floats) -> Floats:
        centred = values * self.spread
        vectors = self.mean + (centred if self.components is None else centred @ self.components)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if self.unit else vectors


def _fitted(table: Floats, values: Floats) -> list[Floats]:
    """Return the logarithms of weights, ``c`` and noise that maximize the likelihood of each column of ``values``."""
    from scipy.optimize import minimize

    above = np.triu_indices(len(table))
    places = table.nonzero()[1].reshape(len(table), -1)
    grams = np.stack([KERNELS[column[above[0]], column[above[1]]] for column in places.T])
    found: list[Floats] = []
    for column in values.T:
        done = minimize(
            _evidence,
            START,
            (column, grams, above),
            method="L-BFGS-B",
            jac=True,
            bounds=BOUNDS,
            options={"maxiter": STEPS},
        )
        # Rounded as in the score cache, so that a surrogate from the cache gives equal predictions.
        found.append(np.round(done.x, 6).astype(np.float32).astype(np.float64))
    return found


def _evidence(logs: Floats, values: Floats, grams: Floats, above: Places) -> tuple[float, Floats]:
    """Return the penalized negative log likelihood of a column and its gradient. ``grams`` has the upper triangle of
    each field's Gram matrix."""
    from scipy.linalg import cho_solve, cholesky

    weights, square, noise = np.exp(logs[:-2]), np.exp(logs[-2]), np.exp(logs[-1])
    count = len(values)
    inner = weights @ grams
    gram = np.zeros((count, count))
    gram[above] = inner + square * inner * inner
    gram[np.arange(count), np.arange(count)] += noise
    try:
        factor = cholesky(gram, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e12, np.zeros_like(logs)
    inverse = cho_solve((factor, False), np.eye(count), check_finite=False)
    dual = inverse @ values
    apart = logs - START
    loss = 0.5 * values @ dual + np.log(np.diag(factor)).sum() + STIFF * apart @ apart
    # Each entry above the diagonal also counts for the one below.
    slope = (inverse[above] - dual[above[0]] * dual[above[1]]) * np.where(above[0] == above[1], 0.5, 1.0)
    steep = np.empty_like(logs)
    steep[:-2] = weights * (grams @ (slope * (1.0 + 2.0 * square * inner)))
    steep[-2] = square * (slope @ (inner * inner))
    steep[-1] = noise * slope[above[0] == above[1]].sum()
    return float(loss), steep + 2.0 * STIFF * apart
