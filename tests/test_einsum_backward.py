"""The gradients of einsum: against unit arrays in the place of an operand, and against autograd of torch and JAX."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from helpers.assertions import assert_array, nothing_computes, refused
from helpers.equations import DOCUMENTED, operands_of, random_contractions, reference, reference_gradient
from hypothesis import HealthCheck, given, settings

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace
from fc_arrayapi._math import gradient_steps
from fc_arrayapi._math.subscripts import parse

torch_only = pytest.mark.only("torch")
jax_only = pytest.mark.only("jax.numpy")


def with_dY(equation, rng):
    """Return operands of an equation, and a dY, in NumPy."""
    hosts = operands_of(equation, rng)
    return hosts, np.asarray(rng.normal(size=np.shape(reference(equation, *hosts))))


@pytest.mark.only("numpy", "array_api_strict", "dask.array", "cupy")  # others are compared with their autograd below
@pytest.mark.parametrize("equation", DOCUMENTED)
def test_documented_equations(backend, rng, equation):
    hosts, dY = with_dY(equation, rng)
    operands = [backend.asarray(host) for host in hosts]
    with nothing_computes(backend):
        gradients = fc.einsum_backward(equation, *operands, dY=backend.asarray(dY))
    assert len(gradients) == len(operands)
    for k, gradient in enumerate(in_one_pass(backend, gradients)):
        assert_array(gradient, reference_gradient(equation, hosts, dY, k), like=operands[k], rtol=1e-12)


@pytest.mark.parametrize("equation", DOCUMENTED[::12])
def test_one_gradient_alone(backend, rng, equation):
    hosts, dY = with_dY(equation, rng)
    operands = [backend.asarray(host) for host in hosts]
    for k in range(len(operands)):
        with nothing_computes(backend):
            alone = fc.einsum_backward(equation, *operands, dY=backend.asarray(dY), needs=(k,))
        assert_array(alone[k], reference_gradient(equation, hosts, dY, k), like=operands[k], rtol=1e-12)
        assert [other is None for other in alone] == [other != k for other in range(len(operands))]


def in_one_pass(backend, gradients):
    """Compute Dask's gradients together, which takes a third of the time, and leave them Dask arrays."""
    if not backend.chunked:
        return gradients
    import dask

    assert all(isinstance(gradient, backend.xp.Array) for gradient in gradients)
    return dask.persist(*gradients)


def test_random_equations(backend):
    rng = np.random.default_rng(0)
    examples = 20 if backend.module == "jax.numpy" else 200  # JAX compiles each operation for each new shape

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(random_contractions())
    def check(contraction):
        equation, shapes, _ = contraction
        hosts = [rng.normal(size=shape) for shape in shapes]
        operands = [backend.asarray(host) for host in hosts]
        dY = np.asarray(rng.normal(size=np.einsum(equation, *hosts, optimize=len(hosts) > 2).shape))

        def all_of_them(*arrays):
            return fc.einsum_backward(equation, *arrays, dY=backend.asarray(dY))

        gradients = backend.compiled(all_of_them)(*operands)
        for k, (gradient, expected) in enumerate(
            zip(gradients, autograd(backend, equation, operands, dY), strict=True)
        ):
            if expected is None:
                expected = reference_gradient(equation, hosts, dY, k)
            assert_array(gradient, expected, like=operands[k], rtol=1e-12)

    check()


def autograd(backend, equation, operands, dY):
    """Return what torch's autograd or jax.vjp of their own einsum give, and None for each on other libraries."""
    if backend.module == "torch":
        import torch

        leaves = [operand.clone().requires_grad_() for operand in operands]
        return [g.numpy() for g in torch.autograd.grad(torch.einsum(equation, *leaves), leaves, torch.tensor(dY))]
    if backend.module == "jax.numpy":
        import jax

        def vjp(*arrays):
            return jax.vjp(lambda *inputs: backend.xp.einsum(equation, *inputs), *arrays)[1](backend.asarray(dY))

        return list(map(np.asarray, jax.jit(vjp)(*operands)))  # compiled once, not operation by operation
    return [None] * len(operands)


