"""The formulas, on every backend, against the literal forms of `fc_arrayapi.testing`."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from helpers.assertions import assert_array, nothing_computes, refused

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace
from fc_arrayapi._math import equations
from fc_arrayapi._math import linear as in_memory

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
LEADING = [(), (7,), (1,), (0,), (2, 3), (2, 0, 3), (2, 1, 3, 2)]
FEATURES = [(4, 3), (0, 3), (4, 0), (1, 1)]


def exchange(equation, operand):
    """Derive the gradient with respect to one operand: its indices and the output's are exchanged."""
    inputs, output = equation.split("->")
    operands = inputs.split(",")
    own, operands[operand] = operands[operand], output
    return sorted(operands), own


def parts(equation):
    inputs, output = equation.split("->")
    return sorted(inputs.split(",")), output


def test_gradient_equations_follow_from_the_forward_equation():
    assert parts(equations.GRAD_INPUT) == exchange(equations.FORWARD, 0)
    assert parts(equations.GRAD_WEIGHT) == exchange(equations.FORWARD, 1)
    assert (equations.FORWARD, equations.GRAD_WEIGHT, equations.GRAD_INPUT) == ("nc,cs->ns", "nc,ns->cs", "ns,cs->nc")
    assert equations.GRAD_BIAS == "ns->s"


