"""The training step of the README's layer: no assert that a gradient or the bias is there."""

import numpy as np

import fc_arrayapi as fc

X, T = np.ones((100, 64)), np.ones((100, 10))
layer = fc.FullyConnected.init(64, 10, initializer="zeros")
for _ in range(10):
    Y = layer(X)
    grads = layer.backward(X, Y - T)
    layer = fc.FullyConnected(layer.W - 0.1 * grads.dW, layer.B - 0.1 * grads.dB)
    probe = layer.backward(X, Y - T, needs=("dW", "dB"))
    layer = fc.FullyConnected(layer.W - 0.1 * probe.dW, layer.B - 0.1 * probe.dB)

lazy = fc.open_array("x.npy", rows=1000)
dY = fc.forward(lazy, layer.W, layer.B)
loss, sums = fc.compute((dY**2).sum() / 2, layer.backward(lazy, dY, needs=("dW", "dB")))
fc.store({"y.npy": dY, "dx.npy": layer.backward(lazy, dY).dX}, resume=True)
