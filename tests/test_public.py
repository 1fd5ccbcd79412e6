"""The public surface: its names, where they seem to live, and what they take by name."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.assertions import assert_array, refused

import fc_arrayapi as fc
from fc_arrayapi import testing
from fc_arrayapi._arrays import namespace

DOCS = Path(__file__).parent.parent / "docs"
STABILITY = DOCS / "stability.md"


def names_in_the_docs(module):
    """Return the names in the list of stability.md below the line that begins with a module's name."""
    below = STABILITY.read_text().split(f"\n`{module}`:\n\n")[1]
    return re.findall(r"^- `(\w+)`$", below.split("\n\n")[0], re.MULTILINE)


@pytest.mark.parametrize("module", [fc, testing], ids=lambda module: module.__name__)
def test_public_names_are_those_of_the_page(module):
    assert sorted(module.__all__) == names_in_the_docs(module.__name__)


@pytest.mark.parametrize("module", [fc, testing], ids=lambda module: module.__name__)
def test_public_names_are_in_the_table_of_the_reference_and_on_its_pages(module):
    table = set(re.findall(r"^   (\w+)$", (DOCS / "reference.md").read_text(), re.MULTILINE))
    pages = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    described = set(re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)$", pages, re.MULTILINE))
    assert set(module.__all__) - {"testing"} <= table & described


@pytest.mark.parametrize("module", [fc, testing], ids=lambda module: module.__name__)
def test_dir_has_public_names_and_those_of_python(module):
    others = set(dir(module)) - set(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    assert [name for name in others if not re.fullmatch(r"__\w+__", name)] == []


@pytest.mark.parametrize("module", [fc, testing], ids=lambda module: module.__name__)
def test_public_objects_show_the_public_path(module):
    for name in set(module.__all__) - {"testing"}:
        assert getattr(module, name).__module__ == module.__name__
        assert pickle.loads(pickle.dumps(getattr(module, name))) is getattr(module, name)


def test_pickles_name_the_public_path(backend, batch):
    layer = fc.FullyConnected(batch["W"], batch["B"])
    for value in (layer, layer.backward(batch["X"], batch["dY"]), fc.plan(batch["X"], batch["W"])):
        stored = pickle.dumps(value, protocol=0)
        assert b"cfc_arrayapi\n" in stored
        assert b"cfc_arrayapi._" not in stored
        assert type(pickle.loads(stored)) is type(value)


def test_a_misspelt_name_is_an_error():
    with refused(AttributeError, "'fc_arrayapi'", "attribute 'forwrd'"):
        fc.forwrd  # noqa: B018


def test_the_version_is_not_released():
    assert fc.__version__ == "0.1.0.dev0"


def test_arrays_may_be_given_by_name(backend, batch):
    X, W, B, dY = (backend.asarray(batch[name]) for name in ("X", "W", "B", "dY"))
    layer = fc.FullyConnected(W=W, B=B)
    same = (
        (fc.forward(B=B, W=W, X=X), fc.forward(X, W, B)),
        (fc.grad_input(W=W, dY=dY), fc.grad_input(dY, W)),
        (fc.grad_weight(dY=dY, X=X), fc.grad_weight(X, dY)),
        (fc.grad_bias(dY=dY), fc.grad_bias(dY)),
        (fc.backward(dY=dY, W=W, X=X).dW, fc.backward(X, W, dY).dW),
        (layer(X=X), layer(X)),
        (layer.backward(dY=dY, X=X).dX, layer.backward(X, dY).dX),
    )
    for by_name, by_place in same:
        assert_array(by_name, namespace.to_numpy(by_place), like=X, rtol=0)


def test_options_are_given_by_name():
    for function in (fc.backward, fc.grad_weight, fc.grad_bias, fc.store, fc.compute, fc.FullyConnected.init):
        options = [p for p in inspect.signature(function).parameters.values() if p.default is not p.empty]
        assert all(option.kind is option.KEYWORD_ONLY for option in options), function


# FullyConnected


def test_a_layer_has_sizes_dtype_and_device(backend, batch):
    W = backend.asarray(batch["W"].astype("float32"))
    layer = fc.FullyConnected(W)
    assert (layer.C, layer.S) == (4, 3)
    assert layer.dtype == W.dtype
    assert layer.device == namespace.device(W)


@pytest.mark.parametrize("bias", [True, False])
def test_astype_converts_weight_and_bias(backend, batch, bias):
    B = backend.asarray(batch["B"]) if bias else None
    layer = fc.FullyConnected(backend.asarray(batch["W"]), B)
    narrow = layer.astype("float32")
    like = backend.asarray(batch["W"].astype("float32"))
    assert_array(narrow.W, batch["W"].astype("float32"), like=like, rtol=0)
    if bias:
        assert_array(narrow.B, batch["B"].astype("float32"), like=like, rtol=0)
    else:
        assert narrow.B is None
    assert layer.astype(layer.dtype).W is layer.W
    for dtype in (None, "int32", "no_dtype"):
        with refused(TypeError, f"dtype is {str(dtype)!r}", f"of {backend.module}", "'float32'"):
            layer.astype(dtype)


def test_to_device_keeps_the_numbers(backend, batch):
    layer = fc.FullyConnected(backend.asarray(batch["W"]), backend.asarray(batch["B"]))
    moved = layer.to_device(layer.device)
    assert_array(moved.W, batch["W"], like=layer.W, rtol=0)
    assert_array(moved.B, batch["B"], like=layer.W, rtol=0)


@pytest.mark.parametrize(("sizes", "call"), [((4, 3), "init(4, 3)"), ((4,), "init(4, S)")])
def test_sizes_are_refused_with_the_call_of_init(sizes, call):
    with refused(TypeError, f"FullyConnected.{call}"):
        fc.FullyConnected(*sizes)


# Gradients


@pytest.mark.parametrize(
    ("act", "advice"),
    [
        (lambda a, b: a == b, "(a.dW == b.dW).all()"),
        (lambda a, b: a != b, "(a.dW == b.dW).all()"),
        (lambda a, b: a - b, "a.dW - b.dW"),
        (lambda a, b: a / 2, "grads.dW / N"),
        (lambda a, b: a * 2, "0.1 * grads.dW"),
        (lambda a, b: 2 * a, "0.1 * grads.dW"),
    ],
)
def test_gradients_refuse_arithmetic_with_advice(batch, act, advice):
    grads = fc.backward(batch["X"], batch["W"], batch["dY"])
    with refused(TypeError, "Gradients", advice):
        act(grads, grads)


# JAX: a layer is a pytree.

jax_only = pytest.mark.only("jax.numpy")


@jax_only
def test_jax_maps_over_a_layer(backend, batch):
    import jax

    layer = fc.FullyConnected(backend.asarray(batch["W"]), backend.asarray(batch["B"]))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, layer)
    assert type(doubled) is fc.FullyConnected
    assert_array(doubled.W, 2 * batch["W"], like=layer.W, rtol=0)
    shapes = jax.tree.map(lambda leaf: leaf.shape, layer)  # no arrays: nothing is checked
    assert (shapes.W, shapes.B) == ((4, 3), (3,))
    assert repr(shapes) == "FullyConnected(W=(4, 3), B=(3,))"
    assert len(jax.tree.leaves(fc.FullyConnected(layer.W))) == 1
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(layer)] == [".W", ".B"]


