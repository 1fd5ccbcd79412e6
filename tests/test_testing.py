"""The literal forms, against loops that multiply one entry by another."""

from __future__ import annotations

import itertools

import numpy as np

import fc_arrayapi as fc


def test_the_literal_forms_equal_loops_over_every_entry(rng):
    N, C, S = 5, 4, 3
    X, W, B, dY = rng.normal(size=(N, C)), rng.normal(size=(C, S)), rng.normal(size=S), rng.normal(size=(N, S))
    Y = np.zeros((N, S)) + B
    dX, dW, dB = np.zeros((N, C)), np.zeros((C, S)), np.zeros(S)
    for n, s in itertools.product(range(N), range(S)):
        dB[s] += dY[n, s]
        for c in range(C):
            Y[n, s] += X[n, c] * W[c, s]
            dX[n, c] += dY[n, s] * W[c, s]
            dW[c, s] += dY[n, s] * X[n, c]
    np.testing.assert_allclose(fc.testing.reference_forward(X, W, B), Y, rtol=1e-13, atol=1e-13)
    for part, expected in zip(fc.testing.reference_backward(X, W, dY), (dX, dW, dB), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-13, atol=1e-13)


def test_the_gradients_are_those_of_the_forward_pass(rng):
    """Y is linear in each argument, so a central difference is exact to rounding, whatever the step."""
    X, W, B, dY = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=(5, 3))
    gradients = fc.testing.reference_backward(X, W, dY)
    for position, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            low, high = [X, W, B], [X, W, B]
            low[position], high[position] = low[position].copy(), high[position].copy()
            low[position][index] -= 0.5
            high[position][index] += 0.5
            difference = fc.testing.reference_forward(*high) - fc.testing.reference_forward(*low)
            np.testing.assert_allclose(gradient[index], (difference * dY).sum(), rtol=1e-12, atol=1e-12)


def test_leading_axes_are_the_batch(rng):
    X, W, dY = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 5)), rng.normal(size=(2, 3, 5))
    assert fc.testing.reference_forward(X, W).shape == (2, 3, 5)
    assert [part.shape for part in fc.testing.reference_backward(X, W, dY)] == [(2, 3, 4), (4, 5), (5,)]
    assert fc.testing.reference_forward(X[0, 0], W).shape == (5,)
