"""The literal forms, against loops that multiply one entry by another; and the checks, against planted faults."""

from __future__ import annotations

import itertools
import types

import numpy as np
import pytest
from helpers.assertions import lacks, nothing_computes, refused

import fc_arrayapi as fc
from fc_arrayapi import _linear
from fc_arrayapi._arrays import namespace
from fc_arrayapi._dask import blocks
from fc_arrayapi.testing import adjoint, backends, gradients


def test_the_literal_forms_equal_loops_over_every_entry(rng):
    N, C, S = 5, 4, 3
    X, W, B, dY = rng.normal(size=(N, C)), rng.normal(size=(C, S)), rng.normal(size=S), rng.normal(size=(N, S))
    Y = np.zeros((N, S)) + B
    dX, dW, dB = np.zeros((N, C)), np.zeros((C, S)), np.zeros(S)
    for n, s in itertools.product(range(N), range(S)):
        dB[s] += dY[n, s]
        for c in range(C):
            Y[n, s] += X[n, c] * W[c, s]
            dX[n, c] += dY[n, s] * W[c, s]
            dW[c, s] += dY[n, s] * X[n, c]
    np.testing.assert_allclose(fc.testing.reference_forward(X, W, B), Y, rtol=1e-13, atol=1e-13)
    for part, expected in zip(fc.testing.reference_backward(X, W, dY), (dX, dW, dB), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-13, atol=1e-13)


def test_the_gradients_are_those_of_the_forward_pass(rng):
    """Y is linear in each argument, so a central difference is exact to rounding, whatever the step."""
    X, W, B, dY = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=(5, 3))
    gradients = fc.testing.reference_backward(X, W, dY)
    for position, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            low, high = [X, W, B], [X, W, B]
            low[position], high[position] = low[position].copy(), high[position].copy()
            low[position][index] -= 0.5
            high[position][index] += 0.5
            difference = fc.testing.reference_forward(*high) - fc.testing.reference_forward(*low)
            np.testing.assert_allclose(gradient[index], (difference * dY).sum(), rtol=1e-12, atol=1e-12)


def test_leading_axes_are_the_batch(rng):
    X, W, dY = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 5)), rng.normal(size=(2, 3, 5))
    assert fc.testing.reference_forward(X, W).shape == (2, 3, 5)
    assert [part.shape for part in fc.testing.reference_backward(X, W, dY)] == [(2, 3, 4), (4, 5), (5,)]
    assert fc.testing.reference_forward(X[0, 0], W).shape == (5,)


# check_gradients


def square(rng, N=9, C=4):
    """X, W, B and dY of as many input as output features, so that a transposed W fits."""
    return rng.normal(size=(N, C)), rng.normal(size=(C, C)), rng.normal(size=C), rng.normal(size=(N, C))


def of_backend(backend, arrays, dtype="float64"):
    return [None if array is None else backend.asarray(array.astype(dtype)) for array in arrays]


def failing(report):
    return {check.name for check in report.checks if not check.ok}


def with_backward(**parts):
    """Return `fc.backward` with another dX, dW or dB, made from X, W and dY."""
    return lambda X, W, dY: fc.backward(X, W, dY)._replace(**{name: make(X, W, dY) for name, make in parts.items()})


def cast(array, dtype):
    """Cast by the method where there is one: Dask has no other way under query planning."""
    return array.astype(dtype) if hasattr(array, "astype") else namespace.of(array).astype(array, dtype)


def mean(array, X):
    """Divide a sum by N. Under query planning Dask's quotient is float64."""
    return cast(array / X.shape[0], X.dtype)


