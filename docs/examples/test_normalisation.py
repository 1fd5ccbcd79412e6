"""The recipe equals the layer on a batch that was normalised in memory, and holds no batch itself."""

import sys
import tracemalloc
from pathlib import Path

import numpy as np

import fc_arrayapi as fc

sys.path.insert(0, str(Path(__file__).parent))
from normalisation import fold, statistics, weight_gradient


def test_it_equals_the_normalised_batch(tmp_path):
    rng = np.random.default_rng(0)
    X, T = rng.normal(3, [1, 2, 5, 0.1], size=(500, 4)), rng.normal(size=(500, 3))
    X[:, 0] = 7  # a constant feature
    W, B = rng.normal(size=(4, 3)), rng.normal(size=3)
    np.save(tmp_path / "x.npy", X)
    lazy = fc.open_array(tmp_path / "x.npy", rows=70)
    mean, scale = statistics(lazy)
    W_folded, B_folded = fold(W, B, mean, scale)
    Y = fc.forward(lazy, W_folded, B_folded)
    (grads,) = fc.compute(fc.backward(lazy, W_folded, Y - T, needs=("dW", "dB")))

    deviation = X.std(axis=0)
    deviation[0] = 1
    normalised = (X - X.mean(axis=0)) / deviation
    expected = fc.testing.reference_forward(normalised, W, B)
    np.testing.assert_allclose(Y, expected, rtol=1e-10, atol=1e-10)
    reference = fc.testing.reference_backward(normalised, W, expected - T)
    np.testing.assert_allclose(grads.dB, reference.dB, rtol=1e-10)
    np.testing.assert_allclose(weight_gradient(grads, mean, scale), reference.dW, rtol=1e-8, atol=1e-8)


def test_its_gradient_is_how_the_loss_changes_with_w(tmp_path):
    rng = np.random.default_rng(1)
    X, T, W, B = rng.normal(2, 3, (200, 4)), rng.normal(size=(200, 3)), rng.normal(size=(4, 3)), rng.normal(size=3)
    np.save(tmp_path / "x.npy", X)
    lazy = fc.open_array(tmp_path / "x.npy", rows=30)
    mean, scale = statistics(lazy)

    def loss(weight):
        residual = fc.forward(X, *fold(weight, B, mean, scale)) - T
        return (residual**2).sum() / 2

    W_folded, B_folded = fold(W, B, mean, scale)
    residual = fc.forward(lazy, W_folded, B_folded) - T
    (grads,) = fc.compute(fc.backward(lazy, W_folded, residual, needs=("dW", "dB")))
    dW, step = weight_gradient(grads, mean, scale), 1e-4
    for c, s in np.ndindex(W.shape):
        change = np.zeros_like(W)
        change[c, s] = step
        # The loss is quadratic in W, so that a central difference is exact to rounding.
        np.testing.assert_allclose((loss(W + change) - loss(W - change)) / (2 * step), dW[c, s], rtol=1e-6)


def test_no_pass_holds_the_batch(tmp_path):
    X = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (1_000_000, 32))  # 128 MB
    X[::1000] = 1
    X.flush()
    W, B = np.ones((32, 4), "float32"), np.ones(4, "float32")
    lazy = fc.open_array(tmp_path / "x.npy", rows=10_000)  # 1.28 MB a block, 2.56 MB in float64
    statistics(lazy[:20_000])  # what is imported and kept is not counted
    tracemalloc.start()
    try:
        mean, scale = statistics(lazy)
        W_folded, B_folded = fold(W, B, mean, scale)
        Y = fc.forward(lazy, W_folded, B_folded)
        fc.store({tmp_path / "y.npy": Y, tmp_path / "dw.npy": fc.grad_weight(lazy, Y)})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.load(tmp_path / "y.npy", mmap_mode="r").shape == (1_000_000, 4)
    assert peak < 48e6
