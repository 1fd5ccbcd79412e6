"""Gradients: dX, dW and dB of one batch, kept together."""

from __future__ import annotations

from typing import NamedTuple

from ._arrays import namespace
from ._arrays.namespace import Array
from ._math import checks


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
        checks.check_joinable(self._fields, self, other)
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
