"""check_gradients: are these gradients those of Y = XW + B? Checked on the user's own arrays, without a step size."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _linear
from .._arrays import namespace
from .._arrays.libraries import library
from .._arrays.namespace import Array, Namespace
from .._arrays.summary import html_table
from .._arrays.text import kind_of
from .._arrays.types import StandardArray
from .._math import checks, equations
from . import adjoint

Forward = Callable[[Array, Array, Array | None], Array]
Backward = Callable[[Array, Array, Array], Sequence[Array | None]]

IDENTITIES = {
    "Y": "Y r = X (W r) + B r",
    "dX": "<dY, U W> = <dX, U>",
    "dW": "<dY, X U> = <dW, U>",
    "dB": "<dY, 1 U> = <dB, U>",
}
# Longer sums must be as accurate: one call of matmul in the layer is never longer.
LONGEST_SUM = 131072


@dataclass(frozen=True)
class GradientCheck:
    """One line of a `GradientReport`.

    Parameters
    ----------
    name : str
        The result that was checked: ``"Y"``, ``"dX"``, ``"dW"`` or ``"dB"``; of `check_einsum` ``"Y"``, or the
        operand of the gradient, ``"operand 0"``; of `check_samples` ``"norms"``, ``"dots"`` or ``"weighted"``.
    identity : str
        The identity that must hold.
    off : float
        The error: the largest difference of both sides over all rows, columns and directions,
        relative to the root of the sum of squares of the products in them. Infinity if nothing
        could be compared.
    tolerance : float
        The largest error that rounding explains.
    why : str
        Why nothing could be compared, a shape or a dtype; otherwise empty.
    """

    name: str
    identity: str
    off: float
    tolerance: float
    why: str = ""

    @property
    def ok(self) -> bool:
        """Whether `off` is within `tolerance`; nan is not."""
        return self.off <= self.tolerance

    def __str__(self) -> str:
        if self.why:
            return f"{self.name}: {self.why}"
        return f"{self.name}: {self.identity} is off by {self.off:.2g}, rounding makes {self.tolerance:.2g} at most"


@dataclass(frozen=True, repr=False)
class GradientReport:
    """The result of `check_gradients`, `check_einsum` and `check_samples`; it prints as a table.

    Parameters
    ----------
    checks : tuple of GradientCheck
        One for each identity.
    """

    checks: tuple[GradientCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether all of them hold."""
        return all(check.ok for check in self.checks)

    def _repr_html_(self) -> str:
        rows = [
            (check.name, check.why or check.identity, f"{check.off:.2g}", f"{check.tolerance:.2g}", _verdict(check))
            for check in self.checks
        ]
        return html_table(["", "identity", "off by", "may be", ""], rows)

    def __repr__(self) -> str:
        texts = [check.why or check.identity for check in self.checks]
        width, name = max(map(len, texts)), max(4, *(len(check.name) for check in self.checks))
        lines = [f"{'':<{name}}  {'':<{width}}  off by   may be"]
        for check, text in zip(self.checks, texts, strict=True):
            numbers = f"{check.off:<8.2g} {check.tolerance:<8.2g}"
            lines.append(f"{check.name:<{name}}  {text:<{width}}  {numbers} {_verdict(check)}")
        return "\n".join(lines)


def _verdict(check: GradientCheck) -> str:
    return "ok" if check.ok else "WRONG"


