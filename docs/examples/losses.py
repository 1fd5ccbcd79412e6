"""Three losses with dY, the gradient with respect to Y: the same functions for NumPy and Dask arrays.

Each returns the mean over the rows, and dY, which has the 1/N of the mean in it. With `weight`, one number for each
row, it is the weighted mean. All is computed in float32 at least.
"""

import numpy as np
from array_api_compat import array_namespace


def squared(Y, T, weight=None):
    """Return half the squared error of each row, |Y - T|**2 / 2, and dY; T has the shape of Y."""
    check_shapes(Y, T)
    residual = at_least_float32(Y) - T
    return mean((residual**2).sum(axis=1) / 2, residual, weight)


def logistic(Y, T, weight=None):
    """Return the binary cross-entropy of the logits Y, a sum over columns, and dY; T has 0 and 1, in Y's shape."""
    check_shapes(Y, T)
    xp = array_namespace(Y)
    Y = at_least_float32(Y)
    T = T.astype(Y.dtype)
    e = xp.exp(-abs(Y))  # at most 1, so nothing overflows
    losses = xp.maximum(Y, 0) - Y * T + xp.log1p(e)
    probability = xp.exp(xp.minimum(Y, 0)) / (1 + e)
    return mean(losses.sum(axis=1), probability - T, weight)


def cross_entropy(Y, labels, weight=None):
    """Return the softmax cross-entropy of the logits Y, and dY; labels are integers from 0 to S - 1, (N,).

    A label that is none of these makes the loss infinite.
    """
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels have dtype {labels.dtype}, must be integers from 0 to {Y.shape[1] - 1}")
    xp = array_namespace(Y)
    Y = at_least_float32(Y)
    Z = Y - xp.max(Y, axis=1, keepdims=True)
    e = xp.exp(Z)  # used for the loss and for dY
    total = xp.sum(e, axis=1, keepdims=True)
    target = (labels[:, None] == xp.arange(Y.shape[1])).astype(Z.dtype)
    known = (labels >= 0) & (labels < Y.shape[1])  # of another label the loss is infinite
    losses = (xp.log(total)[:, 0] - xp.sum(target * Z, axis=1)) / known
    return mean(losses, e / total - target, weight)


def check_shapes(Y, T):
    """Raise for a T of another shape, which would be broadcast."""
    if Y.shape != T.shape:
        raise ValueError(f"T has shape {T.shape}, Y has {Y.shape}: beside (N, 1), write T[:, None]")


def at_least_float32(Y):
    """Return Y in float32 or float64: in float16 the number of rows is infinite from 65,505 on."""
    return Y.astype(np.result_type(Y.dtype, np.float32))


def mean(losses, slopes, weight):
    """Return the mean of the rows' losses, and its gradient from those of the rows."""
    if weight is None:
        return losses.sum(dtype="float64") / losses.shape[0], slopes / losses.shape[0]
    weight = (weight / weight.sum()).astype(slopes.dtype)
    return (weight * losses).sum(dtype="float64"), weight[:, None] * slopes


def cross_entropy_rows(Y, labels, weight):
    """Return dY of NumPy arrays, with the loss of each row as one more column: one new array, and no other as large.

    labels is (N, 1); weight is a number, 1/N for the mean, or (N, 1) with a sum of 1.
    """
    if labels.size and (labels.min() < 0 or labels.max() >= Y.shape[1]):
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, must be from 0 to {Y.shape[1] - 1}")
    result = np.empty((len(Y), Y.shape[1] + 1), np.result_type(Y.dtype, np.float32))
    p, losses = result[:, :-1], result[:, -1:]  # views
    np.subtract(Y, Y.max(axis=1, keepdims=True), out=p, dtype=p.dtype)
    losses[...] = -np.take_along_axis(p, labels, axis=1)
    np.exp(p, out=p)
    total = p.sum(axis=1, keepdims=True)
    losses += np.log(total)
    p /= total
    p[np.arange(len(Y)), labels[:, 0]] -= 1
    result *= weight
    return result


def cross_entropy_blocks(Y, labels, weight=None):
    """Return what `cross_entropy` does, for Dask arrays of many classes: `cross_entropy_rows` on each block."""
    weight = 1 / Y.shape[0] if weight is None else weight[:, None] / weight.sum()
    dtype = np.result_type(Y.dtype, np.float32)
    result = Y.map_blocks(
        cross_entropy_rows, labels[:, None], weight, dtype=dtype, chunks=(Y.chunks[0], (Y.shape[1] + 1,)),
        meta=np.empty((0, 0), dtype),
    )  # fmt: skip
    return result[:, -1].sum(dtype="float64"), result[:, :-1]
