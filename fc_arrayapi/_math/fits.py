"""The quickest answer to whether arguments fit: arrays as they were accepted before, with sizes that match.

A small layer takes a few microseconds, so each step counts. Where the answer is no, `checks` looks at each argument,
and says what is wrong; it also accepts what is not asked here: several dtypes, Dask, torch under autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._arrays.libraries import library
from .._arrays.namespace import Array, Namespace

# Array types and dtypes that passed, with their namespace and the question that is asked in each call, `Library.plain`.
_GOOD: dict[tuple[type, Any], tuple[Namespace, Callable[..., bool] | None]] = {}


def remember(xp: Namespace, arrays: Sequence[Array]) -> None:
    """Accept arrays of the type and dtype of the first one from now on; those of Dask are always checked."""
    own = library(xp)
    if not own.chunked:
        _GOOD[type(arrays[0]), arrays[0].dtype] = xp, own.plain


def forward(X: Array, W: Array, B: Array | None) -> Namespace | None:
    """Return the namespace of X, W and B if they fit."""
    xp = _alike(X, W, B)
    if xp is not None:
        x, w = X.shape, W.shape
        if x and len(w) == 2 and x[-1] == w[0] and (B is None or B.shape == (w[1],)):
            return xp
    return None


def grad_input(dY: Array, W: Array) -> Namespace | None:
    """Return the namespace of dY and W if they fit."""
    xp = _alike(dY, W)
    if xp is not None:
        dy, w = dY.shape, W.shape
        if dy and len(w) == 2 and dy[-1] == w[1]:
            return xp
    return None


def grad_weight(X: Array, dY: Array) -> Namespace | None:
    """Return the namespace of X and dY if they fit."""
    xp = _alike(X, dY)
    if xp is not None:
        x, dy = X.shape, dY.shape
        if x and dy and x[:-1] == dy[:-1]:
            return xp
    return None


def grad_bias(dY: Array) -> Namespace | None:
    """Return the namespace of dY if it fits."""
    xp = _alike(dY, dY)
    return xp if xp is not None and dY.shape else None


def backward(X: Array, W: Array, dY: Array) -> Namespace | None:
    """Return the namespace of X, W and dY if they fit."""
    xp = None if dY is None else _alike(X, W, dY)  # _alike ignores None
    if xp is not None:
        w, dy = W.shape, dY.shape
        if len(w) == 2 and dy and dy[-1] == w[1] and X.shape == (*dy[:-1], w[0]):
            return xp
    return None


def _alike(first: Array, second: Array, third: Array = None) -> Namespace | None:
    """Return the namespace of arrays of one type, dtype and device, if arrays like them were accepted before."""
    kind = type(first)
    try:
        dtype = first.dtype
        xp, plain = _GOOD[kind, dtype]
        if type(second) is not kind or second.dtype != dtype:
            return None
        if third is None:
            return xp if plain is None or plain(first, second) else None
        if type(third) is not kind or third.dtype != dtype:
            return None
    except (AttributeError, KeyError, TypeError):  # not an array, or a dtype that cannot be hashed
        return None
    return xp if plain is None or plain(first, second, third) else None