def check_gradients(
    X: StandardArray,
    W: StandardArray,
    B: StandardArray | None,
    dY: StandardArray,
    *,
    forward: Forward | None = None,
    backward: Backward | None = None,
    directions: int = 3,
    seed: int = 0,
) -> GradientReport:
    """Check Y, dX, dW and dB on these arrays, to rounding.

    Y is held to a projection, Y r = X (W r) + B r in every row. The gradients are held to the
    identities <dY, UW> = <dX, U>, for a U of one row, in every row; <dY, XU> = <dW, U>, for a U
    of one row or column, in every row and column; and <dY, 1U> = <dB, U> in every entry. Both
    sides are worked out in float64 on the host, 4096 rows at a time.

    The layer is linear in each argument, so these identities are exact to rounding; a finite difference
    would find nothing more.

    Parameters
    ----------
    X : array, shape (..., C)
        The batch. It and its products must be finite: inf and nan count as wrong.
    W : array, shape (C, S)
        The weight.
    B : array, shape (S,), or None
        The bias.
    dY : array, shape (..., S)
        The gradient of the loss with respect to Y.
    forward : callable, optional
        ``forward(X, W, B)``, which returns Y; by default that of the package.
    backward : callable, optional
        ``backward(X, W, dY)``, which returns dX, dW and dB; None is not checked. By default
        that of the package.
    directions : int
        The number of random directions, at least one.
    seed : int
        The seed of the directions.

    Returns
    -------
    GradientReport

    Raises
    ------
    AssertionError
        If an identity does not hold, or a result has the wrong shape or dtype. The message
        names each identity with its error.
    TypeError, ValueError
        As `forward` and `backward` of the package; also if `forward` or `backward` returns
        anything else than above, or `directions` is not a positive integer.

    Notes
    -----
    The tolerance is 8 eps sqrt(n): eps is that of the dtype to which the arguments are promoted,
    and n the length of the sum in each entry, C for Y, S for dX, and N for dW and dB, yet at most
    131,072, since longer sums can be as accurate. It is relative to the
    root of the sum of the squares of all products on both sides.

    Smaller errors look like rounding. In float32 with products of one sign, a backward pass that
    misses 45 rows of 131,072, or one row in 2900 of a longer batch, still passes; a single missing
    row is found among 10,000, and with random signs among a million. Y and dX are compared row by
    row, dW by rows and columns: an error below the tolerance times the largest number of its row,
    and for dW of its column, is not found.

    Dask arrays are read in one pass, block by block. Only a few numbers for each feature, dW and dB are held.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> rng = np.random.default_rng(0)
    >>> X, W, B, dY = (rng.normal(size=shape) for shape in ((50, 7), (7, 5), 5, (50, 5)))
    >>> fc.testing.check_gradients(X, W, B, dY).ok
    True

    A gradient that is a mean, where the loss is a sum:

    >>> def backward(X, W, dY):
    ...     return dY @ W.T, X.T @ dY, dY.mean(axis=0)
    >>> fc.testing.check_gradients(X, W, B, dY, backward=backward)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    AssertionError: dB: <dY, 1 U> = <dB, U> is off by ...
    """
    return passed(examine(X, W, B, dY, forward=forward, backward=backward, directions=directions, seed=seed))


def passed(report: GradientReport) -> GradientReport:
    """Return a report; raise AssertionError if an identity in it does not hold."""
    if not report.ok:
        wrong = "; ".join(str(check) for check in report.checks if not check.ok)
        raise AssertionError(f"{wrong}\n{report}")
    return report


def examine(
    X: Array,
    W: Array,
    B: Array | None,
    dY: Array,
    *,
    forward: Forward | None = None,
    backward: Backward | None = None,
    directions: int = 3,
    seed: int = 0,
) -> GradientReport:
    """Do what `check_gradients` does, and return the report in any case."""
    checks.check_forward(X, W, B)
    xp = checks.check_backward(X, W, dY)
    directions = positive(directions)
    forward, backward = forward or _linear.forward, backward or _linear.backward
    results = _results(xp, forward(X, W, B), backward(X, W, dY))
    given = {"X": X, "W": W, "B": B, "dY": dY}
    dtypes = {name: equations.result_dtype(xp, name, given) for name in IDENTITIES}
    shapes = {"Y": dY.shape, "dX": X.shape, "dW": W.shape, "dB": dY.shape[-1:]}
    verdicts: dict[str, GradientCheck | None] = {
        name: misfit(name, IDENTITIES[name], array, shapes[name], dtypes[name]) for name, array in results.items()
    }
    arrays = {**given, **{name: results[name] for name in verdicts if verdicts[name] is None}}
    tiny = {name: limits(dtype)[1] for name, dtype in dtypes.items()}
    measured, small = adjoint.in_one_pass(xp, arrays, directions, seed, tiny)
    N = adjoint.number_of_rows(measured, directions)
    lengths = {"Y": W.shape[0], "dX": W.shape[1], "dW": N, "dB": N}
    for name, off in adjoint.compared(measured, arrays, small, directions, seed, tiny).items():
        verdicts[name] = GradientCheck(name, IDENTITIES[name], off, tolerance(dtypes[name], lengths[name]))
    found = [check for check in verdicts.values() if check is not None]
    return GradientReport(tuple(found))


