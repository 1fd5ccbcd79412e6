"""Wrong input: one table of input -> exception and the facts of its message, on every backend.

Nothing is computed before an error: Dask runs under a scheduler that raises.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from helpers.assertions import nothing_computes, refused
from helpers.wrong_input import (
    BROADCASTS,
    CALLS,
    CASES,
    EACH_ARGUMENT,
    NUMPY_CASES,
    TWO_AXES,
    added,
    in_code,
    with_one,
    zeros,
)

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace


def assert_refused(backend, row, arrays):
    function, _, exception, facts = row
    with nothing_computes(backend), refused(exception, *map(backend.spelled, facts)) as raised:
        function(*arrays)
    return str(raised.value)


@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_is_refused_before_anything_is_computed(backend, case):
    assert_refused(backend, CASES[case], [backend.asarray(argument) for argument in CASES[case][1]])


@pytest.mark.parametrize("case", list(CASES))
def test_a_size_of_1_is_told_that_it_does_not_broadcast(backend, case):
    message = assert_refused(backend, CASES[case], [backend.asarray(argument) for argument in CASES[case][1]])
    assert ("broadcasts" in message or "not broadcast" in message) == (case in BROADCASTS)


@pytest.mark.only("numpy", "dask.array")
@pytest.mark.parametrize("case", list(NUMPY_CASES))
def test_arrays_that_are_not_numeric_are_refused(backend, case):
    assert_refused(backend, NUMPY_CASES[case], [backend.asarray(argument) for argument in NUMPY_CASES[case][1]])


@pytest.mark.only("numpy", "dask.array")
@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float6_e2m3fn", "float4_e2m1fn"])
@pytest.mark.parametrize(("where", "argument"), EACH_ARGUMENT)
def test_floats_of_ml_dtypes_are_refused_in_numpy(backend, where, argument, dtype):
    """NumPy promotes them to no other dtype."""
    import ml_dtypes

    function = CALLS[where][0]
    arrays = with_one(where, argument, lambda shape: zeros(*shape).astype(getattr(ml_dtypes, dtype)))
    facts = (f"{where}: {argument}", dtype, f'{in_code(argument)}.astype("float32")')
    assert_refused(backend, (function, (), TypeError, facts), map(backend.asarray, arrays))


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_is_refused_in_blocks_of_one_too(backend, case):
    """Where chunks have length 1, Dask's own products broadcast silently."""
    arguments = CASES[case][1]
    arrays = [backend.asarray(argument, chunks=(1,) * argument.ndim) for argument in arguments]
    assert_refused(backend, CASES[case], arrays)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_that_is_built_lazily_is_refused(backend, case):
    """There is no array in memory behind it, and no block that could be looked at."""
    arrays = [backend.xp.zeros(argument.shape, dtype=argument.dtype, chunks=2) for argument in CASES[case][1]]
    assert_refused(backend, CASES[case], arrays)


@pytest.mark.only("jax.numpy")
@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_is_refused_while_it_is_traced(backend, case):
    import jax

    function, arguments, exception, facts = CASES[case]
    traced = [backend.asarray(argument) for argument in arguments]
    assert_refused(backend, (lambda *arrays: jax.eval_shape(function, *arrays), arguments, exception, facts), traced)


@pytest.mark.only("torch")
@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_without_data_is_refused(backend, case):
    assert_refused(backend, CASES[case], [backend.asarray(argument).to("meta") for argument in CASES[case][1]])


class Frame:
    """Like a table of pandas: it turns into an array, and is none."""

    shape, ndim, dtype = (7, 4), 2, np.dtype("float64")

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("it was converted silently")


class Sparse:
    """Like a matrix of scipy.sparse: `numpy.asarray` makes one object of it."""

    shape, ndim, dtype = (7, 4), 2, np.dtype("float64")

    def toarray(self):
        raise AssertionError("it was converted silently")


