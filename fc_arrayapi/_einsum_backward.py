"""einsum_backward: the gradients of an einsum, in memory or on Dask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

from ._arrays.types import ArrayT, StandardArray
from ._dask import einsum_backward as on_dask
from ._math import einsum_backward as in_memory
from ._math.subscripts import from_interleaved


@overload
def einsum_backward(subscripts: str, operand: ArrayT, /, *, dY: StandardArray) -> tuple[ArrayT]: ...
@overload
def einsum_backward(
    subscripts: str, operand: ArrayT, second: StandardArray, /, *, dY: StandardArray
) -> tuple[ArrayT, ArrayT]: ...
@overload
def einsum_backward(
    subscripts: str, operand: ArrayT, second: StandardArray, third: StandardArray, /, *, dY: StandardArray
) -> tuple[ArrayT, ArrayT, ArrayT]: ...
@overload
def einsum_backward(
    subscripts: str, operand: ArrayT, /, *operands: StandardArray, dY: StandardArray, needs: None = ...
) -> tuple[ArrayT, ...]: ...
@overload
def einsum_backward(
    subscripts: str, operand: ArrayT, /, *operands: StandardArray, dY: StandardArray, needs: Iterable[int]
) -> tuple[ArrayT | None, ...]: ...
@overload
def einsum_backward(
    operand: ArrayT, indices: Sequence[Any], /, *interleaved: Any, dY: StandardArray, needs: None = ...
) -> tuple[ArrayT, ...]: ...
@overload
def einsum_backward(
    operand: ArrayT, indices: Sequence[Any], /, *interleaved: Any, dY: StandardArray, needs: Iterable[int]
) -> tuple[ArrayT | None, ...]: ...
def einsum_backward(subscripts: Any, /, *operands: Any, dY: Any = None, needs: Any = None) -> Any:
    """Return the gradients of an einsum with respect to its operands.

    Einsum is linear in each operand. So each gradient is a contraction of dY with the other
    operands, and no graph of what was computed before is needed.

    Parameters
    ----------
    subscripts : str
        As in `einsum`, in any of its forms, also ``einsum_backward(X, [0, 1], W, [1, 2], [0, 2], dY=dY)``.
    *operands : array
        The operands of the einsum, of real floating dtypes. Beside a Dask array, in any place, the
        others may be NumPy arrays.
    dY : array
        The gradient of the loss with respect to the result, in the shape of the result.
    needs : tuple of int, optional
        The positions of the operands whose gradients are computed; all by default.

    Returns
    -------
    tuple of array
        One gradient for each operand in its shape, in the dtype to which the operands and dY are
        promoted; None where `needs` leaves it out. It may be dY itself, or a view of it, where nothing
        is summed or multiplied. Lazy if an operand or dY is a Dask array; `compute` computes several
        in one pass.

    Raises
    ------
    SubscriptsError
        As `einsum`.
    ValueError
        If an index has two sizes, dY has another shape than the result, arrays are on several
        devices, or `needs` has a position that no operand has.
    TypeError
        Without dY; for operands or dY of several libraries, or of integers, bools or complex
        numbers; and for `needs` that are not integers.

    Notes
    -----
    The subscripts of an operand and of the output are exchanged, and dY takes the operand's place:
    ``"nc,cs->ns"`` gives ``"ns,cs->nc"`` and ``"nc,ns->cs"``. An index that only this operand has,
    and the output has not, is repeated, and a repeated index is put on a diagonal. Three operands
    and more are contracted two at a time; their gradients share intermediate products, as in reverse mode.

    Complex operands are refused, since two conventions are in use. A later version would multiply
    dY by the complex conjugates of the other operands, as torch does.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> X, U, V = np.ones((5, 4)), np.ones((4, 2)), np.ones((2, 3))
    >>> dX, dU, dV = fc.einsum_backward("nc,cr,rs->ns", X, U, V, dY=np.ones((5, 3)))
    >>> dU
    array([[15., 15.],
           [15., 15.],
           [15., 15.],
           [15., 15.]])
    >>> fc.einsum_backward("ii->", np.ones((2, 2)), dY=np.asarray(3.0))  # a trace
    (array([[3., 0.],
           [0., 3.]]),)
    """
    if not isinstance(subscripts, str):
        subscripts, operands = from_interleaved((subscripts, *operands))
    wanted = None if needs is None else in_memory.check_positions(subscripts, needs, len(operands))
    results = in_memory.einsum_backward(subscripts, operands, dY, wanted)
    return on_dask.einsum_backward(subscripts, operands, dY, wanted) if results is NotImplemented else results
