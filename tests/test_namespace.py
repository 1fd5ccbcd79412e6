"""Which library an array belongs to, and what is no array at all."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from helpers.assertions import assert_array, refused

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace
from fc_arrayapi._arrays.libraries import library


def test_each_backend_is_known_by_its_own_name(backend):
    array = backend.asarray(np.ones((2, 2)))
    assert library(namespace.of(array)).name == backend.module
    assert namespace.of(array) is namespace.wrapped(backend.xp)


def test_numpy_and_back_is_exact(backend, batch):
    for name in ("float32", "float64"):
        host = batch["X"].astype(name)
        array = namespace.from_numpy(host, namespace.wrapped(backend.xp), device=backend.device)
        assert_array(array, host, like=backend.asarray(host), rtol=0)


@pytest.mark.needs("bfloat16")
def test_bfloat16_comes_to_numpy_as_float32(backend):
    array = backend.xp.ones((2,), dtype=backend.xp.bfloat16) * 1.5
    np.testing.assert_array_equal(namespace.to_numpy(array), np.asarray([1.5, 1.5], "float32"), strict=True)


@pytest.mark.only("jax.numpy")
def test_a_dtype_that_jax_has_switched_off_is_refused(backend):
    import jax

    with (
        jax.enable_x64(False),
        refused(TypeError, "jax.numpy", "float64 as float32", "jax_enable_x64"),
        pytest.warns(UserWarning, match="float64"),
    ):
        namespace.from_numpy(np.ones(2), namespace.wrapped(backend.xp), dtype=np.float64)


@pytest.mark.only("jax.numpy")
def test_a_float0_array_leaves_numpy_as_it_was(backend):
    import jax

    with pytest.raises(TypeError):
        fc.grad_bias(np.zeros((3, 2), dtype=jax.dtypes.float0))
    assert type(fc.forward(np.ones((3, 2)), np.ones((2, 2)))) is np.ndarray


@pytest.mark.only("jax.numpy")
def test_float8_is_refused(backend):
    xp = backend.xp
    with refused(TypeError, "grad_bias: dY", "float8_e5m2", 'dY.astype("float32")'):
        fc.grad_bias(xp.ones((3, 2), xp.float8_e5m2))


@pytest.mark.only("jax.numpy")
def test_acc_dtype_float64_is_refused_if_jax_has_it_off(backend):
    import jax

    with jax.enable_x64(False):
        ones = backend.xp.ones((3, 2))
        with refused(TypeError, "acc_dtype is float64", "JAX", "jax_enable_x64"):
            fc.grad_bias(ones, acc_dtype="float64")


def test_another_numpy_subclass_is_an_array_and_stays_one():
    X = np.ones((3, 2)).view(np.recarray)
    for result in (fc.forward(X, np.ones((2, 4))), fc.grad_bias(X)):
        assert type(result) is np.recarray
    np.testing.assert_array_equal(np.asarray(fc.forward(X, np.ones((2, 4)))), np.full((3, 4), 2.0))


def test_a_memory_map_is_an_array(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    Y = fc.forward(np.load(tmp_path / "x.npy", mmap_mode="r"), np.ones((2, 4)))
    assert type(Y) is np.ndarray
    np.testing.assert_array_equal(Y, np.full((3, 4), 2.0))


@pytest.mark.only("array_api_strict", "torch", "jax.numpy", "cupy")
def test_a_mixture_of_libraries_names_arguments_and_libraries(backend, batch):
    X, W, dY = (backend.asarray(batch[name]) for name in ("X", "W", "dY"))
    name = backend.module
    own = f"an {name}" if name[0] == "a" else f"a {name}"
    for call, facts in (
        (
            lambda: fc.forward(X, W, batch["B"]),
            (f"X is {own} array", f"W is {own} array", "B is a numpy array", "B to the library of X"),
        ),
        (lambda: fc.forward(batch["X"], W), ("X is a numpy array", f"W is {own} array", "X to the library of W")),
        (lambda: fc.backward(batch["X"], W, batch["dY"]), ("convert X and dY to the library of W",)),
        (
            lambda: fc.backward(X, batch["W"], dY),
            (f"X is {own} array", "W is a numpy array", f"dY is {own} array", "W to the library of X"),
        ),
        (
            lambda: fc.grad_weight(X, batch["dY"]),
            (f"X is {own} array", "dY is a numpy array", "dY to the library of X"),
        ),
    ):
        with refused(TypeError, *facts):
            call()


@pytest.mark.only("jax.numpy")
def test_a_constant_beside_a_tracer_is_converted_and_not_the_tracer(backend, batch):
    import jax

    X, W = batch["X"], backend.asarray(batch["W"])
    for call, facts in (
        (lambda W: fc.forward(X, W), ("X is a numpy array", "convert X to the library of W")),
        (lambda dY: fc.grad_weight(X, dY), ("convert X to the library of dY",)),
        (lambda W: fc.einsum("nc,cs->ns", X, W), ("convert operand 0 to the library of operand 1",)),
        (lambda W: fc.einsum("cs,nc->ns", W, X), ("convert operand 1 to the library of operand 0",)),
    ):
        with refused(TypeError, *facts):
            jax.jit(call)(W)


@pytest.mark.only("dask.array")
def test_only_weights_may_be_numpy_beside_a_dask_batch(backend, batch):
    X, W, dY = (backend.asarray(batch[name]) for name in ("X", "W", "dY"))
    for call, facts in (
        (
            lambda: fc.backward(X, batch["W"], batch["dY"]),
            ("X is a dask.array array", "W is a numpy array", "dY is a numpy array", "dask.array.asarray(dY)"),
        ),
        (
            lambda: fc.forward(batch["X"], W),
            ("X is a numpy array", "W is a dask.array array", "dask.array.from_array(X)"),
        ),
        (
            lambda: fc.grad_weight(X, batch["dY"]),
            ("X is a dask.array array", "dY is a numpy array", "dY to the library of X"),
        ),
    ):
        with refused(TypeError, *facts):
            call()
    assert_array(fc.grad_input(dY, batch["W"]), batch["dY"] @ batch["W"].T, like=X, rtol=1e-12)


def test_a_module_that_is_not_an_array_library_is_refused():
    with refused(TypeError, f"xp is {re!r}", "array library"):
        fc.FullyConnected.init(2, 2, xp=re)


@pytest.mark.only("torch")
def test_a_view_that_negates_comes_to_numpy(backend):
    view = backend.xp.conj(backend.xp.tensor([1 + 2j, 3 - 4j])).imag
    assert view.is_neg()
    np.testing.assert_array_equal(namespace.to_numpy(view), [-2.0, 4.0])


@pytest.mark.only("jax.numpy")
def test_python_float_means_float64(backend):
    import jax

    with jax.enable_x64(False), refused(TypeError, "acc_dtype is float64", "JAX", "jax_enable_x64"):
        fc.grad_bias(backend.xp.ones((2, 2)), acc_dtype=float)


@pytest.mark.only("jax.numpy")
def test_promotion_in_jax_is_not_cached(backend):
    import jax

    rows = np.asarray([[2.0**24], [1.0], [2.0]])
    calls = (fc.grad_bias, lambda dY: fc.grad_weight(dY, dY)[0], lambda dY: fc.einsum("ns->s", dY))
    with jax.enable_x64(True):
        wide = backend.xp.asarray(rows)
    for call in calls:
        with jax.enable_x64(False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX says that it rounds
            call(wide)
        assert call(rows).dtype == "float64"
        with jax.enable_x64(True):
            assert call(wide).dtype == "float64"
