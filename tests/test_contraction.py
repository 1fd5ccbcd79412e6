"""Lowering of an equation of two matrices to one matmul."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from assertions import assert_array

from fc_arrayapi import contraction, namespace

EQUATIONS = [
    f"{''.join(left)},{''.join(right)}->{''.join(out)}"
    for left in itertools.permutations("ik")
    for right in itertools.permutations("kj")
    for out in itertools.permutations("ij")
]


@pytest.mark.needs("matmul")
@pytest.mark.parametrize("equation", [*EQUATIONS, *(e.replace("k", "z").replace("i", "q") for e in EQUATIONS)])
def test_every_order_of_axes_equals_numpy_einsum(backend, rng, equation):
    sizes = {"i": 2, "q": 2, "k": 3, "z": 3, "j": 4}
    inputs = equation.split("->")[0].split(",")
    left, right = (rng.normal(size=[sizes[index] for index in operand]) for operand in inputs)
    a, b = backend.asarray(left), backend.asarray(right)
    result = contraction.contract(namespace.of(a), equation, a, b)
    assert_array(result, np.einsum(equation, left, right), like=a, rtol=1e-14)


def test_a_plan_is_made_once():
    contraction._PLANS.pop("nc,cs->ns", None)
    contraction.contract(np, "nc,cs->ns", np.ones((2, 3)), np.ones((3, 4)))
    plan = contraction._PLANS["nc,cs->ns"]
    contraction.contract(np, "nc,cs->ns", np.ones((5, 3)), np.ones((3, 1)))
    assert contraction._PLANS["nc,cs->ns"] is plan