@jax_only
def test_jax_compiles_and_differentiates_a_layer(backend, batch):
    import jax

    X, dY = backend.asarray(batch["X"]), backend.asarray(batch["dY"])
    layer = fc.FullyConnected(backend.asarray(batch["W"]), backend.asarray(batch["B"]))
    assert_array(jax.jit(lambda layer, X: layer(X))(layer, X), namespace.to_numpy(layer(X)), like=X, rtol=1e-12)
    slope = jax.grad(lambda layer: (layer(X) * dY).sum())(layer)
    assert type(slope) is fc.FullyConnected
    grads = layer.backward(X, dY)
    assert_array(slope.W, namespace.to_numpy(grads.dW), like=X, rtol=1e-12)
    assert_array(slope.B, namespace.to_numpy(grads.dB), like=X, rtol=1e-12)


@jax_only
def test_jax_vmaps_over_stacked_layers(backend, batch):
    import jax

    X = backend.asarray(batch["X"])
    layers = [fc.FullyConnected(backend.asarray(k * batch["W"]), backend.asarray(batch["B"])) for k in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: backend.xp.stack(leaves), *layers)
    assert (stacked.W.shape, stacked.C, stacked.S) == ((2, 4, 3), 4, 3)
    results = jax.vmap(lambda layer: layer(X))(stacked)
    for result, layer in zip(results, layers, strict=True):
        assert_array(result, namespace.to_numpy(layer(X)), like=X, rtol=1e-12)


@jax_only
@pytest.mark.parametrize(
    "code",
    [
        "import jax, fc_arrayapi as fc; layer = fc.FullyConnected.init(3, 2)",
        "import fc_arrayapi as fc, jax; layer = fc.FullyConnected.init(3, 2)",
        "import fc_arrayapi as fc; layer = fc.FullyConnected.init(3, 2); import jax.numpy, jax",
        "import importlib.util, fc_arrayapi as fc; importlib.util.find_spec('jax'); "
        "layer = fc.FullyConnected.init(3, 2); import jax",
    ],
    ids=["jax first", "jax second", "jax after the layer", "jax was looked for"],
)
def test_a_layer_is_a_pytree_whichever_is_imported_first(backend, code):
    code += "; print(jax.tree.map(lambda leaf: leaf.shape, layer))"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("FullyConnected(W=(3, 2), B=(2,))\n", "")


def test_numpy_arrays_make_a_layer_where_jax_is_missing():
    code = "import sys; sys.modules['jax'] = None; import fc_arrayapi as fc; print(fc.FullyConnected.init(3, 2).C)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("3\n", "")


@pytest.mark.only("torch")
def test_torch_parameters_stay_the_module_s_own(backend, batch):
    import torch

    module = torch.nn.Linear(4, 3, dtype=torch.float64)
    weight = module.weight
    layer = fc.FullyConnected.init(4, 3, xp=torch, dtype="float64")
    module.load_state_dict(layer.to_torch().state_dict())
    assert module.weight is weight
    assert_array(weight.detach(), namespace.to_numpy(layer.W).T, like=layer.W, rtol=0)
    shared = fc.FullyConnected(module.weight.T, module.bias)
    shared(backend.asarray(batch["X"])).sum().backward()
    assert np.all(namespace.to_numpy(module.bias.grad) == len(batch["X"]))


def test_names_that_are_imported_later_have_the_public_path():
    code = (
        "import pickle, numpy as np, fc_arrayapi as fc\n"
        "moments = fc.moments(np.ones((3, 2)))\n"
        "print(type(moments).__module__, pickle.loads(pickle.dumps(moments)).n, pickle.loads(pickle.dumps(fc.store)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("fc_arrayapi 3.0 <function store at ")
