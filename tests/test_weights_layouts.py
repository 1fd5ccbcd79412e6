"""Weights that other libraries wrote: their names and axes, one layer of a whole model, and bfloat16."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
from helpers.assertions import assert_array, refused
from helpers.hostile import LONGEST, MEGABYTE, memory_below, npy, npz, safetensors, tensor

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace

W, B = np.arange(6.0).reshape(2, 3), np.arange(3.0)  # C = 2, S = 3
NAMES = {None: ("W", "B"), "torch": ("weight", "bias"), "keras": ("kernel", "bias"), "flax": ("kernel", "bias")}
STARTS = {"": "", "head": "head.", "params/Dense_0": "params/Dense_0/", "model.head": "model.head."}
OTHERS = {
    "norm.weight": np.ones(5),
    "head2.weight": np.ones((4, 4)),
    "headweight": np.ones((1, 1)),
    "step": np.asarray(3),
}


def write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return path


def in_layout(layout, start="", W=W, B=B):
    weight, bias = NAMES[layout]
    return {start + weight: W.T if layout == "torch" else W, **({} if B is None else {start + bias: B})}


@pytest.fixture(params=[".npz", ".safetensors"])
def path(request, tmp_path):
    return tmp_path / f"model{request.param}"


# Layouts and prefixes.


@pytest.mark.parametrize("prefix", STARTS)
@pytest.mark.parametrize("layout", NAMES)
def test_layout_and_prefix_name_one_layer(backend, path, layout, prefix):
    for bias in (B, None):
        others = {} if layout is None and not prefix else OTHERS
        write(path, {**others, **in_layout(layout, STARTS[prefix], B=bias)})
        layer = fc.FullyConnected.load(path, prefix=prefix, layout=layout, xp=backend.xp)
        np.testing.assert_array_equal(namespace.to_numpy(layer.W), W)
        assert (layer.B is None) == (bias is None)
        if bias is not None:
            np.testing.assert_array_equal(namespace.to_numpy(layer.B), B)


@pytest.mark.only("torch")
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_layout_torch_gives_what_the_linear_gives(backend, tmp_path, dtype):
    import torch
    from safetensors.torch import save_file

    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)).to(backend.dtype(dtype))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    X = torch.randn(5, 6, dtype=backend.dtype(dtype))
    layer = fc.FullyConnected.load(tmp_path / "model.safetensors", prefix="2", layout="torch", xp=torch)
    tolerance = 1e-6 if dtype in ("float32", "float64") else 1e-2
    assert_array(layer(X), model[2](X).detach().float().numpy(), like=X, rtol=tolerance)
    linear = layer.to_torch()
    assert torch.equal(linear.weight, model[2].weight)
    assert torch.equal(linear.bias, model[2].bias)
    on_numpy = fc.FullyConnected.load(tmp_path / "model.safetensors", prefix="2", layout="torch")
    np.testing.assert_array_equal(on_numpy.W.T, model[2].weight.detach().float().numpy())


@pytest.mark.parametrize("layout", ["torch", "flax"])
def test_one_layer_of_a_model_with_1000_others_is_all_that_is_read(tmp_path, layout):
    """The others are 1 GB, which lies in the file as a hole."""
    path, shape = tmp_path / "model.safetensors", W.T.shape if layout == "torch" else W.shape
    weight, bias = NAMES[layout]
    header = {f"model.layers.{k}.self_attn.q_proj.weight": tensor([500, 250], 10**6 * k) for k in range(1000)}
    header |= {f"head.{weight}": tensor([*shape], 10**9), f"head.{bias}": tensor([3], 10**9 + 48)}
    assert len(json.dumps(header)) > 10**5
    safetensors(header)(path)
    os.truncate(path, path.stat().st_size + 10**9)
    with open(path, "ab") as file:
        file.write(in_layout(layout)[weight].tobytes() + B.tobytes())
    with memory_below(20 * MEGABYTE):
        layer = fc.FullyConnected.load(path, prefix="head", layout=layout, max_bytes=72)
    np.testing.assert_array_equal(layer.W, W)
    np.testing.assert_array_equal(layer.B, B)
    with refused(ValueError, str(path), "72 bytes", "71", "max_bytes=72"):
        fc.FullyConnected.load(path, prefix="head", layout=layout, max_bytes=71)
    facts = (
        "'head.q.W' or 'head.q/W'",
        "996 more",
        "prefix=",
        "layout='torch'" if layout == "torch" else "layout='keras'",
    )
    with refused(ValueError, str(path), *facts) as raised:
        fc.FullyConnected.load(path, prefix="head.q")
    assert len(str(raised.value)) < LONGEST


def test_one_layer_of_an_archive_with_1000_others(tmp_path):
    path = tmp_path / "model.npz"
    others = [(f"Transformer/encoderblock_{k}/MlpBlock_3/Dense_0/kernel.npy", b"") for k in range(1000)]
    members = [("head/kernel.npy", npy(W)), ("head/bias.npy", npy(B)), *others]
    npz(*members)(path)
    with memory_below(20 * MEGABYTE):
        layer = fc.FullyConnected.load(path, prefix="head", layout="flax", max_bytes=72)
    np.testing.assert_array_equal(layer.W, W)
    with refused(ValueError, str(path), "head/W", "head/kernel", "996 more", "prefix='head'", "layout='keras'"):
        fc.FullyConnected.load(path, prefix="head")


# What is refused.


def test_a_file_of_other_names_is_refused_with_the_call_that_reads_it(path):
    write(path, {**OTHERS, **in_layout("torch", "head.")})
    facts = ("'head.weight'", "'head2.weight'", "'norm.weight'", "'step'", "prefix='head', layout='torch'")
    with refused(ValueError, str(path), "has the entries", "W", "B", *facts):
        fc.FullyConnected.load(path)
    with refused(ValueError, str(path), "'kernel'", *facts):
        fc.FullyConnected.load(path, layout="keras")
    with refused(ValueError, str(path), "'head2.kernel' or 'head2/kernel'", "prefix='head2', layout='torch'"):
        fc.FullyConnected.load(path, prefix="head2", layout="keras")
    write(path, {"W": W, "step": B})
    with refused(ValueError, str(path), "['W', 'step']", "prefix= and layout=", "save W and B alone"):
        fc.FullyConnected.load(path)
    write(path, {"kernel": W})
    with refused(ValueError, str(path), "['kernel']", "layout='keras'"):
        fc.FullyConnected.load(path)
    write(path, {"head/W": W})
    with refused(ValueError, str(path), "['head/W']", "for example prefix='head'"):
        fc.FullyConnected.load(path)


def test_a_prefix_with_both_joints_is_refused(path):
    write(path, {"head.weight": W.T, "head/weight": W.T})
    with refused(ValueError, str(path), "'head.weight'", "'head/weight'", "prefix="):
        fc.FullyConnected.load(path, prefix="head", layout="torch")


@pytest.mark.parametrize(
    ("layout", "arrays", "exception", "facts"),
    [
        ("torch", {"h.weight": np.ones(5)}, ValueError, ("h.weight", "(5,)", "weight", "(S, C)")),
        ("torch", {"h.weight": np.ones((5, 3, 1, 1))}, ValueError, ("h.weight", "(5, 3, 1, 1)", "weight", "(S, C)")),
        ("flax", {"h.kernel": np.ones((3, 3, 4, 5))}, ValueError, ("h.kernel", "(3, 3, 4, 5)", "kernel", "(C, S)")),
        ("keras", {"h.kernel": W, "h.bias": W}, ValueError, ("h.bias", "(2, 3)", "bias", "(S,)")),
        (
            "torch",
            {"h.weight": W, "h.bias": B},
            ValueError,
            ("axis s", "h.weight has 2", "(2, 3)", "(S, C)", "h.bias has 3", "(3,)", "(S,)"),
        ),
        ("keras", {"h.kernel": W, "h.bias": B[:2]}, ValueError, ("axis s", "h.kernel has 3", "(C, S)", "h.bias has 2")),
        ("torch", {"h.weight": W.astype("i8")}, TypeError, ("h.weight", "float16", "float32", "float64")),
    ],
)
def test_a_weight_that_is_none_of_a_layer_is_refused(path, layout, arrays, exception, facts):
    write(path, {**OTHERS, **arrays})
    with refused(exception, str(path), *facts):
        fc.FullyConnected.load(path, prefix="h", layout=layout)


def test_an_unknown_layout_or_prefix_is_refused_before_the_file_is_opened(tmp_path):
    with refused(ValueError, "layout", "'tf'", "'torch'", "'keras'", "'flax'", "None"):
        fc.FullyConnected.load(tmp_path / "missing.npz", layout="tf")
    with refused(ValueError, "layout", "['torch']", "'torch'"):
        fc.FullyConnected.load(tmp_path / "missing.npz", layout=["torch"])
    with refused(TypeError, "prefix", "3", '"head"'):
        fc.FullyConnected.load(tmp_path / "missing.npz", prefix=3)


# bfloat16.

# 1, -0.0, infinity, a subnormal number, a quiet and a signalling NaN with payloads.
BITS = np.asarray([[0x3F80, 0x8000, 0x7F80], [0x0001, 0x7FD5, 0xFF81]], dtype="<u2")


def bfloat16_file(path, **arrays):
    start, header = 0, {}
    for name, bits in arrays.items():
        header[name] = tensor([*bits.shape], start, dtype="BF16", size=2)
        start += bits.nbytes
    safetensors(header, b"".join(bits.tobytes() for bits in arrays.values()))(path)


@pytest.mark.parametrize("layout", [None, "torch"])
def test_bfloat16_comes_exactly_to_every_library(backend, tmp_path, layout):
    path = tmp_path / "layer.safetensors"
    bfloat16_file(path, **in_layout(layout, W=BITS, B=BITS[0]))
    layer = fc.FullyConnected.load(path, xp=backend.xp, layout=layout, max_bytes=18)
    has_it = "bfloat16" not in backend.not_tested
    for array, bits in ((layer.W, BITS), (layer.B, BITS[0])):
        if has_it:
            assert namespace.dtype_name(array.dtype) == "bfloat16"
            np.testing.assert_array_equal(namespace.to_bits(array), bits)
        else:
            assert namespace.dtype_name(array.dtype) == "float32"
            np.testing.assert_array_equal(namespace.to_numpy(array).view("u4"), bits.astype("u4") << 16)


@pytest.mark.needs("bfloat16")
def test_bfloat16_is_saved_bit_for_bit(backend, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    bfloat16_file(first, W=BITS, B=BITS[0])
    layer = fc.FullyConnected.load(first, xp=backend.xp)
    layer.save(second)
    (length,) = struct.unpack("<Q", second.read_bytes()[:8])
    assert json.loads(second.read_bytes()[8 : 8 + length])["W"]["dtype"] == "BF16"
    assert second.read_bytes()[8 + length :] == BITS.tobytes() + BITS[0].tobytes()
    again = fc.FullyConnected.load(second, xp=backend.xp)
    np.testing.assert_array_equal(namespace.to_bits(again.W), BITS)
    fc.FullyConnected(layer.W[:, ::-1] if backend.module != "torch" else layer.W.flip(1)).save(second)
    np.testing.assert_array_equal(namespace.to_bits(fc.FullyConnected.load(second, xp=backend.xp).W), BITS[:, ::-1])


@pytest.mark.only("torch")
def test_bfloat16_parameters_that_record_gradients_are_saved(backend, tmp_path):
    import torch
    from safetensors.torch import load_file

    module = torch.nn.Linear(4, 3, dtype=torch.bfloat16)
    fc.FullyConnected(module.weight.T, module.bias).save(tmp_path / "layer.safetensors")
    read = load_file(tmp_path / "layer.safetensors")
    assert torch.equal(read["W"], module.weight.T)
    assert torch.equal(read["B"], module.bias)


@pytest.mark.only("torch")
@pytest.mark.parametrize(("w", "b"), [("float16", "float64"), ("float64", "float16"), ("bfloat16", "float32")])
def test_what_is_saved_is_a_safetensors_file_for_others_too(backend, tmp_path, w, b):
    import torch
    from safetensors.torch import load_file

    layer = fc.FullyConnected(torch.randn(3, 5).to(backend.dtype(w)), torch.randn(5).to(backend.dtype(b)))
    layer.save(tmp_path / "layer.safetensors")
    read = load_file(tmp_path / "layer.safetensors")
    assert torch.equal(read["W"], layer.W)
    assert torch.equal(read["B"], layer.B)
    (length,) = struct.unpack("<Q", (tmp_path / "layer.safetensors").read_bytes()[:8])
    header = json.loads((tmp_path / "layer.safetensors").read_bytes()[8 : 8 + length])
    sizes = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
    assert [(8 + length + entry["data_offsets"][0]) % sizes[entry["dtype"]] for entry in header.values()] == [0, 0]


def test_bfloat16_in_an_archive_is_told(tmp_path):
    import ml_dtypes

    np.savez(tmp_path / "layer.npz", W=W.astype(ml_dtypes.bfloat16))
    with refused(TypeError, str(tmp_path / "layer.npz"), "W", "bfloat16", ".safetensors", "float32"):
        fc.FullyConnected.load(tmp_path / "layer.npz")
