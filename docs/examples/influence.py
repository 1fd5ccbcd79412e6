"""Which rows of a training set larger than memory made this prediction: the ten whose gradients point its way."""

import numpy as np

import fc_arrayapi as fc


def most_influential(X, dY, query, query_dY, k=10):
    """Return the numbers of k rows, and how much a step along the gradient of each lowers the loss of the query.

    X (N, C) and dY (N, S), the gradient of each row's loss with respect to Y, are Dask arrays; the query is one row of
    each. One pass, in which N numbers are held.
    """
    dots = fc.per_sample_dots(X, dY, query[None, :], query_dY[None, :])[:, 0]
    (dots,) = fc.compute(dots)
    rows = np.argsort(-dots, kind="stable")[:k]
    return rows, dots[rows]


def softmax_gradient(Y, labels):
    """Return dY of the cross entropy of each row; NumPy arrays, or Dask arrays with equal blocks of rows.

    labels are integers from 0 to S - 1; of another the gradient has no target.
    """
    Y = Y.astype("float32")
    exponentials = np.exp(Y - Y.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True) - (labels[:, None] == np.arange(Y.shape[1]))