def half(array):
    return array[: array.shape[0] // 2, :]


WRONG_FORWARD = {
    "without B": lambda X, W, B: fc.forward(X, W),
    "B subtracted": lambda X, W, B: fc.forward(X, W, -B),
    "W transposed": lambda X, W, B: fc.forward(X, W.T, B),
    "without a feature": lambda X, W, B: fc.forward(X[..., 1:], W[1:, :], B),
    "a row twice": lambda X, W, B: fc.forward(namespace.of(X).concat([X[:1, :], X[:-1, :]]), W, B),
}
WRONG_BACKWARD = {
    "dX of the wrong sign": ("dX", lambda X, W, dY: -fc.grad_input(dY, W)),
    "dX of W transposed": ("dX", lambda X, W, dY: fc.grad_input(dY, W.T)),
    "dX divided by N": ("dX", lambda X, W, dY: mean(fc.grad_input(dY, W), X)),
    "dX without a feature": ("dX", lambda X, W, dY: fc.grad_input(dY[:, 1:], W[:, 1:])),
    "dW divided by N": ("dW", lambda X, W, dY: mean(fc.grad_weight(X, dY), X)),
    "dW transposed": ("dW", lambda X, W, dY: fc.grad_weight(dY, X)),
    "dW of half of the batch": ("dW", lambda X, W, dY: fc.grad_weight(half(X), half(dY))),
    "dW without the last row": ("dW", lambda X, W, dY: fc.grad_weight(X[:-1, :], dY[:-1, :])),
    "dB the mean": ("dB", lambda X, W, dY: mean(fc.grad_bias(dY), X)),
    "dB of half of the batch": ("dB", lambda X, W, dY: fc.grad_bias(half(dY))),
    "dB of X": ("dB", lambda X, W, dY: fc.grad_bias(X)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("leading", [(), (9,), (2, 3), (0,), (600,)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_the_gradients_of_the_layer_pass(backend, rng, leading, bias, dtype):
    shapes = (*leading, 4), (4, 3), (3,), (*leading, 3)
    X, W, B, dY = of_backend(backend, [rng.normal(size=shape) for shape in shapes], dtype)
    report = fc.testing.check_gradients(X, W, B if bias else None, dY)
    assert report.ok
    assert [check.name for check in report.checks] == ["Y", "dX", "dW", "dB"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.needs("float16", "bfloat16")
def test_narrow_gradients_pass(backend, rng, dtype):
    arrays = [backend.xp.asarray(array, dtype=backend.dtype(dtype), device=backend.device) for array in square(rng)]
    assert fc.testing.check_gradients(*arrays).ok


@pytest.mark.only("numpy")
@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_gradients_wider_than_the_comparison_pass(backend, rng, scale):
    arrays = [scale * array.astype("longdouble") for array in square(rng)]
    assert fc.testing.check_gradients(*arrays).ok
    wrong = with_backward(dB=lambda X, W, dY: 1.001 * fc.grad_bias(dY))
    assert failing(gradients.examine(*arrays, backward=wrong)) == ({"dB"} if scale else set())


@pytest.mark.parametrize("fault", WRONG_FORWARD)
def test_a_wrong_forward_is_found(backend, rng, fault):
    arrays = of_backend(backend, square(rng))
    with pytest.raises(AssertionError) as raised:
        fc.testing.check_gradients(*arrays, forward=WRONG_FORWARD[fault])
    first = str(raised.value).split("\n")[0]
    assert first.startswith(f"Y: {gradients.IDENTITIES['Y']} ")
    Y = gradients.examine(*arrays, forward=WRONG_FORWARD[fault]).checks[0]
    assert Y.name == "Y"
    assert lacks(first, f"{Y.off:.2g}", f"{Y.tolerance:.2g}") == []


@pytest.mark.parametrize("fault", WRONG_BACKWARD)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_wrong_gradient_is_found_and_no_other_is_blamed(backend, rng, fault, dtype):
    name, make = WRONG_BACKWARD[fault]
    arrays = of_backend(backend, square(rng), dtype)
    report = gradients.examine(*arrays, backward=with_backward(**{name: make}))
    assert failing(report) == {name}
    with pytest.raises(AssertionError) as raised:
        fc.testing.check_gradients(*arrays, backward=with_backward(**{name: make}))
    first, *table = str(raised.value).split("\n")
    assert first.startswith(f"{name}: {gradients.IDENTITIES[name]} ")
    assert "\n".join(table) == str(report)


def test_a_result_of_another_shape_or_dtype_is_named(backend, batch):
    X, W, B, dY = of_backend(backend, batch.values())
    backward = with_backward(dW=lambda X, W, dY: fc.grad_weight(dY, X), dB=lambda X, W, dY: dY)
    with pytest.raises(AssertionError) as raised:
        fc.testing.check_gradients(X, W, B, dY, backward=backward)
    dW, dB = str(raised.value).split("\n")[0].split("; ")
    assert dW.startswith("dW: ")
    assert lacks(dW, "is float64 (3, 4)", "be float64 (4, 3)") == []
    assert dB.startswith("dB: ")
    assert lacks(dB, "is float64 (7, 3)", "be float64 (3,)") == []

    def narrow(X, W, B):
        return cast(fc.forward(X, W, B), backend.dtype("float32"))

    with pytest.raises(AssertionError) as raised:
        fc.testing.check_gradients(X, W, B, dY, forward=narrow)
    first = str(raised.value).split("\n")[0]
    assert first.startswith("Y: ")
    assert lacks(first, "is float32 (7, 3)", "be float64 (7, 3)") == []


def test_a_result_that_is_not_compared_says_why(backend, batch):
    arrays = of_backend(backend, batch.values())
    report = gradients.examine(*arrays, forward=lambda X, W, B: fc.forward(X, W[:, :2], B[:2]))
    assert [check.name for check in report.checks] == ["Y", "dX", "dW", "dB"]  # without Y there is no difference
    Y, *others = report.checks
    assert lacks(Y.why, "is float64 (7, 2)", "be float64 (7, 3)") == []
    assert (Y.identity, Y.off, str(Y)) == (gradients.IDENTITIES["Y"], np.inf, f"Y: {Y.why}")
    assert str(report).splitlines()[1].startswith(f"Y     {Y.why}  inf ")
    assert all(check.ok and not check.why for check in others)


TRIPLE = "(dX, dW, dB)"
RETURNED = {
    # what forward and backward return instead: (option, function, facts of the message)
    "no Y": ("forward", lambda X, W, B: None, ("forward", "None for Y", "array of LIBRARY")),
    "a list": ("forward", lambda X, W, B: [[1.0]], ("forward", "list for Y", "array of LIBRARY")),
    "no gradients": ("backward", lambda X, W, dY: None, ("backward", "returns None", TRIPLE)),
    "two gradients": ("backward", lambda X, W, dY: (X, W), ("backward", "tuple of 2", TRIPLE)),
    "a number": ("backward", lambda X, W, dY: (None, None, 1.0), ("backward", "float for dB", "array of LIBRARY")),
}


@pytest.mark.parametrize("case", RETURNED)
def test_check_gradients_refuses_values_that_are_not_results(backend, batch, case):
    option, function, facts = RETURNED[case]
    facts = [fact.replace("LIBRARY", backend.module) for fact in facts]
    with nothing_computes(backend), refused(TypeError, *facts):
        fc.testing.check_gradients(*of_backend(backend, batch.values()), **{option: function})


@pytest.mark.only("dask.array")
def test_a_lazy_batch_has_lazy_results(backend, batch):
    arrays = of_backend(backend, batch.values())
    with refused(TypeError, "forward", "numpy.ndarray for Y", "array of dask.array"):
        fc.testing.check_gradients(*arrays, forward=lambda X, W, B: np.zeros(X.shape[:1] + W.shape[1:]))
    sums = with_backward(
        **{name: lambda X, W, dY, n=name: fc.compute(getattr(fc.backward(X, W, dY), n))[0] for name in ("dW", "dB")}
    )
    assert fc.testing.check_gradients(*arrays, backward=sums).ok


def test_gradients_that_are_not_made_are_not_checked(rng):
    report = fc.testing.check_gradients(*square(rng), backward=lambda X, W, dY: (None, X.T @ dY, None))
    assert [check.name for check in report.checks] == ["Y", "dW"]


@pytest.mark.parametrize("name", ["Y", "dX"])
def test_one_wrong_number_of_many_rows_is_found(rng, name):
    def spoilt(array):
        array[7777, 2] *= 1.001
        return array

    arrays = square(rng, N=10_000)
    report = gradients.examine(
        *arrays,
        forward=lambda *a: spoilt(fc.forward(*a)) if name == "Y" and len(a[0]) > 7777 else fc.forward(*a),
        backward=lambda *a: (
            fc.backward(*a)._replace(dX=spoilt(fc.backward(*a).dX))
            if name == "dX" and len(a[0]) > 7777
            else fc.backward(*a)
        ),
    )
    assert [check.name for check in report.checks if not check.ok] == [name]


def test_nan_is_wrong(rng):
    report = gradients.examine(*square(rng), backward=with_backward(dX=lambda X, W, dY: X * np.nan))
    assert failing(report) == {"dX"}


def test_a_sum_that_drifts_is_found():
    X, dY = np.full((2**20, 2), 0.1, "float32"), np.full((2**20, 1), 0.1, "float32")
    W = np.ones((2, 1), "float32")
    assert fc.testing.check_gradients(X, W, None, dY).ok
    drifts = with_backward(dB=lambda X, W, dY: np.cumsum(dY, axis=0, dtype="float32")[-1])
    assert "dB" in failing(gradients.examine(X, W, None, dY, backward=drifts))


@pytest.mark.parametrize("fault", ["none", "dW of an input feature", "dW of an output feature", "dB"])
def test_a_feature_of_small_scale_is_checked_beside_one_of_large_scale(backend, rng, fault):
    """Its gradient is zero, in float32."""
    scales = np.asarray([1e5, 1e-3, 1.0, 1.0])
    X, W, B, dY = square(rng, N=600)
    X, dY = (scales * X, dY) if fault == "dW of an input feature" else (X, scales * dY)
    kept = np.ones((4, 4))
    kept[(1, slice(None)) if fault == "dW of an input feature" else (slice(None), 1)] = 0
    X, W, B, dY, kept, kept_of_dB = of_backend(backend, [X, W, B, dY, kept, kept[0]], "float32")
    # Dask's own product makes no float32 under query planning.
    wrong = {
        "dW": lambda X, W, dY: fc.einsum("cs,cs->cs", fc.grad_weight(X, dY), kept),
        "dB": lambda X, W, dY: fc.einsum("s,s->s", fc.grad_bias(dY), kept_of_dB),
    }
    planted = {name: make for name, make in wrong.items() if fault.startswith(name)}
    report = gradients.examine(X, W, B, dY, backward=with_backward(**planted))
    assert failing(report) == planted.keys()


A_THOUSANDTH_MORE = {
    "forward": lambda X, W, B: cast(1.001 * fc.forward(X, W, B), X.dtype),
    "backward": lambda X, W, dY: tuple(cast(1.001 * part, X.dtype) for part in fc.backward(X, W, dY)),
}


@pytest.mark.parametrize("scale", [1e200, 1e-200])
@pytest.mark.parametrize("position", range(4), ids=["X", "W", "B", "dY"])
def test_numbers_whose_squares_are_not_finite_or_zero_are_compared(backend, rng, position, scale):
    arrays = [array * (scale if place == position else 1.0) for place, array in enumerate(square(rng, N=5000))]
    X, W, B, dY = of_backend(backend, arrays)
    assert fc.testing.check_gradients(X, W, B, dY).ok
    report = gradients.examine(X, W, B, dY, **A_THOUSANDTH_MORE)
    assert failing(report) == {"Y", "dX", "dW", "dB"}


@pytest.mark.needs("float16")
def test_sums_below_the_smallest_normal_number_have_no_relative_error(backend, rng):
    scales = 1e-3, 1.0, 1.0, 1e-4
    arrays = [scale * array for scale, array in zip(scales, square(rng), strict=True)]
    assert fc.testing.check_gradients(*of_backend(backend, arrays, "float16")).ok


def test_parts_of_the_batch_merge_to_the_numbers_of_all_rows(backend, rng, monkeypatch):
    X, W, B, dY = square(rng, N=100)
    whole = gradients.examine(X, W, B, dY, **A_THOUSANDTH_MORE)
    off = abs(0.001 * dY.sum(axis=0)) / np.sqrt((dY**2).sum(axis=0) + (1.001 * dY.sum(axis=0)) ** 2)
    np.testing.assert_allclose(whole.checks[3].off, off.max(), rtol=1e-9)
    monkeypatch.setattr(adjoint, "SLICE_ROWS", 7)
    parts = gradients.examine(*of_backend(backend, [X, W, B, dY]), **A_THOUSANDTH_MORE)
    np.testing.assert_allclose([check.off for check in parts.checks], [check.off for check in whole.checks], rtol=1e-9)


def test_arguments_that_do_not_fit_are_refused_as_by_the_layer(rng):
    X, W, B, dY = square(rng)
    with refused(ValueError, "axis c", "X has 4", "W has 3"):
        fc.testing.check_gradients(X, W[1:], B, dY)
    with refused(ValueError, "directions is 0", "positive"):
        fc.testing.check_gradients(X, W, B, dY, directions=0)
    for directions in (1.5, "3", None):
        with refused(TypeError, f"directions is {directions!r}", "integer"):
            fc.testing.check_gradients(X, W, B, dY, directions=directions)
    assert fc.testing.check_gradients(X, W, B, dY, directions=np.int64(2)).ok


def test_the_report_prints_as_a_table(rng):
    report = fc.testing.check_gradients(*square(rng, N=300))
    lines = str(report).splitlines()
    assert lines[0].split() == ["off", "by", "may", "be"]
    assert [line[:6].strip() for line in lines[1:]] == [check.name for check in report.checks]
    assert all(line.endswith(" ok") for line in lines[1:])


class Source:
    """An array-like on Dask's side of which it is known what was read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.rows_read = 0

    def __getitem__(self, index):
        block = self.array[index]
        if block.size:
            self.rows_read += len(block)
        return block


@pytest.mark.only("dask.array")
def test_a_lazy_batch_is_read_once_and_never_held(backend, rng):
    import dask
    from dask.callbacks import Callback

    held = []

    class CountRows(Callback):
        def _posttask(self, key, result, graph, state, worker):
            held.append(sum(getattr(value, "shape", (0,))[:1] == (50,) for value in state["cache"].values()))

    X, W, B, dY = square(rng, N=2000)
    sources = Source(X), Source(dY)
    x, dy = (blocks.from_source(source, 50) for source in sources)
    with dask.config.set(scheduler="synchronous"), CountRows():
        report = fc.testing.check_gradients(x, W, B, dy)
    assert report.ok
    assert max(held) <= 20  # blocks of X, dY, Y and dX together, of 40 of each: half of one array at most
    assert all(source.rows_read == 2000 for source in sources)


@pytest.mark.only("dask.array")
def test_building_computes_nothing(backend, rng, monkeypatch):
    class StartedError(Exception):
        pass

    def compute(*lazy):
        raise StartedError

    monkeypatch.setattr(adjoint.compute, "compute", compute)
    with nothing_computes(backend), pytest.raises(StartedError):
        fc.testing.check_gradients(*of_backend(backend, square(rng)))


@pytest.mark.only("dask.array")
@pytest.mark.needs("unknown_chunks")
def test_check_gradients_of_blocks_of_unknown_size(backend, rng):
    X, W, B, dY = square(rng)
    x, dy = (backend.asarray(array, chunks=(3, 4)) for array in (X, dY))
    x, dy = (array[backend.asarray(X[:, 0] > 0, chunks=3)] for array in (x, dy))
    report = fc.testing.check_gradients(x, W, B, dy)
    assert [check.name for check in report.checks] == ["Y", "dX", "dW", "dB"]
    wrong = gradients.examine(x, W, B, dy, backward=with_backward(dX=lambda X, W, dY: fc.grad_input(dY, W.T)))
    assert failing(wrong) == {"dX"}


# check_backend


@pytest.fixture
def few_rows(monkeypatch):
    """Long sums are tried in one test."""
    monkeypatch.setattr(backends, "MANY_ROWS", 1000)


def failed(report):
    return {check.what: check.why for check in report.checks if not check.ok}


def test_every_backend_passes(backend):
    report = fc.testing.check_backend(backend.xp)
    assert failed(report) == {}
    assert report.library == backend.module
    assert all(line.endswith(" ok") for line in str(report).splitlines()[1:])


RESULTS_OF = {"Y": "forward", "dX": "backward", "dW": "backward", "dB": "backward"}


@pytest.mark.parametrize("name", RESULTS_OF)
def test_a_wrong_result_is_named(few_rows, backend, monkeypatch, name):
    right = getattr(_linear, RESULTS_OF[name])

    def wrong(*arrays, **options):
        result = right(*arrays, **options)
        if name == "Y":
            return cast(1.01 * result, result.dtype)
        part = getattr(result, name)
        return result if part is None else result._replace(**{name: cast(1.01 * part, part.dtype)})

    monkeypatch.setattr(_linear, RESULTS_OF[name], wrong)
    why = failed(fc.testing.check_backend(backend.xp))
    assert name in why
    assert not why.keys() & (RESULTS_OF.keys() - {name})
    assert why[name].startswith(f"{name} in float32 ")


def test_a_gradient_that_is_none_is_found_though_the_literal_form_agrees(few_rows, monkeypatch):
    def wrong(function):
        return lambda *arrays, **options: function(*arrays, **options)._replace(dB=1.01 * function(*arrays).dB)

    monkeypatch.setattr(_linear, "backward", wrong(_linear.backward))
    monkeypatch.setattr(backends, "reference_backward", wrong(backends.reference_backward))
    assert failed(fc.testing.check_backend(np))["dB"].startswith("float32: dB: <dY, 1 U> = <dB, U> ")


def fake_library(**changed):
    """Return a library of the standard, which is NumPy but for some functions."""

    class Fake:
        def __init__(self, array):
            self.array = np.asarray(array)

        def __array_namespace__(self, *, api_version=None):
            return xp

        def __array__(self, dtype=None, copy=None):
            return np.array(self.array, dtype=dtype, copy=copy)

        def __getitem__(self, index):
            return Fake(self.array[index])

        def __add__(self, other):
            return Fake(self.array + inside(other))

        def __mul__(self, other):
            return Fake(self.array * inside(other))

        def __matmul__(self, other):
            return xp.matmul(self, other)

        T = property(lambda self: Fake(self.array.T))
        shape = property(lambda self: self.array.shape)
        dtype = property(lambda self: self.array.dtype)
        ndim = property(lambda self: self.array.ndim)
        device = "cpu"

    def inside(value):
        return [inside(item) for item in value] if isinstance(value, list) else getattr(value, "array", value)

    def lifted(function):
        def call(*arguments, **options):
            result = function(*map(inside, arguments), **options)
            return Fake(result) if isinstance(result, np.ndarray | np.floating) else result

        return call

    names = ["astype", "asarray", "concat", "isdtype", "matmul", "matrix_transpose", "multiply", "ones", "permute_dims"]
    names += ["reshape", "result_type", "sum", "zeros"]
    functions = {name: getattr(np, name) for name in names} | changed
    xp = types.ModuleType("fake")
    vars(xp).update(
        {name: lifted(function) for name, function in functions.items()}, float32=np.float32, float64=np.float64
    )
    return xp


def test_a_library_of_the_standard_passes(few_rows):
    report = fc.testing.check_backend(fake_library())
    assert failed(report) == {}
    assert str(report).startswith("fake\n  float32            ok\n")


def test_arrays_of_float32_for_float64_are_found_and_said_once(few_rows):
    xp = fake_library(asarray=lambda array, dtype=None, device=None: np.asarray(array, dtype="float32"))
    assert failed(fc.testing.check_backend(xp)).keys() == {"float64"}
    why = failed(fc.testing.check_backend(xp))["float64"]
    assert lacks(why, "is float32 (50, 7)", "be float64 (50, 7)") == []
    assert why.count("float32") == 1


def test_results_of_float32_for_float64_are_found(few_rows):
    xp = fake_library(matmul=lambda a, b: np.matmul(a, b).astype("float32"))
    why = failed(fc.testing.check_backend(xp))
    assert lacks(why["dX"], "dX is float32 (50, 7)", "be float64 (50, 7)") == []
    assert why["dW"].startswith("dW in float64 ")  # the layer rounds sums to their dtype


def test_products_in_half_precision_are_found(few_rows):
    xp = fake_library(matmul=lambda a, b: np.matmul(a.astype("float16"), b.astype("float16")).astype(a.dtype))
    assert {"Y", "dX", "dW"} <= failed(fc.testing.check_backend(xp)).keys()


def test_sums_that_drift_are_found():
    def drifting(array, axis=None, dtype=None):
        axes = tuple(range(array.ndim)) if axis is None else axis
        for one in sorted(np.atleast_1d(axes), reverse=True):
            array = np.full_like(array.take(0, axis=one), 0) if array.shape[one] == 0 else array.sum(axis=one)
        return (array * 1.001).astype(dtype or array.dtype)

    assert {"dB", "long sums"} <= failed(fc.testing.check_backend(fake_library(sum=drifting))).keys()


def many_matrices(matmul):
    """Return a matmul that is `matmul` of stacks of more than 64 matrices."""
    return lambda a, b: matmul(a, b) if a.ndim == b.ndim == 3 and len(a) > 64 else np.matmul(a, b)


def three_axes(order):
    """Return a permute_dims that takes another order of 3 axes."""
    return lambda x, axes: np.permute_dims(x, order(axes) if x.ndim == 3 else axes)


PLANTED = {
    # in which lines it is found, the function and its fault
    "rows of other matrices": ({"long sums", "einsum"}, {"matmul": many_matrices(lambda a, b: np.matmul(a, b[::-1]))}),
    "matrices in another order": ({"einsum"}, {"matmul": many_matrices(lambda a, b: np.matmul(a, b)[::-1])}),
    "axes in reverse order": ({"einsum"}, {"permute_dims": three_axes(lambda axes: axes[::-1])}),
    "axes turned the other way": ({"einsum"}, {"permute_dims": three_axes(lambda axes: tuple(np.argsort(axes)))}),
    "products of zero": ({"einsum"}, {"multiply": lambda a, b: np.zeros_like(np.multiply(a, b))}),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_in_one_function_is_found(fault):
    lines, changed = PLANTED[fault]
    assert failed(fc.testing.check_backend(fake_library(**changed))).keys() == lines


def test_a_plain_sum_is_found(monkeypatch):
    """By the equal numbers: of random ones it is right to 1e-5."""
    right = _linear.backward

    def plain(X, W, dY, **options):
        return right(X, W, dY, **options)._replace(dB=np.cumsum(dY, axis=0, dtype=dY.dtype)[-1])

    monkeypatch.setattr(_linear, "backward", plain)
    why = failed(fc.testing.check_backend(np))["long sums"]
    assert why.startswith("dB of equal numbers in float32 ")
    assert "random" not in why


def test_check_backend_of_an_incomplete_library_is_a_table(few_rows):
    def missing(*arguments, **options):
        raise NotImplementedError("no such thing\nhere")

    why = failed(fc.testing.check_backend(fake_library(permute_dims=missing)))
    assert why["views"] == "NotImplementedError: no such thing here"
    assert why["einsum"].startswith("2 of 12 equations: nc->cn: NotImplementedError: no such thing here; abc->cab: ")
    why = failed(fc.testing.check_backend(fake_library(matmul=missing)))
    assert {"Y", "dX", "dW"} <= why.keys()
    assert "float64" not in why


def test_sizes_that_are_taken_are_found(few_rows, monkeypatch):
    monkeypatch.setattr(_linear, "forward", lambda X, W, B=None: X[:, :5])
    assert lacks(failed(fc.testing.check_backend(np))["sizes that differ"], "X of C - 1 features") == []


def test_check_backend_of_any_object_is_a_table():
    report = fc.testing.check_backend(itertools)
    assert not any(check.ok for check in report.checks)
    assert lacks(report.checks[0].why, f"xp is {itertools!r}", "array library") == []
