"""Arrays in every memory layout: the contiguous answer comes out, and no byte of an input is written.

The numbers are small whole numbers, so that every sum is exact in every order: results are compared
bit by bit, also where another layout takes another kernel.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from helpers.assertions import assert_array, nothing_computes

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace

NAMES = ("X", "W", "B", "dY")
SHAPES = {
    # name: the shapes of X, W, B and dY
    "matrix": ((6, 4), (4, 3), (3,), (6, 3)),
    "leading axes": ((2, 3, 4), (4, 3), (3,), (2, 3, 3)),
    "one sample": ((4,), (4, 3), (3,), (3,)),
    "no batch": ((0, 4), (4, 3), (3,), (0, 3)),
    "no input features": ((6, 0), (0, 3), (3,), (6, 3)),
    "no output features": ((6, 4), (4, 0), (0,), (6, 0)),
    # Sums over the batch go in runs, and B is added in place.
    "long": ((9000, 3), (3, 8), (8,), (9000, 8)),
}


def strided(array):
    """Every second or third number of an array that is larger along each axis."""
    steps = (2, 3, 2)[: array.ndim]
    base = np.full([n * step for n, step in zip(array.shape, steps, strict=True)], 99, array.dtype)
    every = tuple(slice(None, None, step) for step in steps)
    base[every] = array
    return base[every]


def window(array):
    """Take the middle of an array that is larger on each side."""
    base = np.full([n + 2 for n in array.shape], 99, array.dtype)
    middle = (slice(1, -1),) * array.ndim
    base[middle] = array
    return base[middle]


def transposed(array):
    return array.T.copy().T


def broadcast_rows(array):
    """Repeat the last axis along all others, with strides of 0."""
    return np.broadcast_to(array[(slice(0, 1),) * (array.ndim - 1)].copy(), array.shape)


def broadcast_columns(array):
    return np.broadcast_to(array[..., :1].copy(), array.shape)


def one_number(array):
    """Give an array of which every stride is 0."""
    return np.broadcast_to(np.full((1,) * array.ndim, 3, array.dtype), array.shape)


def overlapping(array):
    """Give rows that share all their numbers but one."""
    numbers = np.arange(sum(array.shape) + 1, dtype=array.dtype) % 7
    return np.ndarray(array.shape, array.dtype, numbers, strides=(array.itemsize,) * array.ndim)


def reversed_along_each_axis(array):
    back = (slice(None, None, -1),) * array.ndim
    return array[back].copy()[back]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def read_only_bytes(array):
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) if array.size else read_only(array)


def unaligned(array):
    """Start one byte beyond where the processor would like it."""
    base = np.zeros(array.nbytes + 1, "uint8")
    view = base[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def big_endian(array):
    return array.astype(array.dtype.newbyteorder(">"))


def big_endian_reversed(array):
    return reversed_along_each_axis(big_endian(array))


EVERYWHERE = {
    function.__name__.replace("_", " "): function
    for function in (strided, window, transposed, broadcast_rows, broadcast_columns, one_number, overlapping)
}
# torch has no negative strides, and takes no arrays that it may not write to; CuPy copies what comes from NumPy.
NOT_IN_TORCH = {
    function.__name__.replace("_", " "): function
    for function in (reversed_along_each_axis, read_only, read_only_bytes, unaligned)
}
# array-api-strict, JAX and torch have one byte order, this machine's.
NUMPY_ALONE = {function.__name__.replace("_", " "): function for function in (big_endian, big_endian_reversed)}
LAYOUTS = EVERYWHERE | NOT_IN_TORCH | NUMPY_ALONE


# What is laid out so, the other arrays being contiguous, and the shapes.
LAID_OUT = [
    *((name, "matrix") for name in NAMES),
    *((name, "long") for name in ("X", "B", "dY")),
    *(("all", shapes) for shapes in SHAPES),
]


def base_of(view):
    """Return the array that owns the memory, or the bytes that do."""
    while isinstance(view, np.ndarray) and view.base is not None:
        view = view.base
    return view


def lay_out(backend, view):
    """Give a library an array that lies in memory as the NumPy view does, where the library can."""
    if backend.module != "torch":
        return backend.asarray(view, chunks=tuple(max(1, -(-n // 2)) for n in view.shape))
    base = backend.asarray(base_of(view).ravel(order="K"))
    strides = [stride // view.itemsize for stride in view.strides]
    start = view.__array_interface__["data"][0] - base_of(view).__array_interface__["data"][0]
    return base.as_strided(view.shape, strides, start // view.itemsize if view.size else 0)


def hashes(views):
    return {
        name: [hashlib.sha256(np.asarray(part).tobytes()).hexdigest() for part in (view, base_of(view))]
        for name, view in views.items()
    }


def whole_numbers(rng, shapes, dtype):
    return {
        name: rng.integers(-4, 5, size=shape).astype(dtype) for name, shape in zip(NAMES, SHAPES[shapes], strict=True)
    }


# An einsum that may return an operand; of one sample it does.
OPERAND_ITSELF = "einsum dB"


def everything(X, W, B, dY):
    """Call every function with the arrays, and einsum with some."""
    layer = fc.FullyConnected(W, B)
    backward = fc.backward(X, W, dY)
    return {
        "forward": fc.forward(X, W, B),
        "forward without B": fc.forward(X, W),
        "layer": layer(X),
        "grad_input": fc.grad_input(dY, W),
        "grad_weight": fc.grad_weight(X, dY),
        "grad_bias": fc.grad_bias(dY),
        "backward dX": backward.dX,
        "backward dW": backward.dW,
        "backward dB": backward.dB,
        "layer.backward dW": layer.backward(X, dY, needs=("dW",)).dW,
        "einsum Y": fc.einsum("...c,cs->...s", X, W),
        "einsum dX": fc.einsum("...s,cs->...c", dY, W),
        "einsum dW": fc.einsum("...c,...s->cs", X, dY),
        "einsum dB": fc.einsum("...s->s", dY),
        "einsum of three": fc.einsum("...c,cs,...s->s", X, W, dY),
        "joined W": (fc.Gradients(None, W, B) + fc.Gradients(None, W, B)).dW,
    }


def assert_contiguous_answer(backend, views):
    """Compare with what NumPy says of contiguous copies, bit by bit, and look at the inputs' bytes."""
    before = hashes(views)
    native = {name: view.astype(view.dtype.newbyteorder("=")) for name, view in views.items()}  # in the same order
    copies = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in native.items()}
    assert all(array.flags.c_contiguous for array in copies.values())
    with nothing_computes(backend):
        arrays = {name: lay_out(backend, view) for name, view in views.items()}
        results = everything(**arrays)
    like = arrays["X"]
    assert all(getattr(results[name].dtype, "isnative", True) for name in results if name != OPERAND_ITSELF)
    if backend.chunked:
        assert {namespace.of(result) for result in results.values()} == {namespace.of(like)}
        results, like = fc.compute(results)[0], copies["X"]
    for name, expected in everything(**copies).items():
        assert_array(results[name], expected, like=like, rtol=0)
        assert name == OPERAND_ITSELF or namespace.to_numpy(results[name]).dtype.isnative
    literal = (
        fc.testing.reference_forward(copies["X"], copies["W"], copies["B"]),
        *fc.testing.reference_backward(copies["X"], copies["W"], copies["dY"]),
    )
    for name, reference in zip(("forward", "grad_input", "grad_weight", "grad_bias"), literal, strict=True):
        assert_array(results[name], reference, like=like, rtol=0)
    assert hashes(views) == before
    if backend.module == "numpy":
        of_layer = [result for name, result in results.items() if not name.startswith("einsum")]
        assert not any(np.may_share_memory(result, view) for result in of_layer for view in views.values())


