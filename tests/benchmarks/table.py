"""A run as Markdown: its table, what it was measured on, and what got slower since another one.

A run is the content of pytest-benchmark's JSON file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

HEAD = (
    "| case | against | ours | rival | ratio | at most | peak memory, ours and rival |\n|---|---|---|---|---|---|---|"
)
SLOWER = 1.1  # a ratio that grew by less than this tells nothing


def cases(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was measured, in order."""
    return [benchmark["extra_info"] for benchmark in run["benchmarks"]]


def is_over(case: dict[str, Any]) -> bool:
    """Return whether a ratio is over the one that is promised."""
    return case["at_most"] is not None and round(case["ratio"], 2) > case["at_most"]


def table(run: dict[str, Any]) -> str:
    """Return a heading and a table for each file of benchmarks."""
    rows = sorted([*cases(run), *run["not_measured"]], key=lambda case: case["group"])
    text = "\n\n".join(
        "\n".join([f"### {group.rstrip('.')}", "", HEAD, *map(_row, of_group)])
        for group, of_group in groupby(rows, key=lambda case: case["group"])
    )
    # A number stays beside its spread and its unit, in a narrow window too.
    return re.sub(r"(?<=[\d±]) (?=[±\d]|(?:ms|us|s|kB|MB)\b|\(over\))", "\N{NO-BREAK SPACE}", text)


def _row(case: dict[str, Any]) -> str:
    if "why" in case:
        return f"| {case['case']} | {case['rival']} | - | - | - | - | {case['why']} |"
    ratio = f"{case['ratio']:.2f} ± {case['ratio_iqr'] / 2:.2f}{' (over)' if is_over(case) else ''}"
    limit = "-" if case["at_most"] is None else f"{case['at_most']:.2f}"
    peaks = ", ".join("-" if case[who] is None else _size(case[who]) for who in ("peak", "rivals_peak"))
    times = f"{_seconds(case['ours'])} | {_seconds(case['theirs'])}"
    return f"| {case['case']} | {case['rival']} | {times} | {ratio} | {limit} | {peaks} |"


def _seconds(time: dict[str, float]) -> str:
    unit, scale = next((u, s) for u, s in (("s", 1), ("ms", 1e3), ("us", 1e6)) if time["median"] * s >= 1 or s == 1e6)
    return f"{_digits(time['median'] * scale)} ± {_digits(time['iqr'] / 2 * scale, 2)} {unit}"


def _size(size: float) -> str:
    return f"{_digits(size / 1e6)} MB" if size >= 1e5 else f"{_digits(size / 1e3)} kB"


def _digits(number: float, digits: int = 3) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.{digits}g}"


def measured_on(run: dict[str, Any]) -> str:
    """Return the date, the machine and the versions, in Markdown."""
    machine = run["machine_info"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    lines = [
        f"Date: {run['datetime'][:10]}{', a quick run' if run['quick'] else ''}",
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; {machine['os']}",
        f"Python {machine['python']}; {'; '.join(machine['blas'])}",
        f"Versions: {versions}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def slower(new: dict[str, Any], old: dict[str, Any]) -> str:
    """Return a table of the cases whose ratio grew by a tenth and by more than its spread.

    Ratios are compared, never times: the rival ran on the same machine in the same minutes.
    """
    before = {(case["case"], case["rival"]): case for case in cases(old)}
    both = [(case, before[key]) for case in cases(new) if (key := (case["case"], case["rival"])) in before]
    rows = list(_slower_rows(both))
    only = f"; {len(cases(new)) - len(both)} cases are new, {len(before) - len(both)} were left out"
    lines = [f"Compared with the run of {old['datetime'][:10]}: {len(rows)} of {len(both)} cases got slower{only}."]
    if new["machine_info"]["cpu"] != old["machine_info"]["cpu"] or new["quick"] != old["quick"]:
        lines.append("The other run was made on another machine, or only one of the two is quick: take it as a hint.")
    if rows:
        lines += ["", "| case | against | ratio then | ratio now | grown |", "|---|---|---|---|---|", *rows]
    return "\n".join(lines)


def _slower_rows(both: list[tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[str]:
    for now, then in both:
        spread = (now["ratio_iqr"] + then["ratio_iqr"]) / 2
        if now["ratio"] > SLOWER * then["ratio"] and now["ratio"] - then["ratio"] > spread:
            ratios = (
                f"{then['ratio']:.2f} ± {then['ratio_iqr'] / 2:.2f} | {now['ratio']:.2f} ± {now['ratio_iqr'] / 2:.2f}"
            )
            yield f"| {now['case']} | {now['rival']} | {ratios} | {now['ratio'] / then['ratio'] - 1:+.0%} |"
