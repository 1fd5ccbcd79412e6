"""check_samples: norms, inner products and weighted sums of single gradients against the gradients themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _linear, _per_sample
from .._arrays import namespace
from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array
from .._arrays.types import StandardArray
from .._dask import compute
from .._math import sample_checks
from .._math.equations import sum_dtypes
from .gradients import GradientCheck, GradientReport, passed, positive, tolerance

IDENTITIES = {"norms": "|gradient n|", "dots": "<gradient n, gradient q>", "weighted": "sum of w n * gradient n"}


def check_samples(
    X: StandardArray,
    dY: StandardArray,
    *,
    sample_axes: int = 1,
    norms: Callable[..., Any] | None = None,
    dots: Callable[..., Any] | None = None,
    weighted: Callable[..., Any] | None = None,
    queries: int = 3,
    seed: int = 0,
) -> GradientReport:
    """Check norms, inner products and weighted sums of single gradients on these arrays, to rounding.

    They are compared with those of the gradients themselves, which are formed in float64 on the
    host, one sample after the other.

    Parameters
    ----------
    X, dY : array, shapes (N, ..., C) and (N, ..., S)
        As in `per_sample_norms`. A float64 copy of both is held: give a part of a large batch.
    sample_axes : int
        The number of leading axes that count samples.
    norms, dots, weighted : callable, optional
        ``norms(X, dY)`` and ``dots(X, dY, Xq, dYq)``, of the gradients of W and B together, and
        ``weighted(X, dY, sample_weight)``, which returns dW; by default those of the package.
    queries : int
        The number of random query samples, at least one.
    seed : int
        The seed of the queries and the weights.

    Returns
    -------
    GradientReport

    Raises
    ------
    AssertionError
        If a number is wrong, or a result has another shape. The message names each.
    TypeError, ValueError
        As `per_sample_norms`; also if `queries` is not a positive integer.

    Notes
    -----
    The tolerance is 8 eps sqrt(n), where n is the length of the sums: C S for norms and inner
    products, and the number of rows for the weighted sum. It is relative to the norms of what is
    multiplied, the sum over positions t of ``|x_t| |dy_t|``.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> rng = np.random.default_rng(0)
    >>> X, dY = rng.normal(size=(20, 5, 4)), rng.normal(size=(20, 5, 3))
    >>> fc.testing.check_samples(X, dY).ok
    True

    Norms that forget the bias:

    >>> def norms(X, dY):
    ...     return fc.per_sample_norms(X, dY, needs=("dW",))
    >>> fc.testing.check_samples(X, dY, norms=norms)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    AssertionError: norms: |gradient n| is off by ...
    """
    xp = sample_checks.check_per_sample("check_samples", X, dY, sample_axes)
    count, rng, C, S = positive(queries, "queries"), np.random.default_rng(seed), X.shape[-1], dY.shape[-1]
    lead, positions = tuple(X.shape[:sample_axes]), X.ndim - 1 - sample_axes
    of_queries = (*(1,) * (sample_axes - 1), count, *(1,) * positions)
    Xq, dYq = (_like(array, rng.standard_normal((*of_queries, size))) for array, size in ((X, C), (dY, S)))
    sample_weight = _like(X, rng.standard_normal(lead))
    how: dict[str, Any] = {"sample_axes": sample_axes}
    made = {
        "norms": norms(X, dY) if norms else _per_sample.per_sample_norms(X, dY, **how),
        "dots": dots(X, dY, Xq, dYq) if dots else _per_sample.per_sample_dots(X, dY, Xq, dYq, **how),
        "weighted": (weighted or _weighted)(X, dY, sample_weight),
    }
    x, dy, xq, dyq, weights = map(_host, (X, dY, Xq, dYq, sample_weight))
    expected, sizes = _literal(x, dy, xq, dyq, weights, sample_axes)
    dtype, _ = sum_dtypes(xp, (X.dtype, dY.dtype))
    rows = math.prod(X.shape[:-1])
    found = []
    for name, terms in (("norms", C * S), ("dots", C * S), ("weighted", rows)):
        ours, allowed = _host(made[name]), tolerance(dtype, terms)
        if ours.shape != expected[name].shape:
            why = f"has shape {ours.shape}, must be {expected[name].shape}"
            found.append(GradientCheck(name, IDENTITIES[name], math.inf, allowed, why))
            continue
        difference, size = np.abs(ours - expected[name]), sizes[name]
        off = np.max(difference / np.where(size > 0, size, 1), initial=0.0)
        found.append(GradientCheck(name, IDENTITIES[name], float(off), allowed))
    return passed(GradientReport(tuple(found)))


def _literal(
    X: NumPyArray, dY: NumPyArray, Xq: NumPyArray, dYq: NumPyArray, weights: NumPyArray, sample_axes: int
) -> tuple[dict[str, NumPyArray], dict[str, NumPyArray]]:
    """Return what must come out, and the size of what it is a sum of, from the gradients themselves."""
    lead, of_queries = X.shape[:sample_axes], Xq.shape[:sample_axes]
    k = sample_axes
    x, d, xq, dq = (a.reshape(math.prod(a.shape[:k]), math.prod(a.shape[k:-1]), a.shape[-1]) for a in (X, dY, Xq, dYq))
    queries = np.asarray([_gradient(a, b) for a, b in zip(xq, dq, strict=True)])
    gradients = [_gradient(a, b) for a, b in zip(x, d, strict=True)]
    # What is added for each sample: the norms of x and of dy, with the feature of the bias.
    sizes = (np.sqrt((x**2).sum(-1) + 1) * np.sqrt((d**2).sum(-1))).sum(-1)
    C, S = X.shape[-1], dY.shape[-1]
    total, size = np.zeros(C * S), 0.0
    for weight, gradient, own in zip(weights.ravel(), gradients, sizes, strict=True):
        total += weight * gradient[: C * S]
        size += (weight * own) ** 2
    flat = np.asarray(gradients).reshape(len(x), (C + 1) * S)
    expected = {
        "norms": np.sqrt((flat**2).sum(1)).reshape(lead),
        "dots": (flat @ queries.T).reshape((*lead, *of_queries)),
        "weighted": total.reshape(C, S),
    }
    of_dots = sizes[:, None] * np.sqrt((queries**2).sum(1))
    return expected, {
        "norms": sizes.reshape(lead), "dots": of_dots.reshape((*lead, *of_queries)), "weighted": np.asarray(size**0.5),
    }  # fmt: skip


def _gradient(x: NumPyArray, d: NumPyArray) -> NumPyArray:
    """Return dW and dB of one sample as one vector."""
    return np.concatenate([(x.T @ d).ravel(), d.sum(0)])


def _weighted(X: Array, dY: Array, sample_weight: Array) -> Array:
    return _linear.grad_weight(X, dY, sample_weight=sample_weight)


def _like(array: Array, numbers: NumPyArray) -> Array:
    """Give numbers the dtype, library and device of an array; beside a Dask array they stay NumPy's or its blocks'."""
    xp = namespace.of(array)
    if namespace.is_chunked(xp):
        array = array._meta
        xp = namespace.of(array)
    return namespace.from_numpy(numbers, xp, dtype=array.dtype, device=namespace.device(array))


def _host(array: Array) -> NumPyArray:
    """Return an array on the host in float64."""
    (computed,) = compute.compute(array) if namespace.is_chunked(namespace.of(array)) else (array,)
    return namespace.to_numpy(computed).astype("float64")