class Table(Frame):
    """Like a table of Dask: `numpy.asarray` loads all of it."""

    def to_dask_array(self, lengths):
        raise AssertionError("it was computed silently")


class Labelled(Frame):
    """Like an array of xarray, with a Dask array in it: `numpy.asarray` computes all of it."""

    chunks = ((7,), (4,))

    @property
    def data(self):
        raise AssertionError("it was looked into")


AS_NUMPY = "numpy.asarray(NAME)"
NO_ARRAYS = {
    # what a message calls it: (value, the call that makes an array of it)
    "a list": ([[1.0]], AS_NUMPY),
    "a tuple": (((1.0,),), AS_NUMPY),
    "a float": (1.0, AS_NUMPY),
    "an int": (1, AS_NUMPY),
    "a bool": (True, AS_NUMPY),
    "a str": ("X", AS_NUMPY),
    "a memoryview": (memoryview(b"1"), AS_NUMPY),
    "a test_checks.Frame": (Frame(), AS_NUMPY),
    "a test_checks.Sparse": (Sparse(), "NAME.toarray()"),
    "a test_checks.Table": (Table(), "NAME.to_dask_array(lengths=True)"),
    "a test_checks.Labelled": (Labelled(), "NAME.data"),
    "the class numpy.ndarray": (np.ndarray, None),
    "None": (None, None),
}


@pytest.mark.parametrize("what", list(NO_ARRAYS))
@pytest.mark.parametrize(("where", "argument"), EACH_ARGUMENT)
def test_values_that_are_not_arrays_are_refused(backend, where, argument, what):
    value, advice = NO_ARRAYS[what]
    function, shapes = CALLS[where]
    arrays = [value if name == argument else backend.asarray(zeros(*shape)) for name, shape in shapes.items()]
    facts = (f"{argument} is {what}", "array API standard")
    if advice is not None:
        facts += (advice.replace("NAME", in_code(argument)),)
    row = (function, arrays, TypeError, facts)
    if value is None and argument == "B":
        function(*arrays)  # a layer without bias
        return
    if value is None and where == "Gradients + Gradients":
        row = (*row[:2], ValueError, ("dX is None", "needs"))
    assert_refused(backend, row, arrays)


@pytest.mark.parametrize("library", ["h5py", "zarr"])
@pytest.mark.parametrize(("where", "argument"), EACH_ARGUMENT)
def test_arrays_on_disk_are_refused_unread(backend, tmp_path, where, argument, library):
    import h5py
    import zarr

    with h5py.File(tmp_path / "x.h5", "w") as file:
        if library == "h5py":
            make = functools.partial(file.create_dataset, "x", dtype="f8", chunks=True)
        else:
            make = functools.partial(zarr.create_array, str(tmp_path / "x.zarr"), dtype="f8")
        value = make(shape=(7, 4))
        arrays = [value if name == argument else backend.asarray(zeros(*s)) for name, s in CALLS[where][1].items()]
        facts = (f"{argument} is a {type(value).__module__}", "fc_arrayapi.open_array", f"{in_code(argument)}[...]")
        assert_refused(backend, (CALLS[where][0], arrays, TypeError, facts), arrays)
    if library == "h5py":  # closed
        assert_refused(backend, (CALLS[where][0], arrays, TypeError, (argument, "fc_arrayapi.open_array")), arrays)


@pytest.mark.only("numpy")
def test_einsum_refuses_arrays_on_disk_unread(backend, tmp_path):
    import zarr

    value = zarr.create_array(str(tmp_path / "x.zarr"), shape=(7, 4), dtype="f8")
    with refused(TypeError, "operand 1 is a zarr", "fc_arrayapi.open_array", "operand_1[...]"):
        fc.einsum("nc,nd->cd", zeros(7, 4), value)
    with refused(TypeError, "a is a zarr", "fc_arrayapi.open_array", "a[...]"):
        fc.tensordot(value, zeros(4, 3), 1)


