"""Normalise a batch without writing it anew: mean and scale go into W and B."""

import fc_arrayapi as fc


def statistics(X):
    """Return mean and standard deviation of each feature of X (N, C), in float64 and in one pass."""
    X = X.astype("float64")  # block by block, where X is a Dask array
    mean, variance = fc.compute(X.mean(axis=0), X.var(axis=0))
    return mean, (variance + (variance == 0)) ** 0.5  # a constant feature is centred and not scaled


def fold(W, B, mean, scale):
    """Return the W and B that make of X what the given ones make of (X - mean) / scale."""
    folded = W / scale[:, None]
    return folded.astype(W.dtype), (B - mean @ folded).astype(B.dtype)


def weight_gradient(grads, mean, scale):
    """Return the gradient with respect to the given W, from the dW and dB of the folded layer."""
    dW, dB = grads.dW.astype("float64"), grads.dB.astype("float64")
    return ((dW - mean[:, None] * dB) / scale[:, None]).astype(grads.dW.dtype)
