"""C or S in several blocks: one block where it fits, else block by block with a warning that says what to call."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from helpers.assertions import assert_array, lacks, nothing_computes
from helpers.batches import B, W, X, assert_all, dY, numbers

import fc_arrayapi as fc

pytestmark = pytest.mark.only("dask.array")


def lacking(caught, *facts):
    """Return what each of these warnings lacks of the facts."""
    return [lacks(str(warning.message), *facts) for warning in caught]


@pytest.fixture
def small_blocks():
    """Blocks of 10 rows of X or dY in float64 fit; blocks of 20 do not."""
    import dask

    with dask.config.set({"array.chunk-size": "600 B"}):
        yield


def test_features_in_blocks_become_one_where_that_fits(backend):
    x, dy = backend.asarray(X, chunks=(10, 2)), backend.asarray(dY, chunks=(10, 3))
    w, b = backend.asarray(W, chunks=(3, 2)), backend.asarray(B, chunks=2)
    with nothing_computes(backend):
        results = (fc.forward(x, w, b), *fc.backward(x, w, dy))
    assert [array.numblocks for array in results] == [(10, 1), (10, 1), (1, 1), (1,)]
    assert_all(results, like=x)


@pytest.mark.parametrize("weights", ["NumPy", "one block", "blocks"])
def test_features_that_do_not_fit_are_contracted_in_their_blocks(backend, small_blocks, weights):
    x, dy = backend.asarray(X, chunks=(50, 2)), backend.asarray(dY, chunks=(50, 3))
    chunks = {"one block": (6, 5), "blocks": (4, 2)}.get(weights)
    w, b = (W, B) if chunks is None else (backend.asarray(W, chunks=chunks), backend.asarray(B, chunks=chunks[1:]))
    with nothing_computes(backend), pytest.warns(UserWarning, match="rechunk") as caught:
        results = (fc.forward(x, w, b), *fc.backward(x, w, dy))
    for where, argument in (("forward", "X"), ("backward", "X"), ("backward", "dY")):
        assert [] in lacking(caught, f"{where}: {argument} has", f"call {argument}.rechunk(")
    assert results[0].chunks[0] == x.chunks[0]
    assert_all(results, like=x)


def test_a_wide_bias_widens_the_products_of_blocks(backend, small_blocks):
    x, w = np.full((20, 300), 30, "float16"), np.full((300, 2), 30, "float16")
    with pytest.warns(UserWarning, match="rechunk") as caught:
        Y = fc.forward(backend.asarray(x, chunks=(10, 100)), w, np.asarray([1, 2], "float32"))
    assert [] in lacking(caught, "forward: X has 3 blocks", "axis c", "X.rechunk(")
    np.testing.assert_array_equal(Y.compute(), [[270_001.0, 270_002.0]] * 20)


def test_the_warning_gives_the_call_that_helps(backend, small_blocks):
    x = backend.asarray(X, chunks=(50, 2))
    with pytest.warns(UserWarning, match="rechunk") as caught:
        fc.forward(x, W)
    blocks, limit = ("forward: X has 3 blocks", "axis c", "all 6", "2.34 KiB"), ("array.chunk-size", "600 bytes")
    assert lacks(str(caught[0].message), *blocks, *limit, "X.rechunk({0: 12, 1: -1})") == []
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_array(fc.forward(x.rechunk({0: 12, 1: -1}), W), X @ W, like=x, rtol=1e-12)


@pytest.mark.parametrize("function", ["grad_input", "grad_weight", "grad_bias"])
def test_every_gradient_alone_warns(backend, small_blocks, function):
    x, dy = backend.asarray(X, chunks=(50, 2)), backend.asarray(dY, chunks=(50, 3))
    arguments = {"grad_input": (dy, W), "grad_weight": (x, dy), "grad_bias": (dy,)}[function]
    with pytest.warns(UserWarning, match="rechunk") as caught:
        result = getattr(fc, function)(*arguments)
    cut = {"grad_input": {"dY"}, "grad_weight": {"X", "dY"}, "grad_bias": {"dY"}}[function]
    calls = {"X": "X.rechunk({0: 12, 1: -1})", "dY": "dY.rechunk({0: 15, 1: -1})"}
    for argument, call in calls.items():
        found = [] in lacking(caught, f"{function}: {argument} has", call)
        assert found == (argument in cut)
    assert all(warning.filename == __file__ for warning in caught)
    expected = dict(
        zip(("grad_input", "grad_weight", "grad_bias"), fc.testing.reference_backward(X, W, dY), strict=True)
    )
    assert_array(result, expected[function], like=x, rtol=1e-12)


@pytest.mark.parametrize("needs", [("dX", "dW", "dB"), ("dX", "dB")])
def test_backward_says_the_same_of_an_array_in_the_same_words(backend, small_blocks, needs):
    """Up to three of its contractions have dY; words that are alike are printed once, by Python and by `plan`."""
    x, dy = backend.asarray(X, chunks=(50, 2)), backend.asarray(dY, chunks=(50, 3))

    def said(needs):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fc.backward(x, W, dy, needs=needs)
        return {str(warning.message) for warning in caught}

    about = sorted(text.partition(" has ")[0] for text in said(needs))  # where, and which array
    assert about == ["backward: X"] * ("dW" in needs) + ["backward: dY"]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_float16_products_of_blocks_that_overflow_and_come_back_are_right(backend, small_blocks, size):
    x = np.full((40, 16), 256, "float16")
    w = np.repeat(np.asarray([[256], [-256], [1]], "float16"), [7, 7, 2], axis=0)
    rows = backend.asarray(np.concatenate([w] * 40, axis=1).T, chunks=(40, size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        results = (
            fc.forward(backend.asarray(x, chunks=(40, size)), w),
            fc.grad_input(rows, x[:1]),
            fc.backward(backend.asarray(x[:, :1], chunks=(40, 1)), x[:1], rows).dX,
            fc.einsum("nc,cs->ns", backend.asarray(x, chunks=(40, size)), w),
            fc.einsum("nc,ns->cs", backend.asarray(x.T, chunks=(size, 40)), backend.asarray(w, chunks=(size, 1))),
            fc.einsum("nc,cs,st->nt", backend.asarray(x, chunks=(40, size)), w, np.ones((1, 1), "float16")),
        )
    for result in results:
        assert result.dtype == np.float16
        np.testing.assert_array_equal(result.compute(), np.full((40, 1), 512, "float16"))


def test_float16_products_of_blocks_are_added_in_float32(backend, small_blocks):
    x = np.random.default_rng(0).random((40, 3000)).astype("float16")
    with pytest.warns(UserWarning, match="rechunk") as caught:
        Y = fc.forward(backend.asarray(x, chunks=(40, 1)), np.ones((3000, 2), "float16"))
    assert [] in lacking(caught, "forward: X has 3000 blocks", "axis c", "X.rechunk(")
    exact = np.repeat(x.astype("float64").sum(axis=1, keepdims=True), 2, axis=1)
    assert Y.dtype == np.float16
    np.testing.assert_allclose(Y.compute(), exact, rtol=2**-11)  # one rounding, of the result


def test_a_weight_too_large_for_one_block(backend, small_blocks):
    w = backend.asarray(numbers(6, 40, seed=5), chunks=(6, 10))
    x = backend.asarray(X, chunks=(10, 6))
    with pytest.warns(UserWarning, match="rechunk") as caught:
        Y = fc.forward(x, w)
    # Fewer rows would cut c instead.
    assert lacking(caught, "forward: W has 4 blocks", "axis s", "W.rechunk(-1)") == [[]]
    assert Y.chunks == (x.chunks[0], (10,) * 4)
    assert_array(Y, X @ numbers(6, 40, seed=5), like=x, rtol=1e-12)


@pytest.mark.parametrize("chunks", [((1000, 64), (64, 512)), ((1000, 64), (512, 64))], ids=str)
def test_tasks_of_chunked_features(backend, chunks):
    """Dask's own matmul takes 21,364 tasks for the first case."""
    x = backend.xp.zeros((100_000, 4096), chunks=chunks[0], dtype="float32")
    w = backend.xp.zeros((4096, 512), chunks=chunks[1], dtype="float32")
    for Y in (fc.forward(x, w), fc.einsum("nc,cs->ns", x, w)):
        assert len(dict(Y.__dask_graph__())) <= 21_364


