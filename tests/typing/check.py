"""Run mypy --strict and pyright over the programs beside this file, and compare what they find with the marks.

A line that ends in ``# error`` must have an error, and no other line may have one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = sorted(path for path in HERE.glob("*.py") if path.name != "check.py")


def marked() -> set[tuple[str, int]]:
    return {
        (path.name, number)
        for path in PROGRAMS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if line.endswith("  # error")
    }


def found_by_mypy() -> dict[tuple[str, int], str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--output=json", *map(str, PROGRAMS)]
    # From elsewhere, so that the installed package is checked as a user has it, and not the checkout.
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode not in (0, 1):
        sys.exit(run.stdout + run.stderr)
    return {(Path(line["file"]).name, line["line"]): line["message"] for line in lines if line["severity"] == "error"}


def found_by_pyright() -> dict[tuple[str, int], str]:
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, PROGRAMS)]
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    start = re.search(r"^\{", run.stdout, re.MULTILINE)
    if start is None:
        sys.exit(run.stdout + run.stderr)
    return {
        (Path(found["file"]).name, found["range"]["start"]["line"] + 1): found["message"]
        for found in json.loads(run.stdout[start.start() :])["generalDiagnostics"]
        if found["severity"] == "error"
    }


def main() -> int:
    wanted, failed = marked(), 0
    for name, found in (("mypy", found_by_mypy()), ("pyright", found_by_pyright())):
        for file, line in sorted(wanted - found.keys()):
            print(f"{name}: {file}:{line}: finds no error")
        for file, line in sorted(found.keys() - wanted):
            print(f"{name}: {file}:{line}: {found[file, line]}")
        failed += len(wanted ^ found.keys())
        print(f"{name}: {len(PROGRAMS)} programs, {len(wanted & found.keys())} of {len(wanted)} mistakes found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
