"""Mistakes that a type checker must find: every line that ends in `# error`, and no other."""

import numpy as np

import fc_arrayapi as fc
from fc_arrayapi import fullyconnected  # error
from fc_arrayapi.testing import check_gradient  # error

X, W, dY = np.ones((4, 3)), np.ones((3, 2)), np.ones((4, 2))
layer = fc.FullyConnected(W)

fc.forwrd(X, W)  # error
fc.forward("x", W)  # error
fc.forward(X, 3)  # error
fc.forward([[1.0]], W)  # error
fc.forward(X, W, bias=dY)  # error
fc.backward(X, W, dY, needs=("dQ",))  # error
fc.backward(X, W, dY, needs="dW")  # error
fc.backward(X, W, dY, ("dW",))  # error
layer.backward(X, dY, needs=("dQ",))  # error
print(fc.backward(X, W, dY, needs=("dW",)).dX.shape)  # error
print(layer.backward(X, dY).dw)  # error
print(layer.B.shape)  # error
print(layer.weight)  # error
fc.FullyConnected(4, 3)  # error
fc.FullyConnected.init("4", 3)  # error
fc.FullyConnected.init(4, 3, initializer="xavier")  # error
fc.FullyConnected.load("model.npz", layout="tf")  # error
fc.einsum("nc,cs->ns", X, [[1.0]])  # error
fc.open_array(3)  # error
fc.store([X])  # error
fc.store({"y.npy": X}, X)  # error
fc.store({"y.npy": None})  # error
fc.plan(X, measures=True)  # error
