"""einsum against numpy.einsum in float64, and opt_einsum's backend."""

from __future__ import annotations

import numpy as np
import opt_einsum
import pytest
from helpers.assertions import assert_array, nothing_computes, refused
from helpers.equations import DOCUMENTED, operands_of, random_contractions, reference
from hypothesis import HealthCheck, given, settings

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace
from fc_arrayapi._math import einsum as in_memory


@pytest.mark.parametrize("equation", DOCUMENTED)
def test_documented_equations(backend, rng, equation):
    hosts = operands_of(equation, rng)
    operands = [backend.asarray(host) for host in hosts]
    with nothing_computes(backend):
        result = fc.einsum(equation, *operands)
    expected = reference(equation, *hosts)
    assert_array(result, expected, like=operands[0], rtol=1e-12)
    spaced = " " + equation.replace(",", " , ").replace("->", " -> ")
    assert_array(fc.einsum(spaced, *operands), expected, like=operands[0], rtol=1e-12)


@pytest.mark.parametrize("equation", DOCUMENTED)
def test_opt_einsum_with_this_backend(backend, rng, equation):
    hosts = operands_of(equation, rng)
    operands = [backend.asarray(host) for host in hosts]
    expected = reference(equation, *hosts)
    with nothing_computes(backend):
        result = opt_einsum.contract(equation, *operands, backend="fc_arrayapi")
    assert_array(result, expected, like=operands[0], rtol=1e-12)
    expression = opt_einsum.contract_expression(equation, *[host.shape for host in hosts])
    assert_array(expression(*operands, backend="fc_arrayapi"), expected, like=operands[0], rtol=1e-12)
    if backend.module == "numpy":
        np.testing.assert_allclose(result, opt_einsum.contract(equation, *hosts), rtol=1e-12, atol=1e-12)


@pytest.mark.only("numpy")
def test_a_path_of_the_caller(backend, rng):
    a, b, c = (rng.normal(size=(3, 3)) for _ in range(3))
    for path in ([(0, 1), (0, 1)], [(1, 2), (0, 1)], [(0, 2), (0, 1)], [(-1, -2), (0, 1)], [(0, 1, 2)]):
        result = fc.einsum("ij,jk,kl->il", a, b, c, optimize=path)
        np.testing.assert_allclose(result, a @ b @ c, rtol=1e-12, atol=1e-12)


def test_random_equations(backend):
    rng = np.random.default_rng(0)

    @settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(random_contractions())
    def check(contraction):
        equation, shapes, optimize = contraction
        hosts = [rng.normal(size=shape) for shape in shapes]
        operands = [backend.asarray(host) for host in hosts]
        expected = np.einsum(equation, *hosts, optimize=len(hosts) > 2)
        result = fc.einsum(equation, *operands, optimize=optimize)
        assert_array(result, expected, like=operands[0], rtol=1e-12)

    check()


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", "complex128"])
@pytest.mark.parametrize("equation", ["nc,cs->ns", "ab,ab->", "ab->a", "aab->b", "a,b->ab", "ab,bc,cd->ad", "bi,bi->b"])
def test_every_numeric_dtype(backend, rng, equation, dtype):
    hosts = [(4 * host).astype(dtype) for host in operands_of(equation, rng)]
    if dtype == "complex128":
        hosts = [host * (1 + 2j) for host in hosts]
    operands = [backend.asarray(host) for host in hosts]
    expected = np.einsum(equation, *hosts)
    assert_array(fc.einsum(equation, *operands), expected, like=operands[0], rtol=1e-5 if dtype == "float32" else 1e-12)


def test_mixed_dtypes_are_promoted_before_anything_is_summed(backend):
    small = backend.asarray(np.full((3,), 100, "int8"))
    one, half = backend.asarray(np.ones(1, "int64")), backend.asarray(np.full((1,), 0.5, "float32"))
    assert_array(fc.einsum("i,j->", small, one), 300, like=one, rtol=0)
    assert_array(fc.einsum("i,k,j->", small, small, one), 90000, like=one, rtol=0)
    wide = backend.asarray(np.full((2,), 0.25, "float64"))
    assert_array(fc.einsum("i,j->j", half, wide), [0.125, 0.125], like=wide, rtol=0)


