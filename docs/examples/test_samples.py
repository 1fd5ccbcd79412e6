"""ridge, influence, private and kfac against the literal computation, and against the peer."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

import fc_arrayapi as fc

sys.path.insert(0, str(Path(__file__).parent))
from digits import split
from influence import most_influential, softmax_gradient
from kfac import factors, preconditioned
from private import private_gradients
from ridge import cross_validate, fold_moments


@pytest.fixture
def opened(tmp_path):
    def open_as(name, array, rows=300):
        np.save(tmp_path / f"{name}.npy", array)
        return fc.open_array(tmp_path / f"{name}.npy", rows=rows)

    return open_as


def test_ridge_is_that_of_scikit_learn(opened):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(2000, 30)) * np.logspace(0, -2, 30) + 1).astype("float32")
    T = (X @ rng.normal(size=(30, 2)) + 0.3 * rng.normal(size=(2000, 2))).astype("float32")
    penalties = np.logspace(-3, 3, 20)
    best, W, B = cross_validate(fold_moments(opened("x", X), opened("t", T)), penalties)
    peer = RidgeCV(alphas=penalties, cv=5, scoring="neg_mean_squared_error").fit(X.astype("f8"), T.astype("f8"))
    assert best == peer.alpha_
    np.testing.assert_allclose(W, peer.coef_.T, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(B, peer.intercept_, rtol=1e-6)


def test_the_rows_that_made_a_prediction(opened):
    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(3000, 8)).astype("float32"), rng.integers(0, 3, 3000)
    W, B = rng.normal(size=(8, 3)).astype("float32"), np.zeros(3, "float32")
    x = opened("x", X)
    dY = softmax_gradient(fc.forward(x, W, B), opened("labels", labels))
    exact = dY.compute()
    rows, dots = most_influential(x, dY, X[5], exact[5])
    of_rows = np.einsum("nc,ns->ncs", X, exact).reshape(3000, -1)
    all_dots = of_rows @ of_rows[5] + exact @ exact[5]
    assert set(rows) == set(np.argsort(-all_dots)[:10])
    np.testing.assert_allclose(dots, all_dots[rows], rtol=1e-4)


def test_a_private_step_clips_each_gradient(opened):
    rng = np.random.default_rng(0)
    X, dY = rng.normal(size=(1000, 6)), rng.normal(size=(1000, 4))
    of_samples = np.concatenate([np.einsum("nc,ns->ncs", X, dY).reshape(1000, -1), dY], axis=1)
    norms = np.linalg.norm(of_samples, axis=1)
    clipped = (of_samples * np.minimum(1, 3 / norms)[:, None]).sum(0)
    for x, d in ((X, dY), (opened("x", X), opened("dy", dY))):
        dW, dB = private_gradients(x, d, clip=3, noise_multiplier=0, rng=rng)
        np.testing.assert_allclose(np.concatenate([dW.ravel(), dB]), clipped, rtol=1e-10)
    noisy = [private_gradients(X, dY, 3, 1.5, np.random.default_rng(seed))[0] - dW for seed in range(200)]
    assert np.std(noisy) == pytest.approx(1.5 * 3, rel=0.03)


def test_kfac_needs_fewer_steps_than_gradient_descent(opened):
    images, labels = split()[0]
    X = images.reshape(len(images), 64)
    x, given = opened("x", X), opened("labels", labels)

    def loss(W, B):
        Y = fc.forward(X, W, B)
        Y = Y - Y.max(1, keepdims=True)
        return float(np.mean(np.log(np.exp(Y).sum(1)) - Y[np.arange(len(Y)), labels]))

    reached = {}
    for name in ("gradient descent", "kfac"):
        W, B = np.zeros((64, 10), "float32"), np.zeros(10, "float32")
        for _ in range(10):
            dY = softmax_gradient(fc.forward(x, W, B), given)
            grads = fc.backward(x, W, dY / len(X), needs=("dW", "dB"))
            if name == "kfac":
                (of_batch,) = fc.compute(grads)
                step_W, step_B = preconditioned(of_batch, *factors(x, dY), damping=1e-3)
            else:
                step_W, step_B = fc.compute(grads.dW, grads.dB)
            rate = 1.0
            while loss(W - rate * step_W, B - rate * step_B) > loss(W, B) and rate > 1e-3:
                rate /= 2
            W, B = (W - rate * step_W).astype("float32"), (B - rate * step_B).astype("float32")
        reached[name] = loss(W, B)
    assert reached["kfac"] < 0.7 * reached["gradient descent"]
