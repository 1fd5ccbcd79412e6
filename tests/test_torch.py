"""What torch alone has: tensors that are no plain block of numbers, and autocast."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.assertions import refused
from helpers.wrong_input import CALLS, EACH_ARGUMENT

import fc_arrayapi as fc
from fc_arrayapi._arrays.text import in_code

LAYOUTS = {
    # the layout in a message: (makes it of a matrix, the call that the message gives)
    "torch.sparse_coo": (lambda x: x.to_sparse(), "NAME.to_dense()"),
    "torch.sparse_csr": (lambda x: x.to_sparse_csr(), "NAME.to_dense()"),
    "torch.sparse_csc": (lambda x: x.to_sparse_csc(), "NAME.to_dense()"),
    "torch.sparse_bsr": (lambda x: x.to_sparse_bsr((1, 1)), "NAME.to_dense()"),
    "torch.sparse_bsc": (lambda x: x.to_sparse_bsc((1, 1)), "NAME.to_dense()"),
    "torch._mkldnn": (lambda x: x.to_mkldnn(), "NAME.to_dense()"),
    "torch.strided": (lambda x: nested(x), "NAME.unbind()"),
    "torch.jagged": (lambda x: nested(x, "jagged"), "NAME.unbind()"),
}
pytestmark = pytest.mark.filterwarnings("ignore:(Sparse|The PyTorch API of nested)")


def nested(x, layout="strided"):
    import torch

    return torch.nested.nested_tensor([x, x], layout=getattr(torch, layout))


def facts_of(layout, argument):
    call = LAYOUTS[layout][1].replace("NAME", in_code(argument))
    return (argument, layout, call, *(["nested"] if "unbind" in call else []))


@pytest.mark.only("torch")
@pytest.mark.parametrize("rows", [3, 4097])  # a longer batch is not one product
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize(("where", "argument"), EACH_ARGUMENT)
def test_the_layer_refuses_tensors_that_are_not_strided(backend, where, argument, layout, rows):
    if argument == "B" and layout not in ("torch.sparse_coo", "torch.strided"):
        return  # these have two axes and more
    function, shapes = CALLS[where]
    arrays = {name: backend.xp.ones((rows, *shape[1:]) if shape[0] == 7 else shape) for name, shape in shapes.items()}
    function(*arrays.values())  # strided tensors of the same types and dtypes have passed
    arrays[argument] = LAYOUTS[layout][0](arrays[argument])
    with refused(TypeError, *facts_of(layout, argument)):
        function(*arrays.values())


@pytest.mark.only("torch")
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_einsum_refuses_tensors_that_are_not_strided(backend, layout):
    x, w = backend.xp.ones((4, 4)), backend.xp.ones((4, 4))
    other = LAYOUTS[layout][0](x)
    for call, name in (
        (lambda a: fc.einsum("...c->...", a), "operand 0"),
        (lambda a: fc.einsum("nc,cs->ns", a, w), "operand 0"),
        (lambda a: fc.einsum("cs,nc->ns", w, a), "operand 1"),
        (lambda a: fc.einsum("nc,cs,sr->nr", a, w, w), "operand 0"),
        (lambda a: fc.einsum(a, [0, 1], w, [1, 2]), "operand 0"),
        (lambda a: fc.tensordot(a, w, 1), "a"),
        (lambda a: fc.tensordot(w, a, 1), "b"),
        (fc.transpose, "a"),
    ):
        call(x)
        with refused(TypeError, *facts_of(layout, name)):
            call(other)


@pytest.mark.only("torch")
def test_from_torch_names_a_weight_that_is_not_strided(backend):
    torch = backend.xp
    linear = torch.nn.Linear(4, 3)
    linear.weight = torch.nn.Parameter(linear.weight.detach().to_sparse())
    with refused(TypeError, "linear.weight", "torch.sparse_coo", "linear.weight.to_dense()"):
        fc.FullyConnected.from_torch(linear)


@pytest.mark.only("torch")
def test_strided_tensors_of_any_strides_pass(backend):
    x = backend.xp.ones((8, 8))[::2, 1::3].T
    np.testing.assert_array_equal(fc.forward(x, backend.xp.ones((4, 2))).numpy(), np.full((3, 2), 4))


@pytest.mark.only("torch")
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("rows", [7, 5000])
def test_autocast_has_no_effect(backend, rng, dtype, rows):
    """The dtypes of the arguments decide, bit for bit, in the layer as in einsum."""
    torch = backend.xp
    shapes = (rows, 4), (4, 3), (3,), (rows, 3)
    X, W, B, dY = (torch.asarray(rng.normal(size=shape)).to(getattr(torch, dtype)) for shape in shapes)
    layer = fc.FullyConnected(W, B)

    def results():
        leaf = W.clone().requires_grad_()
        return (
            fc.forward(X, W), fc.forward(X, W, B), layer(X), fc.grad_input(dY, W), fc.grad_weight(X, dY),
            fc.grad_bias(dY), *fc.backward(X, W, dY), *layer.backward(X, dY), fc.forward(X, leaf),
            fc.einsum("nc,cs->ns", X, W), fc.einsum("nc,cs,st->nt", X, W, W.T), fc.einsum("nc->c", X),
            fc.tensordot(X, W, 1), torch.func.vmap(lambda x: fc.forward(x, W))(X[:3]),
        )  # fmt: skip

    expected = results()
    for inner in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=inner):
            found = results()
            assert torch.is_autocast_enabled("cpu")
        assert [array.dtype for array in found] == [array.dtype for array in expected]
        for array, other in zip(found, expected, strict=True):
            assert torch.equal(array, other)


@pytest.mark.only("torch")
@pytest.mark.parametrize("enabled", [False, True])
def test_autocast_has_no_effect_on_gradients_and_compiled_functions(backend, rng, enabled):
    torch = backend.xp
    X, W = (torch.asarray(rng.normal(size=shape), dtype=torch.float32) for shape in ((7, 4), (4, 3)))
    leaf = W.clone().requires_grad_()
    torch.compiler.reset()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
        Y = fc.forward(X, leaf)
        compiled = torch.compile(lambda x: fc.forward(x, W), backend="eager", fullgraph=True)(X)
    Y.sum().backward()
    assert torch.equal(leaf.grad, X.T @ torch.ones((7, 3)))
    assert torch.equal(compiled, X @ W)
    assert torch.equal(Y.detach(), X @ W)