# NumPy arrays whose meaning a product would drop.
MISREAD = {
    "masked": (np.ma.zeros, "NAME is a numpy.ma.MaskedArray", "mask", "CODE.filled(0)"),
    "matrix": (lambda shape: np.zeros(shape).view(np.matrix), "NAME is a numpy.matrix", "numpy.asarray(CODE)"),
    "record": (lambda shape: np.rec.array(np.zeros(shape, [("a", "f8")])), "WHERE: NAME", "record64", "CODE['a']"),
}


@pytest.mark.only("numpy")
@pytest.mark.parametrize("kind", list(MISREAD))
@pytest.mark.parametrize(("where", "argument"), EACH_ARGUMENT)
def test_numpy_arrays_that_a_product_would_misread_are_refused(backend, where, argument, kind):
    make, *facts = MISREAD[kind]
    names = {"NAME": argument, "CODE": in_code(argument), "WHERE": where}
    for name, value in names.items():
        facts = [fact.replace(name, value) for fact in facts]
    arrays = with_one(where, argument, make)
    assert_refused(backend, (CALLS[where][0], arrays, TypeError, facts), arrays)


# What a message advises where one argument is a NumPy array: in memory, and beside Dask arrays, where None is allowed.
MIXTURES = {
    ("forward", "X"): ("X to the library of W", "dask.array.from_array(X)"),
    ("forward", "W"): ("W to the library of X", None),
    ("forward", "B"): ("B to the library of X", None),
    ("grad_input", "dY"): ("dY to the library of W", "dask.array.from_array(dY)"),
    ("grad_input", "W"): ("W to the library of dY", None),
    ("grad_weight", "X"): ("X to the library of dY", "dask.array.from_array(X)"),
    ("grad_weight", "dY"): ("dY to the library of X", "dY to the library of X"),
    ("backward", "X"): ("X to the library of W", "dask.array.from_array(X)"),
    ("backward", "W"): ("W to the library of X", None),
    ("backward", "dY"): (
        "dY to the library of X",
        "dask.array.asarray(dY)",
    ),
    ("einsum_backward 'nc,cs->ns'", "operand 0"): ("operand 0 to the library of operand 1", None),
    ("einsum_backward 'nc,cs->ns'", "operand 1"): ("operand 1 to the library of operand 0", None),
    ("einsum_backward 'nc,cs->ns'", "dY"): ("dY to the library of operand 0", None),
    ("FullyConnected", "W"): (
        "W to the library of B",
        "dask.array.from_array(W)",
    ),
    ("FullyConnected", "B"): ("B to the library of W", "B to the library of W"),
    ("Gradients + Gradients", "dX"): (
        "dX to the library of the other dX",
        "dask.array.from_array(dX)",
    ),
    ("Gradients + Gradients", "the other dX"): (
        "the other dX to the library of dX",
        "the other dX to the library of dX",
    ),
}


def test_the_mixtures_are_those_of_every_argument():
    assert list(MIXTURES) == [pair for pair in EACH_ARGUMENT if len(CALLS[pair[0]][1]) > 1]


@pytest.mark.only("array_api_strict", "dask.array", "torch", "jax.numpy", "cupy")
@pytest.mark.parametrize(("where", "argument"), list(MIXTURES))
def test_libraries_do_not_mix(backend, where, argument):
    function, shapes = CALLS[where]
    arrays = [zeros(*shape) if name == argument else backend.asarray(zeros(*shape)) for name, shape in shapes.items()]
    advice = MIXTURES[where, argument][backend.chunked]
    if advice is None:
        with nothing_computes(backend):
            function(*arrays)
        return
    own = f"an {backend.module}" if backend.module[0] == "a" else f"a {backend.module}"
    kinds = [f"{name} is {'a numpy' if name == argument else own} array" for name in shapes]
    assert_refused(backend, (function, arrays, TypeError, (*kinds, "one library", advice)), arrays)


