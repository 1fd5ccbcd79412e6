"""Ridge regression of a batch larger than memory: any number of folds and penalties in one pass over the data."""

import itertools

import numpy as np

import fc_arrayapi as fc


def fold_moments(X, T, folds=5):
    """Return the second moments of each fold, consecutive rows as in scikit-learn's KFold, in one pass."""
    borders = [round(len(X) * k / folds) for k in range(folds + 1)]
    parts = [fc.moments(X[a:b], T[a:b]) for a, b in itertools.pairwise(borders)]
    return list(fc.compute(*parts))


def solutions(m, penalties):
    """Return W and B for each penalty; one eigendecomposition serves all."""
    centred = m.centred()
    values, vectors = np.linalg.eigh(centred.XX)
    projected = vectors.T @ centred.XT
    for penalty in penalties:
        W = vectors @ (projected / (values[:, None] + penalty))
        yield W, (m.sum_T - m.sum_X @ W) / m.n


def squared_error(m, W, B):
    """Return the sum over the rows of m of (T - XW - B)**2, from their moments alone."""
    products = (W * (m.XX @ W)).sum(axis=0) - 2 * (W * m.XT).sum(axis=0)
    return (m.sum_T2 + products + m.n * B**2 - 2 * B * (m.sum_T - m.sum_X @ W)).sum()


def cross_validate(parts, penalties):
    """Return the penalty of least error on the folds that a fit has not seen, and the fit of all data with it."""
    total = sum(parts)
    errors = np.zeros(len(penalties))
    for part in parts:  # the moments of a fold are taken away: no second pass
        fits = solutions(total - part, penalties)
        errors += [squared_error(part, W, B) for W, B in fits]
    best = penalties[int(errors.argmin())]
    return best, *next(solutions(total, [best]))
