"""The layer on Dask: lazy, block by block, in one pass."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from helpers.assertions import ComputedError, assert_array, lacks, nothing_computes, refused
from helpers.batches import B, W, X, assert_all, dY, numbers

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace

pytestmark = pytest.mark.only("dask.array")


def test_the_scheduler_that_raises_does_raise(backend):
    with nothing_computes(backend), pytest.raises(ComputedError):
        backend.asarray(X).compute()


@pytest.mark.parametrize("lifted", ["NumPy W and B", "Dask W and B"])
@pytest.mark.parametrize(
    "chunks",
    [(100, 6), (10, 6), (1, 6), ((3, 90, 7), 6), (30, 4), ((50, 0, 50), (1, 5))],
    ids=str,
)
def test_every_chunking_gives_the_same_and_keeps_the_batch_chunks(backend, chunks, lifted):
    x, dy = backend.asarray(X, chunks=chunks), backend.asarray(dY, chunks=(chunks[0], 2))
    w, b = (W, B) if lifted.startswith("NumPy") else (backend.asarray(W), backend.asarray(B))
    with nothing_computes(backend):
        Y = fc.forward(x, w, b)
        grads = fc.backward(x, w, dy)
    assert Y.chunks == (x.chunks[0], (5,))
    assert grads.dX.chunks == (x.chunks[0], (6,))
    assert grads.dW.chunks == ((6,), (5,))
    assert grads.dB.chunks == ((5,),)
    assert_all((Y, *grads), like=x)


def test_dY_chunked_otherwise_takes_the_chunks_of_X(backend):
    x, dy = backend.asarray(X, chunks=(30, 6)), backend.asarray(dY, chunks=(17, 5))
    grads = fc.backward(x, W, dy)
    assert grads.dX.chunks[0] == x.chunks[0]
    assert_all((fc.forward(x, W, B), *grads), like=x)


def test_several_batch_axes_in_blocks(backend):
    x, dy = numbers(4, 6, 5, 3), numbers(4, 6, 5, 2)
    w = numbers(3, 2)
    lazy = backend.asarray(x, chunks=(2, 3, 2, 2))
    grads = fc.backward(lazy, w, backend.asarray(dy, chunks=(4, 2, 5, 1)))
    assert grads.dX.chunks[:-1] == lazy.chunks[:-1]
    for part, reference in zip(grads, fc.testing.reference_backward(x, w, dy), strict=True):
        assert_array(part, reference, like=lazy, rtol=1e-12)


def test_a_numpy_weight_is_copied_into_the_graph_under_a_stable_name(backend):
    weight = W.copy()
    x = backend.asarray(X, chunks=(10, 6))
    Y = fc.forward(x, weight)
    assert fc.forward(x, weight).name == Y.name
    assert fc.forward(x, 2 * weight).name != Y.name
    weight[...] = 0.0  # a step in place between building and computing
    assert_array(Y, X @ W, like=x, rtol=1e-12)


def test_a_large_weight_stays_one_block(backend):
    import dask

    x = backend.asarray(X, chunks=(10, 6))
    with dask.config.set({"array.chunk-size": "16 B"}):
        Y = fc.forward(x, W)
        lifted = [key for key in dict(Y.__dask_graph__()) if "array" in str(key[0])]
    assert len(lifted) <= 1 + x.numblocks[0] + 1  # W, the blocks of X, and the array that they are cut from
    assert_array(Y, X @ W, like=x, rtol=1e-12)


@pytest.mark.needs("unknown_chunks")
def test_unknown_chunks(backend):
    x, dy = backend.asarray(X, chunks=(10, 6)), backend.asarray(dY, chunks=(10, 5))
    mask = X[:, 0] > 0
    lazy_mask = backend.asarray(mask, chunks=10)
    x, dy = x[lazy_mask], dy[lazy_mask]
    with nothing_computes(backend):
        Y = fc.forward(x, W, B)
        grads = fc.backward(x, W, dy)
    assert len(Y.chunks[0]) == 10
    assert np.isnan(Y.shape[0])
    np.testing.assert_allclose(Y.compute(), X[mask] @ W + B, rtol=1e-12)
    dX, dW, dB = fc.compute(*grads)
    expected = fc.testing.reference_backward(X[mask], W, dY[mask])
    np.testing.assert_allclose(dX, expected.dX, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dW, expected.dW, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dB, expected.dB, rtol=1e-12, atol=1e-12)


def test_as_many_blocks_with_other_borders_are_aligned(backend):
    x, dy = backend.asarray(X, chunks=((40, 60), 6)), backend.asarray(dY, chunks=((60, 40), 5))
    for result, expected in zip(fc.backward(x, W, dy), fc.testing.reference_backward(X, W, dY), strict=True):
        assert_array(result, expected, like=x, rtol=1e-12)


def positive_rows(block):
    return block[block[:, 0] > 0]


def test_sums_over_blocks_of_unknown_size(backend):
    """The gradients of W and B with query planning too, which can compute no array of such blocks itself."""
    x = backend.asarray(X, chunks=(10, 6)).map_blocks(
        positive_rows, chunks=((np.nan,) * 10, (6,)), meta=np.empty((0, 0))
    )
    dW, dB = fc.compute(*fc.backward(x, W, fc.forward(x, W, B), needs=("dW", "dB"))[1:])
    expected = positive_rows(X)
    np.testing.assert_allclose(dW, expected.T @ (expected @ W + B), rtol=1e-12)
    np.testing.assert_allclose(dB, (expected @ W + B).sum(axis=0), rtol=1e-12)


@pytest.mark.needs("unknown_types")
@pytest.mark.parametrize(
    ("argument", "call"),
    [("X", lambda x: fc.forward(x, W)), ("dY", fc.grad_bias), ("operand 0", lambda x: fc.einsum("nc->c", x))],
    ids=["forward", "grad_bias", "einsum"],
)
def test_blocks_of_unknown_type_are_refused(backend, argument, call):
    x = backend.xp.blockwise(positive_rows, "nc", backend.asarray(X, chunks=(10, 6)), "nc", dtype="float64")
    with refused(TypeError, f"{argument} is a Dask array", "blocks", "meta=numpy.empty((0, 0), 'float32')"):
        call(x)


@pytest.mark.needs("unknown_chunks")
def test_unknown_chunks_of_different_rows_are_refused_in_the_block(backend):
    x, dy = backend.asarray(X, chunks=(10, 6)), backend.asarray(dY, chunks=(10, 5))
    keep_x, keep_dy = np.ones(100, bool), np.ones(100, bool)
    keep_x[55:60] = False
    keep_dy[55:59] = False
    dW = fc.grad_weight(x[backend.asarray(keep_x, chunks=10)], dy[backend.asarray(keep_dy, chunks=10)])
    sizes = "X has 5", "dY has 6", "X has shape (5, 6)", "(6, 5)"
    with refused(ValueError, "grad_weight nc,ns->cs", "axis n", "axis 0", *sizes, "(5, S)"):
        dW.compute()


@pytest.mark.needs("unknown_chunks")
@pytest.mark.parametrize("name", ["dX", "dW", "dB"])
def test_every_gradient_alone_looks_at_the_rows_of_unknown_blocks(backend, name):
    x, dy = backend.asarray(X, chunks=(10, 6)), backend.asarray(dY, chunks=(10, 5))
    masked = x[backend.asarray(X[:, 0] > 0, chunks=10)]
    grads = fc.backward(masked, W, dy, needs=(name,))
    with refused(ValueError, "axis n", "axis 0", "dY has 10") as raised:
        getattr(grads, name).compute()
    rows = (X[:, 0] > 0).reshape(10, 10).sum(axis=1)  # of each block; any may be the first that is computed
    assert any(lacks(str(raised.value), f"X has {count}") == [] for count in rows if count < 10)


@pytest.mark.needs("unknown_chunks")
def test_an_unknown_weight_is_refused(backend):
    weight = backend.asarray(W, chunks=(6, 5))[:, backend.asarray(np.ones(5, bool), chunks=5)]
    with refused(ValueError, "W has blocks of unknown size", "(6, ?)", "W.compute_chunk_sizes()"):
        fc.forward(backend.asarray(X, chunks=(10, 6)), weight)


@pytest.mark.needs("unknown_chunks")
def test_a_block_of_one_row_does_not_broadcast(backend):
    x, dy = backend.asarray(X, chunks=(10, 6)), backend.asarray(dY, chunks=(10, 5))
    keep = np.ones(100, bool)
    keep[1:10] = False
    dW = fc.grad_weight(x, dy[backend.asarray(keep, chunks=10)])
    with refused(ValueError, "axis n", "axis 0", "X has 10", "dY has 1"):
        dW.compute()


@pytest.mark.needs("unknown_chunks")
def test_unknown_chunks_in_different_numbers_are_refused_at_once(backend):
    x, dy = backend.asarray(X, chunks=(10, 6)), backend.asarray(dY, chunks=(20, 5))
    mask = X[:, 0] > 0
    x, dy = x[backend.asarray(mask, chunks=10)], dy[backend.asarray(mask, chunks=20)]
    blocks = "X has 10 blocks", "dY has 5 blocks", "X has shape (?, 6)", "(?, 5)"
    for call in (lambda: fc.grad_weight(x, dy), lambda: fc.backward(x, W, dy)):
        with (
            nothing_computes(backend),
            refused(ValueError, "axis n", "axis 0", *blocks, "compute_chunk_sizes() on X and dY"),
        ):
            call()


@pytest.mark.needs("unknown_chunks")
def test_an_unknown_number_of_features_is_refused(backend):
    lazy = backend.asarray(X, chunks=(10, 6))
    columns = lazy[:, backend.asarray(np.ones(6, bool), chunks=6)]
    for call in (lambda: fc.forward(columns, W), lambda: fc.grad_weight(columns, backend.asarray(dY, chunks=(10, 5)))):
        with refused(ValueError, "axis 1", "(100, ?)", "X has an unknown number", "X.compute_chunk_sizes()"):
            call()


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("needs", [("dW",), ("dW", "dB")], ids=str)
@pytest.mark.parametrize("blocks", [2, 3, 128, 200])
def test_the_tree_holds_few_terms(backend, monkeypatch, blocks, needs, small):
    """With one thread at most log2(blocks) + 2 parts of dW are alive, and somewhat more where they are small."""
    if not small:
        monkeypatch.setattr("fc_arrayapi._dask.blockwise.SMALL_TERM", 0)
    import dask
    from dask.callbacks import Callback

    alive = []

    class CountTerms(Callback):
        def _posttask(self, key, result, graph, state, worker):
            terms = [value[0] if isinstance(value, tuple) else value for value in state["cache"].values()]
            alive.append(sum(getattr(term, "shape", ())[:2] == (6, 5) for term in terms))

    x = backend.asarray(numbers(2 * blocks, 6), chunks=(2, 6))
    dy = backend.asarray(numbers(2 * blocks, 5), chunks=(2, 5))
    grads = fc.backward(x, W, dy, needs=needs)
    with dask.config.set(scheduler="synchronous"), CountTerms():
        result = fc.compute(grads)[0].dW
    np.testing.assert_allclose(result, numbers(2 * blocks, 6).T @ numbers(2 * blocks, 5), rtol=1e-12, atol=1e-12)
    assert 1 <= max(alive) <= (8 * np.ceil(np.log2(blocks) / 3) + 2 if small else np.log2(blocks) + 2)


def test_moments_of_many_features_are_no_small_terms(backend):
    """All sums of a block are one term, and n, the first one, is a single number."""
    few, many = (fc.moments(backend.asarray(numbers(64, C), chunks=(2, C))) for C in (16, 200))
    assert fc.plan(tuple(few)).tasks < fc.plan(tuple(many)).tasks


@pytest.mark.parametrize("blocks", [2, 5, 8, 9, 63, 100])
def test_small_terms_are_added_in_the_same_order_by_fewer_tasks(backend, monkeypatch, rng, blocks):
    x, dy = (backend.asarray(rng.random((2 * blocks, k), dtype="float32"), chunks=(2, k)) for k in (6, 5))
    few = fc.backward(x, W.astype("float32"), dy, needs=("dW", "dB"))
    monkeypatch.setattr("fc_arrayapi._dask.blockwise.SMALL_TERM", 0)
    many = fc.backward(x, W.astype("float32"), dy, needs=("dW", "dB"))
    assert fc.plan(few).tasks < fc.plan(many).tasks or blocks == 2
    for ours, pairs in zip(fc.compute(few)[0][1:], fc.compute(many)[0][1:], strict=True):
        np.testing.assert_array_equal(ours, pairs)


def test_the_tree_holds_few_terms_of_several_batch_axes_too(backend, monkeypatch):
    import dask
    from dask.callbacks import Callback

    alive = []

    class CountTerms(Callback):
        def _posttask(self, key, result, graph, state, worker):
            terms = [value for value in state["cache"].values() if getattr(value, "shape", ())[:2] == (6, 5)]
            alive.append(len(terms))

    monkeypatch.setattr("fc_arrayapi._dask.blockwise.SMALL_TERM", 0)
    x, dy = (backend.asarray(numbers(16, 8, 2, last), chunks=(1, 1, 2, last)) for last in (6, 5))
    dW = fc.grad_weight(x, dy)
    with dask.config.set(scheduler="synchronous"), CountTerms():
        dW.compute()
    assert 1 <= max(alive) <= np.log2(16 * 8) + 2


def test_float16_partials_are_added_in_float32(backend):
    x = backend.asarray(np.ones((5000, 1), "float16"), chunks=(10, 1))
    assert_array(fc.grad_bias(x), [5000.0], like=x, rtol=1e-3)
    assert_array(fc.grad_weight(x, x), [[5000.0]], like=x, rtol=1e-3)


def test_masked_blocks_are_refused(backend):
    masked = np.ma.masked_array(np.ones((4, 2)), mask=np.eye(4, 2, dtype=bool))
    lazy = backend.xp.from_array(masked, chunks=(2, 2))
    with refused(TypeError, "block of X is a numpy.ma.MaskedArray", "mask", ".filled(0)"):
        fc.forward(lazy, np.ones((2, 2)))


def test_graphs_travel_to_other_processes(backend):
    import dask

    x, dy = backend.asarray(X, chunks=(50, 6)), backend.asarray(dY, chunks=(50, 5))
    with dask.config.set(scheduler="processes", num_workers=1):
        grads = fc.compute(*fc.backward(x, W, dy))
    for part, reference in zip(grads, fc.testing.reference_backward(X, W, dY), strict=True):
        np.testing.assert_allclose(part, reference, rtol=1e-12, atol=1e-12)


def test_a_dask_layer_computes_like_any_other(backend):
    layer = fc.FullyConnected.init(6, 5, xp=backend.xp)
    x = backend.asarray(X, chunks=(50, 6))
    assert_array(layer(x), X @ namespace.to_numpy(layer.W), like=x, rtol=1e-12)


def count_tasks(*arrays):
    return len({key for array in arrays for key in dict(array.__dask_graph__())})


class Source:
    """Zeros that no one holds."""

    def __init__(self, *shape):
        self.shape, self.dtype, self.ndim = shape, np.dtype("float32"), len(shape)

    def __dask_tokenize__(self):
        return ("Source", self.shape)

    def __getitem__(self, index):
        return np.zeros([len(range(*part.indices(n))) for part, n in zip(index, self.shape, strict=True)], "float32")


def lazy_zeros(backend, *shape, chunks):
    return backend.xp.from_array(Source(*shape), chunks=chunks)


W4, B4 = W.astype("float32"), B.astype("float32")


@pytest.mark.parametrize("blocks", [16, 1000])
def test_tasks_per_block(backend, blocks):
    """At most 3 for the forward pass and 8 for dX, dW and dB together, sources included."""
    x = lazy_zeros(backend, 10 * blocks, 6, chunks=(10, 6))
    dy = lazy_zeros(backend, 10 * blocks, 5, chunks=(10, 5))
    assert count_tasks(fc.forward(x, W4, B4)) <= 2 * blocks + 5
    assert count_tasks(*fc.backward(x, W4, dy)) <= 6 * blocks + 6
    assert count_tasks(*fc.backward(x, W4, dy, needs=("dW", "dB"))[1:]) <= 5 * blocks + 6


@pytest.mark.parametrize("narrow", ["X", "W", "B"])
def test_a_pass_casts_each_block_once(backend, rng, narrow):
    """forward and dW share the cast of X, whichever array is narrow."""
    arrays = {"X": rng.standard_normal((20, 6)), "W": W, "B": B}
    arrays[narrow] = arrays[narrow].astype("float32")
    x = backend.xp.from_array(arrays["X"], chunks=(5, 6))
    Y = fc.forward(x, arrays["W"], arrays["B"])
    dW = fc.backward(x, arrays["W"], Y, needs=("dW", "dB")).dW
    casts = [task for task in {**Y.dask, **dW.dask} if str(task).startswith("('astype")]
    assert len(casts) == {"X": 4, "W": 1, "B": 1}[narrow]
    xf, wf, bf = (arrays[name].astype("float64") for name in "XWB")
    for ours, expected in zip(fc.compute(Y, dW), (xf @ wf + bf, xf.T @ (xf @ wf + bf)), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_the_batch_keeps_its_blocks_beside_a_wide_weight(backend):
    Y = fc.forward(lazy_zeros(backend, 10**6, 64, chunks=(8000, 64)), np.ones((64, 4096), "float32"))
    assert Y.numblocks == (125, 1)
    assert count_tasks(Y) <= 375


@pytest.mark.parametrize("rows", [700, 1500, 300, 50, 10000])
def test_a_batch_in_other_blocks_is_aligned(backend, rows):
    """At most 1.5 times the tasks of the aligned case, and those of the re-chunk; no block gets smaller than X's."""
    x = lazy_zeros(backend, 100_000, 6, chunks=(1000, 6))
    dy = lazy_zeros(backend, 100_000, 5, chunks=(rows, 5))
    aligned = count_tasks(*fc.backward(x, W4, lazy_zeros(backend, 100_000, 5, chunks=(1000, 5))))
    grads = fc.backward(x, W4, dy)
    assert grads.dX.chunks[0] == x.chunks[0]
    assert count_tasks(*grads) <= 1.5 * aligned + count_tasks(dy.rechunk((1000, 5)))