def test_interleaved_operands(backend, rng):
    X, W, V = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    x, w, v = (backend.asarray(a) for a in (X, W, V))
    assert_array(fc.einsum(x, [0, 1], w, [1, 2], [0, 2]), X @ W, like=x, rtol=1e-12)
    assert_array(fc.einsum(x, [0, 1], w, [1, 2]), X @ W, like=x, rtol=1e-12)
    assert_array(fc.einsum(x, [7, 3], w, (3, np.int64(5)), v, np.asarray([5, 9])), X @ W @ V, like=x, rtol=1e-12)
    assert_array(fc.einsum(x, [7, 3], w, [3, 5]), (X @ W).T, like=x, rtol=1e-12)  # 5 comes before 7
    assert_array(fc.einsum(x, [Ellipsis, 1], w, [1, 2], None), X @ W, like=x, rtol=1e-12)
    assert_array(fc.einsum(x, [Ellipsis, 1], w, [1, 2], [Ellipsis, 2]), X @ W, like=x, rtol=1e-12)


def test_interleaved_result_has_its_axes_in_the_order_of_the_indices(backend, rng):
    """Also beyond 26 indices, where the letters that stand for them sort otherwise."""
    factors = [rng.normal(size=(2, 2)) for _ in range(27)]
    own = [backend.asarray(factor) for factor in factors]
    chain = [part for k, factor in enumerate(own) for part in (factor, [k, k + 1])]
    assert_array(fc.einsum(*chain), np.linalg.multi_dot(factors), like=own[0], rtol=1e-12)
    many = rng.normal(size=(2, 3, *[1] * 24, 4, 5))
    x = backend.asarray(many)
    assert_array(fc.einsum(x, list(range(28))), many, like=x, rtol=0)
    backwards = np.transpose(many)  # as NumPy, which puts the axis of index 0 first
    assert_array(fc.einsum(x, list(range(27, -1, -1))), backwards, like=x, rtol=0)
    kept = fc.einsum(x, [..., *range(1, 28)])
    assert_array(kept, many, like=x, rtol=0)


@pytest.mark.parametrize(
    "axes",
    [np.int64(1), np.asarray(1), np.asarray([1, 0]), np.asarray([[1], [0]]), (np.int64(1), np.asarray([0]))],
    ids=repr,
)
def test_axes_of_tensordot_may_be_numpy_s_integers(backend, rng, axes):
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
    own = backend.asarray(a)
    assert_array(fc.tensordot(own, backend.asarray(b), axes=axes), a @ b, like=own, rtol=1e-12)


@pytest.mark.parametrize("axes", [0, 1, 2, ((0, 1), (1, 0)), ((2,), (0,)), ([-1, 0], [0, 2]), (1, 1)], ids=str)
def test_tensordot_and_transpose(backend, rng, axes):
    a, b = rng.normal(size=(3, 4, 3)), rng.normal(size=(4, 3, 3))
    if axes in (1, ((2,), (0,)), ([-1, 0], [0, 2]), (1, 1)):
        b = np.ascontiguousarray(b.transpose(1, 0, 2))
    own, other = backend.asarray(a), backend.asarray(b)
    assert_array(fc.tensordot(own, other, axes=axes), np.tensordot(a, b, axes=axes), like=own, rtol=1e-12)
    assert_array(fc.transpose(own, (2, 0, 1)), a.transpose(2, 0, 1), like=own, rtol=0)
    assert_array(fc.transpose(own, np.asarray([2, 0, 1])), a.transpose(2, 0, 1), like=own, rtol=0)
    assert_array(fc.transpose(own), a.T, like=own, rtol=0)


@pytest.mark.only("numpy", "dask.array")
def test_big_endian_operands(backend):
    big = backend.asarray(np.arange(8.0).reshape(4, 2).astype(">f4"))
    for equation in ("ij->j", "ij,ij->", "ij->ji", "ij,ik->jk"):
        hosts = [np.arange(8.0, dtype="float32").reshape(4, 2)] * (1 + equation.count(","))
        result = namespace.to_numpy(fc.einsum(equation, *[big] * len(hosts)))
        np.testing.assert_array_equal(result, np.einsum(equation, *hosts))


