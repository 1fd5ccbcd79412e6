"""Helpers that the tests share: comparing arrays in full, and laziness."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from fc_arrayapi._arrays import namespace
from fc_arrayapi._arrays.libraries import library


def assert_array(result: Any, expected: Any, *, like: Any, rtol: float, dtype: str | None = None) -> None:
    """Compare library, device, dtype, shape and values; `like` is an input of the call.

    The tolerance is relative to the largest expected number, so that entries which
    cancel to almost nothing are not asked for digits that no sum has.
    """
    assert namespace.of(result) is namespace.of(like)
    if library(namespace.of(like)).compares_devices:
        assert namespace.device(result) == namespace.device(like)
    assert namespace.dtype_name(result.dtype) == (dtype or namespace.dtype_name(like.dtype))
    expected = np.asarray(expected)
    assert tuple(result.shape) == expected.shape
    values = namespace.to_numpy(result)
    assert values.shape == expected.shape
    assert values.dtype.name == (dtype or namespace.dtype_name(like.dtype)).replace("bfloat16", "float32")
    scale = np.max(np.abs(expected), initial=1.0)
    np.testing.assert_allclose(values, expected, rtol=rtol, atol=rtol * scale)


class ComputedError(Exception):
    """Raised by the scheduler of `nothing_computes`."""


def nothing_computes(backend: Any) -> AbstractContextManager[Any]:
    """Run Dask under a scheduler that raises; other libraries as they are."""
    if not backend.chunked:
        return nullcontext()
    import dask

    def scheduler(*args: Any, **kwargs: Any) -> None:
        raise ComputedError("something was computed while the graph was built")

    return dask.config.set(scheduler=scheduler)
