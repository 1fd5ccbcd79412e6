"""Einsum contractions with functions of the array API standard alone.

The standard has no einsum, so a contraction of two arrays is lowered to
``matmul``. A plan is made once for each equation and kept; it holds no arrays.
"""

from __future__ import annotations

from collections.abc import Callable

from opt_einsum.parser import parse_einsum_input

from .namespace import Array, Namespace

Plan = Callable[[Namespace, Array, Array], Array]

_PLANS: dict[str, Plan] = {}


def contract(xp: Namespace, equation: str, left: Array, right: Array, /) -> Array:
    """Contract two matrices over the one index that they share.

    Parameters
    ----------
    xp : namespace
        The namespace of both arrays.
    equation : str
        For example ``"nc,cs->ns"``: two operands of two indices each.
    left, right : array
        The operands. Their sizes are the caller's to check.

    Returns
    -------
    array
        The product, with the axes that the equation asks for. It is one call
        of ``matmul``, and transposes that copy nothing.

    Examples
    --------
    >>> import numpy as np
    >>> X, dY = np.ones((5, 2)), np.ones((5, 3))
    >>> contract(np, "nc,ns->cs", X, dY).shape
    (2, 3)
    """
    plan = _PLANS.get(equation)
    if plan is None:
        plan = _PLANS[equation] = _lower(equation)
    return plan(xp, left, right)


def _lower(equation: str) -> Plan:
    """Turn an equation of two matrices into one ``matmul`` that gives the output's axes in their order."""
    inputs, output, _ = parse_einsum_input((equation, (1, 1), (1, 1)), shapes=True)
    left, right = inputs.split(",")
    (shared,) = set(left) & set(right) - set(output)
    rows, columns = output
    # With the operands exchanged, matmul gives the transposed output at once.
    swap = rows in right
    if swap:
        left, right = right, left
    turn_left, turn_right = left != rows + shared, right != shared + columns

    def plan(xp: Namespace, a: Array, b: Array) -> Array:
        if swap:
            a, b = b, a
        return xp.matmul(a.T if turn_left else a, b.T if turn_right else b)

    return plan