def assert_layout(backend, rng, layout, laid_out, shapes, dtype):
    numbers = whole_numbers(rng, shapes, dtype)
    views = {
        name: LAYOUTS[layout](array) if laid_out in (name, "all") else array.copy() for name, array in numbers.items()
    }
    assert_contiguous_answer(backend, views)


@pytest.mark.only("numpy")
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_no_layout_is_an_ordinary_array(backend, layout):
    view = LAYOUTS[layout](np.ones((6, 4)))
    flags = view.flags
    assert type(view) is np.ndarray
    assert not (flags.c_contiguous and flags.aligned and flags.writeable and view.dtype.isnative)


@pytest.mark.only("numpy", "array_api_strict", "torch")
@pytest.mark.parametrize("layout", list(EVERYWHERE))
def test_the_library_s_array_lies_where_the_view_does(backend, layout):
    """So the hash of the view's memory says whether the library wrote there."""
    view = LAYOUTS[layout](np.ones((6, 4)))
    array = lay_out(backend, view)
    array = array.numpy() if backend.module == "torch" else np.asarray(array)
    assert array.__array_interface__["data"][0] == view.__array_interface__["data"][0]
    assert array.strides == view.strides


@pytest.mark.parametrize(("laid_out", "shapes"), LAID_OUT)
@pytest.mark.parametrize("layout", list(EVERYWHERE))
def test_layouts_of_every_library(backend, rng, layout, laid_out, shapes):
    assert_layout(backend, rng, layout, laid_out, shapes, "float64")


