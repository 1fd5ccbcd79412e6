"""What docs/promises.md promises of numbers and no other test holds: repeatability, chunkings, NaN, inf, overflow."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace

EPS = float(np.finfo("float32").eps)


def run(X, W, B, dY):
    """Return Y, dX, dW and dB as NumPy arrays."""
    results = fc.forward(X, W, B), *fc.backward(X, W, dY)
    if namespace.is_chunked(namespace.of(X)):
        results = fc.compute(*results)
    return [namespace.to_numpy(result) for result in results]


def draws(rng, N, C, S, dtype="float32"):
    return [rng.normal(size=shape).astype(dtype) for shape in ((N, C), (C, S), (S,), (N, S))]


def test_equal_chunks_give_equal_bits(backend, rng):
    X, W, B, dY = draws(rng, 6000, 33, 17)
    first, *others = (
        run(
            backend.asarray(X, chunks=(500, 33)),
            backend.asarray(W, chunks=W.shape),
            backend.asarray(B, chunks=B.shape),
            backend.asarray(dY, chunks=(500, 17)),
        )
        for _ in range(5)
    )
    for other in others:
        for result, expected in zip(other, first, strict=True):
            np.testing.assert_array_equal(result, expected)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("rows", [1, 7, 500, 4096, 6000])
def test_other_chunks_differ_by_less_than_the_bound(backend, rng, rows):
    """4 eps times the same formula of absolute values, for a term of one product, its sums and its rounding."""
    N = 600 if rows == 1 else 6000
    X, W, B, dY = draws(rng, N, 33, 17)
    alone = run(X, W, B, dY)
    cut = run(
        backend.asarray(X, chunks=(rows, 33)),
        W,
        B,
        backend.asarray(dY, chunks=(rows, 17)),
    )
    size = [np.abs(part).astype("float64") for part in (X, W, B, dY)]
    bounds = size[0] @ size[1] + size[2], size[3] @ size[1].T, size[0].T @ size[3], size[3].sum(axis=0)
    for result, expected, bound in zip(cut, alone, bounds, strict=True):
        assert np.all(np.abs(result.astype("float64") - expected) <= 4 * EPS * bound)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(("N", "C", "S"), [(3000, 16, 4), (4096, 300, 1), (4096, 1, 1), (4096, 1, 300), (3000, 64, 64)])
def test_constant_rows_in_other_chunks_differ_by_less_than_64_eps(backend, rng, N, C, S):
    """The worst case: all roundings of a run of rows go the same way."""
    for x, dy in rng.uniform(0.05, 10, (5, 2)).astype("float32"):
        X, dY = np.full((N, C), x), np.full((N, S), dy)
        lazy = [
            fc.grad_weight(*(backend.asarray(array, chunks=(-(-N // chunks), array.shape[1])) for array in (X, dY)))
            for chunks in (1, 8, 64)
        ]
        alone, *cut = fc.grad_weight(X, dY), *fc.compute(*lazy)
        bound = 64 * EPS * (N * float(x) * float(dy))
        for other in cut:
            assert np.max(np.abs(other.astype("float64") - alone)) <= bound


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["X", "W", "B", "dY"])
@pytest.mark.filterwarnings("ignore:invalid value")  # of NumPy, in threads as well
def test_nan_and_inf_are_where_ieee_puts_them(backend, rng, value, where):
    given = dict(zip(("X", "W", "B", "dY"), draws(rng, 40, 6, 5, "float64"), strict=True))
    given["X"][3] = 0  # 0 times inf is nan
    given["W"][2] = 0
    given[where][(3,) if where == "B" else (3, 2)] = value
    results = run(*(backend.asarray(array) for array in given.values()))
    expected = [
        fc.testing.reference_forward(given["X"], given["W"], given["B"]),
        *fc.testing.reference_backward(given["X"], given["W"], given["dY"]),
    ]
    for result, reference in zip(results, expected, strict=True):
        for kind in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(kind(result), kind(reference))


@pytest.mark.needs("float16")
def test_float16_overflows_to_inf_and_only_in_the_result(backend):
    """Y = 256 * 256 and dB = 70000 are beyond 65504; half way, 70000 - 10000 is not."""
    X, W = np.full((2, 1), 256, "float16"), np.full((1, 1), 256, "float16")
    dY = np.full((70, 1), 1000, "float16")
    back = np.concatenate([dY, np.full((10, 1), -1000, "float16")])
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Dask's threads have an errstate of their own
        results = [
            fc.forward(backend.asarray(X), backend.asarray(W)),
            fc.grad_bias(backend.asarray(dY)),
            fc.grad_bias(backend.asarray(back)),
            fc.grad_weight(backend.asarray(np.ones((80, 1), "float16")), backend.asarray(back)),
        ]
        Y, overflown, bias, weight = (namespace.to_numpy(result) for result in results)
    assert Y.dtype == "float16"
    assert np.all(np.isposinf(Y))
    assert np.isposinf(overflown[0])
    assert bias[0] == weight[0, 0] == 60000
