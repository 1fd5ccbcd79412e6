"""K-FAC for one layer: a step preconditioned by the second moments of X and of dY (Martens and Grosse, 1503.05671)."""

import numpy as np

import fc_arrayapi as fc


def factors(X, dY):
    """Return A = XᵀX / N, with a feature that is 1 for B, and G = dYᵀdY / N, in one pass over both."""
    of_X, of_dY = fc.compute(fc.moments(X), fc.moments(dY))
    A = np.block([[of_X.XX, of_X.sum_X[:, None]], [of_X.sum_X[None, :], of_X.n]]) / of_X.n
    return A, of_dY.XX / of_dY.n


def preconditioned(grads, A, G, damping):
    """Return the steps for W and B: the inverse of A, the gradient of both together, the inverse of G."""
    gradient = np.vstack([grads.dW, grads.dB[None, :]])
    # The damping is shared between the factors in proportion to their size.
    ratio = np.sqrt(np.trace(A) / len(A) / (np.trace(G) / len(G)))
    left = A + ratio * np.sqrt(damping) * np.eye(len(A))
    right = G + np.sqrt(damping) / ratio * np.eye(len(G))
    step = np.linalg.solve(right, np.linalg.solve(left, gradient).T).T
    return step[:-1], step[-1]
