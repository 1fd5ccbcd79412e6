"""Elementwise steps that write their result into an argument which nothing else holds.

NumPy does this within one expression: ``X @ W + B - T`` makes one array. Dask runs each operator as a step of its own,
so `Y - T` of a block would take fresh memory as large as Y, whose pages the system has to clear first.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# Those whose result has the dtype of floats that they are given.
_OPERATORS = {
    operator.add: np.add,
    operator.sub: np.subtract,
    operator.mul: np.multiply,
    operator.truediv: np.true_divide,
    operator.neg: np.negative,
}
_UFUNCS = {
    *_OPERATORS.values(), np.exp, np.expm1, np.log, np.log1p, np.maximum, np.minimum, np.positive, np.sqrt, np.square,
    np.tanh,
}  # fmt: skip
# What Python counts for a value that one dictionary alone holds. Without the interpreter's lock counts are not exact.
_one = {0: object()}
_ALONE = sys.getrefcount(_one[0]) if getattr(sys, "_is_gil_enabled", lambda: True)() else -1


class Elementwise:
    """A task that computes each element from those at the same place of its arguments.

    Parameters
    ----------
    ufunc : numpy.ufunc
    arguments : sequence of (bool, object)
        Each is the key of a result, or a value.
    """

    __slots__ = ("arguments", "ufunc")

    def __init__(self, ufunc: np.ufunc, arguments: Sequence[tuple[bool, Any]]) -> None:
        self.ufunc, self.arguments = ufunc, arguments

    @classmethod
    def of(cls, task: Any) -> Elementwise | None:
        """Return what is known of a task, or None if it is of another kind."""
        from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef

        if type(task) is not Task or task.kwargs or not isinstance(task.func, (np.ufunc, type(operator.add))):
            return None
        ufunc = _OPERATORS.get(task.func, task.func)
        if ufunc not in _UFUNCS or len(task.args) != ufunc.nin:
            return None
        arguments: list[tuple[bool, Any]] = []
        for arg in task.args:
            if isinstance(arg, TaskRef):
                arguments.append((True, arg.key))
            elif isinstance(arg, Alias):  # the same in Dask 2025.1
                arguments.append((True, *arg.dependencies))
            elif isinstance(arg, DataNode) or not isinstance(arg, GraphNode):
                arguments.append((False, arg.value if isinstance(arg, DataNode) else arg))
            else:  # a task inside of this one
                return None
        return cls(ufunc, arguments)

    def target(self, results: Mapping[Any, Any], dropped: Iterable[Any], owns: Callable[[Any], bool]) -> Any:
        """Return the key of an argument into which the result fits and which nothing else holds, or None."""
        for key in dropped:
            if sys.getrefcount(results[key]) == _ALONE and owns(results[key]) and self._fits(results[key], results):
                return key
        return None

    def _fits(self, target: Any, results: Mapping[Any, Any]) -> bool:
        """Say whether the result has the type, shape and dtype of this argument."""
        plain = type(target), np.ndarray
        return all(
            type(x) in (int, float)
            or ((type(x) in plain or isinstance(x, np.generic)) and x.dtype == target.dtype and _stretches(x, target))
            for x in self._values(results)
        )

    def _values(self, results: Mapping[Any, Any]) -> list[Any]:
        return [results[value] if is_key else value for is_key, value in self.arguments]

    def __call__(self, results: Mapping[Any, Any], target: Any) -> Any:
        """Compute the result in place of an argument."""
        return self.ufunc(*self._values(results), out=results[target])


def owns_its_memory(array: Any) -> bool:
    """Say whether the numbers of an array are its own: what is mapped, or is a view, has a base."""
    return type(array) is np.ndarray and array.base is None and is_plain(array) and array.flags.carray


def is_plain(array: Any) -> bool:
    """Say whether an operator gives such an array back: of others it makes a number, or the machine's byte order."""
    return array.dtype.kind == "f" and bool(array.dtype.isnative) and len(array.shape) > 0


def _stretches(array: Any, to: Any) -> bool:
    """Say whether an array is stretched to the shape of another one, which stays as it is."""
    return len(array.shape) <= len(to.shape) and all(
        size in (1, whole) for size, whole in zip(reversed(array.shape), reversed(to.shape), strict=False)
    )
