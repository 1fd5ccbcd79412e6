"""The layer's public functions: the layer in memory, or on Dask where that one answers NotImplemented."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack, overload

from . import _dask
from ._arrays.types import (
    ArrayT,
    Need,
    NeedsAll,
    NeedsB,
    NeedsW,
    NeedsWB,
    NeedsX,
    NeedsXB,
    NeedsXW,
    StandardArray,
    SumOptions,
)
from ._gradients import Gradients
from ._math import linear as in_memory
from ._math.checks import check_needs
from ._math.equations import GRADIENTS


def forward(X: ArrayT, W: StandardArray, B: StandardArray | None = None) -> ArrayT:
    """Return Y = XW + B, the einsum ``"nc,cs->ns"`` plus the bias.

    Parameters
    ----------
    X : array, shape (..., C)
        The batch, with any number of leading axes, or none. Real floating dtype.
    W : array, shape (C, S)
        The weight.
    B : array, shape (S,), optional
        The bias, added to every row.

    Returns
    -------
    array, shape (..., S)
        An array of X's library, on X's device, in the dtype to which X, W and B are
        promoted. With a Dask array X, where W and B may be NumPy arrays, it is lazy and
        has the batch chunks of X.

    Raises
    ------
    TypeError
        For a dtype that is not real floating and for arrays of several libraries.
    ValueError
        For a wrong rank, sizes that differ (an axis of size 1 never broadcasts), or
        arrays on several devices.

    Warns
    -----
    UserWarning
        If blocks of a Dask Y are larger than ``array.chunk-size``, 128 MiB by default, and those
        of X are not: which `rows` to open X with.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> X = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> W = np.asarray([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    >>> fc.forward(X, W, np.asarray([0.5, 0.5, 0.5]))
    array([[ 1.5,  2.5,  4.5],
           [ 3.5,  4.5, 10.5]])
    """
    Y: ArrayT = in_memory.forward(X, W, B)
    return _dask.linear.forward(X, W, B) if Y is NotImplemented else Y


def grad_input(dY: ArrayT, W: StandardArray) -> ArrayT:
    """Return dX, the einsum ``"ns,cs->nc"`` of dY and W.

    Row n of dX depends on row n of dY alone, so nothing is summed over the batch.

    Parameters
    ----------
    dY : array, shape (..., S)
        The gradient of the loss with respect to Y.
    W : array, shape (C, S)
        The weight.

    Returns
    -------
    array, shape (..., C)
        In the dtype to which dY and W are promoted. Lazy, with the batch chunks of dY, where
        dY is a Dask array.

    Raises
    ------
    TypeError, ValueError
        As `forward`.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> fc.grad_input(np.asarray([[1.0, 2.0]]), np.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    array([[1., 2., 3.]])
    """
    dX: ArrayT = in_memory.grad_input(dY, W)
    return _dask.linear.grad_input(dY, W) if dX is NotImplemented else dX


def grad_weight(
    X: ArrayT, dY: StandardArray, *, sample_weight: StandardArray | None = None, acc_dtype: Any = None
) -> ArrayT:
    """Return dW, the einsum ``"nc,ns->cs"`` of X and dY.

    All rows of the batch share W, so their gradients add up.

    Parameters
    ----------
    X : array, shape (..., C)
        The batch.
    dY : array, shape (..., S)
        The gradient of the loss with respect to Y.
    sample_weight : array, shape X.shape[:k], optional
        A weight for each sample, of any sign: the einsum ``"n,nc,ns->cs"``, without a weighted
        copy of X or dY. With several leading axes of X, weights of the first k hold for all rows
        along the others. It may be NumPy beside a Dask batch, and has no part in the dtype.
    acc_dtype : dtype or str, optional
        The dtype of the products and sums over the batch; by default that of the result,
        and at least float32. Long batches are summed pairwise in any case.

    Returns
    -------
    array, shape (C, S)
        In the dtype to which X and dY are promoted. Lazy, one block, where they are Dask arrays.

    Raises
    ------
    TypeError, ValueError
        As `forward`; TypeError also for an `acc_dtype` that is not real floating.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> fc.grad_weight(np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.asarray([[1.0], [10.0]]))
    array([[31.],
           [42.]])
    """
    dW: ArrayT = in_memory.grad_weight(X, dY, sample_weight, acc_dtype=acc_dtype)
    return _dask.linear.grad_weight(X, dY, sample_weight, acc_dtype=acc_dtype) if dW is NotImplemented else dW


def grad_bias(dY: ArrayT, *, sample_weight: StandardArray | None = None, acc_dtype: Any = None) -> ArrayT:
    """Return dB, the sum of dY over the batch: all rows share B.

    Parameters
    ----------
    dY : array, shape (..., S)
        The gradient of the loss with respect to Y.
    sample_weight, acc_dtype
        As in `grad_weight`.

    Returns
    -------
    array, shape (S,)
        In the dtype of dY. Lazy, one block, where dY is a Dask array.

    Raises
    ------
    TypeError, ValueError
        As `grad_weight`.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> fc.grad_bias(np.asarray([[1.0, 2.0], [3.0, 4.0]]))
    array([4., 6.])
    """
    dB: ArrayT = in_memory.grad_bias(dY, sample_weight, acc_dtype=acc_dtype)
    return _dask.linear.grad_bias(dY, sample_weight, acc_dtype=acc_dtype) if dB is NotImplemented else dB


@overload
def backward(
    X: ArrayT, W: StandardArray, dY: StandardArray, *, needs: NeedsAll = ..., **options: Unpack[SumOptions]
) -> Gradients[ArrayT, ArrayT, ArrayT]: ...
@overload
def backward(
    X: ArrayT, W: StandardArray, dY: StandardArray, *, needs: NeedsX, **options: Unpack[SumOptions]
) -> Gradients[ArrayT, None, None]: ...
@overload
def backward(
    X: ArrayT, W: StandardArray, dY: StandardArray, *, needs: NeedsW, **options: Unpack[SumOptions]
) -> Gradients[None, ArrayT, None]: ...
@overload
def backward(
    X: ArrayT, W: StandardArray, dY: StandardArray, *, needs: NeedsB, **options: Unpack[SumOptions]
) -> Gradients[None, None, ArrayT]: ...
@overload
def backward(
    X: ArrayT, W: StandardArray, dY: StandardArray, *, needs: NeedsXW, **options: Unpack[SumOptions]
) -> Gradients[ArrayT, ArrayT, None]: ...
@overload
def backward(
    X: ArrayT, W: StandardArray, dY: StandardArray, *, needs: NeedsXB, **options: Unpack[SumOptions]
) -> Gradients[ArrayT, None, ArrayT]: ...
@overload
def backward(
    X: ArrayT, W: StandardArray, dY: StandardArray, *, needs: NeedsWB, **options: Unpack[SumOptions]
) -> Gradients[None, ArrayT, ArrayT]: ...
@overload
def backward(
    X: ArrayT, W: StandardArray, dY: StandardArray, *, needs: Iterable[Need], **options: Unpack[SumOptions]
) -> Gradients[ArrayT | None, ArrayT | None, ArrayT | None]: ...
def backward(
    X: Any, W: Any, dY: Any, *, needs: Iterable[str] = GRADIENTS, sample_weight: Any = None, acc_dtype: Any = None
) -> Gradients[Any, Any, Any]:
    """Return the gradients of a loss with respect to X, W and B, given that with respect to Y.

    Parameters
    ----------
    X : array, shape (..., C)
        The batch that `forward` was given.
    W : array, shape (C, S)
        The weight that `forward` was given.
    dY : array, shape (..., S)
        The gradient of the loss with respect to Y.
    needs : iterable of {"dX", "dW", "dB"}
        The gradients to compute. The others are None and cost nothing: a linear probe
        asks for ``("dW", "dB")``.
    sample_weight : array, shape X.shape[:k], optional
        As in `grad_weight`: the gradients are those of the sum over samples of weight times loss,
        so the rows of dX are weighted too.
    acc_dtype : dtype or str, optional
        As in `grad_weight`.

    Returns
    -------
    Gradients
        The named tuple ``(dX, dW, dB)``, of the shapes of X, W and B, in the dtypes that
        `grad_input`, `grad_weight` and `grad_bias` give. With Dask arrays everything is lazy;
        compute the parts together, so that X and dY are read once.

    Raises
    ------
    TypeError, ValueError
        As `grad_weight`; also for a name in `needs` that is no gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> X, W = np.asarray([[1.0, 2.0]]), np.asarray([[1.0], [3.0]])
    >>> dX, dW, dB = fc.backward(X, W, np.asarray([[10.0]]))
    >>> dX, dW, dB
    (array([[10., 30.]]), array([[10.],
           [20.]]), array([10.]))
    """
    needs = check_needs(needs)
    grads = in_memory.backward(X, W, dY, needs, acc_dtype, sample_weight)
    if grads is NotImplemented:
        grads = _dask.linear.backward(X, W, dY, needs, acc_dtype, sample_weight)
    return Gradients(*grads)
