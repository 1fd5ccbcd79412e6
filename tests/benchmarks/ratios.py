"""One benchmark is a ratio: ours against a rival, in turns within one run, so that a slow machine slows both."""

from __future__ import annotations

import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

LEAST_SECONDS = 0.002  # one round lasts at least this long, so that the clock is no part of it


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="a tenth of the rounds: about right, sooner")


@pytest.fixture
def against(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that measures `ours` against `rival`, and keeps what the table shows."""

    def measure(
        case: str,
        ours: Callable[[], Any],
        rivals_name: str,
        rival: Callable[[], Any],
        *,
        at_most: float,
        seconds: float = 2.0,
        anonymous: bool = False,
    ) -> None:
        ours(), rival()  # plans are made, caches are filled
        once = max(_time(rival, 1), 1e-7)
        calls = max(1, round(LEAST_SECONDS / once))
        if request.config.getoption("--quick"):
            seconds /= 10
        rounds = min(1000, max(7, round(seconds / (2 * calls * once))))
        rivals = []

        def run_ours():
            for _ in range(calls):
                ours()

        # The setup of a round is not part of it: the rival has its turn there.
        benchmark.pedantic(run_ours, setup=lambda: rivals.append(_time(rival, calls)), rounds=rounds)
        # The first round is a warm-up.
        own, other = statistics.median(benchmark.stats.stats.data[1:]), statistics.median(rivals[1:])
        benchmark.extra_info.update(
            case=case,
            rival=rivals_name,
            ours_us=own / calls * 1e6,
            rival_us=other / calls * 1e6,
            ratio=own / other,
            at_most=at_most,
            peak_mb=(_peak_of_process if anonymous else _peak)(ours) / 1e6,
            rivals_peak_mb=(_peak_of_process if anonymous else _peak)(rival) / 1e6,
        )

    return measure


def _time(function: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return time.perf_counter() - start


def _peak(function: Callable[[], Any]) -> float:
    """Return the bytes that Python and NumPy hold at most while the function runs, the result included."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _peak_of_process(function: Callable[[], Any]) -> float:
    """Return by how many bytes the anonymous memory of this process grows at most: files in the cache don't count."""
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, _anonymous())

    before = _anonymous()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        function()
    finally:
        done.set()
        thread.join()
    return max(0, peak - before)


def _anonymous() -> int:
    with open("/proc/self/status") as status:
        return int(status.read().split("RssAnon:")[1].split()[0]) * 1024


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table, in Markdown."""
    measured = [b.extra_info for b in config._benchmarksession.benchmarks if "ratio" in b.extra_info]
    if not measured:
        return
    lines = [
        "| case | against | ours | rival | ratio | at most | peak memory, ours and rival |",
        "|---|---|---|---|---|---|---|",
    ]
    for m in measured:
        over = " (over)" if round(m["ratio"], 2) > m["at_most"] else ""
        times = f"{m['ours_us']:,.1f} us | {m['rival_us']:,.1f} us | {m['ratio']:.2f}{over} | {m['at_most']}"
        peaks = f"{m['peak_mb']:,.2f} MB, {m['rivals_peak_mb']:,.2f} MB"
        lines.append(f"| {m['case']} | {m['rival']} | {times} | {peaks} |")
    terminalreporter.write_line("")
    terminalreporter.write_line("\n".join(lines))
