"""out= and memory_limit= of einsum, which opt_einsum has too."""

from __future__ import annotations

import numpy as np
import opt_einsum
import pytest
from helpers.assertions import assert_array, nothing_computes, refused
from helpers.equations import operands_of, reference

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace
from fc_arrayapi._math import einsum as in_memory

WRITABLE = pytest.mark.only("numpy", "torch", "cupy", "array_api_strict")
EQUATIONS = ["nc,cs->ns", "nc,cs->sn", "bi,bi->b", "ab->ba", "ab->", "aab->b", "a,b->ab", "nc,cr,rs->ns", "ab,bc,cd->"]


def zeros(backend, shape, dtype="float64"):
    return backend.asarray(np.zeros(shape, dtype))


@WRITABLE
@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_result_is_written_into_out_which_is_returned(backend, rng, equation):
    hosts = operands_of(equation, rng)
    operands, expected = [backend.asarray(host) for host in hosts], reference(equation, *hosts)
    out = zeros(backend, expected.shape)
    assert fc.einsum(equation, *operands, out=out) is out
    assert_array(out, expected, like=operands[0], rtol=1e-12)
    # opt_einsum writes out[:], which an array without axes does not take, nor does array-api-strict.
    if expected.ndim and backend.module != "array_api_strict":
        part = zeros(backend, (*expected.shape, 2))[..., 1]
        assert opt_einsum.contract(equation, *operands, out=part, backend="fc_arrayapi") is part
        assert_array(part, expected, like=operands[0], rtol=1e-12)


@WRITABLE
def test_out_may_be_an_operand(backend, rng):
    host = rng.normal(size=(50, 50))
    for equation in ("ab->ba", "ab,bc->ac", "ab->ab"):
        x = backend.asarray(host.copy())
        operands = [x] * (1 + equation.count(","))
        assert fc.einsum(equation, *operands, out=x) is x
        assert_array(x, np.einsum(equation, *[host] * len(operands)), like=x, rtol=1e-12)


@WRITABLE
def test_out_is_checked_before_anything_is_written(backend):
    x, ones = backend.asarray(np.ones((2, 3))), backend.asarray(np.ones((2, 2)))
    with refused(ValueError, "out has shape (2, 2)", "(3, 2)"):
        fc.einsum("ab->ba", x, out=ones)
    with refused(ValueError, "out has shape (1, 3)", "(2, 3)"):  # nothing broadcasts
        fc.einsum("ab->ab", x, out=zeros(backend, (1, 3)))
    with refused(TypeError, "out has dtype float32", "float64"):
        fc.einsum("ab->ba", x, out=zeros(backend, (3, 2), "float32"))
    with refused(TypeError, "out is a list", "numpy.asarray(out)"):
        fc.einsum("ab->ba", x, out=[0])
    if backend.module != "numpy":
        with refused(TypeError, "out is a numpy array", "einsum returns"):
            fc.einsum("ab->ba", x, out=np.zeros((3, 2)))
    with refused(ValueError, "index a", "operand 0 has 2 (axis 0)", "operand 0 has 3 (axis 1)"):
        fc.einsum("aa->a", x, out=ones)
    np.testing.assert_array_equal(namespace.to_numpy(ones), np.ones((2, 2)))


@pytest.mark.only("numpy", "jax.numpy", "dask.array", "torch")
def test_an_array_that_cannot_be_written_to_is_no_out(backend):
    x, out = backend.asarray(np.ones((2, 3))), zeros(backend, (3, 2))
    if backend.module == "numpy":
        out.flags.writeable = False
    elif backend.module == "torch":
        out.requires_grad_()
    with nothing_computes(backend):
        with refused(TypeError, "out", "can't be written to", "einsum returns"):
            fc.einsum("ab->ba", x, out=out)
        if backend.module in ("numpy", "jax.numpy"):
            with pytest.raises((TypeError, ValueError), match=r"read-only|immutable|can't be written to"):
                opt_einsum.contract("ab,bc->ac", x, backend.asarray(np.ones((3, 2))), out=out, backend="fc_arrayapi")


# The cheapest path begins with bc,cd and makes 40 numbers; ab,bc makes 25.
CHAIN = [(5, 20), (20, 5), (5, 2)]


def test_memory_limit_is_the_elements_of_an_intermediate(backend, rng):
    a, b, c = (rng.normal(size=shape) for shape in CHAIN)
    operands = [backend.asarray(host) for host in (a, b, c)]
    for limit in (None, 25, 1, 10**9, 1e9, -1, "max_input"):  # with 1 no path is found
        with nothing_computes(backend):
            result = fc.einsum("ab,bc,cd->ad", *operands, memory_limit=limit)
        assert_array(result, a @ b @ c, like=operands[0], rtol=1e-12)
    for limit in ("1 GB", 0, -2, 0.5, [1]):
        with refused(ValueError, f"memory_limit is {limit!r}", "elements", "'max_input'"):
            fc.einsum("ab,bc,cd->ad", *operands, memory_limit=limit)


@pytest.mark.only("numpy")
def test_memory_limit_chooses_the_path(backend, monkeypatch):
    operands = [np.ones(shape) for shape in CHAIN]
    made = []
    lowered = in_memory.lower
    monkeypatch.setattr(in_memory, "lower", lambda step: made.append(step) or lowered(step))
    for limit, first in ((None, "bc,cd->bd"), (25, "ab,bc->ac"), (40, "bc,cd->bd"), (39, "ab,bc->ac")):
        made.clear()
        fc.einsum("ab,bc,cd->ad", *operands, memory_limit=limit)
        assert made[0] == first
