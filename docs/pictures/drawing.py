"""What the pictures share: colours, and how they are saved."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams.update({
    "svg.hashsalt": "fc_arrayapi", "svg.fonttype": "path", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
})  # fmt: skip

BLUE, ORANGE, GREEN, GREY = "#2a6fb0", "#e07b1a", "#2f8f5b", "#686d76"
PALE = {BLUE: "#cfe2f5", ORANGE: "#fbdcbb", GREEN: "#cdebd9", GREY: "#eceef1"}


def save(figure, name):
    """Write a picture beside this script, the same bytes for the same drawing."""
    path = Path(__file__).parent / name
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")
