"""Second moments: in float64 whatever X has, added and taken away, in one pass over blocks."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from helpers.assertions import assert_array, nothing_computes, refused

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace

FIELDS = ("n", "sum_X", "sum_T", "XX", "XT", "sum_T2")


def literal(X, T=None, w=None):
    """Return the six sums in float64, row by row as they are defined."""
    lead = X.shape[:-1]
    w = np.ones(lead) if w is None else np.asarray(w, "float64")
    w = np.broadcast_to(w.reshape((*w.shape, *(1,) * (len(lead) - w.ndim))), lead)
    n = "nmk"[: len(lead)]
    x = np.asarray(X, "float64")
    XX, sum_X = np.einsum(f"{n},{n}c,{n}d->cd", w, x, x), np.einsum(f"{n},{n}c->c", w, x)
    if T is None:
        return w.sum(), sum_X, None, XX, None, None
    t = np.asarray(T, "float64")
    XT, sum_T = np.einsum(f"{n},{n}c,{n}s->cs", w, x, t), np.einsum(f"{n},{n}s->s", w, t)
    return w.sum(), sum_X, sum_T, XX, XT, np.einsum(f"{n},{n}s,{n}s->s", w, t, t)


def assert_moments(found, expected, *, like, dtype="float64", rtol=1e-12):
    assert type(found) is fc.Moments
    for name, part, reference in zip(FIELDS, found, expected, strict=True):
        assert (part is None) == (reference is None), name
        if reference is not None:
            assert_array(part, reference, like=like, dtype=dtype, rtol=rtol)


def batch(rng, *lead, C=5, S=3, dtype="float32"):
    return (rng.normal(1, 1, (*lead, k)).astype(dtype) for k in (C, S))


@pytest.mark.parametrize("lead", [(700,), (7, 100), (5, 4, 3), (1,), (0,), ()], ids=str)
def test_the_sums_by_their_definition(backend, rng, lead):
    X, T = batch(rng, *lead)
    x, t = backend.asarray(X), backend.asarray(T)
    assert_moments(fc.moments(x, t), literal(X, T), like=x)
    assert_moments(fc.moments(x), literal(X), like=x)
    assert_moments(fc.moments(X=x, T=t, dtype="float64"), literal(X, T), like=x)


@pytest.mark.parametrize(("lead", "axes"), [((700,), 1), ((7, 100), 1), ((7, 100), 2), ((5, 4, 3), 2)], ids=str)
def test_weights_of_any_sign_along_the_first_axes(backend, rng, lead, axes):
    X, T = batch(rng, *lead)
    w = rng.normal(size=lead[:axes]).astype("float32")
    x = backend.asarray(X)
    found = fc.moments(x, backend.asarray(T), sample_weight=backend.asarray(w))
    assert_moments(found, literal(X, T, w), like=x)


def test_integer_sums_are_exact_over_many_rows(backend, rng):
    X, T = rng.integers(-3, 4, (300_000, 3)).astype("float32"), rng.integers(-3, 4, (300_000, 2)).astype("float32")
    x = backend.asarray(X)
    for dtype in ("float64", "float32"):
        found = fc.moments(x, backend.asarray(T), dtype=dtype)
        assert_moments(found, literal(X, T), like=x, dtype=dtype, rtol=0)


def test_more_features_than_a_run_has_rows(backend, rng):
    X, T = batch(rng, 2500, C=700, S=2)
    x = backend.asarray(X)
    assert_moments(fc.moments(x, backend.asarray(T)), literal(X, T), like=x)


@pytest.mark.needs("float16")
def test_float16_is_added_in_float64(backend, rng):
    X, _ = batch(rng, 3000, dtype="float16")
    x = backend.asarray(X)
    assert_moments(fc.moments(x), literal(X), like=x)


def test_parts_are_added_and_taken_away(backend, rng):
    X, T = batch(rng, 900)
    parts = [fc.moments(backend.asarray(X[k::3]), backend.asarray(T[k::3])) for k in range(3)]
    like = backend.asarray(X)
    assert_moments(sum(parts), literal(X, T), like=like)
    assert_moments(
        sum(parts) - parts[1], literal(np.concatenate([X[::3], X[2::3]]), np.concatenate([T[::3], T[2::3]])), like=like
    )
    first = pickle.loads(pickle.dumps(parts[0])) if backend.module == "numpy" else parts[0]
    assert_moments(first + parts[1] + parts[2], literal(X, T), like=like)


def test_the_moments_about_the_mean(backend, rng):
    X, T = batch(rng, 900)
    like = backend.asarray(X)
    X8, T8 = X.astype("float64"), T.astype("float64")
    w = rng.random(900)
    for weights in (None, w):
        mean_X, mean_T = np.average(X8, 0, weights), np.average(T8, 0, weights)
        expected = literal(X8 - mean_X, T8 - mean_T, weights)
        sample_weight = None if weights is None else backend.asarray(weights.astype("float32"))
        found = fc.moments(like, backend.asarray(T), sample_weight=sample_weight).centred()
        assert_moments(found, (expected[0], np.zeros(5), np.zeros(3), *expected[3:]), like=like, rtol=1e-6)
    assert fc.moments(like).centred().XT is None


def test_a_ridge_fit_is_that_of_float64(backend, rng):
    """Condition number 1e4 and mean 1: float32 moments have 35 to 117 times the squared error."""
    N, C, penalty = 20_000, 64, 1e-4
    U, _ = np.linalg.qr(rng.normal(size=(C, C)))
    X = ((rng.normal(size=(N, C)) * np.logspace(0, -4, C)) @ U + 1).astype("float32")
    X8 = X.astype("float64")
    T = (X8 @ rng.normal(size=(C, 2)) + 1e-3 * rng.normal(size=(N, 2))).astype("float32")
    T8 = T.astype("float64")

    def error(W, b):
        return ((X8 @ W + b - T8) ** 2).sum()

    def fit(XX, XT, mean_X, mean_T):
        W = np.linalg.solve(XX + penalty * np.eye(C), XT)
        return W, mean_T - mean_X @ W

    m = fc.moments(backend.asarray(X), backend.asarray(T))
    about = [namespace.to_numpy(part) for part in (*m.centred(), m.sum_X / m.n, m.sum_T / m.n)]
    centred_X, centred_T = X8 - X8.mean(0), T8 - T8.mean(0)
    best = fit(centred_X.T @ centred_X, centred_X.T @ centred_T, X8.mean(0), T8.mean(0))
    assert error(*fit(about[3], about[4], about[6], about[7])) < 1.01 * error(*best)


@pytest.mark.only("numpy")
def test_no_cast_copy_of_the_batch_is_made(backend, rng):
    X = rng.normal(size=(200_000, 64)).astype("float32")  # 51 MB
    fc.moments(X[:9])
    tracemalloc.start()
    try:
        fc.moments(X, sample_weight=X[:, 0])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24e6  # a run of 2**20 numbers in float64, and what is weighted


# On Dask


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("chunks", [((200, 300, 400), (2, 3)), (900, 5), ((0, 900), 5)], ids=str)
def test_one_pass_over_blocks(backend, rng, chunks):
    X, T = batch(rng, 900)
    w = rng.random(900).astype("float32")
    x, t = backend.asarray(X, chunks=chunks), backend.asarray(T, chunks=(450, 2))
    with nothing_computes(backend):
        found = fc.moments(x, t, sample_weight=w)
    assert_moments(found, literal(X, T, w), like=x)
    (together,) = fc.compute(found)
    assert_moments(together, literal(X, T, w), like=X)
    with nothing_computes(backend):
        joined = (found + fc.moments(x, t)).centred()
    assert fc.compute(joined)[0].XX.shape == (5, 5)


@pytest.mark.only("dask.array")
def test_each_block_is_read_once(backend, rng):
    X, T = batch(rng, 900)
    read = []
    x = backend.asarray(X, chunks=(100, 5)).map_blocks(
        lambda block: [read.append(len(block)), block][1], dtype="float32"
    )
    read.clear()
    fc.compute(fc.moments(x, backend.asarray(T, chunks=(100, 3))))
    assert [n for n in read if n] == [100] * 9


@pytest.mark.only("dask.array")
@pytest.mark.needs("unknown_chunks")
def test_blocks_of_unknown_size(backend, rng):
    X, T = batch(rng, 900)
    keep = rng.random(900) < 0.5
    x, t = (backend.asarray(a, chunks=(100, -1))[backend.asarray(keep, chunks=100)] for a in (X, T))
    assert_moments(fc.moments(x, t), literal(X[keep], T[keep]), like=backend.asarray(X))
    with pytest.raises(ValueError, match="leading axes"):
        fc.compute(fc.moments(x, backend.asarray(T[: keep.sum()], chunks=(-(-keep.sum() // 9), -1))))


# Errors


@pytest.mark.parametrize(
    ("shapes", "facts"),
    [
        (((6, 2), (5, 3), None), ["moments", "X has shape (6, 2)", "T has (5, 3)"]),
        (((6, 2), (6,), None), ["T has (6,)"]),
        (((6, 2), (1, 3), None), ["T has (1, 3)"]),
        (((6, 2), None, (5,)), ["sample_weight has shape (5,)", "(6, 2)", "(6,)"]),
        (((6, 2), None, (1,)), ["sample_weight has shape (1,)"]),
        (((6, 2), None, (6, 2)), ["sample_weight has shape (6, 2)"]),
        (((6, 2), None, ()), ["sample_weight has shape ()"]),
        (((6, 4, 2), None, (6, 3)), ["sample_weight has shape (6, 3)", "(6,)", "(6, 4)"]),
        (((2,), None, (2,)), ["sample_weight has shape (2,)", "(N,)"]),
        (((), None, None), ["X", "()"]),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit(backend, shapes, facts):
    X, T, w = (None if shape is None else backend.asarray(np.ones(shape, "float32")) for shape in shapes)
    with nothing_computes(backend), refused(ValueError, *facts):
        fc.moments(X, T, sample_weight=w)


def test_dtypes_that_do_not_fit(backend):
    X = backend.asarray(np.ones((6, 2), "float32"))
    for dtype in ("int64", "nonsense", object):
        with refused(TypeError, "dtype is"):
            fc.moments(X, dtype=dtype)
    with refused(TypeError, "moments", "X has dtype int64"):
        fc.moments(backend.asarray(np.ones((6, 2), "int64")))
    with refused(TypeError, "X is None"):
        fc.moments(None)


def test_moments_of_other_arrays_do_not_add_up(backend):
    X = backend.asarray(np.ones((6, 2), "float32"))
    with refused(ValueError, "sum_X", "(2,)", "(1,)"):
        fc.moments(X) + fc.moments(X[:, :1])
    with refused(ValueError, "sum_T", "the first"):
        fc.moments(X) - fc.moments(X, X)
    for wrong in (lambda m: 2 * m, lambda m: m * 2, lambda m: m == m, lambda m: m != m):
        with pytest.raises(TypeError, match=r"scale|compare"):
            wrong(fc.moments(X))


@pytest.mark.only("jax.numpy")
def test_under_jit(backend, rng):
    import jax

    X, T = batch(rng, 700)
    found = jax.jit(lambda x, t, w: fc.moments(x, t, sample_weight=w))(X, T, X[:, 0])
    assert_moments(fc.Moments(*found), literal(X, T, X[:, 0]), like=backend.asarray(X))


@pytest.mark.only("jax.numpy")
def test_float64_that_is_switched_off_is_said(backend):
    import jax

    with jax.enable_x64(False), refused(TypeError, "dtype is float64", "jax_enable_x64", "float32"):
        fc.moments(jax.numpy.ones((4, 2)))


@pytest.mark.only("torch")
def test_compiled_by_torch(backend, rng):
    import torch

    X, T = (torch.from_numpy(array) for array in batch(rng, 700))
    compiled = torch.compile(lambda x, t: tuple(fc.moments(x, t)), fullgraph=True, backend="eager")
    for rows in (700, 300):
        assert_moments(fc.Moments(*compiled(X[:rows], T[:rows])), literal(X[:rows].numpy(), T[:rows].numpy()), like=X)
