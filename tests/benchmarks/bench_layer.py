"""The layer in memory against the same lines by hand."""

from __future__ import annotations

import numpy as np
import pytest

import fc_arrayapi as fc


@pytest.fixture
def arrays(request):
    n, c, s = request.param
    rng = np.random.default_rng(0)
    return tuple(rng.random(shape, "float32") for shape in ((n, c), (c, s), (s,), (n, s)))


def shapes(*each):
    return pytest.mark.parametrize("arrays", each, indirect=True, ids=str)


def name(what, X, W):
    return f"{what} {X.shape} x {W.shape}"


@shapes((4096, 1024, 1024), (64, 256, 256))
def test_forward(against, arrays):
    X, W, B, _ = arrays
    against(name("forward", X, W), lambda: fc.forward(X, W, B), "X @ W + B", lambda: X @ W + B, at_most=1.03)


@shapes((4, 8, 8))
def test_forward_of_a_tiny_batch(against, arrays):
    X, W, B, _ = arrays
    against(name("forward", X, W), lambda: fc.forward(X, W, B), "X @ W + B", lambda: X @ W + B, at_most=2.5)


@shapes((4096, 1024, 1024), (64, 256, 256))
def test_backward(against, arrays):
    X, W, _, dY = arrays
    against(
        name("backward", X, W),
        lambda: fc.backward(X, W, dY),
        "dY @ W.T, X.T @ dY, dY.sum(0)",
        lambda: (dY @ W.T, X.T @ dY, dY.sum(0)),
        at_most=1.03,
    )


@pytest.mark.parametrize("library", ["numpy", "torch"])
@shapes((1_000_000, 64, 16), (262_144, 1024, 10))
def test_the_cost_of_an_accurate_sum(against, arrays, library):
    """The plain product of a long batch is off by 1e-6 to 1e-2, ours by 2e-7."""
    X, _, _, dY = arrays
    if library == "torch":
        import torch

        X, dY = torch.from_numpy(X), torch.from_numpy(dY)
    against(
        f"{library}, grad_weight, {tuple(X.shape)} x {tuple(dY.shape)}",
        lambda: fc.grad_weight(X, dY),
        "X.T @ dY",
        lambda: X.T @ dY,
        at_most=1.1,
        peaks="none",
    )


@pytest.mark.parametrize(
    ("arrays", "at_most"), [((4, 8, 8), 0.6), ((1024, 1024, 1024), 1.0)], indirect=["arrays"], ids=str
)
def test_torch(against, arrays, at_most):
    import torch

    X, W, B, dY = map(torch.from_numpy, arrays)
    x, w, b = X.clone().requires_grad_(), W.T.contiguous().requires_grad_(), B.clone().requires_grad_()
    against(
        name("torch, forward and backward", arrays[0], arrays[1]),
        lambda: (fc.forward(X, W, B), fc.backward(X, W, dY)),
        "F.linear, autograd.grad",
        lambda: torch.autograd.grad(torch.nn.functional.linear(x, w, b), (x, w, b), dY),
        at_most=at_most,
        peaks="none",
    )