@pytest.mark.only("dask.array")
def test_numpy_operands_beside_a_dask_one(backend, rng):
    X, U, V = rng.normal(size=(50, 4)), rng.normal(size=(4, 2)), rng.normal(size=(2, 3))
    x = backend.asarray(X, chunks=(10, 2))
    Y = fc.einsum("nc,cr,rs->ns", x, U, V)
    assert Y.chunks == (x.chunks[0], (3,))
    assert_array(Y, X @ U @ V, like=x, rtol=1e-12)


BESIDE_DASK = [
    # (equation, the positions of the Dask operands); n is in blocks
    ("mc,nc->mn", [1]), ("n,nc->c", [1]), ("n,nc,nd->cd", [2]), ("c,nc,s->ns", [1]), ("cr,rs,nc->ns", [2]),
    ("nn,nc->c", [1]), ("ab,bn,nc->ac", [2]), ("n,n->", [1]), ("n,nc,n,nd->cd", [1, 3]), ("cd,nc,nd->n", [2]),
]  # fmt: skip


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(("equation", "lazy"), BESIDE_DASK)
def test_numpy_operands_stand_in_any_place_beside_a_dask_one(backend, rng, equation, lazy):
    terms = equation.partition("->")[0].split(",")
    hosts = [rng.normal(size=[20 if label == "n" else 3 for label in term]) for term in terms]
    own = [
        backend.asarray(host, chunks=tuple(5 if label == "n" else 3 for label in term)) if k in lazy else host
        for k, (term, host) in enumerate(zip(terms, hosts, strict=True))
    ]
    with nothing_computes(backend):
        results = [fc.einsum(equation, *own)]
        if len(lazy) < len(own):  # opt_einsum would multiply NumPy operands by NumPy
            results.append(opt_einsum.contract(equation, *own, backend="fc_arrayapi"))
    for result in results:
        assert_array(result, reference(equation, *hosts), like=own[lazy[0]], rtol=1e-12)
    if equation.endswith(("n", "ns")):
        assert (5, 5, 5, 5) in results[0].chunks


@pytest.mark.only("dask.array")
def test_numpy_first_does_not_merge_the_blocks_of_a_dask_array(backend, monkeypatch):
    x = backend.asarray(np.ones((1000, 3)), chunks=(10, 3))
    rows = set()

    def contract_blocks(step, rounded, *blocks):
        rows.update(block.shape[0] for block in blocks)
        return in_memory.einsum(step, blocks)

    monkeypatch.setattr("fc_arrayapi._dask.einsum._contract_blocks", contract_blocks)
    weighted = fc.einsum("n,nc->c", np.ones(1000), x)
    assert weighted.compute(scheduler="synchronous").tolist() == [1000] * 3
    assert rows <= {0, 10}  # 0 where Dask asks for the type of a block
    assert fc.einsum("mc,nc->mn", np.ones((2, 3)), x).chunks == ((2,), (10,) * 100)


PRODUCTS = [
    # (equation, shapes, chunks, blocks of the result)
    ("nij,nkl->ijkl", [(1000, 400, 40)] * 2, [(100, 400, 40)] * 2, (4, 1, 4, 1)),
    ("n,m->nm", [(100_000,)] * 2, [(10_000,)] * 2, (10, 70)),  # the blocks of the batch stay
    ("nc,ns->ncs", [(10_000, 512)] * 2, [(10_000, 512)] * 2, (1, 15, 13)),
    ("bij,bjk->bik", [(100, 2000, 100), (100, 100, 2000)], [-1, -1], (1, 5, 5)),
    ("nii,njk->nijk", [(4, 600, 600), (4, 900, 900)], [-1, -1], (1, 1, 12, 11)),  # a diagonal is one block
    ("nc,cs->ns", [(10**6, 64), (64, 4096)], [(10**4, 64), -1], (100, 3)),
]