@pytest.mark.only("dask.array")
def test_a_block_of_many_outputs_is_warned_of(backend):
    import dask
    import dask.array as da

    X, W = da.ones((100, 2), chunks=(50, 2)), np.ones((2, 30))
    with dask.config.set({"array.chunk-size": "2400 B"}):  # 10 rows of Y
        with pytest.warns(
            UserWarning, match=r"forward: a block of Y has shape \(50, 30\) and 11.7 KiB.*rows=10,"
        ) as caught:
            fc.forward(X, W)
        assert caught[0].filename == __file__
        with pytest.warns(UserWarning, match=r"grad_input: a block of dX .* open dY with rows=10,"):
            fc.grad_input(X, W.T)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fc.forward(X.rechunk({0: 10}), W)
            fc.forward(da.ones((200, 30), chunks=(100, 30)), W.T)  # blocks of X are large too


@pytest.mark.only("dask.array")
@pytest.mark.needs("unknown_chunks")
def test_blocks_of_unknown_size_are_not_warned_of(backend):
    import dask
    import dask.array as da

    X = da.ones((100, 2), chunks=(50, 2))
    with dask.config.set({"array.chunk-size": "100 B"}):
        fc.forward(X[X[:, 0] > 0], np.ones((2, 30)))  # a warning would be an error
