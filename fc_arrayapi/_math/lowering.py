"""One contraction of one or two arrays, lowered to functions of the array API standard.

The standard has no einsum. A contraction of two arrays that share a summed index is one
``matmul`` here, batched where they also share a kept index: never a broadcast product that
is summed afterwards. Axes are permuted and merged into matrices with as few copies as
possible. The steps depend on the equation alone, so they are computed once for each
equation and cached; the cache holds no arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .._arrays.libraries import library
from .._arrays.namespace import Array, Namespace, cast, keep
from .equations import sum_dtypes
from .products import product, summed_over_rows
from .summation import sum_axes

# Takes the namespace, the operands, and whether a sum of float16 or bfloat16 comes back in that dtype or in float32.
# The caller has checked the sizes.
Step = Callable[..., Array]

_STEPS: dict[str, Step] = {}


def lower(equation: str) -> Step:
    """Return the function that contracts one or two arrays by this equation.

    Parameters
    ----------
    equation : str
        Explicit, without ellipsis or spaces: ``"nc,cs->ns"``.

    Returns
    -------
    callable
        Takes the namespace and the operands, and checks nothing. The result may be a view of an operand
        where the equation only permutes axes.

    Examples
    --------
    >>> import numpy as np
    >>> lower("nc,ns->cs")(np, np.ones((5, 2)), np.ones((5, 3))).shape
    (2, 3)
    """
    step = _STEPS.get(equation)
    if step is None:
        inputs, output = equation.split("->")
        left, comma, right = inputs.partition(",")
        step = _two(left, right, output) if comma else _one(left, output)
        keep(_STEPS, equation, step)
    return step


def _one(labels: str, output: str) -> Step:
    """Take diagonals, sum the indices that are not in the output, permute the rest."""
    repeated = [label for label in dict.fromkeys(labels) if labels.count(label) > 1]
    diagonals = []
    for label in repeated:
        own = [axis for axis, other in enumerate(labels) if other == label]
        rest = [axis for axis, other in enumerate(labels) if other != label]
        diagonals.append((_turn(own + rest), len(own)))
        labels = label + "".join(labels[axis] for axis in rest)
    summed = tuple(axis for axis, label in enumerate(labels) if label not in output)
    kept = "".join(label for label in labels if label in output)
    turn = _turn([kept.index(label) for label in output])

    def step(xp: Namespace, x: Array, rounded: bool = True) -> Array:
        for order, count in diagonals:
            x = _diagonal(xp, x, order, count)
        if summed:
            x = sum_axes(xp, x, summed, rounded)
        return x if turn is None else xp.permute_dims(x, turn)

    return step


def _diagonal(xp: Namespace, x: Array, order: tuple[int, ...] | None, count: int) -> Array:
    """Move the diagonal of `count` axes to the front: a view where the library has one.

    Elsewhere these axes are merged, which copies if they are not adjacent in memory, and every
    (1 + n + n^2 + ...)th entry is taken.
    """
    if order is not None:
        x = xp.permute_dims(x, order)
    view = library(xp).diagonal
    if view is not None:
        return view(x, count)
    n = x.shape[0]
    step = 1
    for _ in range(count - 1):
        step = step * n + 1
    return xp.reshape(x, (n**count, *x.shape[count:]))[::step, ...]


def _two(left: str, right: str, output: str) -> Step:
    """Sum each operand over the indices that only it has, then multiply."""
    reduced = [
        "".join(label for label in dict.fromkeys(own) if label in other or label in output)
        for own, other in ((left, right), (right, left))
    ]
    reductions = [
        None if before == after else _one(before, after) for before, after in zip((left, right), reduced, strict=True)
    ]
    multiply = _product(reduced[0], reduced[1], output)
    if reductions == [None, None]:
        return multiply

    def step(xp: Namespace, a: Array, b: Array, rounded: bool = True) -> Array:
        dtypes = (a.dtype, b.dtype)
        a = a if reductions[0] is None else reductions[0](xp, a, False)
        b = b if reductions[1] is None else reductions[1](xp, b, False)
        result = multiply(xp, a, b, rounded)
        return cast(xp, result, sum_dtypes(xp, dtypes)[0]) if rounded else result

    return step


def _product(left: str, right: str, output: str) -> Step:
    """Multiply two operands whose indices are not repeated and all stand in the other operand or the output."""
    summed = [label for label in left if label in right and label not in output]
    if not summed:
        return _outer(left, right, output)
    return _best(left, right, output).step()


def _best(left: str, right: str, output: str) -> _MatrixProduct:
    """Return the way with the fewest copies to write a contraction as ``matmul``."""
    summed = [label for label in left if label in right and label not in output]
    plans = [
        _MatrixProduct(*operands, output, "".join(batch), "".join(order), swapped)
        for swapped, operands in ((False, (left, right)), (True, (right, left)))
        for batch in _orders([label for label in left if label in right and label in output], output, left, right)
        for order in _orders(summed, left, right)
    ]
    best = plans[0]
    for plan in plans[1:]:  # not min(), which torch.compile does not trace with a key
        best = plan if plan.cost < best.cost else best
    return best


def copied_operands(equation: str) -> list[int]:
    """Return which of two operands are copied, since their axes are merged in another order than they lie in."""
    inputs, output = equation.split("->")
    left, right = ("".join(dict.fromkeys(labels)) for labels in inputs.split(","))
    left, right = (
        "".join(label for label in labels if label in other or label in output)
        for labels, other in ((left, right), (right, left))
    )
    if not set(left) & set(right) - set(output):
        return []
    return _best(left, right, output).copied()


def _orders(labels: Sequence[str], *like: str) -> list[tuple[str, ...]]:
    """Return the orders that the labels have in each of `like`."""
    return list(dict.fromkeys(tuple(label for label in other if label in labels) for other in like))


def _outer(left: str, right: str, output: str) -> Step:
    """Multiply elementwise, with the axes of each operand in their place in the output."""
    turns, places = [], []
    for labels in (left, right):
        turns.append(_turn([labels.index(label) for label in output if label in labels]))
        index = tuple(slice(None) if label in labels else None for label in output)
        places.append(None if None not in index else index)

    def place(xp: Namespace, x: Array, turn: tuple[int, ...] | None, index: tuple[slice | None, ...] | None) -> Array:
        if turn is not None:
            x = xp.permute_dims(x, turn)
        return x if index is None else x[index]

    def step(xp: Namespace, a: Array, b: Array, rounded: bool = True) -> Array:
        if not rounded:
            acc_dtype = sum_dtypes(xp, (a.dtype, b.dtype))[1]
            a, b = cast(xp, a, acc_dtype), cast(xp, b, acc_dtype)
        return xp.multiply(place(xp, a, turns[0], places[0]), place(xp, b, turns[1], places[1]))

    return step


# What a copy of an operand counts, where a view in another order counts 1.
_COPY = 4.0


class _MatrixProduct:
    """One way to write a contraction as ``matmul``: which operand is left, in which order indices are merged."""

    def __init__(self, left: str, right: str, output: str, batch: str, summed: str, swapped: bool) -> None:
        shared = batch + summed
        rows = "".join(label for label in left if label not in shared)
        columns = "".join(label for label in right if label not in shared)
        self.batch, self.swapped = len(batch), swapped
        self.rows, self.columns, self.summed = len(rows), len(columns), len(summed)
        result = batch + rows + columns
        self.turn_result = _turn([result.index(label) for label in output])
        self.turn_left, self.flip_left = self._matrix(left, batch, rows, summed)
        self.turn_right, self.flip_right = self._matrix(right, batch, summed, columns)
        # A permutation copies if axes are merged after it; otherwise it is a view.
        copies = self._copies(self.turn_left, rows, summed), self._copies(self.turn_right, summed, columns)
        self._copied = [cost >= _COPY for cost in copies]
        self.cost = sum(copies) + (self.turn_result is not None) * 0.5 + swapped * 0.01

    @staticmethod
    def _matrix(labels: str, batch: str, first: str, second: str) -> tuple[tuple[int, ...] | None, bool]:
        """Return the permutation, and whether the matrix is transposed: (second, first) for (first, second)."""
        if labels == batch + second + first and labels != batch + first + second:
            return None, True
        return _turn([labels.index(label) for label in batch + first + second]), False

    @staticmethod
    def _copies(turn: tuple[int, ...] | None, first: str, second: str) -> float:
        if turn is None:
            return 0.0
        return _COPY if len(first) > 1 or len(second) > 1 else 1.0

    def copied(self) -> list[int]:
        """Return which operands are copied, 0 for the first one of the equation."""
        return [(1 - k if self.swapped else k) for k, is_copied in enumerate(self._copied) if is_copied]

    def step(self) -> Step:
        """Return the function that computes it."""
        simple = self.batch == 0 and self.rows == self.columns == self.summed == 1
        if simple and self.turn_result is None:  # two matrices: the layer's own equations
            turn_left = self.flip_left or self.turn_left is not None
            turn_right = self.flip_right or self.turn_right is not None
            multiply = _MATRICES[turn_left, turn_right]
            return (lambda xp, a, b, rounded=True: multiply(xp, b, a, rounded)) if self.swapped else multiply
        if self.batch and self.rows == self.columns == 0 and self.summed == 1 and self.turn_result is None:

            def dot_products(xp: Namespace, a: Array, b: Array, rounded: bool = True) -> Array:
                a, b = self._turned(xp, a, b)  # then indexing, which takes less time than reshaping
                return product(xp, a[..., None, :], b[..., None], rounded)[..., 0, 0]

            return dot_products  # a function, since torch.compile does not keep bound methods

        def general(xp: Namespace, a: Array, b: Array, rounded: bool = True) -> Array:
            a, b = self._turned(xp, a, b)
            a, a_free = self._merge(xp, a, self.rows, self.flip_left, left=True)
            b, b_free = self._merge(xp, b, self.columns, self.flip_right, left=False)
            y = product(xp, a, b, rounded)
            shape = (*a.shape[: self.batch], *a_free, *b_free)
            if y.ndim != len(shape) or self.rows > 1 or self.columns > 1:
                y = xp.reshape(y, shape)
            return y if self.turn_result is None else xp.permute_dims(y, self.turn_result)

        return general

    def _turned(self, xp: Namespace, a: Array, b: Array) -> tuple[Array, Array]:
        """Put the left operand first, and the axes of both in their order."""
        if self.swapped:
            a, b = b, a
        if self.turn_left is not None:
            a = xp.permute_dims(a, self.turn_left)
        if self.turn_right is not None:
            b = xp.permute_dims(b, self.turn_right)
        return a, b

    def _merge(self, xp: Namespace, x: Array, free: int, flip: bool, *, left: bool) -> tuple[Array, tuple[int, ...]]:
        """Merge free and summed axes into a matrix; return it and the sizes of the free axes."""
        shape = x.shape
        # The free axes come first in a left operand, and in a transposed right one.
        free_first = left != flip
        split = self.batch + (free if free_first else self.summed)
        batch, first, second = shape[: self.batch], shape[self.batch : split], shape[split:]
        sizes = first if free_first else second
        if free == 0 and self.batch == 0:  # a vector
            return xp.reshape(x, (math.prod(shape),)) if self.summed != 1 else x, sizes
        if free != 1 or self.summed != 1:
            x = xp.reshape(x, (*batch, math.prod(first), math.prod(second)))
        if flip:
            x = x.T if x.ndim == 2 else xp.matrix_transpose(x)
        return x, sizes


# Products of two matrices, by whether the left and the right one are transposed.
_MATRICES: dict[tuple[bool, bool], Step] = {
    (False, False): product,
    (False, True): lambda xp, a, b, rounded=True: product(xp, a, b.T, rounded),
    (True, False): summed_over_rows,
    (True, True): lambda xp, a, b, rounded=True: product(xp, a.T, b.T, rounded),
}


def _turn(order: Sequence[int]) -> tuple[int, ...] | None:
    """Return the axes for ``permute_dims``, or None for the identity."""
    return None if list(order) == list(range(len(order))) else tuple(order)
