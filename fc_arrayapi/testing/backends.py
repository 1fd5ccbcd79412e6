"""check_backend: try the layer and einsum on any array library, also one we have not tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import _linear
from .._arrays import namespace
from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array
from .._arrays.summary import html_table
from .._einsum import einsum
from .._math import equations
from . import gradients
from .reference import reference_backward, reference_forward

N, C, S = 50, 7, 5
RESULTS = ("Y", *equations.GRADIENTS)
# A plain float32 sum of this many equal numbers has an error of a hundredth.
MANY_ROWS = 2**20
EQUATIONS = (
    "nc,cs->ns", "nc,ns->cs", "ns->s", "nc,nc->", "nn->n", "nn->", "nc->cn", "abc->cab", "a,b->ab", "bij,bjk->bik",
    "bij,bkj->bik", "nc,cr,rs->ns",
)  # fmt: skip
# Sizes of the indices; 100 matrices in a stack, since kernels may treat large stacks differently.
SIZES = dict(zip("abcijknrs", (3, 100, 4, 3, 5, 4, 4, 2, 3), strict=True))
# Relative to the largest number.
TOLERANCES = {"float32": 1e-5, "float64": 1e-13}
LONG_SUM_TOLERANCE = 2e-4


@dataclass(frozen=True)
class BackendCheck:
    """One line of a `BackendReport`.

    Parameters
    ----------
    what : str
        The name of the check.
    ok : bool
        Whether it passed.
    why : str
        The reason in one line; empty if it passed.
    """

    what: str
    ok: bool
    why: str = ""


@dataclass(frozen=True, repr=False)
class BackendReport:
    """The result of `check_backend`; it prints as a table.

    Parameters
    ----------
    library : str
        The name of the library.
    checks : tuple of BackendCheck
        All checks.
    """

    library: str
    checks: tuple[BackendCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether all checks passed."""
        return all(check.ok for check in self.checks)

    def _rows(self) -> list[tuple[str, str, str]]:
        return [(check.what, "ok" if check.ok else "failed", check.why) for check in self.checks]

    def _repr_html_(self) -> str:
        return html_table([self.library, "", ""], self._rows())

    def __repr__(self) -> str:
        rows = self._rows()
        return "\n".join([self.library, *(f"  {what:<18} {verdict:<6} {why}".rstrip() for what, verdict, why in rows)])


def check_backend(xp: Any) -> BackendReport:
    """Try the layer and einsum on an array library, and report what works.

    Parameters
    ----------
    xp : module
        The library's module of functions, for example ``torch``, ``jax.numpy`` or ``sparse``.

    Returns
    -------
    BackendReport
        Arrays from NumPy and back in float32 and float64; Y, dX, dW and dB in each dtype that
        the library supports, compared with the literal form in shape, dtype and values, to 1e-5 and
        1e-13 of the largest number, and with what `check_gradients` compares; several leading
        axes and none; an empty batch; views; sums over 1,048,576 rows of equal and of random
        numbers in float32, to 2e-4; a few equations of einsum; an error where sizes differ.
        Errors of the library are not raised: the table shows them. It takes a few seconds.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> fc.testing.check_backend(np)
    numpy
      float32            ok
      float64            ok
      Y                  ok
      dX                 ok
      dW                 ok
      dB                 ok
      leading axes       ok
      no leading axis    ok
      empty batch        ok
      views              ok
      long sums          ok
      einsum             ok
      sizes that differ  ok
    """
    checks = [_tried(dtype, partial(_round_trip, xp, dtype)) for dtype in ("float32", "float64")]
    # A missing float64 is reported once.
    dtypes = ["float32", *(["float64"] if checks[1].ok else [])]
    checks += [_tried(name, partial(_result, xp, name, dtypes)) for name in RESULTS]
    others: dict[str, Callable[[Any], str]] = {
        "leading axes": lambda xp: _layer(xp, _batch("float32", (2, 3))),
        "no leading axis": lambda xp: _layer(xp, _batch("float32", ())),
        "empty batch": lambda xp: _layer(xp, _batch("float32", (0,))),
        "views": _views,
        "long sums": _long_sums,
        "einsum": _equations,
        "sizes that differ": _differing_sizes,
    }
    checks += [_tried(what, partial(attempt, xp)) for what, attempt in others.items()]
    return BackendReport(_name(xp), tuple(checks))


def _tried(what: str, attempt: Callable[[], str]) -> BackendCheck:
    """Run a check that returns why it failed, or nothing, and make a line of the result or exception."""
    try:
        why = attempt()
    except Exception as error:  # any exception of a library is a result
        why = f"{type(error).__name__}: {error}"
    why = " ".join(why.split())
    return BackendCheck(what, not why, why)


def _name(xp: Any) -> str:
    return str(getattr(xp, "__name__", repr(xp))).removeprefix("array_api_compat.")


# Arrays for the checks.


