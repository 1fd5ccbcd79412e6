"""check_einsum: are these the gradients of an einsum? Checked on the user's own operands, without a step size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import opt_einsum

from .. import _einsum, _einsum_backward
from .._arrays import namespace
from .._arrays.libraries import NumPyArray, library
from .._arrays.namespace import Array, Namespace
from .._arrays.text import is_unknown, kind_of
from .._dask import compute
from .._math import checks, einsum_backward
from .._math.einsum_backward import where
from .._math.subscripts import Equation, SubscriptsError, check_sizes, from_interleaved, parse, shown
from . import adjoint, gradients
from .gradients import GradientCheck, GradientReport

IDENTITIES = {"Y": "<U, Y> = <U, einsum>", "gradient": "<dY, einsum(U)> = <gradient, U>"}


def check_einsum(
    subscripts: Any,
    /,
    *operands: Any,
    dY: Any = None,
    forward: Callable[..., Array] | None = None,
    backward: Callable[..., Sequence[Array | None]] | None = None,
    directions: int = 3,
    seed: int = 0,
) -> GradientReport:
    """Check an einsum and its gradients on these operands, to rounding.

    Einsum is linear in each operand. So a gradient is right if and only if
    <dY, einsum(.., U, ..)> = <gradient, U> for every U in the place of its operand. Here U is a random
    array which is zero but for one entry of one axis, for each entry of each axis in turn: an
    error is found with probability one, also in a feature of small scale. The result itself is held to
    <U, Y> = <U, einsum> in the same way. Left and right sides are worked out in float64 on the host, the
    einsum by `numpy.einsum`.

    Parameters
    ----------
    subscripts : str
        As in `einsum`, in any of its forms.
    *operands : array
        The operands, of real floating dtypes. They and their products must be finite: inf and nan
        count as wrong.
    dY : array, optional
        The gradient of the loss with respect to the result; by default random numbers.
    forward : callable, optional
        ``forward(subscripts, *operands)``, which returns the result; by default `einsum`.
    backward : callable, optional
        ``backward(subscripts, *operands, dY=dY)``, which returns one gradient for each operand; None is
        not checked. By default `einsum_backward`.
    directions : int
        The number of random arrays U for each operand, at least one.
    seed : int
        The seed of U and dY.

    Returns
    -------
    GradientReport

    Raises
    ------
    AssertionError
        If an identity does not hold, or a result has the wrong shape or dtype. The message names
        each identity with its error.
    TypeError, ValueError
        As `einsum_backward`; also if `forward` or `backward` returns anything else than above, or
        `directions` is not a positive integer.

    Notes
    -----
    The tolerance is that of `check_gradients`: 8 eps sqrt(n), with n the length of the sum in each entry,
    relative to the root of the sum of the squares of all products on both sides.

    Dask arrays are computed in one pass, and all of them must fit in memory.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> rng = np.random.default_rng(0)
    >>> X, U, V = (rng.normal(size=shape) for shape in ((50, 7), (7, 2), (2, 5)))
    >>> fc.testing.check_einsum("nc,cr,rs->ns", X, U, V).ok
    True

    A gradient that is a mean, where the loss is a sum:

    >>> def backward(subscripts, X, W, dY):
    ...     return dY @ W.T, X.T @ dY / len(X)
    >>> fc.testing.check_einsum("nc,cs->ns", X, U, backward=backward)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    AssertionError: operand 1: <dY, einsum(U)> = <gradient, U> is off by ...
    """
    if not isinstance(subscripts, str):
        subscripts, operands = from_interleaved((subscripts, *operands))
    names = [f"operand {position}" for position in range(len(operands))]
    if not operands:
        raise SubscriptsError(f"{shown(subscripts)}: there are no operands")
    xp = checks.check_arrays(where(subscripts), names, operands, lifted=names, taker="einsum_backward")
    equation = parse(subscripts, *[len(operand.shape) for operand in operands])
    check_sizes(subscripts, equation, operands)
    directions, rng = gradients.positive(directions), np.random.default_rng(seed)
    if dY is None:
        dY = _random_dY(subscripts, xp, equation, operands, rng)
    xp, _, with_dY = einsum_backward.prepare(subscripts, (*operands, dY))
    einsum_backward.check_shapes(subscripts, equation, with_dY, (*operands, dY))
    Y = (forward or _einsum.einsum)(subscripts, *operands)
    found = (backward or _einsum_backward.einsum_backward)(subscripts, *operands, dY=dY)
    results = _results(xp, Y, found, len(operands))
    dtypes = dict.fromkeys(names, xp.result_type(*[array.dtype for array in (*operands, dY)]))
    dtypes["Y"] = xp.result_type(*[operand.dtype for operand in operands])
    shapes = {"Y": dY.shape, **{name: operand.shape for name, operand in zip(names, operands, strict=True)}}
    verdicts: dict[str, GradientCheck] = {}
    for name, result in results.items():
        misfit = gradients.misfit(name, _identity(name), result, shapes[name], dtypes[name])
        if misfit is not None:
            verdicts[name] = misfit
    right = {name: result for name, result in results.items() if name not in verdicts}
    values, right = compute.compute((*operands, dY), right) if namespace.is_chunked(xp) else ((*operands, dY), right)
    host = [adjoint.float64(value) for value in values]
    for name, result in right.items():
        off = _error(equation, name, host, adjoint.float64(result), directions, rng, gradients.limits(dtypes[name])[1])
        terms = _terms(equation, name, host)
        verdicts[name] = GradientCheck(name, _identity(name), off, gradients.tolerance(dtypes[name], terms))
    return gradients.passed(GradientReport(tuple(verdicts[name] for name in results)))


def _identity(name: str) -> str:
    return IDENTITIES["Y" if name == "Y" else "gradient"]


def _random_dY(
    subscripts: str, xp: Namespace, equation: Equation, operands: Sequence[Array], rng: np.random.Generator
) -> Array:
    """Return random numbers in the shape of the result, in the library of the operands, or NumPy's beside Dask."""
    sizes: dict[str, Any] = {}
    for labels, operand in zip(equation.inputs, operands, strict=True):
        sizes.update(zip(labels, operand.shape, strict=True))
    shape = [sizes[label] for label in equation.output]
    if any(map(is_unknown, shape)):
        raise ValueError(f"{where(subscripts)}: the result has axes of unknown size: pass dY=, an array of its shape")
    numbers, like = np.asarray(rng.normal(size=shape)), operands[0]
    if namespace.is_chunked(xp):
        return numbers.astype(namespace.dtype_name(like.dtype))
    on = {} if library(xp).plain is None else {"device": namespace.device(like)}
    return xp.asarray(numbers.astype("float32"), dtype=like.dtype, **on)


