"""One small batch in float64, and what the layer makes of it."""

from __future__ import annotations

import numpy as np

import fc_arrayapi as fc
from helpers.assertions import assert_array


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


X, W, B, dY = numbers(100, 6), numbers(6, 5, seed=1), numbers(5, seed=2), numbers(100, 5, seed=3)


def assert_all(results, *, like):
    expected = (fc.testing.reference_forward(X, W, B), *fc.testing.reference_backward(X, W, dY))
    for result, reference in zip(results, expected, strict=True):
        assert_array(result, reference, like=like, rtol=1e-12)
