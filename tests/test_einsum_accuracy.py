"""Sums of einsum: as accurate as the layer's, over any index, of any operands, in float16 too."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from helpers.assertions import assert_array

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace

LONG = 2**20
# Index n is long; m and k are 1024 each.
SIZES = {"n": LONG, "m": 1024, "k": 1024, "b": 2, "c": 3, "s": 4}
SUMS = ["n->", "nc->c", "cn->c", "nc->", "bnc->bc", "bnc->c", "nbc->", "mck->c", "cmk->c", "mkc->c", "mk->"]
PRODUCTS = """
n,n->  nc,n->c  cn,n->c  n,nc->c  cn,cn->c  nc,ns->cs  nc,ns->sc  nc,sn->cs  cn,ns->cs  cn,sn->sc  bnc,bns->bcs
bcn,bns->bsc  bnc,bsn->bsc  nbc,nbs->bcs  mkc,mks->cs  mkc,kms->cs  nbc,nsc->bs  nc,s->s  nc,ns->s  nc,n,ns->cs
""".split()  # noqa: SIM905


def positive(rng, equation):
    inputs = equation.partition("->")[0].split(",")
    return [(rng.random([SIZES[label] for label in labels]) + 0.1).astype("float32") for labels in inputs]


def exact(equation, *operands):
    return np.einsum(equation, *[operand.astype("float64") for operand in operands], optimize=True)


@pytest.mark.parametrize("equation", [*SUMS, *PRODUCTS])
def test_a_long_sum_of_positive_numbers_is_right_to_one_in_a_million(backend, rng, equation):
    operands = positive(rng, equation)
    blocks = [tuple(min(size, 100_000) for size in operand.shape) for operand in operands]
    result = fc.einsum(equation, *[backend.asarray(x, chunks=cut) for x, cut in zip(operands, blocks, strict=True)])
    assert np.max(np.abs(namespace.to_numpy(result) / exact(equation, *operands) - 1)) < 1e-6


@pytest.mark.only("numpy")
@pytest.mark.parametrize("equation", SUMS)
@pytest.mark.parametrize("layout", ["turned", "strided", "backwards"])
def test_a_long_sum_is_right_in_any_layout(backend, rng, equation, layout):
    (x,) = positive(rng, equation)
    if layout == "turned":
        x = np.asfortranarray(x)
    elif layout == "strided":
        x = np.repeat(x, 2, axis=-1)[..., ::2]
    else:
        x = x[::-1]
    assert np.max(np.abs(fc.einsum(equation, x) / exact(equation, x) - 1)) < 1e-6


def test_the_sum_of_ones_is_their_number(backend):
    x = backend.asarray(np.ones((2**25, 2), "float32"), chunks=(2**22, 2))
    assert_array(fc.einsum("nc->c", x), [2.0**25] * 2, like=x, rtol=0)
    assert_array(fc.einsum("nc->", x), 2.0**26, like=x, rtol=0)


@pytest.mark.parametrize("rows", [7, 3000, 5000, 200_000])
def test_the_layer_has_the_bits_of_einsum(backend, rng, rows):
    assert_the_layer_has_the_bits_of_einsum(backend, rng, rows, "float32")


@pytest.mark.needs("float16")
@pytest.mark.parametrize("rows", [7, 3000, 5000, 200_000])
def test_the_layer_has_the_bits_of_einsum_in_float16(backend, rng, rows):
    assert_the_layer_has_the_bits_of_einsum(backend, rng, rows, "float16")


def assert_the_layer_has_the_bits_of_einsum(backend, rng, rows, dtype):
    X, W, dY = ((rng.random(shape) / 4 + 0.1).astype(dtype) for shape in ((rows, 6), (6, 5), (rows, 5)))
    x, w, dy = (backend.asarray(array, chunks=(60_000, array.shape[1])) for array in (X, W, dY))
    for equation, operands, result in (
        ("nc,cs->ns", (x, w), fc.forward(x, w)),
        ("ns,cs->nc", (dy, w), fc.grad_input(dy, w)),
        ("nc,ns->cs", (x, dy), fc.grad_weight(x, dy)),
        ("ns->s", (dy,), fc.grad_bias(dy)),
    ):
        assert np.array_equal(*(namespace.to_numpy(y) for y in (fc.einsum(equation, *operands), result))), equation


@pytest.mark.needs("float16")
@pytest.mark.parametrize(
    "equation", ["nc->c", "cn->c", "nc->", "nc,ns->cs", "cn,ns->cs", "n,n->", "bn,bn->b", "nc,cs->ns"]
)
def test_float16_is_added_in_float32_and_rounded_once(backend, rng, equation):
    sizes = {"n": 20_000, "c": 3, "s": 2, "b": 2}
    inputs = equation.partition("->")[0].split(",")
    operands = [rng.uniform(0.1, 0.5, [sizes[label] for label in labels]).astype("float16") for labels in inputs]
    like = [backend.asarray(x, chunks=tuple(min(size, 3000) for size in x.shape)) for x in operands]
    result = namespace.to_numpy(fc.einsum(equation, *like))
    assert result.dtype == "float16"
    assert np.max(np.abs(result.astype("float64") / exact(equation, *operands) - 1)) <= 2.0**-11 * (1 + 1e-3)


@pytest.mark.only("numpy", "dask.array")
def test_float16_of_several_operands_is_rounded_once(backend, rng):
    A, B, C = (rng.uniform(0.5, 1, shape).astype("float16") for shape in ((50, 400), (400, 300), (300, 20)))
    A[:, :200] *= 800  # A @ B passes 65504
    tiny = (C / 1024).astype("float16")
    a = backend.asarray(A, chunks=(20, 100))
    result = namespace.to_numpy(fc.einsum("ab,bc,cd->ad", a, B, tiny, optimize=[(0, 1), (0, 1)]))
    assert np.max(np.abs(result / exact("ab,bc,cd->ad", A, B, tiny) - 1)) <= 2.0**-11 * (1 + 1e-3)


@pytest.mark.only("numpy", "dask.array")
def test_float16_products_without_a_sum_are_rounded_once_too(backend):
    a, c = (backend.asarray(np.asarray([value], "float16")) for value in (300, 2.0**-10))
    result = namespace.to_numpy(fc.einsum("a,b,c->abc", a, a, c, optimize=[(0, 1), (0, 1)]))
    assert result.item() == np.float16(90_000 / 1024)  # 90,000 is more than float16 holds


@pytest.mark.only("numpy")
@pytest.mark.parametrize("name", ["forward", "grad_input", "grad_weight", "einsum", "wide grad_weight"])
def test_float16_is_cast_a_few_rows_at_a_time(backend, name):
    C, S = (2000, 1000) if name.startswith("wide") else (700, 100)
    X, W, dY = np.ones((20_000, C), "float16"), np.ones((C, S), "float16"), np.ones((20_000, S), "float16")
    calls = {
        "forward": lambda: fc.forward(X, W),
        "einsum": lambda: fc.einsum("nc,cs->ns", X, W),
        "grad_input": lambda: fc.grad_input(dY, W),
        "grad_weight": lambda: fc.grad_weight(X, dY),
        "wide grad_weight": lambda: fc.grad_weight(X, dY),
    }
    calls[name]()
    tracemalloc.start()
    result = calls[name]()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - result.nbytes - 4 * W.size < 20e6
