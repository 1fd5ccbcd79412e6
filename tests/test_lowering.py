"""Lowering of one contraction of one or two arrays."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.assertions import assert_array

from fc_arrayapi._arrays import namespace
from fc_arrayapi._math import lowering

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
    result = lowering.lower(equation)(namespace.of(a), a, b)
    assert_array(result, np.einsum(equation, left, right), like=a, rtol=1e-14)


def test_an_equation_is_lowered_once():
    assert lowering.lower("nc,cs->ns") is lowering.lower("nc,cs->ns")
