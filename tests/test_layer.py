"""FullyConnected: the parameters of one layer."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from helpers.assertions import assert_array, refused

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace


@pytest.fixture
def layer(backend, batch):
    return fc.FullyConnected(backend.asarray(batch["W"]), backend.asarray(batch["B"]))


def test_calls_are_forward_and_backward(backend, batch, layer):
    X, dY = backend.asarray(batch["X"]), backend.asarray(batch["dY"])
    assert_array(layer(X), fc.testing.reference_forward(batch["X"], batch["W"], batch["B"]), like=X, rtol=1e-12)
    expected = fc.testing.reference_backward(batch["X"], batch["W"], batch["dY"])
    for part, reference in zip(layer.backward(X, dY), expected, strict=True):
        assert_array(part, reference, like=X, rtol=1e-12)
    probe = layer.backward(X, dY, needs=("dW",))
    assert probe.dX is None
    assert probe.dB is None


def test_without_bias(backend, batch):
    layer = fc.FullyConnected(backend.asarray(batch["W"]))
    X, dY = backend.asarray(batch["X"]), backend.asarray(batch["dY"])
    assert_array(layer(X), batch["X"] @ batch["W"], like=X, rtol=1e-12)
    assert layer.backward(X, dY).dB is None
    assert layer.backward(X, dY).dX is not None


def test_it_is_frozen(layer):
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.W = layer.W


@pytest.mark.parametrize("initializer", ["glorot_uniform", "he_uniform", "lecun_normal", "zeros"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_seed_gives_the_same_weight_everywhere(backend, initializer, dtype):
    def init(**options):
        return fc.FullyConnected.init(5, 3, seed=4, initializer=initializer, dtype=dtype, **options)

    here = init(xp=backend.xp, device=backend.device)
    there = init()
    assert_array(here.W, there.W, like=backend.asarray(np.zeros((1, 1), dtype)), rtol=0)
    assert_array(here.B, np.zeros(3), like=backend.asarray(np.zeros(1, dtype)), rtol=0)
    again = fc.FullyConnected.init(5, 3, seed=5, initializer=initializer, dtype=dtype)
    assert np.array_equal(again.W, there.W) == (initializer == "zeros")


def test_init_takes_the_library_s_dtype(backend):
    made = fc.FullyConnected.init(2, 2, xp=backend.xp, bias=False)
    assert made.B is None
    assert made.W.dtype == backend.xp.asarray(0.0).dtype
    assert fc.FullyConnected.init(2, 2, xp=backend.xp, dtype=backend.dtype("float32")).W.dtype == backend.dtype(
        "float32"
    )


@pytest.mark.parametrize(
    ("initializer", "spread", "limit"),
    [
        ("glorot_uniform", (2 / (300 + 200)) ** 0.5, (6 / (300 + 200)) ** 0.5),
        ("he_uniform", (2 / 300) ** 0.5, (6 / 300) ** 0.5),
        ("lecun_normal", (1 / 300) ** 0.5, np.inf),
        ("zeros", 0.0, 0.0),
    ],
)
def test_initializers_have_the_spread_of_their_papers(initializer, spread, limit):
    W = fc.FullyConnected.init(300, 200, initializer=initializer).W
    assert np.std(W) == pytest.approx(spread, rel=0.01)
    assert abs(np.mean(W)) <= 4 * spread / W.size**0.5
    assert np.max(np.abs(W)) <= limit


def test_init_without_features():
    for initializer in ("glorot_uniform", "he_uniform", "lecun_normal", "zeros"):
        assert fc.FullyConnected.init(0, 0, initializer=initializer).W.shape == (0, 0)


def test_init_refuses_unknown_options():
    with refused(
        ValueError, "initializer is 'xavier'", "'glorot_uniform'", "'he_uniform'", "'lecun_normal'", "'zeros'"
    ):
        fc.FullyConnected.init(2, 2, initializer="xavier")
    for size in (-1, 2.0, True, None):
        with refused(ValueError, f"C is {size}", "integer", "0"):
            fc.FullyConnected.init(size, 2)
    for dtype in ("float31", "int64", "pi", np.int8, 5):
        with refused(TypeError, f"dtype is {dtype!r}", "of numpy", "'float32'"):
            fc.FullyConnected.init(2, 2, dtype=dtype)


@pytest.mark.only("numpy")
def test_init_takes_every_way_to_name_a_numpy_dtype(backend):
    for dtype in ("float32", np.float32, np.dtype("float32"), np.dtype(">f4")):
        assert fc.FullyConnected.init(2, 2, dtype=dtype).W.dtype == np.dtype("float32")
    assert fc.FullyConnected.init(2, 2, dtype=float).W.dtype == np.float64


def test_repr_tells_shapes_dtype_library_and_device(backend, layer):
    device = "" if backend.chunked else f", device={namespace.device(layer.W)}"
    assert repr(layer) == f"FullyConnected(C=4, S=3, bias=True, dtype=float64, xp={backend.module}{device})"


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
def test_save_and_load_give_the_same_bits(backend, batch, tmp_path, suffix, dtype, bias):
    W = backend.asarray(batch["W"].astype(dtype))
    B = backend.asarray(batch["B"].astype(dtype)) if bias else None
    path = tmp_path / f"layer{suffix}"
    fc.FullyConnected(W, B).save(path)
    loaded = fc.FullyConnected.load(path, xp=backend.xp, device=backend.device)
    assert_array(loaded.W, batch["W"].astype(dtype), like=W, rtol=0)
    if bias:
        assert_array(loaded.B, batch["B"].astype(dtype), like=W, rtol=0)
    else:
        assert loaded.B is None
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


@pytest.mark.only("torch")
def test_from_torch_and_to_torch_turn_the_weight(backend, batch):
    import torch

    X = backend.asarray(batch["X"])
    for bias in (True, False):
        linear = torch.nn.Linear(4, 3, bias=bias, dtype=torch.float64, device=backend.device)
        layer = fc.FullyConnected.from_torch(linear)
        assert layer.W.shape == (4, 3)
        assert not layer.W.requires_grad
        torch.testing.assert_close(layer(X), linear(X), rtol=1e-12, atol=1e-12)
        back = layer.to_torch()
        assert isinstance(back, torch.nn.Linear)
        assert back.weight.requires_grad
        torch.testing.assert_close(back.state_dict(), linear.state_dict(), rtol=0, atol=0)
        with torch.no_grad():  # the copies are copies
            before = layer.W.clone()
            linear.weight.add_(1.0)
            back.weight.add_(1.0)
        torch.testing.assert_close(layer.W, before, rtol=0, atol=0)
    single = torch.nn.Linear(1, 3)
    layer = fc.FullyConnected.from_torch(single)
    with torch.no_grad():
        single.weight.zero_()
    assert bool((layer.W != 0).all())


def test_a_missing_torch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (fc.FullyConnected(np.ones((2, 1))).to_torch, lambda: fc.FullyConnected.from_torch(None)):
        with refused(ImportError, "torch.nn.Linear", "pip install torch"):
            call()


@pytest.mark.only("torch")
def test_to_torch_from_other_libraries_and_dtypes(backend, batch):
    import torch

    turned = torch.asarray(batch["W"].T.copy())
    for W in (batch["W"], np.asfortranarray(batch["W"]), batch["W"].astype(">f8")):
        linear = fc.FullyConnected(W).to_torch()
        torch.testing.assert_close(linear.weight.detach(), turned, rtol=0, atol=0)
        assert linear.bias is None
    half = fc.FullyConnected(backend.asarray(batch["W"]).to(torch.bfloat16)).to_torch()
    assert half.weight.dtype == torch.bfloat16
    with refused(TypeError, "from_torch", "torch.nn.Linear", "ReLU"):
        fc.FullyConnected.from_torch(torch.nn.ReLU())


@pytest.mark.only("torch")
def test_to_torch_rounds_no_bias(backend):
    W, B = np.ones((2, 2), "float32"), np.full(2, 1 + 1e-9)
    for layer, convert in (
        (fc.FullyConnected(W, B), 'FullyConnected(W, B.astype("float32"))'),
        (fc.FullyConnected(backend.asarray(W), backend.asarray(B)), "FullyConnected(W, B.to(torch.float32))"),
    ):
        with refused(TypeError, "to_torch", "W has dtype float32", "B has float64", convert):
            layer.to_torch()