@pytest.mark.only("array_api_strict", "torch")
@pytest.mark.parametrize(("where", "argument"), list(MIXTURES))
def test_devices_do_not_mix(backend, where, argument):
    function, shapes = CALLS[where]
    elsewhere = "meta" if backend.module == "torch" else backend.xp.Device("device1")
    arrays = {name: backend.asarray(zeros(*shape)) for name, shape in shapes.items()}
    function(*arrays.values())
    arrays[argument] = backend.xp.zeros(shapes[argument], dtype=backend.dtype("float64"), device=elsewhere)
    on = [f"{name} is on {array.device}" for name, array in arrays.items()]
    assert len({str(array.device) for array in arrays.values()}) == 2
    first = next(iter(shapes))
    facts = (where, *on, f"device of {first}")
    assert_refused(backend, (function, arrays, ValueError, facts), arrays.values())


NAMED = ("'dX'", "'dW'", "'dB'")
WRITE = "needs=('dW', 'dB')"
NEEDS = {
    # needs: (exception, facts of the message)
    ("dw",): (ValueError, ("needs has 'dw'", *NAMED)),
    ("dX", "Y"): (ValueError, ("needs has 'Y'", *NAMED)),
    (None,): (ValueError, ("needs has None", *NAMED)),
    "dW": (TypeError, ("needs is 'dW'", WRITE)),
    b"dW": (TypeError, ("needs is b'dW'", WRITE)),
    None: (TypeError, ("needs is None", WRITE)),
    True: (TypeError, ("needs is True", WRITE)),
}


@pytest.mark.parametrize("needs", list(NEEDS), ids=repr)
def test_other_needs_are_refused(backend, needs):
    arrays = [backend.asarray(zeros(*shape)) for shape in ((7, 4), (4, 3), (7, 3))]
    layer = fc.FullyConnected(arrays[1])
    for function in (
        lambda X, W, dY: fc.backward(X, W, dY, needs=needs),
        lambda X, W, dY: layer.backward(X, dY, needs=needs),
    ):
        assert_refused(backend, (function, arrays, *NEEDS[needs]), arrays)


@pytest.mark.parametrize("acc_dtype", ["float33", "int32", "bool", "complex64", "zeros", 3, ("float32",)], ids=repr)
def test_another_acc_dtype_is_refused(backend, acc_dtype):
    arrays = [backend.asarray(zeros(*shape)) for shape in ((7, 4), (4, 3), (7, 3))]
    layer = fc.FullyConnected(arrays[1])
    facts = (f"acc_dtype is {acc_dtype!r}", f"of {backend.module}", "'float32'")
    for function in (
        lambda X, W, dY: fc.backward(X, W, dY, acc_dtype=acc_dtype),
        lambda X, W, dY: layer.backward(X, dY, acc_dtype=acc_dtype),
        lambda X, W, dY: fc.grad_weight(X, dY, acc_dtype=acc_dtype),
        lambda X, W, dY: fc.grad_bias(dY, acc_dtype=acc_dtype),
    ):
        assert_refused(backend, (function, arrays, TypeError, facts), arrays)


@pytest.mark.parametrize("wide", ["X", "W", "B", "dY"])
def test_mixed_float_dtypes_are_promoted_as_the_standard_does(backend, batch, wide):
    """Not refused: rule 4 of the design."""
    X, W, B, dY = (
        backend.asarray(batch[name].astype("float64" if name == wide else "float32")) for name in ("X", "W", "B", "dY")
    )
    layer = fc.FullyConnected(W, B)
    with nothing_computes(backend):
        results = {"Y": (fc.forward(X, W, B), layer(X)), "XW": (fc.forward(X, W),)}
        alone = fc.Gradients(fc.grad_input(dY, W), fc.grad_weight(X, dY), fc.grad_bias(dY))
        for gradients in (fc.backward(X, W, dY), layer.backward(X, dY), alone):
            for name, part in gradients._asdict().items():
                results[name] = (*results.get(name, ()), part)
    made_of = {"Y": "X W B", "XW": "X W", "dX": "dY W", "dW": "X dY", "dB": "dY"}
    for name, arrays in results.items():
        expected = "float64" if wide in made_of[name].split() else "float32"
        assert [namespace.dtype_name(array.dtype) for array in arrays] == [expected] * len(arrays)
        assert {namespace.to_numpy(array).dtype.name for array in arrays} == {expected}


