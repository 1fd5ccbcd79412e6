"""per_sample_norms and per_sample_dots: of the gradients of single samples, in memory or on Dask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from ._arrays.types import ArrayT, StandardArray
from ._dask import per_sample as on_dask
from ._math import per_sample as in_memory
from ._math.checks import check_needs

Parameter: TypeAlias = Literal["dW", "dB"]
PARAMETERS: tuple[Parameter, ...] = ("dW", "dB")


def per_sample_norms(
    X: ArrayT, dY: StandardArray, *, needs: Iterable[Parameter] = PARAMETERS, sample_axes: int = 1
) -> ArrayT:
    """Return the 2-norm of each sample's gradient of W and B, without the gradients themselves.

    Parameters
    ----------
    X : array, shape (N, ..., C)
        The batch. The axes between those of samples and the features are positions, such as
        tokens: the gradient of a sample is the sum over them.
    dY : array, shape (N, ..., S)
        The gradient of the loss with respect to Y: row n is that of the loss of sample n.
    needs : iterable of {"dW", "dB"}
        The parameters of the gradient whose norm it is, together.
    sample_axes : int
        The number of leading axes that count samples.

    Returns
    -------
    array, shape X.shape[:sample_axes]
        In the dtype to which X and dY are promoted; float16 and bfloat16 are added in float32.
        Lazy, in the blocks of X, where X is a Dask array.

    Raises
    ------
    TypeError, ValueError
        As `grad_weight`; also for no axis of samples, and for other `needs`.

    Notes
    -----
    With one position it is the product of two norms. With T positions the squared norm comes
    from two T x T Gram matrices where 2 T**2 < C S, and else from the C x S gradient of one
    sample after the other; a few MiB are held beside the arrays [1]_ [2]_. Where the
    contributions of positions cancel to less than a thousandth, those samples are computed from
    their gradients; not while JAX or torch trace, where such norms have an error of up to 1e-6 of
    the sum over t and u of ``|x_t x_u| |d_t d_u|`` in the square.

    References
    ----------
    .. [1] I. Goodfellow, "Efficient per-example gradient computations", arXiv 1510.01799, 2015.
    .. [2] X. Li et al., "Large language models can be strong differentially private learners",
       arXiv 2110.05679, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> X, dY = np.asarray([[3.0, 4.0], [0.0, 1.0]]), np.asarray([[2.0], [1.0]])
    >>> fc.per_sample_norms(X, dY, needs=("dW",))
    array([10.,  1.])
    """
    wanted = _check_needs("per_sample_norms", needs)
    found: ArrayT = in_memory.norms(X, dY, wanted, sample_axes)
    return on_dask.norms(X, dY, wanted, sample_axes) if found is NotImplemented else found


def per_sample_dots(
    X: ArrayT,
    dY: StandardArray,
    Xq: StandardArray,
    dYq: StandardArray,
    *,
    needs: Iterable[Parameter] = PARAMETERS,
    sample_axes: int = 1,
) -> ArrayT:
    """Return the inner product of each sample's gradient with that of each query sample.

    To first order, a step along the gradient of sample n changes the loss of query q by minus
    this number times the step: it tells which samples a prediction comes from.

    Parameters
    ----------
    X, dY : array, shapes (N, ..., C) and (N, ..., S)
        As in `per_sample_norms`.
    Xq, dYq : array, shapes (Q, ..., C) and (Q, ..., S)
        The same of the queries, whose number of positions may be another one. They may be NumPy
        arrays beside a Dask batch.
    needs, sample_axes
        As in `per_sample_norms`; the queries have as many axes of samples.

    Returns
    -------
    array, shape X.shape[:sample_axes] + Xq.shape[:sample_axes]
        In the dtype to which all four are promoted. Lazy, in the blocks of X, where X is a Dask
        array; each block is read once.

    Raises
    ------
    TypeError, ValueError
        As `per_sample_norms`; also for queries with other features.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> X, dY = np.asarray([[3.0, 4.0], [0.0, 1.0]]), np.asarray([[2.0], [1.0]])
    >>> fc.per_sample_dots(X, dY, X[:1], dY[:1], needs=("dW",))
    array([[100.],
           [  8.]])
    """
    wanted = _check_needs("per_sample_dots", needs)
    found: ArrayT = in_memory.dots(X, dY, Xq, dYq, wanted, sample_axes)
    return on_dask.dots(X, dY, Xq, dYq, wanted, sample_axes) if found is NotImplemented else found


def _check_needs(where: str, needs: Iterable[str]) -> tuple[str, ...]:
    wanted = check_needs(needs)
    if not wanted or "dX" in wanted:
        raise ValueError(f"{where}: needs is {needs!r}: the parameters are 'dW' and 'dB', name at least one")
    return wanted
