"""Helpers that the tests share: comparing arrays in full, and laziness."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest

from fc_arrayapi._arrays import namespace
from fc_arrayapi._arrays.libraries import library


def assert_array(result: Any, expected: Any, *, like: Any, rtol: float, dtype: str | None = None) -> None:
    """Compare library, device, dtype, shape and values; `like` is an input of the call.

    The tolerance is relative to the largest expected number, so that entries which
    cancel to almost nothing are not asked for digits that no sum has.
    """
    assert namespace.of(result) is namespace.of(like)
    if library(namespace.of(like)).plain is not None:
        assert namespace.device(result) == namespace.device(like)
    assert namespace.dtype_name(result.dtype) == (dtype or namespace.dtype_name(like.dtype))
    expected = np.asarray(expected)
    assert tuple(result.shape) == expected.shape
    values = namespace.to_numpy(result)
    assert values.shape == expected.shape
    assert values.dtype.name == (dtype or namespace.dtype_name(like.dtype)).replace("bfloat16", "float32")
    scale = np.max(np.abs(expected), initial=1.0)
    np.testing.assert_allclose(values, expected, rtol=rtol, atol=rtol * scale)


def lacks(message: str, *facts: str) -> list[str]:
    """Return the facts that a message lacks.

    A fact is text that stands in the message as it is, and not inside a longer word or number: 4 is not in 14 or 0.4.
    """
    patterns = {fact: rf"(?<![\w.]){re.escape(fact)}(?![\w]|\.\d)" for fact in facts}
    # A fact that begins or ends with a sign has its own border there.
    return [fact for fact, pattern in patterns.items() if not re.search(_without_borders(fact, pattern), message)]


def _without_borders(fact: str, pattern: str) -> str:
    if not re.match(r"\w", fact):
        pattern = pattern.removeprefix(r"(?<![\w.])")
    if not re.search(r"\w$", fact):
        pattern = pattern.removesuffix(r"(?![\w]|\.\d)")
    return pattern


@contextmanager
def refused(exception: type[BaseException], *facts: str) -> Iterator[pytest.ExceptionInfo[BaseException]]:
    """Expect an exception of just this type, with a message of one line that has all these facts.

    Facts are what a message must tell: the argument, the axis, both sizes, a dtype, a path, the call that mends it. Its
    sentence is free; test_messages.py holds the most important ones.
    """
    with pytest.raises(exception) as raised:
        yield raised
    message = str(raised.value)
    assert type(raised.value) is exception, f"{type(raised.value)}: {message}"
    assert "\n" not in message
    assert lacks(message, *facts) == [], message


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
