"""The mathematics of the fully connected layer: Y = XW + B and its gradients.

N is the batch size, C the number of input features, S the number of output features.
``n`` in an equation stands for any number of leading axes, which are merged into one.

The gradient of an einsum with respect to one operand is the einsum of the output's
gradient with the other operands: that operand's indices and the output's are exchanged.
Both gradient equations follow from the forward one in this way.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

from . import chunked, namespace, validation
from .accumulation import sum_dtypes, sum_products, sum_rows
from .lowering import lower
from .namespace import Array, Namespace

FORWARD = "nc,cs->ns"
GRAD_INPUT = "ns,cs->nc"

# A Y with as many elements as this gets its bias in place.
IN_PLACE_ELEMENTS = 2**16

_forward, _grad_input_of_rows = lower(FORWARD), lower(GRAD_INPUT)


class Gradients(NamedTuple):
    """The gradients of a loss with respect to X, W and B; None where one was not asked for.

    Adding the gradients of two micro-batches gives the gradients of both batches as one:
    dW and dB are summed, and the rows of dX follow each other. Leave dX out with
    ``needs=("dW", "dB")`` where it is not used.

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
        return _add_bias(xp, _forward(xp, X, W), B)
    xp = validation.check_forward(X, W, B)
    if namespace.is_chunked(xp):
        return _forward_chunked(X, W, B)
    return _unrows(xp, _add_bias(xp, _forward(xp, _rows(xp, X), W), B), X)


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
        Lazy, with the batch chunks of dY, where dY is a Dask array.

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
        return _grad_input_chunked(dY, W)
    return _grad_input(xp, _rows(xp, dY), W, dY)


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
        return _grad_weight_chunked(xp, X, dY, acc_dtype)
    return _grad_weight(xp, _rows(xp, X), _rows(xp, dY), acc_dtype)


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
        return _grad_bias_chunked(xp, dY, acc_dtype)
    return _grad_bias(xp, _rows(xp, dY), acc_dtype)


