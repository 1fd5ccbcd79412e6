"""Single samples and second moments, against the literal computation and against their peers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import fc_arrayapi as fc

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "examples"))
from ridge import cross_validate, fold_moments


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_norms_of_torch(against):
    import torch

    X, dY, W = torch.randn(2048, 512), torch.randn(2048, 256), torch.zeros(512, 256)
    of_sample = torch.func.grad(lambda W, x, d: (torch.nn.functional.linear(x, W.T) * d).sum())
    gradients = torch.func.vmap(of_sample, in_dims=(None, 0, 0))
    against(
        "torch, norms of 2048 gradients of 512 x 256",
        lambda: fc.per_sample_norms(X, dY, needs=("dW",)),
        "vmap(grad) and norm",
        lambda: gradients(W, X, dY).flatten(1).norm(dim=1),
        at_most=0.02,
        peaks="none",
    )


def test_norms_of_sequences(against):
    import torch

    case, rivals_name = "torch, norms of 64 sequences of 64 x 768", "Opacus' ghost norm"
    opacus = against.needs(case, rivals_name, "opacus.grad_sample.linear")
    X, dY, layer = torch.randn(64, 64, 768), torch.randn(64, 64, 768), torch.nn.Linear(768, 768, bias=False)

    def ghost_norm():
        return opacus.compute_linear_norm_sample(layer, [X], dY)[layer.weight]

    np.testing.assert_allclose(fc.per_sample_norms(X, dY, needs=("dW",)), ghost_norm().detach(), rtol=1e-4)
    against(
        case,
        lambda: fc.per_sample_norms(X, dY, needs=("dW",)),
        rivals_name,
        ghost_norm,
        at_most=1.0,
        peaks="none",
    )


@pytest.mark.parametrize("shape", [(20_000, 256, 128), (100_000, 768, 10)], ids=str)
def test_a_clipped_sum(against, rng, shape):
    n, c, s = shape
    X, dY = rng.standard_normal((n, c), "float32"), rng.standard_normal((n, s), "float32")
    weights = rng.random(n, "float32")
    against(
        f"weighted sum, {shape}",
        lambda: fc.grad_weight(X, dY, sample_weight=weights),
        "grad_weight",
        lambda: fc.grad_weight(X, dY),
        at_most=1.15,
    )


def test_dots_with_queries(against, rng, tmp_path, quick):
    N = 100_000 if quick else 1_000_000
    X, dY = rng.standard_normal((N, 768), "float32"), rng.standard_normal((N, 10), "float32")
    np.save(tmp_path / "x.npy", X)
    Xq, dYq = X[:10].copy(), dY[:10].copy()
    del X
    lazy, gradients = fc.open_array(tmp_path / "x.npy"), dY
    rows = lazy.chunksize[0]
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    import dask.array as da

    lazy_dY = da.from_array(gradients, chunks=(rows, -1))

    def loop():
        for first in range(0, len(mapped), rows):
            some = slice(first, first + rows)
            (mapped[some] @ Xq.T + 1) * (gradients[some] @ dYq.T)

    against(
        f"inner products of {len(mapped):,} rows in a file with 10 queries",
        lambda: fc.compute(fc.per_sample_dots(lazy, lazy_dY, Xq, dYq)),
        "a NumPy loop",
        loop,
        at_most=1.2,
    )


def test_moments(against, rng):
    X = rng.standard_normal((100_000, 256), "float32")

    def gram():
        wide = X.astype("float64")
        return wide.T @ wide

    against("moments of 100,000 x 256", lambda: fc.moments(X), "one product of a float64 copy", gram, at_most=1.0)


def test_ridge(against, rng):
    from sklearn.linear_model import RidgeCV

    X = rng.standard_normal((50_000, 128), "float32")
    T = X @ rng.standard_normal((128, 3), "float32") + rng.standard_normal((50_000, 3), "float32")
    penalties = np.logspace(-3, 3, 20)
    against(
        "ridge with 5 folds and 20 penalties, 50,000 x 128",
        lambda: cross_validate(fold_moments(X, T), penalties),
        "scikit-learn RidgeCV(cv=5)",
        lambda: RidgeCV(alphas=penalties, cv=5).fit(X, T),
        at_most=0.3,
    )
