"""A run as a picture: one bar for each ratio, the promised limit marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from table import cases, headlines, is_over

matplotlib.use("svg")
from matplotlib import pyplot as plt

WITHIN, OVER, LIMIT = "#4477aa", "#cc3311", "#000000"


def plot_headlines(run: dict[str, Any], path: Path) -> None:
    """Write the picture of the ten headlines, large enough for a phone."""
    measured = headlines(run)
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fc_arrayapi", "font.size": 10}):
        figure, axes = plt.subplots(figsize=(7, 0.6 + 0.5 * len(measured)), layout="constrained")
        places = range(len(measured))
        axes.barh(places, [one["ratio"] for one in measured], color=WITHIN, height=0.55)
        for place, one in enumerate(measured):
            axes.text(one["ratio"] + 0.02, place, f"{one['ratio']:.2f}", va="center")
        axes.axvline(1, color="0.5", linewidth=0.8, linestyle=":")
        axes.set_yticks(places, [f"{one['what']}\n{one['against']}" for one in measured])
        axes.set_ylim(len(measured) - 0.4, -0.6)
        axes.set_xlim(0, max(1.5, 1.15 * max((one["ratio"] for one in measured), default=1)))
        axes.set_xlabel("time of this package, as a ratio")
        figure.savefig(path, metadata={"Date": None}, facecolor="white")
        plt.close(figure)


def plot(run: dict[str, Any], path: Path) -> None:
    """Write the picture, with letters as letters and no date, so that equal runs make equal files."""
    measured = sorted(cases(run), key=lambda case: case["group"])
    names = [f"{case['case']}  /  {case['rival']}" for case in measured]
    ratios = [case["ratio"] for case in measured]
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fc_arrayapi", "font.size": 8}):
        figure, axes = plt.subplots(figsize=(10, 1.2 + 0.21 * len(measured)), layout="constrained")
        axes.barh(
            range(len(measured)),
            ratios,
            xerr=[case["ratio_iqr"] / 2 for case in measured],
            color=[OVER if is_over(case) else WITHIN for case in measured],
            ecolor="0.6",
        )
        for place, case in enumerate(measured):
            if case["at_most"] is not None:
                axes.plot([case["at_most"]] * 2, [place - 0.45, place + 0.45], color=LIMIT, linewidth=1.5)
        axes.axvline(1, color="0.5", linewidth=0.7, linestyle=":")
        axes.set_yticks(range(len(measured)), names)
        axes.set_ylim(len(measured) - 0.4, -0.6)
        axes.set_xlim(0, max(2.0, min(3.0, 1.1 * max(ratios, default=1))))
        axes.set_xlabel("time of ours / time of the rival; black: at most, as promised; red: over it")
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