def test_the_two_by_two_example_worked_by_hand(backend):
    X = backend.asarray([[1.0, 2.0], [3.0, 4.0]])
    W = backend.asarray([[5.0, 6.0], [7.0, 8.0]])
    B = backend.asarray([9.0, 10.0])
    dY = backend.asarray([[1.0, -2.0], [3.0, 0.5]])
    # Y[0][1] = X[0][0] W[0][1] + X[0][1] W[1][1] + B[1] = 1*6 + 2*8 + 10 = 32, and so on.
    assert_array(fc.forward(X, W, B), [[28.0, 32.0], [52.0, 60.0]], like=X, rtol=0)
    dX, dW, dB = fc.backward(X, W, dY)
    # dX[0][1] = dY[0][0] W[1][0] + dY[0][1] W[1][1] = 1*7 - 2*8 = -9
    assert_array(dX, [[-7.0, -9.0], [18.0, 25.0]], like=X, rtol=0)
    # dW[0][1] = dY[0][1] X[0][0] + dY[1][1] X[1][0] = -2*1 + 0.5*3 = -0.5
    assert_array(dW, [[10.0, -0.5], [14.0, -2.0]], like=X, rtol=0)
    # dB[1] = dY[0][1] + dY[1][1] = -2 + 0.5
    assert_array(dB, [4.0, -1.5], like=X, rtol=0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize(("C", "S"), FEATURES)
def test_every_formula_equals_the_literal_form(backend, rng, dtype, leading, C, S):
    draws = [rng.normal(size=shape).astype(dtype) for shape in ((*leading, C), (C, S), (S,), (*leading, S))]
    X, W, B, dY = (backend.asarray(draw) for draw in draws)
    wide = [draw.astype("float64") for draw in draws]
    rtol = TOLERANCE[dtype]
    with nothing_computes(backend):
        Y = fc.forward(X, W, B)
        without_bias = fc.forward(X, W)
        gradients = fc.backward(X, W, dY)
        apart = fc.Gradients(fc.grad_input(dY, W), fc.grad_weight(X, dY), fc.grad_bias(dY))
    assert_array(Y, fc.testing.reference_forward(*wide[:3]), like=X, rtol=rtol)
    assert_array(without_bias, fc.testing.reference_forward(*wide[:2]), like=X, rtol=rtol)
    expected = fc.testing.reference_backward(wide[0], wide[1], wide[3])
    for results in (gradients, apart):
        for result, reference in zip(results, expected, strict=True):
            assert_array(result, reference, like=X, rtol=rtol)


@pytest.mark.parametrize("needs", [(), ("dX",), ("dW",), ("dB",), ("dB", "dW"), ["dX", "dB"], {"dW"}])
def test_needs_computes_those_and_no_others(backend, batch, needs, monkeypatch):
    X, W, dY = (backend.asarray(batch[name]) for name in ("X", "W", "dY"))
    full = [namespace.to_numpy(part) for part in fc.backward(X, W, dY)]
    for name, module, function in (
        ("dX", in_memory, "_product_with_transpose"),
        ("dW", in_memory, "_sum_of_products"),
        ("dB", in_memory, "sum_rows"),
    ):
        if name not in needs:
            monkeypatch.delattr(module, function)  # calling it would be an error
    some = fc.backward(X, W, dY, needs=needs)
    for name, part, whole in zip(some._fields, some, full, strict=True):
        if name in needs:
            assert_array(part, whole, like=X, rtol=0)
        else:
            assert part is None


def test_gradients_of_micro_batches_add_up(backend, batch):
    X, W, dY = batch["X"], batch["W"], batch["dY"]
    whole = fc.backward(*(backend.asarray(a) for a in (X, W, dY)))
    like = backend.asarray(W)
    runs = [slice(0, 3), slice(3, 4), slice(4, 7)]
    first, second, third = (fc.backward(backend.asarray(X[run]), like, backend.asarray(dY[run])) for run in runs)
    joined = first + second + third
    for part, reference in zip(joined, whole, strict=True):
        assert_array(part, namespace.to_numpy(reference), like=like, rtol=1e-12)
    for part, reference in zip(sum([first, second, third]), joined, strict=True):
        assert_array(part, namespace.to_numpy(reference), like=like, rtol=0)
    only = fc.Gradients(None, whole.dW, None) + fc.Gradients(None, whole.dW, None)
    assert only.dX is None
    assert only.dB is None
    assert_array(only.dW, 2 * namespace.to_numpy(whole.dW), like=like, rtol=1e-12)


def test_gradients_that_do_not_belong_together_are_not_added(backend, batch):
    X, W, dY = (backend.asarray(batch[name]) for name in ("X", "W", "dY"))
    whole = fc.backward(X, W, dY)
    with refused(ValueError, "dX is None", "needs"):
        whole + fc.backward(X, W, dY, needs=("dW", "dB"))
    # (1, 3) and (4, 3) would broadcast.
    narrow = whole._replace(dW=backend.asarray(batch["W"][:1]))
    with refused(ValueError, "axis 0 of dW", "one has 4", "other has 1", "dW has shape (4, 3)", "(1, 3)"):
        whole + narrow
    sample = fc.backward(X[0, :], W, dY[0, :])
    with refused(ValueError, "dX has shape (4,)", "batch axis", "(1, C)"):
        sample + sample
    with pytest.raises(TypeError):
        whole + tuple(whole)
    for multiply in (lambda: whole * 2, lambda: 2 * whole):
        with refused(TypeError, "Gradients", "0.1 * grads.dW"):
            multiply()
    if backend.module != "numpy":
        article = "an" if backend.module[0] == "a" else "a"
        with refused(TypeError, f"dX is {article} {backend.module} array", "the other dX is a numpy array"):
            whole + fc.backward(batch["X"], batch["W"], batch["dY"])


def test_mixed_float_dtypes_are_promoted(backend, batch):
    X, dY = (backend.asarray(batch[name].astype("float32")) for name in ("X", "dY"))
    W, B = (backend.asarray(batch[name]) for name in ("W", "B"))
    reference = fc.testing.reference_forward(X, W, B)
    assert_array(fc.forward(X, W, B), reference, like=X, rtol=1e-12, dtype="float64")
    W32 = backend.asarray(batch["W"].astype("float32"))
    assert_array(fc.forward(X, W32, B), reference, like=X, rtol=1e-5, dtype="float64")
    assert namespace.dtype_name(fc.grad_input(dY, W).dtype) == "float64"
    assert namespace.dtype_name(fc.grad_weight(X, backend.asarray(batch["dY"])).dtype) == "float64"
    assert namespace.dtype_name(fc.grad_weight(X, dY).dtype) == "float32"


@pytest.mark.needs("float16")
@pytest.mark.parametrize("narrow", ["X", "W", "dY"])
def test_mixed_half_precision_is_promoted(backend, batch, narrow):
    arrays = {
        name: backend.asarray(np.round(batch[name], 1).astype("float16" if name == narrow else "float32"))
        for name in ("X", "W", "dY")
    }
    X, W, dY = arrays.values()
    expected = fc.testing.reference_backward(*(namespace.to_numpy(array).astype("float64") for array in (X, W, dY)))
    if narrow != "dY":
        reference = fc.testing.reference_forward(X, W)
        assert_array(fc.forward(X, W), reference, like=X, rtol=1e-3, dtype="float32")
    for part, reference, name in zip(fc.backward(X, W, dY), expected, ("dX", "dW", "dB"), strict=True):
        alone = name == "dB" or (name == "dX" and narrow == "X") or (name == "dW" and narrow == "W")
        dtype = namespace.dtype_name(dY.dtype) if alone else "float32"
        assert_array(part, reference, like=X, rtol=1e-3, dtype=dtype)


def layouts(array):
    """Give the same numbers in every layout that NumPy has."""
    reversed_ = array[::-1, ::-1].copy()[::-1, ::-1]
    strided = np.zeros((array.shape[0] * 2, array.shape[1] * 3), array.dtype)
    strided[::2, ::3] = array
    readonly = array.copy()
    readonly.flags.writeable = False
    return {
        "reversed": reversed_,
        "strided": strided[::2, ::3],
        "fortran": np.asfortranarray(array),
        "read-only": readonly,
        "big-endian": array.astype(array.dtype.newbyteorder(">")),
    }


@pytest.mark.only("numpy", "dask.array")
@pytest.mark.parametrize("layout", list(layouts(np.ones((2, 2)))))
def test_layouts_give_the_contiguous_answer_and_nothing_is_written(backend, batch, layout):
    arrays = {name: layouts(batch[name].reshape(-1, batch[name].shape[-1]))[layout] for name in batch}
    arrays["B"] = arrays["B"][0]
    before = {name: array.tobytes() for name, array in arrays.items()}
    X, W, B, dY = (backend.asarray(arrays[name]) for name in ("X", "W", "B", "dY"))
    results = (fc.forward(X, W, B), *fc.backward(X, W, dY))
    expected = (
        fc.testing.reference_forward(batch["X"], batch["W"], batch["B"]),
        *fc.testing.reference_backward(batch["X"], batch["W"], batch["dY"]),
    )
    for result, reference in zip(results, expected, strict=True):
        values = namespace.to_numpy(result)
        np.testing.assert_allclose(values, reference, rtol=1e-12, atol=1e-12)
        assert values.dtype.isnative
    assert {name: array.tobytes() for name, array in arrays.items()} == before


@pytest.mark.only("numpy", "array_api_strict", "torch", "cupy")  # the others' arrays are immutable
def test_results_are_not_views_of_the_inputs(backend, batch):
    dY = backend.asarray(batch["dY"][0])
    dB = fc.grad_bias(dY)
    dB[0] = 1000.0
    assert float(dY[0]) == batch["dY"][0, 0]


@pytest.mark.only("numpy")
def test_forward_is_c_ordered(backend, batch):
    assert fc.forward(batch["X"], batch["W"], batch["B"]).flags.c_contiguous


@pytest.mark.parametrize("elements", [0, in_memory.IN_PLACE_ELEMENTS])
def test_a_wider_bias_widens_y(backend, batch, elements, monkeypatch):
    """In place and out of place."""
    monkeypatch.setattr(in_memory, "IN_PLACE_ELEMENTS", elements)
    X, W = (backend.asarray(batch[name].astype("float32")) for name in ("X", "W"))
    B = backend.asarray(batch["B"])
    expected = fc.testing.reference_forward(batch["X"], batch["W"], batch["B"])
    assert_array(fc.forward(X, W, B), expected, like=B, rtol=1e-6)


@pytest.mark.only("numpy")
def test_forward_holds_nothing_of_the_size_of_y_beside_it(backend):
    X, W, B = np.ones((4096, 16)), np.ones((16, 128)), np.ones(128)
    fc.forward(X, W, B)
    tracemalloc.start()
    try:
        Y = fc.forward(X, W, B)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert Y.nbytes <= peak <= 1.1 * Y.nbytes


def test_needs_and_acc_dtype_are_checked(backend, batch):
    X, W, dY = (backend.asarray(batch[name]) for name in ("X", "W", "dY"))
    with refused(ValueError, "needs has 'dw'", "'dX'", "'dW'", "'dB'"):
        fc.backward(X, W, dY, needs=("dw",))
    for needs in ("dW", None, 5):
        with refused(TypeError, f"needs is {needs!r}", "needs=('dW', 'dB')"):
            fc.backward(X, W, dY, needs=needs)
    for call in (
        lambda dtype: fc.backward(X, W, dY, acc_dtype=dtype),
        lambda dtype: fc.grad_weight(X, dY, acc_dtype=dtype),
        lambda dtype: fc.grad_bias(dY, acc_dtype=dtype),
    ):
        integers = backend.dtype("int32")
        with refused(TypeError, f"acc_dtype is {integers!r}", f"of {backend.module}", "'float32'"):
            call(integers)
        with refused(TypeError, "acc_dtype is 'float33'", f"of {backend.module}", "'float32'"):
            call("float33")
        call("float32")


@pytest.mark.needs("float16")
def test_a_wide_bias_widens_the_product(backend):
    # In float16 the product overflows at 65504, and would be rounded before B is added.
    X, W = np.full((4, 300), 30, "float16"), np.full((300, 2), 30, "float16")
    X, W, B = (backend.asarray(array) for array in (X, W, np.asarray([1, 2], "float32")))
    assert_array(fc.forward(X, W, B), [[270_001.0, 270_002.0]] * 4, like=B, rtol=0)
