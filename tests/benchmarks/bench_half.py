"""float16 in NumPy against a cast to float32 by hand, rounded once."""

from __future__ import annotations

import numpy as np
import pytest

import fc_arrayapi as fc

FORMULAS = {
    "forward": (lambda X, W, dY: fc.forward(X, W), lambda X, W, dY: wide(X) @ wide(W)),
    "grad_input": (lambda X, W, dY: fc.grad_input(dY, W), lambda X, W, dY: wide(dY) @ wide(W).T),
    "grad_weight": (lambda X, W, dY: fc.grad_weight(X, dY), lambda X, W, dY: wide(X).T @ wide(dY)),
    "einsum nc,cs->ns": (lambda X, W, dY: fc.einsum("nc,cs->ns", X, W), lambda X, W, dY: wide(X) @ wide(W)),
}


def wide(array):
    return array.astype("float32")


@pytest.mark.parametrize("shape", [(20_000, 768, 100), (4096, 1024, 1024), (64, 256, 256)], ids=str)
@pytest.mark.parametrize("formula", FORMULAS)
def test_float16(against, formula, shape):
    n, c, s = shape
    rng = np.random.default_rng(0)
    X, W, dY = (rng.standard_normal(size).astype("float16") for size in ((n, c), (c, s), (n, s)))
    ours, by_hand = FORMULAS[formula]
    with np.errstate(over="ignore"):
        against(
            f"float16, {formula}, {shape}",
            lambda: ours(X, W, dY),
            "cast by hand",
            lambda: by_hand(X, W, dY).astype("float16"),
            at_most=1.2,
            seconds=1.0,
        )