def backward(
    X: Array, W: Array, dY: Array, /, *, needs: Iterable[str] = validation.GRADIENT_NAMES, acc_dtype: Any = None
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
        The named tuple ``(dX, dW, dB)``, of the shapes of X, W and B. With Dask arrays
        everything is lazy; compute the parts together, so that X and dY are read once.

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
    wanted = needs if needs is validation.GRADIENT_NAMES else validation.check_needs(needs)
    acc_dtype = None if acc_dtype is None else namespace.float_dtype(xp, acc_dtype, "acc_dtype")
    if namespace.is_chunked(xp):
        return _backward_chunked(xp, X, W, dY, wanted, acc_dtype)
    X_rows, dY_rows = (X, dY) if X.ndim == 2 else (_rows(xp, X), _rows(xp, dY))
    return Gradients(
        _grad_input(xp, dY_rows, W, X) if "dX" in wanted else None,
        _grad_weight(xp, X_rows, dY_rows, acc_dtype) if "dW" in wanted else None,
        _grad_bias(xp, dY_rows, acc_dtype) if "dB" in wanted else None,
    )


# What the public functions do with rows in memory, once their arguments are checked.


def _add_bias(xp: Namespace, Y: Array, B: Array | None) -> Array:
    """Add B to a fresh Y: in place where the library can, so that no second array of Y's size is held.

    A small Y is added to sooner out of place: half of it lies in the cache of another core.
    Immutable arrays (JAX) are rebound by ``+=``. torch.func.vmap over B alone can't write a
    batch into an unbatched Y and says so before it writes: then out of place.
    """
    if B is None:
        return Y
    n, s = Y.shape
    if n is None or n * s < IN_PLACE_ELEMENTS:
        return Y + B
    if Y.dtype == B.dtype or xp.result_type(Y.dtype, B.dtype) == Y.dtype:
        try:
            Y += B
        except RuntimeError:
            return Y + B
        return Y
    return Y + B


def _grad_input(xp: Namespace, dY: Array, W: Array, like: Array) -> Array:
    dX = _grad_input_of_rows(xp, dY, W)
    return dX if like.ndim == 2 else _unrows(xp, dX, like)


def _grad_weight(xp: Namespace, X: Array, dY: Array, acc_dtype: Any) -> Array:
    dtype, acc_dtype = sum_dtypes(xp, (X.dtype, dY.dtype), acc_dtype)
    dW = sum_products(xp, X, dY, acc_dtype)
    return dW if dW.dtype == dtype else xp.astype(dW, dtype)


def _grad_bias(xp: Namespace, dY: Array, acc_dtype: Any) -> Array:
    dtype, acc_dtype = sum_dtypes(xp, (dY.dtype,), acc_dtype)
    dB = sum_rows(xp, dY, acc_dtype)
    return dB if dB.dtype == dtype else xp.astype(dB, dtype)


def _rows(xp: Namespace, array: Array) -> Array:
    """Merge the leading axes into one: (C,) and (A, B, C) become (1, C) and (A*B, C)."""
    if array.ndim == 2:
        return array
    n = 1
    for size in array.shape[:-1]:
        n *= size
    return xp.reshape(array, (n, array.shape[-1]))


def _unrows(xp: Namespace, rows: Array, like: Array) -> Array:
    """Give a result the leading axes of `like`."""
    return rows if like.ndim == 2 else xp.reshape(rows, (*like.shape[:-1], rows.shape[-1]))


# The same with chunked arrays: each block goes through the functions above.


def _forward_chunked(X: Array, W: Array, B: Array | None) -> Array:
    n = _batch_index(X)
    names, indices = ("X", "W", "B"), [(*n, "c"), ("c", "s"), ("s",)]
    X, W = chunked.whole_features("forward", names, [X, chunked.lift(W, X)], indices)
    if B is None:
        return _product_chunked(forward, names[:2], [X, W], indices[:2], (*n, "s"))
    B = chunked.lift(B, X)
    if X.numblocks[-1] == 1:
        return chunked.contract(forward, names, [X, W, B], indices, (*n, "s"))
    Y = _product_chunked(forward, names[:2], [X, W], indices[:2], (*n, "s"))
    return chunked.contract(_add_bias_of_block, ("Y", "B"), [Y, B], [(*n, "s"), ("s",)], (*n, "s"))


def _product_chunked(func: Any, names: Any, operands: list[Array], indices: Any, output: tuple[str, ...]) -> Array:
    """Multiply blocks; where the summed features are in several blocks, their products are added as any sum is."""
    xp = namespace.of(operands[0])
    dtype, acc_dtype = sum_dtypes(xp, (operands[0].dtype, operands[1].dtype))
    if dtype != acc_dtype and operands[0].numblocks[-1] > 1:
        func = partial(_product_of_blocks, func, acc_dtype)
    return chunked.contract(func, names, operands, indices, output, dtype=dtype)


def _backward_chunked(
    xp: Namespace, X: Array, W: Array, dY: Array, wanted: tuple[str, ...], acc_dtype: Any
) -> Gradients:
    n = _batch_index(X)
    names, indices = ("X", "dY"), [(*n, "c"), (*n, "s")]
    X, dY = chunked.align(names, (X, dY), indices)
    dX = dW = dB = None
    if "dX" in wanted:
        checked = dY
        if chunked.has_unknown_blocks(X, dY):  # dX alone would not look at X
            checked = chunked.contract(_dY_of_block, names, [X, dY], indices, indices[1])
        dX = _grad_input_chunked(checked, W)
    if "dW" in wanted and "dB" in wanted:
        dW, dB = _sums_chunked(xp, X, dY, acc_dtype)
    elif "dW" in wanted:
        dW = _grad_weight_chunked(xp, X, dY, acc_dtype)
    elif "dB" in wanted:
        if chunked.has_unknown_blocks(X, dY):
            dY = chunked.contract(_dY_of_block, names, [X, dY], indices, indices[1])
        dB = _grad_bias_chunked(xp, dY, acc_dtype)
    return Gradients(dX, dW, dB)


def _grad_input_chunked(dY: Array, W: Array) -> Array:
    n = _batch_index(dY)
    names, indices = ("dY", "W"), [(*n, "s"), ("c", "s")]
    operands = chunked.whole_features("grad_input", names, [dY, chunked.lift(W, dY)], indices)
    return _product_chunked(grad_input, names, operands, indices, (*n, "c"))


def _grad_weight_chunked(xp: Namespace, X: Array, dY: Array, acc_dtype: Any) -> Array:
    n = _batch_index(X)
    names, indices = ("X", "dY"), [(*n, "c"), (*n, "s")]
    dtype, acc_dtype = sum_dtypes(xp, (X.dtype, dY.dtype), acc_dtype)
    operands = chunked.whole_features("grad_weight", names, [X, dY], indices)
    term = partial(_weight_of_block, acc_dtype=acc_dtype)
    return chunked.contract(term, names, operands, indices, ("c", "s"), dtype=dtype)


def _grad_bias_chunked(xp: Namespace, dY: Array, acc_dtype: Any) -> Array:
    indices = [(*_batch_index(dY), "s")]
    dtype, acc_dtype = sum_dtypes(xp, (dY.dtype,), acc_dtype)
    operands = chunked.whole_features("grad_bias", ("dY",), [dY], indices)
    term = partial(_bias_of_block, acc_dtype=acc_dtype)
    return chunked.contract(term, ("dY",), operands, indices, ("s",), dtype=dtype)


def _sums_chunked(xp: Namespace, X: Array, dY: Array, acc_dtype: Any) -> tuple[Array, Array]:
    """Return dW and dB, both summed over the batch by the same tasks."""
    n = _batch_index(X)
    names, indices = ("X", "dY"), [(*n, "c"), (*n, "s")]
    dtypes = [sum_dtypes(xp, dtypes)[0] for dtypes in ((X.dtype, dY.dtype), (dY.dtype,))]
    acc_dtype = sum_dtypes(xp, (X.dtype, dY.dtype), acc_dtype)[1]
    X, dY = chunked.whole_features("backward", names, [X, dY], indices)
    if X.numblocks[-1] > 1:  # dY would be summed once for each block along c
        return _grad_weight_chunked(xp, X, dY, acc_dtype), _grad_bias_chunked(xp, dY, acc_dtype)
    term = partial(_sums_of_block, acc_dtype=acc_dtype)
    dW, dB = chunked.contract_together(term, names, [X, dY], indices, [("c", "s"), ("s",)], dtypes)
    return dW, dB


def _product_of_blocks(func: Any, dtype: Any, *blocks: Array) -> Array:
    """Return a product in the dtype in which several are added."""
    product = func(*blocks)
    return namespace.of(product).astype(product, dtype)


def _add_bias_of_block(Y: Array, B: Array) -> Array:
    return Y + B


def _sums_of_block(X: Array, dY: Array, acc_dtype: Any) -> tuple[Array, Array]:
    """Return one block's parts of dW and dB."""
    return _weight_of_block(X, dY, acc_dtype), _bias_of_block(dY, acc_dtype)


def _dY_of_block(X: Array, dY: Array) -> Array:
    """Return one block of dY once it is known to have the rows of X's block."""
    validation.check_batch("backward", X, dY)
    return dY


def _weight_of_block(X: Array, dY: Array, acc_dtype: Any) -> Array:
    """Return one block's part of dW, still in `acc_dtype`; only here unknown block lengths can be compared."""
    xp = validation.check_grad_weight(X, dY)
    return sum_products(xp, _rows(xp, X), _rows(xp, dY), acc_dtype)


def _bias_of_block(dY: Array, acc_dtype: Any) -> Array:
    """Return one block's part of dB, still in `acc_dtype`."""
    xp = validation.check_grad_bias(dY)
    return sum_rows(xp, _rows(xp, dY), acc_dtype)


def _batch_index(array: Array) -> tuple[str, ...]:
    """Name the leading axes of a chunked array."""
    return tuple(f"n{axis}" for axis in range(array.ndim - 1))