@pytest.mark.only("torch", "jax.numpy")
@pytest.mark.parametrize("equation", [e for e in DOCUMENTED if e.isascii() and ("." not in e or "->" in e)])
def test_documented_equations_equal_autograd(backend, rng, equation):
    hosts, dY = with_dY(equation, rng)
    if "..." in equation.partition("->")[0] and "..." not in equation.partition("->")[2]:  # summed; theirs have no such
        inputs, output = equation.split("->")
        theirs = f"{inputs.replace('...', 'YZ')}->{output}"
    else:
        theirs = equation
    operands = [backend.asarray(host) for host in hosts]

    def all_of_them(*arrays):
        return fc.einsum_backward(equation, *arrays, dY=backend.asarray(dY))

    gradients = backend.compiled(all_of_them)(*operands)
    for operand, gradient, expected in zip(operands, gradients, autograd(backend, theirs, operands, dY), strict=True):
        assert_array(gradient, expected, like=operand, rtol=1e-12)


# The layer, and the three kinds of indices that need more than an exchange.


def test_gradients_of_the_layer_have_the_same_bits(backend, rng):
    hosts = [rng.normal(size=shape).astype("float32") for shape in ((64, 4), (4, 3), (64, 3))]
    X, W, dY = (backend.asarray(host, chunks=(16, -1) if len(host) == 64 else -1) for host in hosts)
    dX, dW = fc.einsum_backward("nc,cs->ns", X, W, dY=dY)
    for ours, theirs in ((dX, fc.grad_input(dY, W)), (dW, fc.grad_weight(X, dY))):
        np.testing.assert_array_equal(namespace.to_numpy(ours), namespace.to_numpy(theirs))


def test_off_the_diagonal_there_is_nothing(backend):
    """A product with an identity would make nan of inf and 0."""
    x, dY = backend.asarray(np.ones((2, 2, 3))), backend.asarray(np.full(3, np.inf))
    (gradient,) = fc.einsum_backward("aab->b", x, dY=dY)
    expected = np.zeros((2, 2, 3))
    expected[[0, 1], [0, 1]] = np.inf
    np.testing.assert_array_equal(namespace.to_numpy(gradient), expected)


@pytest.mark.only("numpy", "torch")
@pytest.mark.parametrize("equation", ["nc->n", "a->", "n,c->n", "aa->a", "aab->b", "ab,c->a"])
def test_a_repeated_gradient_can_be_written_to(backend, rng, equation):
    hosts, dY = with_dY(equation, rng)
    for gradient in fc.einsum_backward(equation, *map(backend.asarray, hosts), dY=backend.asarray(dY)):
        gradient += 1


MEMORY = [
    # (equation, size of each index, bytes beside the gradients as a part of them)
    ("ij->", 1000, 0.05),
    ("ij->i", 1000, 0.05),
    ("ii->", 1000, 0.2),  # the identity has a byte where a gradient has 8
    ("ii->i", 1000, 0.2),
    ("iij->j", 100, 0.05),
    ("i,jk->i", 100, 1.0),
]


