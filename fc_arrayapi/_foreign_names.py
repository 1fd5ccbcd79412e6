"""What torch and Keras call the parts of a layer, and what they are called here: the ends of error messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ATTRIBUTES = {
    "weight": "the weight is W, of shape (C, S); torch's weight is its transpose",
    "w": "the weight is W",
    "b": "the bias is B",
    "kernel": "the weight is W, of shape (C, S), like the kernel of Keras",
    "bias": "the bias is B",
    "grad": "gradients are what layer.backward(X, dY) returns",
    "forward": "call the layer: layer(X)",
    "predict": "call the layer: layer(X)",
    "in_features": "the number of input features is C",
    "out_features": "the number of output features is S",
    "units": "the number of output features is S",
    "parameters": "the parameters are W and B",
    "state_dict": "layer.save(path) writes W and B",
    "to": "call layer.to_device(device) or layer.astype(dtype)",
    "cuda": "call layer.to_device('cuda')",
    "cpu": "call layer.to_device('cpu')",
    "half": "call layer.astype('float16')",
    "float": "call layer.astype('float32')",
    "zero_grad": "nothing is accumulated: each layer.backward(X, dY) returns new gradients",
    "fit": "write the loop: layer(X), your loss and its dY, layer.backward(X, dY)",
}
GRADIENTS = {
    "weight": "the gradient of the weight is dW",
    "bias": "the gradient of the bias is dB",
    "input": "the gradient of the input is dX",
    **{name: f"it is written d{name[-1].upper()}" for name in ("W", "B", "X", "w", "b", "x", "dw", "db", "dx")},
    "compute": "call fc.compute(grads)",
}
ARGUMENTS = {
    "units": "the number of output features is S: FullyConnected.init(C, S)",
    "in_features": "the number of input features is C: FullyConnected.init(C, S)",
    "out_features": "the number of output features is S: FullyConnected.init(C, S)",
    "weight": "the weight is W, of shape (C, S): FullyConnected(W, B)",
    "bias": "the bias is B: FullyConnected(W, B), or FullyConnected.init(C, S, bias=True)",
    "use_bias": "say FullyConnected.init(C, S, bias=False)",
    "kernel_initializer": "say FullyConnected.init(C, S, initializer='glorot_uniform')",
    "activation": "there are no activations: apply one to Y",
}


def no_attribute(kind: str, name: str, hints: Mapping[str, str] = ATTRIBUTES) -> AttributeError:
    """Return the error for an attribute that a class does not have."""
    hint = f": {hints[name]}" if name in hints else ""
    return AttributeError(f"{kind!r} object has no attribute {name!r}{hint}")


def check_arguments(function: str, given: Any, known: Any) -> None:
    """Raise for the first argument that a function does not have."""
    for name in given:
        if name not in known:
            hint = f": {ARGUMENTS[name]}" if name in ARGUMENTS else f": it takes {', '.join(known)}"
            raise TypeError(f"{function} got an unexpected argument {name!r}{hint}")
