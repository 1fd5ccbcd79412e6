"""One benchmark is a ratio: ours against a rival, in turns within one run, so that a slow machine slows both.

A pytest plugin: `pytest -p ratios`. It brings its neighbours along: files.py makes what is read
from disk, report.py writes the results.
"""

from __future__ import annotations

import importlib
import inspect
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

pytest_plugins = ["files", "report"]

LEAST_SECONDS = 0.002  # one round lasts at least this long, so that the clock is no part of it
ROUNDS, ROUNDS_IF_QUICK = 7, 4  # at least; the first is a warm-up
# OpenBLAS threads spin for a tenth of a second after a product, on a core that the other one's turn needs: after a loop
# with all BLAS threads, a pass of 107 ms took 127. Where a turn is long enough to feel that, it waits for them.
REST, LEAST_WITH_REST = 0.15, 0.005

# Cases that could not be measured here, and why: rows of the table all the same.
not_measured: list[dict[str, str]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="smaller files and fewer rounds: about right, in two minutes")


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("--quick")


@pytest.fixture
def against(request: pytest.FixtureRequest, quick: bool) -> Against:
    return Against(request, quick)


class Against:
    """Measures one case: `against(case, ours, rivals_name, rival)`."""

    def __init__(self, request: pytest.FixtureRequest, quick: bool) -> None:
        self._request, self._quick = request, quick
        self._group = inspect.getdoc(request.module).partition("\n")[0]

    def needs(self, case: str, rivals_name: str, module: str) -> Any:
        """Return a rival's module; where it is not installed, leave a row that says so."""
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name == module.partition(".")[0]
            self.cannot(case, rivals_name, f"{error.name} is not installed" if missing else f"{module}: {error}")
        except Exception as error:  # installed, and not made for its neighbours' versions
            self.cannot(case, rivals_name, f"{module} does not import: {type(error).__name__}: {error}")

    def cannot(self, case: str, rivals_name: str, why: str) -> NoReturn:
        """Leave a row without numbers."""
        not_measured.append({"group": self._group, "case": case, "rival": rivals_name, "why": why})
        pytest.skip(why)

    def __call__(
        self,
        case: str,
        ours: Callable[[], Any],
        rivals_name: str,
        rival: Callable[[], Any],
        *,
        at_most: float | None = None,  # the ratio that is promised, if any
        seconds: float = 2.0,
        peaks: str = "both",  # whose memory is looked at: "both", "ours" or "none"; NumPy's can be seen alone
    ) -> None:
        ours()  # plans are made, caches are filled
        once = _time(rival, 1)
        once = max(_time(rival, 1) if once < 0.5 else once, 1e-7)
        calls = max(1, round(LEAST_SECONDS / once))
        least, seconds = (ROUNDS_IF_QUICK, seconds / 10) if self._quick else (ROUNDS, seconds)
        rest = REST if once >= LEAST_WITH_REST else 0
        rounds = min(1000, max(least, round(seconds / (2 * (calls * once + rest)))))
        own, others = self._in_turns(ours, rival, calls, rounds, rest)
        benchmark = self._request.getfixturevalue("benchmark")
        benchmark.extra_info.update(
            group=self._group,
            case=case,
            rival=rivals_name,
            at_most=at_most,
            ours=_middle([t / calls for t in own]),
            theirs=_middle([t / calls for t in others]),
            ratio=statistics.median(own) / statistics.median(others),
            ratio_iqr=_middle([a / b for a, b in zip(own, others, strict=True)])["iqr"],
            peak=None if peaks == "none" else _peak(ours),
            rivals_peak=_peak(rival) if peaks == "both" else None,
        )

    def _in_turns(
        self, ours: Callable[[], Any], rival: Callable[[], Any], calls: int, rounds: int, rest: float
    ) -> tuple[list[float], list[float]]:
        """Return the seconds of each round but the first: a round is `calls` calls of the one, then of the other."""
        benchmark, others = self._request.getfixturevalue("benchmark"), []

        def run_ours() -> None:
            for _ in range(calls):
                ours()

        def rivals_turn() -> None:
            time.sleep(rest)
            others.append(_time(rival, calls))
            time.sleep(rest)

        # The setup of a round is not part of it: the rival has its turn there.
        benchmark.pedantic(run_ours, setup=rivals_turn, rounds=rounds)
        return benchmark.stats.stats.data[1:], others[1:]


def _time(function: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return time.perf_counter() - start


def _peak(function: Callable[[], Any]) -> int:
    """Return the bytes that Python and NumPy hold at most while the function runs, the result included."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _middle(numbers: list[float]) -> dict[str, float]:
    """Return the median and the spread: the width of the middle half."""
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return {"median": median, "iqr": high - low}