UNKNOWN_CASES = {
    # name: (what is called with arrays of unknown axes, facts of the message)
    "forward, features of X": (
        lambda a: fc.forward(a["X of unknown features"], a["W"]),
        ("forward nc,cs->ns", "axis 1", "(8, ?)", "X has an unknown number", "X.compute_chunk_sizes()"),
    ),
    "backward, features of X": (
        lambda a: fc.backward(a["X of unknown features"], a["W"], a["dY"]),
        ("backward", "axis 1", "(8, ?)", "X has an unknown number", "X.compute_chunk_sizes()"),
    ),
    "backward, features of dY": (
        lambda a: fc.backward(a["X"], a["W"], a["dY of unknown features"]),
        ("backward", "axis 1", "(8, ?)", "dY has an unknown number", "dY.compute_chunk_sizes()"),
    ),
    "grad_input, features of dY": (
        lambda a: fc.grad_input(a["dY of unknown features"], a["W"]),
        (
            "grad_input ns,cs->nc",
            "axis 1",
            "(8, ?)",
            "dY has an unknown number",
            "dY.compute_chunk_sizes()",
        ),
    ),
    "grad_weight, features of dY": (
        lambda a: fc.grad_weight(a["X"], a["dY of unknown features"]),
        (
            "grad_weight nc,ns->cs",
            "axis 1",
            "(8, ?)",
            "dY has an unknown number",
            "dY.compute_chunk_sizes()",
        ),
    ),
    "grad_bias, features of dY": (
        lambda a: fc.grad_bias(a["dY of unknown features"]),
        ("grad_bias ns->s", "axis 1", "(8, ?)", "dY has an unknown number", "dY.compute_chunk_sizes()"),
    ),
    "grad_bias, dY of rank 1": (
        lambda a: fc.grad_bias(a["dY of unknown rows"][:, 0]),
        ("grad_bias ns->s", "axis 0", "(?,)", "dY has an unknown number", "dY.compute_chunk_sizes()"),
    ),
    "forward, columns of W": (
        lambda a: fc.forward(a["X"], a["W of unknown columns"]),
        ("W has blocks of unknown size", "(4, ?)", "W.compute_chunk_sizes()"),
    ),
    "forward, columns of W beside B": (
        lambda a: fc.forward(a["X"], a["W of unknown columns"], a["B"]),
        (
            "forward nc,cs->ns",
            "axis s",
            "B has 3",
            "W has an unknown number",
            "B has shape (3,)",
            "(4, ?)",
            "W.compute_chunk_sizes()",
        ),
    ),
    "forward, rows of W": (
        lambda a: fc.forward(a["X"], a["W of unknown rows"]),
        (
            "forward nc,cs->ns",
            "axis c",
            "X has 4",
            "W has an unknown number",
            "X has shape (8, 4)",
            "(?, 3)",
            "W.compute_chunk_sizes()",
        ),
    ),
    "backward, columns of W": (
        lambda a: fc.backward(a["X"], a["W of unknown columns"], a["dY"]),
        (
            "backward",
            "axis s",
            "dY has 3",
            "W has an unknown number",
            "dY has shape (8, 3)",
            "(4, ?)",
            "W.compute_chunk_sizes()",
        ),
    ),
    "forward, B": (
        lambda a: fc.forward(a["X"], a["W"], a["unknown B"]),
        (
            "forward nc,cs->ns",
            "axis s",
            "B has an unknown number",
            "W has 3",
            "B has shape (?,)",
            "(4, 3)",
            "B.compute_chunk_sizes()",
        ),
    ),
    "a layer's B": (
        lambda a: fc.FullyConnected(a["W"], a["unknown B"]),
        (
            "FullyConnected",
            "axis s",
            "B has an unknown number",
            "W has 3",
            "B has shape (?,)",
            "(4, 3)",
            "B.compute_chunk_sizes()",
        ),
    ),
    "a layer's W of rank 1": (
        lambda a: fc.FullyConnected(a["unknown B"]),
        ("FullyConnected: W", "(C, S)", "(?,)", TWO_AXES),
    ),
    "grad_weight, blocks of the batch": (
        lambda a: fc.grad_weight(a["X of unknown rows"], a["dY of unknown rows"]),
        (
            "axis n",
            "axis 0",
            "X has 4 blocks",
            "dY has 2 blocks",
            "X has shape (?, 4)",
            "(?, 3)",
            "compute_chunk_sizes() on X and dY",
        ),
    ),
    "backward, blocks of the batch": (
        lambda a: fc.backward(a["X of unknown rows"], a["W"], a["dY"]),
        (
            "axis n",
            "axis 0",
            "X has 4 blocks",
            "dY has 2 blocks",
            "X has shape (?, 4)",
            "(8, 3)",
            "compute_chunk_sizes() on X first",
        ),
    ),
    "Gradients, features of dX": (
        lambda a: added(a["X"], a["X of unknown features"]),
        ("axis 1 of dX", "one has 4", "other has an unknown number", "compute_chunk_sizes()", "each dX"),
    ),
    "Gradients, leading axes of dX": (
        lambda a: added(a["X of unknown sequences"], a["X of unknown sequences"]),
        (
            "axis 1 of dX",
            "one has an unknown number",
            "other has an unknown number",
            "compute_chunk_sizes()",
            "each dX",
        ),
    ),
}