def _results(xp: Namespace, Y: Any, found: Any, count: int) -> dict[str, Array]:
    """Return the results by name, without None, after checking that they are arrays."""
    if not (isinstance(found, Sequence) and len(found) == count):
        number = f" of {len(found)}" if isinstance(found, Sequence) else ""
        raise TypeError(
            f"backward returns {kind_of(found)}{number}: return a tuple of {count}, one gradient for each operand, "
            f"with None for one that is not to be checked"
        )
    results = {"Y": Y, **{f"operand {k}": gradient for k, gradient in enumerate(found) if gradient is not None}}
    for name, result in results.items():
        if not gradients.is_array(result, in_blocks=False):
            raise TypeError(
                f"{'forward' if name == 'Y' else 'backward'} returns {kind_of(result)} for {name}: return an "
                f"array of {library(xp).name}, the library of the operands"
            )
    return results


def _terms(equation: Equation, name: str, host: Sequence[NumPyArray]) -> int:
    """Return the length of the sum in each entry of a result."""
    sizes = _sizes(equation, host)
    own = equation.output if name == "Y" else equation.inputs[int(name.rpartition(" ")[2])]
    return math.prod(size for label, size in sizes.items() if label not in own)


def _sizes(equation: Equation, host: Sequence[NumPyArray]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for labels, array in zip((*equation.inputs, equation.output), host, strict=True):
        sizes.update(zip(labels, array.shape, strict=True))
    return sizes


def _error(
    equation: Equation,
    name: str,
    host: Sequence[NumPyArray],
    result: NumPyArray,
    directions: int,
    rng: np.random.Generator,
    tiny: float,
) -> float:
    """Return the largest error of the identities of one result, over the entries of each of its axes."""
    terms = (*equation.inputs, equation.output)
    position = len(terms) - 1 if name == "Y" else int(name.rpartition(" ")[2])
    arrays, labels = [*host], terms[position]
    # Everything is scaled to 1, so that no square overflows or underflows.
    for k, array in enumerate(arrays):
        largest = float(np.abs(array).max(initial=0.0))
        if k != position and 0 < largest < math.inf:
            arrays[k] = array / largest
            with np.errstate(all="ignore"):
                result, tiny = np.asarray(result / largest), tiny / largest
    worst = 0.0
    for _ in range(directions):
        U = arrays[position] = np.asarray(rng.normal(size=result.shape))
        for axis in range(max(1, result.ndim)):
            others = tuple(k for k in range(result.ndim) if k != axis)
            kept = labels[axis : axis + 1]
            left = _contract(terms, arrays, kept)
            with np.errstate(all="ignore"):
                products = result * U
                squares = _contract(terms, [array**2 for array in arrays], kept) + (products**2).sum(axis=others)
                off = adjoint.distance(left, products.sum(axis=others), np.sqrt(squares), tiny)
            worst = max(worst, float(np.max(off, initial=0.0)), key=lambda x: (math.isnan(x), x))
    return worst


def _contract(terms: Sequence[str], arrays: Sequence[NumPyArray], kept: str) -> NumPyArray:
    """Contract arrays by numpy.einsum, with letters that it knows."""
    letters = {label: opt_einsum.get_symbol(k) for k, label in enumerate(dict.fromkeys("".join(terms)))}
    text = "".join(letters.get(character, character) for character in f"{','.join(terms)}->{kept}")
    return np.asarray(np.einsum(text, *arrays, optimize=len(arrays) > 2))