def block_bytes(array):
    return np.prod([max(sizes) for sizes in array.chunks]) * array.dtype.itemsize


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(("equation", "shapes", "chunks", "blocks"), PRODUCTS, ids=[row[0] for row in PRODUCTS])
def test_blocks_of_a_product_fit_the_chunk_size_of_dask(backend, equation, shapes, chunks, blocks):
    operands = [backend.xp.zeros(shape, chunks=own) for shape, own in zip(shapes, chunks, strict=True)]
    with nothing_computes(backend):
        result = fc.einsum(equation, *operands)
    assert block_bytes(result) <= 128 * 2**20
    assert result.numblocks == blocks


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("equation", [e for e in DOCUMENTED if "->" in e])
def test_equations_where_every_product_is_split(backend, rng, equation):
    import dask

    hosts = operands_of(equation, rng)
    operands = [backend.asarray(host) for host in hosts]
    with dask.config.set({"array.chunk-size": "16B"}):
        result = fc.einsum(equation, *operands)
    assert_array(result, reference(equation, *hosts), like=operands[0], rtol=1e-12)
    terms = equation.partition("->")[0].split(",")
    if len(terms) <= 2 and all(len({*term}) == len(term) for term in terms):  # a diagonal is one block
        assert block_bytes(result) <= max(16, *map(block_bytes, operands))


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(
    ("equation", "shapes", "chunks"),
    [
        ("nc,cs->ns", [(10**6, 64), (64, 10)], [(10**5, 64), -1]),
        ("nc,ns->cs", [(10**5, 64), (10**5, 10)], [(1000, 64), (1000, 10)]),
        ("nc,nc->nc", [(10**5, 512)] * 2, [-1, -1]),  # as large as an operand: 391 MiB
        ("nc,cs->ns", [(10**5, 512), (512, 512)], [-1, -1]),
    ],
)
def test_products_no_larger_than_an_operand_are_not_split(backend, equation, shapes, chunks):
    import dask

    def tasks():
        operands = [backend.xp.zeros(shape, chunks=own) for shape, own in zip(shapes, chunks, strict=True)]
        return len(dict(fc.einsum(equation, *operands).__dask_graph__()))

    with dask.config.set({"array.chunk-size": "1 TiB"}):
        expected = tasks()
    assert tasks() == expected


@pytest.mark.only("dask.array")
def test_tensordot_of_numpy_and_dask(backend, rng):
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(6, 4))
    y = backend.asarray(b, chunks=(2, 4))
    assert_array(fc.tensordot(a, y, axes=((1,), (1,))), a @ b.T, like=y, rtol=1e-12)
    assert_array(fc.tensordot(y, a, axes=((1,), (1,))), b @ a.T, like=y, rtol=1e-12)


@pytest.mark.needs("unknown_chunks")
@pytest.mark.only("dask.array")
def test_unknown_batch_lengths(backend, rng):
    X, U, V = rng.normal(size=(50, 4)), rng.normal(size=(4, 2)), rng.normal(size=(2, 3))
    keep = X[:, 0] > 0
    x = backend.asarray(X, chunks=(10, 2))[backend.asarray(keep, chunks=10)]
    with nothing_computes(backend):
        Y = fc.einsum("nc,cr,rs->ns", x, U, V)
        gram = fc.einsum("nc,nd->cd", x, x)
    np.testing.assert_allclose(Y.compute(), X[keep] @ U @ V, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gram.compute(), X[keep].T @ X[keep], rtol=1e-12, atol=1e-12)
    wide = backend.asarray(X, chunks=(10, 2))[backend.asarray(np.ones(50, bool), chunks=10)]
    three = fc.einsum("nc,nd,ne->cde", wide, backend.asarray(X, chunks=(10, 4)), wide)
    np.testing.assert_allclose(three.compute(), np.einsum("nc,nd,ne->cde", X, X, X), rtol=1e-12, atol=1e-12)
    columns = fc.einsum("cn,nd->cd", x.T, x)  # n is no batch here, and not known
    np.testing.assert_allclose(columns.compute(), X[keep].T @ X[keep], rtol=1e-12, atol=1e-12)
    other = keep.copy()
    other[np.flatnonzero(keep)[0]] = False
    y = backend.asarray(X, chunks=(10, 2))[backend.asarray(other, chunks=10)]
    rows = int(keep[:10].sum())  # of the first block, of which y lacks one
    with refused(ValueError, "index n", f"operand 0 has {rows} (axis 0)", f"operand 1 has {rows - 1} (axis 0)"):
        fc.einsum("nc,nd->cd", x, y).compute()