@pytest.mark.only("numpy", "array_api_strict", "dask.array", "jax.numpy")
@pytest.mark.parametrize(("laid_out", "shapes"), LAID_OUT)
@pytest.mark.parametrize("layout", list(NOT_IN_TORCH))
def test_layouts_that_torch_does_not_support(backend, rng, layout, laid_out, shapes):
    assert_layout(backend, rng, layout, laid_out, shapes, "float64")


@pytest.mark.only("numpy", "dask.array")
@pytest.mark.parametrize(("laid_out", "shapes"), LAID_OUT)
@pytest.mark.parametrize("layout", list(NUMPY_ALONE))
def test_another_byte_order_gives_this_machine_s(backend, rng, layout, laid_out, shapes):
    assert_layout(backend, rng, layout, laid_out, shapes, "float64")


@pytest.mark.only("numpy")
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_layouts_of_narrow_dtypes(backend, rng, layout, dtype):
    """float16 is cast leaf by leaf."""
    assert_layout(backend, rng, layout, "all", "matrix" if dtype == "float16" else "long", dtype)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_layouts_of_numpy_weights_beside_dask(backend, rng, layout):
    numbers = whole_numbers(rng, "matrix", "float64")
    views = {name: LAYOUTS[layout](numbers[name]) for name in ("W", "B")}
    before = hashes(views)
    X, dY = (backend.asarray(numbers[name]) for name in ("X", "dY"))
    with nothing_computes(backend):
        Y = fc.forward(X, views["W"], views["B"])
        dX = fc.backward(X, views["W"], dY).dX
    W, B = (view.astype("float64") for view in views.values())
    assert_array(Y, fc.testing.reference_forward(numbers["X"], W, B), like=X, rtol=0)
    assert_array(dX, fc.testing.reference_backward(numbers["X"], W, numbers["dY"]).dX, like=X, rtol=0)
    assert Y.dtype.isnative
    assert Y.compute().dtype.isnative
    assert hashes(views) == before


@pytest.mark.only("numpy", "dask.array")
def test_another_byte_order_is_an_acc_dtype_of_this_machine_s(backend):
    ones = backend.asarray(np.ones((6, 4), "float32"))
    for dB in (fc.grad_bias(ones, acc_dtype=np.dtype(">f8")), fc.grad_bias(ones, acc_dtype=np.dtype("<f8"))):
        assert_array(dB, [6.0] * 4, like=ones, rtol=0)
        assert namespace.to_numpy(dB).dtype.isnative
