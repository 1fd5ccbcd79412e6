"""The layer's functions: Y = XW + B and its gradients, on arrays in memory and on chunked ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from . import blocks, equations, formulas, namespace, validation
from .namespace import Array


class Gradients(NamedTuple):
    """The gradients of a loss with respect to X, W and B; None where one was not asked for.

    Adding the gradients of two micro-batches gives the gradients of both batches as one:
    dW and dB are summed, and the rows of dX follow each other. Leave dX out with
    ``needs=("dW", "dB")`` where it is not used. Each sum is rounded to the dtype: before many
    float16 or bfloat16 gradients are added, make dW and dB float32.

    Attributes
    ----------
    dX : array, shape (..., C), or None
        The gradient with respect to X, with X's leading axes.
    dW : array, shape (C, S), or None
        The gradient with respect to W, summed over the batch.
    dB : array, shape (S,), or None
        The gradient with respect to B, summed over the batch.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> X, W, dY = np.ones((4, 2)), np.ones((2, 3)), np.ones((4, 3))
    >>> halves = [fc.backward(X[i : i + 2], W, dY[i : i + 2]) for i in (0, 2)]
    >>> np.array_equal((halves[0] + halves[1]).dW, fc.backward(X, W, dY).dW)
    True
    """

    dX: Array | None
    dW: Array | None
    dB: Array | None

    def __add__(self, other: Gradients) -> Gradients:  # type: ignore[override]  # not a tuple's concatenation
        """Join the gradients of two micro-batches."""
        if not isinstance(other, Gradients):
            return NotImplemented
        validation.check_joinable(self._fields, self, other)
        return Gradients(
            dX=None if self.dX is None else namespace.of(self.dX).concat([self.dX, other.dX], axis=0),
            dW=None if self.dW is None else self.dW + other.dW,
            dB=None if self.dB is None else self.dB + other.dB,
        )

    def __radd__(self, other: object) -> Gradients:
        """Let ``sum`` start from 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __mul__(self, other: object) -> Gradients:
        """Refuse what would repeat a tuple."""
        raise TypeError("Gradients are not multiplied as a whole: scale the part, for example 0.1 * grads.dW")

    def __rmul__(self, other: object) -> Gradients:
        """Refuse what would repeat a tuple."""
        return self * other


def forward(X: Array, W: Array, B: Array | None = None, /) -> Array:
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
    xp = validation.fitting_matrices(X, W, B)
    if xp is not None:
        return formulas.forward(xp, X, W, B)
    if namespace.is_chunked(validation.check_forward(X, W, B)):
        return blocks.forward(X, W, B)
    return blocks.forward_of_block(X, W, B)


def grad_input(dY: Array, W: Array, /) -> Array:
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
    xp = validation.check_grad_input(dY, W)
    if namespace.is_chunked(xp):
        return blocks.grad_input(dY, W)
    return formulas.unrows(xp, formulas.grad_input(xp, formulas.rows(xp, dY), W), dY)


def grad_weight(X: Array, dY: Array, /, *, acc_dtype: Any = None) -> Array:
    """Return dW, the einsum ``"nc,ns->cs"`` of X and dY.

    All rows of the batch share W, so their gradients add up.

    Parameters
    ----------
    X : array, shape (..., C)
        The batch.
    dY : array, shape (..., S)
        The gradient of the loss with respect to Y.
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
    xp = validation.check_grad_weight(X, dY)
    acc_dtype = None if acc_dtype is None else namespace.float_dtype(xp, acc_dtype, "acc_dtype")
    if namespace.is_chunked(xp):
        return blocks.grad_weight(xp, X, dY, acc_dtype)
    return formulas.grad_weight(xp, formulas.rows(xp, X), formulas.rows(xp, dY), acc_dtype)


def grad_bias(dY: Array, /, *, acc_dtype: Any = None) -> Array:
    """Return dB, the sum of dY over the batch: all rows share B.

    Parameters
    ----------
    dY : array, shape (..., S)
        The gradient of the loss with respect to Y.
    acc_dtype : dtype or str, optional
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
    xp = validation.check_grad_bias(dY)
    acc_dtype = None if acc_dtype is None else namespace.float_dtype(xp, acc_dtype, "acc_dtype")
    if namespace.is_chunked(xp):
        return blocks.grad_bias(xp, dY, acc_dtype)
    return formulas.grad_bias(xp, formulas.rows(xp, dY), acc_dtype)


def backward(
    X: Array, W: Array, dY: Array, /, *, needs: Iterable[str] = equations.GRADIENTS, acc_dtype: Any = None
) -> Gradients:
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
    xp = validation.check_backward(X, W, dY)
    wanted = needs if needs is equations.GRADIENTS else validation.check_needs(needs)
    acc_dtype = None if acc_dtype is None else namespace.float_dtype(xp, acc_dtype, "acc_dtype")
    if namespace.is_chunked(xp):
        return Gradients(*blocks.backward(xp, X, W, dY, wanted, acc_dtype))
    x, dy = (X, dY) if X.ndim == 2 else (formulas.rows(xp, X), formulas.rows(xp, dY))
    return Gradients(
        formulas.unrows(xp, formulas.grad_input(xp, dy, W), X) if "dX" in wanted else None,
        formulas.grad_weight(xp, x, dy, acc_dtype) if "dW" in wanted else None,
        formulas.grad_bias(xp, dy, acc_dtype) if "dB" in wanted else None,
    )
