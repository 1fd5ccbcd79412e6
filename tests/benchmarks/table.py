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
# The ten cases of the page's picture, by the beginnings of case and rival, each in plain words; the first five are its
# summary.
HEADLINES = {
    ("(131072, 1024, 256)", ""): ("a pass over 0.5 GB, nothing tuned", "the best of the loops by hand"),
    ("Y, dY = Y - T, dW, dB of 1.07 GB", "a torch"): ("a pass over 1 GB", "a torch loop with autograd"),
    ("forward (4096, 1024)", "X @ W"): ("forward of 4096 x 1024 in memory", "X @ W + B"),
    ("einsum nc,cr,rs->ns, size 64", "contract"): ("einsum of three operands", "opt_einsum"),
    ("ridge with 5 folds", "scikit-learn"): ("ridge, 5 folds and 20 penalties", "scikit-learn's RidgeCV"),
    ("softmax with 1000 classes", ""): ("a pass with a softmax of 1000 classes", "the best NumPy loop"),
    ("(65536, 2048, 1)", ""): ("a pass with one output, bound by memory", "the best of the loops by hand"),
    ("dW of 1.07 GB in .npy", "da.einsum"): ("dW over 1 GB", "dask.array.einsum"),
    ("torch, norms of 2048", "vmap"): ("norms of 2048 gradients", "torch.func.vmap(grad)"),
    ("jax, forward and backward (64, 256) x (256, 256)", "jax.value"): ("JAX, forward and backward", "value_and_grad"),
}
SLOWER = 1.1  # a ratio that grew by less than this tells nothing


def cases(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was measured, in order."""
    return [benchmark["extra_info"] for benchmark in run["benchmarks"]]


def is_over(case: dict[str, Any]) -> bool:
    """Return whether a ratio is over the one that is promised."""
    return case["at_most"] is not None and round(case["ratio"], 2) > case["at_most"]


def headlines(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cases of HEADLINES that were measured, with what and rival in plain words."""
    found = []
    for (case, rival), (what, against) in HEADLINES.items():
        for one in cases(run):
            if one["case"].startswith(case) and one["rival"].startswith(rival) and not one["case"].endswith(", jit"):
                found.append(one | {"what": what, "against": against})
                break
    return found


def summary(run: dict[str, Any]) -> str:
    """Return the first five headlines as a table."""
    rows = [f"| {one['what']} | {one['against']} | {one['ratio']:.2f} |" for one in headlines(run)[:5]]
    return "\n".join(["| this package | against | time, as a ratio |", "|---|---|---|", *rows])


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