@pytest.mark.needs("unknown_chunks")
@pytest.mark.parametrize("needs", [("dX", "dW", "dB"), ("dX",), ("dB",)], ids=str)
def test_features_in_blocks_beside_unknown_rows(backend, small_blocks, needs):
    mask = X[:, 0] > 0
    lazy_mask = backend.asarray(mask, chunks=50)
    x, dy = backend.asarray(X, chunks=(50, 2))[lazy_mask], backend.asarray(dY, chunks=(50, 3))[lazy_mask]
    grads = fc.compute(fc.backward(x, W, dy, needs=needs))[0]
    expected = fc.testing.reference_backward(X[mask], W, dY[mask])
    for name in needs:
        np.testing.assert_allclose(getattr(grads, name), getattr(expected, name), rtol=1e-12, atol=1e-12)


def test_every_array_that_is_too_large_is_named_at_once(backend):
    import dask

    X, W = backend.xp.zeros((100, 64), chunks=(50, 8)), backend.xp.zeros((64, 32), chunks=(8, 32))
    with dask.config.set({"array.chunk-size": "8KiB"}):
        with pytest.warns(UserWarning, match="rechunk") as found:
            fc.forward(X, W)
        x, w = (str(warning.message) for warning in found)
        assert lacks(x, "forward: X has 8 blocks", "axis c", "X.rechunk({0: 16, 1: -1})") == []
        assert lacks(w, "forward: W has 8 blocks", "axis c", "W.rechunk(-1)") == []
        fc.forward(X.rechunk({0: 16, 1: -1}), W.rechunk(-1))  # a warning would be an error
