"""The calls that messages advise, written as the library at hand spells them."""

from __future__ import annotations

from typing import Any

from .libraries import library
from .namespace import Array, dtype_name, of
from .text import in_code


def call(function: str, array: Array, name: str, argument: Any = None) -> str:
    """Write a call of a function of the standard.

    Parameters
    ----------
    function : {"astype", "reshape", "broadcast_to", "real", "imag"}
        The function's name in the standard.
    array : array
        Its argument, whose library decides the spelling.
    name : str
        The name of `array` in messages.
    argument : dtype or str, optional
        What else it takes: the name of a dtype, or a shape.

    Examples
    --------
    >>> import numpy as np
    >>> call("astype", np.ones(2), "X", "float32"), call("reshape", np.ones(2), "dY", "(2, 1)")
    ('X.astype("float32")', 'dY.reshape((2, 1))')
    """
    own = library(of(array))
    return own.calls[function].format(name=in_code(name), argument=argument, module=own.name)


def to_numbers(array: Array, name: str, integers: str = "int64") -> str:
    """Write the call that converts an array to a dtype that is computed with: floats stay floats."""
    own = dtype_name(array.dtype)
    whole = own.startswith(("bool", "int", "uint", "datetime", "timedelta"))
    return f"convert it first, for example {call('astype', array, name, integers if whole else 'float32')}"