def positive(count: Any, name: str = "directions") -> int:
    """Return the number of directions, or of what `name` says, after checking it."""
    try:
        number = operator.index(count)
    except TypeError:
        raise TypeError(f"{name} is {count!r}: pass a positive integer") from None
    if number < 1:
        raise ValueError(f"{name} is {count}: pass a positive integer")
    return number


# Checks of the results before anything is compared.


def _results(xp: Namespace, Y: Any, gradients: Any) -> dict[str, Array]:
    """Return the results of both functions by name, without None, after checking that they are arrays."""
    if not (isinstance(gradients, Sequence) and len(gradients) == 3):
        count = f" of {len(gradients)}" if isinstance(gradients, Sequence) else ""
        raise TypeError(
            f"backward returns {kind_of(gradients)}{count}: return (dX, dW, dB), with None for one that is "
            f"not to be checked"
        )
    made = dict(zip(equations.GRADIENTS, gradients, strict=True))
    results = {"Y": Y, **{name: gradient for name, gradient in made.items() if gradient is not None}}
    for name, result in results.items():
        if not is_array(result, in_blocks=namespace.is_chunked(xp) and name in ("Y", "dX")):
            raise TypeError(
                f"{'forward' if name == 'Y' else 'backward'} returns {kind_of(result)} for {name}: return an "
                f"array of {library(xp).name}, the library of X"
            )
    return results


def is_array(result: Any, in_blocks: bool) -> bool:
    """Say whether a result is an array of the standard, and in blocks where it must be."""
    try:
        xp = namespace.of(result)
    except TypeError:
        return False
    return namespace.is_chunked(xp) or not in_blocks


def misfit(name: str, identity: str, result: Array, shape: Sequence[Any], dtype: Any) -> GradientCheck | None:
    """Return a failed check if a result has the wrong shape or dtype; unknown sizes are accepted."""
    fits = len(result.shape) == len(shape) and all(
        own == wanted or own != own or wanted != wanted for own, wanted in zip(result.shape, shape, strict=True)
    )
    found, wanted = namespace.dtype_name(result.dtype), namespace.dtype_name(dtype)
    if fits and found == wanted:
        return None
    why = f"is {found} {tuple(result.shape)}, must be {wanted} {tuple(shape)}"
    return GradientCheck(name, identity, math.inf, tolerance(dtype, 1), why)


def limits(dtype: Any) -> tuple[float, float]:
    """Return eps and the smallest normal number of a dtype.

    For wider dtypes those of float64, in which both sides are computed.
    """
    name = namespace.dtype_name(dtype)
    if name == "bfloat16":  # not in NumPy; it has the exponents of float32
        return 2.0**-7, float(np.finfo("float32").tiny)
    own, float64 = np.finfo(name), np.finfo("float64")
    return float(max(own.eps, float64.eps)), float(max(own.tiny, float64.tiny))


def tolerance(dtype: Any, terms: int) -> float:
    """Return the largest error that rounding explains in a sum of this many terms."""
    return 8 * limits(dtype)[0] * math.sqrt(min(max(terms, 1), LONGEST_SUM))
