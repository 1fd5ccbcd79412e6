"""Gradients: dX, dW and dB of one batch, kept together."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, NoReturn

from . import _foreign_names
from ._arrays import namespace, summary
from ._arrays.types import BiasGradT, InputGradT, WeightGradT
from ._math import checks


class Gradients(NamedTuple, Generic[InputGradT, WeightGradT, BiasGradT]):
    """The gradients of a loss with respect to X, W and B; None where one was not asked for.

    Adding the gradients of two micro-batches gives the gradients of both batches as one:
    dW and dB are summed, and the rows of dX follow each other. Leave dX out with
    ``needs=("dW", "dB")`` where it is not used. Each sum is rounded to the dtype: before many
    float16 or bfloat16 gradients are added, convert dW and dB to float32. Scale, subtract and
    compare the parts, not the whole.

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

    dX: InputGradT
    dW: WeightGradT
    dB: BiasGradT

    def __repr__(self) -> str:
        return f"Gradients({', '.join(f'{name}={summary.text_of(part)}' for name, part in self._asdict().items())})"

    def _repr_html_(self) -> str:
        return summary.html_of(self._asdict())

    def __add__(  # type: ignore[override]  # not a tuple's concatenation
        self, other: Gradients[InputGradT, WeightGradT, BiasGradT]
    ) -> Gradients[InputGradT, WeightGradT, BiasGradT]:
        """Join the gradients of two micro-batches."""
        if not isinstance(other, Gradients):
            return NotImplemented
        checks.check_joinable(self._fields, self, other)
        (dX, dW, dB), (other_dX, other_dW, other_dB) = _parts(self), _parts(other)
        joined: Any = (
            None if dX is None else namespace.of(dX).concat([dX, other_dX], axis=0),
            None if dW is None else dW + other_dW,
            None if dB is None else dB + other_dB,
        )
        return Gradients(*joined)

    def __radd__(self, other: object) -> Gradients[InputGradT, WeightGradT, BiasGradT]:
        """Let ``sum`` start from 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    # A tuple would be repeated, or compared by the truth of arrays.

    def __mul__(self, other: object) -> NoReturn:
        """Refuse to repeat a tuple."""
        raise TypeError("Gradients are not multiplied as a whole: scale the part, for example 0.1 * grads.dW")

    def __rmul__(self, other: object) -> NoReturn:
        """Refuse to repeat a tuple."""
        self.__mul__(other)

    def __truediv__(self, other: object) -> NoReturn:
        """Refuse: only parts are divided."""
        raise TypeError("Gradients are not divided as a whole: divide the part, for example grads.dW / N")

    def __sub__(self, other: object) -> NoReturn:
        """Refuse: only parts are subtracted."""
        raise TypeError("Gradients are not subtracted as a whole: subtract the parts, for example a.dW - b.dW")

    def __eq__(self, other: object) -> NoReturn:
        """Refuse: arrays are not compared to one bool."""
        raise TypeError("Gradients are not compared as a whole: compare the parts, for example (a.dW == b.dW).all()")

    def __ne__(self, other: object) -> NoReturn:
        """Refuse: arrays are not compared to one bool."""
        self.__eq__(other)


def _parts(grads: Gradients[Any, Any, Any]) -> tuple[Any, Any, Any]:
    return grads.dX, grads.dW, grads.dB


def _no_attribute(grads: object, name: str) -> NoReturn:
    raise _foreign_names.no_attribute("Gradients", name, _foreign_names.GRADIENTS)


# Not in the class: to type checkers every name would be one that it has.
Gradients.__getattr__ = _no_attribute  # type: ignore[attr-defined]