@pytest.mark.only("dask.array")
@pytest.mark.needs("unknown_chunks")
@pytest.mark.parametrize("case", list(UNKNOWN_CASES))
def test_unknown_sizes_of_features_are_refused(backend, case):
    arrays = {
        "X": backend.asarray(zeros(8, 4), chunks=(2, 4)),
        "W": backend.asarray(zeros(4, 3), chunks=(4, 3)),
        "B": backend.asarray(zeros(3), chunks=3),
        "dY": backend.asarray(zeros(8, 3), chunks=(4, 3)),
    }

    def unknown(array, axis):
        kept = backend.asarray(np.ones(array.shape[axis], bool), chunks=(array.chunks[axis],))
        return array[(slice(None),) * axis + (kept,)]

    arrays |= {f"{name} of unknown rows": unknown(arrays[name], 0) for name in ("X", "W", "dY")}
    arrays |= {f"{name} of unknown features": unknown(arrays[name], 1) for name in ("X", "dY")}
    arrays |= {"W of unknown columns": unknown(arrays["W"], 1), "unknown B": unknown(arrays["B"], 0)}
    arrays["X of unknown sequences"] = unknown(backend.asarray(zeros(2, 8, 4), chunks=(1, 2, 4)), 1)
    call, facts = UNKNOWN_CASES[case]
    assert_refused(backend, (call, (), ValueError, facts), [arrays])


@pytest.mark.only("array_api_strict")
def test_results_stay_on_the_device_of_the_inputs(backend, batch):
    on_device = backend.xp.Device("device1")
    X, W, B = (backend.xp.asarray(batch[name], device=on_device) for name in ("X", "W", "B"))
    Y = fc.forward(X, W, B)
    assert Y.device == on_device
    grads = fc.backward(X, W, Y)
    assert {part.device for part in grads} == {on_device}
    long = backend.xp.ones((20000, 2), device=on_device)
    assert fc.grad_weight(long, long).device == on_device
    assert fc.grad_bias(long).device == on_device
