"""The layer's formulas in their most literal form.

These are the broadcasting forms from which the derivation starts: every product is an entry of
an array (N, C, S), and one axis is summed. They are slow, allocate N*C*S numbers, and are easy
to read. The tests compare every library with them.
"""

from __future__ import annotations

import math

import numpy as np

from .._arrays.libraries import NumPyArray
from .._arrays.namespace import to_numpy
from .._arrays.types import StandardArray
from .._gradients import Gradients


def reference_forward(X: StandardArray, W: StandardArray, B: StandardArray | None = None) -> NumPyArray:
    """Return Y as NumPy, every product written out: B is repeated for every row.

    Parameters
    ----------
    X : array, shape (..., C)
    W : array, shape (C, S)
    B : array, shape (S,), optional
        Arrays of any library; nothing is checked.

    Returns
    -------
    numpy.ndarray, shape (..., S)

    Examples
    --------
    >>> import numpy as np
    >>> reference_forward(np.asarray([[1.0, 2.0]]), np.asarray([[1.0], [3.0]]), np.asarray([0.5]))
    array([[7.5]])
    """
    X, W = to_numpy(X), to_numpy(W)
    Y = (_rows(X)[:, :, None] * W[None, :, :]).sum(axis=1)
    if B is not None:
        Y = Y + to_numpy(B)[None, :]
    return np.asarray(Y.reshape(*X.shape[:-1], W.shape[1]))


def reference_backward(
    X: StandardArray, W: StandardArray, dY: StandardArray
) -> Gradients[NumPyArray, NumPyArray, NumPyArray]:
    """Return dX, dW and dB as NumPy, every product written out.

    Parameters
    ----------
    X : array, shape (..., C)
    W : array, shape (C, S)
    dY : array, shape (..., S)
        Arrays of any library; nothing is checked.

    Returns
    -------
    Gradients of numpy.ndarray

    Examples
    --------
    >>> import numpy as np
    >>> reference_backward(np.asarray([[1.0, 2.0]]), np.asarray([[1.0], [3.0]]), np.asarray([[10.0]])).dW
    array([[10.],
           [20.]])
    """
    X, W, dY = to_numpy(X), to_numpy(W), to_numpy(dY)
    x, dy = _rows(X), _rows(dY)
    return Gradients(
        dX=(dy[:, None, :] * W[None, :, :]).sum(axis=2).reshape(X.shape),
        dW=(dy[:, None, :] * x[:, :, None]).sum(axis=0),
        dB=dy.sum(axis=0),
    )


def _rows(array: NumPyArray) -> NumPyArray:
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
