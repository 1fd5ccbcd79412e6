"""Run the einsum tests that opt_einsum and NumPy install, on this package: `nox -s "tests(peers)"`.

A plugin of pytest. PEER=numpy: numpy.einsum is fc.einsum. PEER=opt_einsum: whatever backend a test asks for, opt_einsum
contracts with this package; its own reference, optimize=False, is still NumPy's einsum.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import opt_einsum
import pytest
from left_out import LEFT_OUT, REFUSED_CALLS

import fc_arrayapi as fc

PEER = os.environ["PEER"]
NUMPY_EINSUM = np.einsum
may_be_refused = False


def in_place_of_numpy(*arguments: Any, dtype: Any = None, casting: str = "same_kind", **options: Any) -> Any:
    """Call fc.einsum as NumPy's tests call einsum: operands may be lists and numbers, and are cast to `dtype`."""
    if not arguments:
        raise ValueError("no arguments")
    given, out = list(arguments), options.pop("out", None)
    places = range(1, len(given)) if isinstance(given[0], str) else range(0, len(given) - 1, 2)
    for place in places:
        given[place] = np.asarray(given[place])
        if dtype is not None:
            given[place] = given[place].astype(dtype, casting=casting)
    if isinstance(options.get("optimize"), list):  # what numpy.einsum_path returns
        options["optimize"] = [step for step in options["optimize"] if step != "einsum_path"]
    try:
        if out is None or dtype is None:
            return fc.einsum(*given, out=out, **options)
        out[...] = fc.einsum(*given, **options)
        return out
    except (TypeError, ValueError) as error:
        if may_be_refused and ("dtype bool" in str(error) or "does not broadcast" in str(error)):
            return NUMPY_EINSUM(*given, **options)
        raise


def of_arrays(function: Any) -> Any:
    """Let opt_einsum's tests pass Python's numbers and lists, as they do for operands without axes."""

    def call(*arguments: Any, **options: Any) -> Any:
        plain = (bool, int, float, complex, list)
        return function(*(np.asarray(a) if isinstance(a, plain) else a for a in arguments), **options)

    return call


def pytest_configure(config: pytest.Config) -> None:
    if PEER == "numpy":
        np.einsum = in_place_of_numpy
        return
    opt_einsum.contract.__globals__["parse_backend"] = lambda arrays, backend: "fc_arrayapi"
    for name in ("einsum", "tensordot", "transpose"):
        opt_einsum.backends.dispatch._cached_funcs[name, "fc_arrayapi"] = of_arrays(getattr(fc, name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    left_out = LEFT_OUT[PEER]
    for item in items:
        reason = left_out.get(item.name) or left_out.get(item.name.partition("[")[0])
        if reason:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def pytest_runtest_setup(item: pytest.Item) -> None:
    global may_be_refused
    may_be_refused = item.name.startswith(tuple(REFUSED_CALLS))
