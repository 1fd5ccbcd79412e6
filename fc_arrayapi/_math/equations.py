"""The layer on paper: the axes of each array, the equations that follow from them, and the dtypes of the results.

N is the batch size, C the number of input features, S the number of output features. ``n`` stands for any number of
leading axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._arrays.libraries import library
from .._arrays.namespace import Array, Namespace, dtype_name, keep

# The axes of every array of the layer.
AXES = {"X": "nc", "W": "cs", "B": "s", "Y": "ns", "dX": "nc", "dY": "ns", "dW": "cs", "dB": "s"}
# What an axis counts, for messages.
AXIS_NAMES = {"n": "batch", "c": "input features", "s": "output features"}
# The arrays that each result is made of; its dtype is the one to which they are promoted.
OPERANDS = {"Y": ("X", "W", "B"), "dX": ("dY", "W"), "dW": ("X", "dY"), "dB": ("dY",)}
GRADIENTS = ("dX", "dW", "dB")


def gradient_equation(equation: str, position: int) -> str:
    """Return the einsum equation of the gradient with respect to one operand.

    It contracts the gradient of the output with the other operands: the subscripts of that operand and of the
    output are exchanged.

    Parameters
    ----------
    equation : str
        Explicit, without ellipsis or spaces: ``"nc,cs->ns"``.
    position : int
        The operand.

    Returns
    -------
    str
        The output's gradient stands in the place of the operand.

    Examples
    --------
    >>> gradient_equation("nc,cs->ns", 0), gradient_equation("nc,cs->ns", 1)
    ('ns,cs->nc', 'nc,ns->cs')
    """
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    terms[position], output = output, terms[position]
    return f"{','.join(terms)}->{output}"


FORWARD = f"{AXES['X']},{AXES['W']}->{AXES['Y']}"
GRAD_INPUT = gradient_equation(FORWARD, 0)
GRAD_WEIGHT = gradient_equation(FORWARD, 1)
# B is repeated for every row, an einsum "s->ns", so its gradient sums over the rows.
GRAD_BIAS = gradient_equation(f"{AXES['B']}->{AXES['Y']}", 0)


def axis_label(axis: str) -> str:
    """Write an axis for a message: ``c (input features)``."""
    return f"{axis} ({AXIS_NAMES[axis]})"


def result_dtype(xp: Namespace, result: str, arrays: Mapping[str, Array | None]) -> Any:
    """Return the dtype of Y, dX, dW or dB.

    Parameters
    ----------
    xp : namespace
        The namespace of the arrays.
    result : {"Y", "dX", "dW", "dB"}
        The name of the result.
    arrays : mapping of str to array
        At least the arrays of `OPERANDS`; B may be None or left out.

    Returns
    -------
    dtype
    """
    operands = [arrays.get(name) for name in OPERANDS[result]]
    return sum_dtypes(xp, tuple(array.dtype for array in operands if array is not None))[0]


_SUM_DTYPES: dict[tuple[str, tuple[Any, ...]], tuple[Any, Any]] = {}


def sum_dtypes(xp: Namespace, dtypes: tuple[Any, ...], acc_dtype: Any = None) -> tuple[Any, Any]:
    """Return the dtype of a sum of products, and the dtype in which its terms are added.

    Parameters
    ----------
    xp : namespace
        The namespace of the arrays.
    dtypes : tuple of dtype
        The dtypes of the arrays, which are promoted.
    acc_dtype : dtype, optional
        The second result, if given. By default it is the first one, and at least float32.

    Returns
    -------
    tuple of two dtypes
    """
    own = library(xp)
    key = own.name, dtypes
    found = _SUM_DTYPES.get(key)
    if found is None:
        dtype = xp.result_type(*dtypes)
        narrow = dtype_name(dtype) in ("float16", "bfloat16")
        found = dtype, xp.zeros(0, dtype=xp.float32).dtype if narrow else dtype
        if own.promotes_alike:
            keep(_SUM_DTYPES, key, found)
    return found if acc_dtype is None else (found[0], acc_dtype)
