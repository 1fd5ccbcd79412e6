"""A differentially private step: each sample's gradient is clipped, and noise is added to their sum, in one pass.

This is the mechanism of Abadi et al., arXiv 1607.00133. The privacy that a number of such steps costs is not counted
here: take an accountant for it, such as that of Opacus.
"""

import numpy as np

import fc_arrayapi as fc


def private_gradients(X, dY, clip, noise_multiplier, rng):
    """Return dW and dB, sums over the samples of gradients of norm `clip` at most, with noise.

    X (N, C) and dY (N, S), the gradient of each sample's loss with respect to Y, may be NumPy or Dask arrays: each
    block is read once for the norms and the sums together.
    """
    norms = fc.per_sample_norms(X, dY)
    factors = clip / np.maximum(norms, clip)  # 1 where a gradient is short enough
    W = np.zeros((X.shape[-1], dY.shape[-1]), dtype=X.dtype)
    grads = fc.backward(X, W, dY, needs=("dW", "dB"), sample_weight=factors)
    dW, dB = fc.compute(grads.dW, grads.dB)
    scale = noise_multiplier * clip
    return dW + rng.normal(0, scale, dW.shape), dB + rng.normal(0, scale, dB.shape)