@pytest.mark.only("numpy")
@pytest.mark.parametrize(("equation", "size", "part"), MEMORY, ids=[row[0] for row in MEMORY])
def test_ones_and_identities_are_not_made_in_full(backend, equation, size, part):
    inputs, output = equation.split("->")
    operands, dY = [np.ones((size,) * len(term)) for term in inputs.split(",")], np.ones((size,) * len(output))
    fc.einsum_backward(equation, *operands, dY=dY)
    tracemalloc.start()
    gradients = fc.einsum_backward(equation, *operands, dY=dY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (1 + part) * sum(gradient.nbytes for gradient in gradients) + 20_000


# Arguments.


def test_interleaved_operands(backend, rng):
    X, W, dY = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    x, w, dy = (backend.asarray(array) for array in (X, W, dY))
    for arguments in ((x, [0, 1], w, [1, 2], [0, 2]), (x, [0, 1], w, [1, 2]), (x, [..., 7], w, [7, 9], [..., 9])):
        dX, dW = fc.einsum_backward(*arguments, dY=dy)
        assert_array(dX, dY @ W.T, like=x, rtol=1e-12)
        assert_array(dW, X.T @ dY, like=x, rtol=1e-12)


@pytest.mark.parametrize("wide", ["operand 0", "operand 1", "dY"])
def test_all_are_promoted_to_one_dtype(backend, wide):
    names = "operand 0", "operand 1", "dY"
    arrays = [backend.asarray(np.ones((3, 3), "float64" if name == wide else "float32")) for name in names]
    for gradient in fc.einsum_backward("ab,bc->ac", *arrays[:2], dY=arrays[2]):
        assert_array(gradient, np.full((3, 3), 3.0), like=arrays[names.index(wide)], rtol=0)


@pytest.mark.needs("bfloat16")
def test_bfloat16(backend):
    ones = backend.xp.ones((4, 4), dtype=backend.dtype("bfloat16"))
    for gradient in fc.einsum_backward("aa,ab,cd->b", ones, ones, ones, dY=ones[0]):
        assert namespace.dtype_name(gradient.dtype) == "bfloat16"


def test_needs_may_be_any_integers_in_any_order(backend):
    x, w = backend.asarray(np.ones((5, 4))), backend.asarray(np.ones((4, 3)))
    dY = backend.asarray(np.ones((5, 3)))
    for needs in ((1, 0), [0, 1, 1], np.asarray([1, 0]), {0, 1}, iter((0, 1))):
        assert [gradient.shape for gradient in fc.einsum_backward("nc,cs->ns", x, w, dY=dY, needs=needs)] == [
            (5, 4),
            (4, 3),
        ]
    assert fc.einsum_backward("nc,cs->ns", x, w, dY=dY, needs=()) == (None, None)


WRONG_NEEDS = [
    # (needs, exception, facts of the message)
    ((2,), ValueError, ("needs has 2", "2 operands", "from 0 to 1")),
    ((0, -1), ValueError, ("needs has -1", "2 operands", "from 0 to 1")),
    ("01", TypeError, ("needs is '01'", "needs=(0,)")),
    (("0",), TypeError, ("needs is ('0',)", "needs=(0,)")),
    ((1.0,), TypeError, ("needs is (1.0,)", "needs=(0,)")),
    ((True,), TypeError, ("needs is (True,)", "needs=(0,)")),
    (1, TypeError, ("needs is 1", "needs=(0,)")),
    (b"\1", TypeError, ("needs is", "needs=(0,)")),
]


@pytest.mark.parametrize(("needs", "exception", "facts"), WRONG_NEEDS, ids=[repr(row[0]) for row in WRONG_NEEDS])
def test_wrong_needs(backend, needs, exception, facts):
    x, w = backend.asarray(np.ones((5, 4))), backend.asarray(np.ones((4, 3)))
    dY = backend.asarray(np.ones((5, 3)))
    fc.einsum_backward("nc,cs->ns", x, w, dY=dY, needs=(1,))
    with nothing_computes(backend), refused(exception, "einsum_backward 'nc,cs->ns'", *facts):
        fc.einsum_backward("nc,cs->ns", x, w, dY=dY, needs=needs)


def test_without_dY(backend):
    x = backend.asarray(np.ones((2, 2)))
    with refused(TypeError, "einsum_backward 'ab->ba'", "dY=..."):
        fc.einsum_backward("ab->ba", x)
    with refused(fc.SubscriptsError, "einsum 'ab'", "no operands"):
        fc.einsum_backward("ab", dY=x)
    with refused(fc.SubscriptsError, "einsum 'ab,bc'", "2", "1"):
        fc.einsum_backward("ab,bc", x, dY=x)


# Steps that gradients share.


def steps_of(equation, shapes, wanted):
    operands = [np.empty(shape) for shape in shapes]
    return gradient_steps.gradient_steps(parse(equation, *map(len, shapes)), wanted, operands)


SHARED = [
    # (equation, shapes, wanted, steps)
    ("nc,cr,rs->ns", [(2048, 512), (512, 64), (64, 512)], (0, 1, 2), 5),
    ("nc,cr,rs->ns", [(2048, 512), (512, 64), (64, 512)], (1, 2), 4),
    ("nc,cr,rs->ns", [(2048, 512), (512, 64), (64, 512)], (0,), 2),
    ("ab,bc,cd,de->ae", [(2048, 512), (512, 64), (64, 512), (512, 256)], (0, 1, 2, 3), 8),
    ("bnc,chd->bnhd", [(2, 5, 4), (4, 3, 2)], (0, 1), 2),
    ("ab->ba", [(2, 3)], (0,), 1),
    ("ab->ab", [(2, 3)], (0,), 0),
    ("ab,bc,cd,de,ef,fg->ag", [(9, 9)] * 6, (0, 1, 2, 3, 4, 5), 14),  # 4 forward, 2 back for each of 5
]


@pytest.mark.only("numpy")
@pytest.mark.parametrize(("equation", "shapes", "wanted", "count"), SHARED, ids=str)
def test_gradients_share_products(backend, equation, shapes, wanted, count):
    steps, results = steps_of(equation, shapes, wanted)
    assert len(steps) == count, [text for text, _, _ in steps]
    assert [k for k, result in enumerate(results) if result is not None] == list(wanted)


@pytest.mark.only("numpy")
def test_intermediates_are_forgotten_after_their_last_step(backend):
    steps, results = steps_of("ab,bc,cd,de->ae", [(9, 9)] * 4, (0, 1, 2, 3))
    made, used = {5 + k for k in range(len(steps))}, [place for _, _, done in steps for place in done]
    assert sorted(used) == sorted(made - {place for place, _ in results})
    for k, (_, _, done) in enumerate(steps):
        assert not set(done) & {place for _, places, _ in steps[k + 1 :] for place in places}


# Automatic differentiation, tracing.

TRACED = ["nc,cs->ns", "bnc,chd->bnhd", "nc,cr,rs->ns", "aab->b", "ab,c->a", "ab,bc,cd,da->", "...nc,cs->...s"]


@jax_only
@pytest.mark.parametrize("equation", TRACED)
def test_under_jax_jit_and_vmap(backend, rng, equation):
    import jax

    hosts, dY = with_dY(equation, rng)
    arrays = [*map(backend.asarray, hosts), backend.asarray(dY)]

    def gradients(*arrays):
        return fc.einsum_backward(equation, *arrays[:-1], dY=arrays[-1])

    stacked = [backend.xp.stack([array, 2 * array]) for array in arrays]
    mapped = jax.vmap(gradients)(*stacked)
    for ours, expected, many in zip(jax.jit(gradients)(*arrays), gradients(*arrays), mapped, strict=True):
        assert_array(ours, namespace.to_numpy(expected), like=arrays[0], rtol=1e-12)
        assert_array(many[1], 2 ** len(hosts) * namespace.to_numpy(expected), like=arrays[0], rtol=1e-12)


@torch_only
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function")
@pytest.mark.parametrize("equation", TRACED)
def test_under_torch_compile_and_vmap(backend, rng, equation):
    import torch

    hosts, dY = with_dY(equation, rng)
    arrays = [*map(backend.asarray, hosts), backend.asarray(dY)]

    def gradients(*arrays):
        return fc.einsum_backward(equation, *arrays[:-1], dY=arrays[-1])

    expected = gradients(*arrays)
    torch.compiler.reset()
    for dynamic in (True, False):
        compiled = torch.compile(gradients, backend="eager", fullgraph=True, dynamic=dynamic)
        torch.testing.assert_close(compiled(*arrays), expected, rtol=1e-12, atol=1e-12)
    mapped = torch.func.vmap(gradients)(*[torch.stack([array, 2 * array]) for array in arrays])
    for many, one in zip(mapped, expected, strict=True):
        torch.testing.assert_close(many[1], 2 ** len(hosts) * one, rtol=1e-12, atol=1e-12)


@torch_only
def test_torch_gradcheck(backend, rng):
    """The gradients are einsums, so they can be differentiated too."""
    import torch

    arrays = [backend.asarray(rng.normal(size=size)).requires_grad_() for size in ((3, 3, 2), (2, 4), (5, 2), (4,))]
    assert torch.autograd.gradcheck(lambda x, w, v, dY: fc.einsum_backward("aab,bc,db->c", x, w, v, dY=dY), arrays)


@torch_only
def test_under_torch_autocast(backend):
    import torch

    x, w, dY = (torch.full(size, 1 + 2**-12) for size in ((5, 4), (4, 3), (5, 3)))
    expected = fc.einsum_backward("nc,cs->ns", x, w, dY=dY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for ours, theirs in zip(fc.einsum_backward("nc,cs->ns", x, w, dY=dY), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


# Dask.

dask_only = pytest.mark.only("dask.array")


@dask_only
def test_the_batch_keeps_its_chunks(backend, rng):
    X, U, V, dY = (rng.normal(size=shape) for shape in ((50, 4), (4, 2), (2, 3), (50, 3)))
    x, dy = backend.asarray(X, chunks=(10, 4)), backend.asarray(dY, chunks=(10, 3))
    dX, dU, dV = fc.einsum_backward("nc,cr,rs->ns", x, U, V, dY=dy)
    assert (dX.chunks, dU.numblocks, dV.numblocks) == (x.chunks, (1, 1), (1, 1))
    (repeated,) = fc.einsum_backward("nc->n", x, dY=backend.asarray(dY[:, 0], chunks=10))
    assert repeated.chunks == x.chunks
    (diagonal,) = fc.einsum_backward("ncc->n", backend.xp.ones((50, 4, 4), chunks=(10, 2, 2)), dY=dy[:, 0])
    assert diagonal.chunks == ((10,) * 5, (4,), (4,))


@dask_only
def test_numpy_beside_dask(backend, rng):
    X, W, dY = rng.normal(size=(50, 4)), rng.normal(size=(4, 3)), rng.normal(size=(50, 3))
    x, w, dy = (backend.asarray(array) for array in (X, W, dY))
    expected = [dY @ W.T, X.T @ dY]
    for arrays in ((x, w, dy), (x, W, dy), (X, W, dy), (x, W, dY), (X, w, dY)):
        for ours, theirs in zip(fc.einsum_backward("nc,cs->ns", *arrays[:2], dY=arrays[2]), expected, strict=True):
            assert_array(ours, theirs, like=x, rtol=1e-12)


class Source:
    """Counts what is read of it."""

    ndim, dtype = 2, np.dtype("float64")

    def __init__(self, reads, name, shape):
        self.reads, self.name, self.shape = reads, name, shape

    def __getitem__(self, index):
        self.reads.append((self.name, index[0].start))
        return np.ones(self.shape)[index]

    def in_blocks(self, backend, rows):
        return backend.xp.from_array(self, chunks=(rows, self.shape[1]), meta=np.empty((0, 0)))


@dask_only
def test_all_gradients_come_from_one_pass(backend):
    """Each block of the operands and of dY is read once."""
    reads = []
    x, dY = (Source(reads, name, (80, n)).in_blocks(backend, 10) for name, n in (("x", 4), ("dY", 3)))
    gradients = fc.einsum_backward("nc,cr,rs->ns", x, np.ones((4, 2)), np.ones((2, 3)), dY=dY)
    assert reads == []
    dX, dU, dV = fc.compute(*gradients)
    assert sorted(reads) == sorted((name, start) for name in ("x", "dY") for start in range(0, 80, 10))
    assert (dX[0, 0], dU[0, 0], dV[0, 0]) == (6, 240, 320)


@dask_only
def test_a_gradient_of_ones_does_not_read_its_operand(backend):
    reads = []
    x = Source(reads, "x", (20, 3)).in_blocks(backend, 5)
    (gradient,) = fc.einsum_backward("nc->n", x, dY=backend.asarray(np.arange(20.0)))
    np.testing.assert_array_equal(gradient.compute(), np.arange(20.0)[:, None] * np.ones(3))
    assert reads == []


@pytest.mark.needs("unknown_chunks")
@dask_only
def test_unknown_batch_lengths(backend, rng):
    X, W, dY = rng.normal(size=(50, 4)), rng.normal(size=(4, 3)), rng.normal(size=(50, 3))
    keep = X[:, 0] > 0
    mask = backend.asarray(keep, chunks=10)
    x, dy = backend.asarray(X, chunks=(10, 4))[mask], backend.asarray(dY, chunks=(10, 3))[mask]
    with nothing_computes(backend):
        dX, dW = fc.einsum_backward("nc,cs->ns", x, W, dY=dy)
        (ones,) = fc.einsum_backward("nc->n", x, dY=dy[:, 0])
    np.testing.assert_allclose(dX.compute(), dY[keep] @ W.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dW.compute(), X[keep].T @ dY[keep], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ones.compute(), dY[keep, :1] * np.ones(4), rtol=1e-12, atol=1e-12)
    fewer = keep.copy()
    fewer[np.flatnonzero(keep)[0]] = False
    other = backend.asarray(dY, chunks=(10, 3))[backend.asarray(fewer, chunks=10)]
    rows = int(keep[:10].sum())
    for position in (0, 1):  # also where only the gradient of X is wanted, which X itself is no part of
        gradient = fc.einsum_backward("nc,cs->ns", x, W, dY=other, needs=(position,))[position]
        with refused(ValueError, "index n", str(rows), str(rows - 1)):
            gradient.compute()