def _given(xp: Any, array: NumPyArray) -> Array:
    """Convert a NumPy array to the library; to Dask in about three blocks along each axis."""
    own = namespace.wrapped(xp)
    given = own.asarray(array)
    if namespace.is_chunked(own):
        return given.rechunk(tuple(max(1, -(-size // 3)) for size in array.shape))
    return given


def _batch(dtype: str, leading: tuple[int, ...] = (N,)) -> dict[str, NumPyArray]:
    rng = np.random.default_rng(0)
    shapes = {"X": (*leading, C), "W": (C, S), "B": (S,), "dY": (*leading, S)}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def _unlike(name: str, found: Array, expected: NumPyArray, rtol: float) -> str:
    """Write how a result differs from the expected one; nothing if it agrees."""
    dtype, shape = namespace.dtype_name(found.dtype), tuple(found.shape)
    if (dtype, shape) != (expected.dtype.name, expected.shape):
        return f"{name} is {dtype} {shape}, must be {expected.dtype.name} {expected.shape}"
    if expected.size == 0:  # mlx hangs when it evaluates an empty product
        return ""
    values = namespace.to_numpy(found)
    if values.shape != expected.shape:
        return f"{name} has shape {shape} and {values.shape} numbers"
    off = float(np.max(np.abs(values - expected), initial=0.0))
    if off <= rtol * np.max(np.abs(expected), initial=1.0):
        return ""
    return f"{name} in {dtype} is off by {off:.2g}"


# The checks.


def _round_trip(xp: Any, dtype: str) -> str:
    array = _batch(dtype)["X"]
    return _unlike("an array", _given(xp, array), array, 0.0)


def _result(xp: Any, name: str, dtypes: list[str]) -> str:
    """Compare one of Y, dX, dW and dB with its literal form, and check its identity."""
    for dtype in dtypes:
        hosts = _batch(dtype)
        X, W, B, dY = (_given(xp, array) for array in hosts.values())
        found, expected = _both(name, hosts, X, W, B, dY)
        why = _unlike(name, found, expected, TOLERANCES[dtype])
        if why:
            return why
        report = gradients.examine(X, W, B, dY)
        wrong = [str(check) for check in report.checks if check.name == name and not check.ok]
        if wrong:
            return f"{dtype}: {'; '.join(wrong)}"
    return ""


def _both(name: str, hosts: dict[str, NumPyArray], X: Array, W: Array, B: Array, dY: Array) -> tuple[Array, NumPyArray]:
    """Return a result of the layer, and its literal form."""
    if name == "Y":
        return _linear.forward(X, W, B), reference_forward(hosts["X"], hosts["W"], hosts["B"])
    expected = reference_backward(hosts["X"], hosts["W"], hosts["dY"])
    return getattr(_linear.backward(X, W, dY), name), getattr(expected, name)


def _layer(xp: Any, hosts: dict[str, NumPyArray]) -> str:
    """Compare all results with their literal forms."""
    return _compared(hosts, *(_given(xp, array) for array in hosts.values()))


def _compared(hosts: dict[str, NumPyArray], X: Array, W: Array, B: Array, dY: Array) -> str:
    whys = [_unlike(name, *_both(name, hosts, X, W, B, dY), TOLERANCES[hosts["X"].dtype.name]) for name in RESULTS]
    return "; ".join(filter(None, whys))


def _views(xp: Any) -> str:
    """Take every second row of X and dY, every second entry of B, and a transposed W."""
    hosts = _batch("float32")
    X, dY, B = (_given(xp, np.repeat(hosts[name], 2, axis=0)) for name in ("X", "dY", "B"))
    W = einsum("sc->cs", _given(xp, np.ascontiguousarray(hosts["W"].T)))
    return _compared(hosts, X[::2, :], W, B[::2], dY[::2, :])


def _long_sums(xp: Any) -> str:
    """Sum equal numbers, for which a plain sum has the largest error, and random ones, which distinguish rows.

    All are positive, so that the largest number is the scale. dY is the sum of the features: pairing a row of X with
    the wrong row of dY gives less on average.
    """
    equal = np.full((MANY_ROWS, 2), 0.1, "float32")
    random = np.random.default_rng(0).random((MANY_ROWS, 2), "float32")
    W = _given(xp, np.ones((2, 1), "float32"))
    whys = []
    for what, X in (("equal", equal), ("random", random)):
        dY = X[:, :1] + X[:, 1:]
        grads = _linear.backward(_given(xp, X), W, _given(xp, dY), needs=("dW", "dB"))
        sums = {"dW": np.einsum("nc,ns->cs", X, dY, dtype="float64"), "dB": dY.sum(axis=0, dtype="float64")}
        for name, expected in sums.items():
            numbers = f"{name} of {what} numbers"
            whys.append(_unlike(numbers, getattr(grads, name), expected.astype("float32"), LONG_SUM_TOLERANCE))
    return "; ".join(filter(None, whys))


def _equations(xp: Any) -> str:
    rng = np.random.default_rng(0)
    whys = []
    for equation in EQUATIONS:
        indices = equation.partition("->")[0].split(",")
        hosts = [rng.normal(size=[SIZES[label] for label in index]).astype("float32") for index in indices]
        check = _tried(equation, partial(_equation, xp, equation, hosts))
        whys += [] if check.ok else [f"{equation}: {check.why}"]
    return f"{len(whys)} of {len(EQUATIONS)} equations: {'; '.join(whys)}" if whys else ""


def _equation(xp: Any, equation: str, hosts: list[NumPyArray]) -> str:
    found = einsum(equation, *(_given(xp, array) for array in hosts))
    return _unlike("the result", found, np.asarray(np.einsum(equation, *hosts)), TOLERANCES["float32"])


def _differing_sizes(xp: Any) -> str:
    """Check that a wrong number of features and a size of 1 are refused."""
    hosts = _batch("float32")
    X, W, B = (_given(xp, hosts[name]) for name in ("X", "W", "B"))
    for what, wrong in (("X of C - 1 features", (X[:, 1:], W, B)), ("B of one number", (X, W, B[:1]))):
        try:
            _linear.forward(*wrong)
        except ValueError:
            continue
        return f"{what} is taken"
    return ""
