"""What is left of a run: pytest-benchmark's JSON file, and beside it a table and a picture.

They are written to .benchmarks/last.json, .md and .svg, or where --benchmark-json says. `--record`
puts them into the docs too, and `--compare OLD.json` prints what got slower.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import machine
import plot
import pytest
import ratios
import table

ROOT = Path(__file__).parent.parent.parent
LAST = ROOT / ".benchmarks" / "last.json"
RECORDED = Path(__file__).parent / "recorded.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "pictures" / "benchmarks.svg"
REGION = re.compile(r"(<!-- recorded run: begin -->\n).*?(<!-- recorded run: end -->)", re.DOTALL)

SUMMARY = re.compile(r"(<!-- summary: begin -->\n).*?(<!-- summary: end -->)", re.DOTALL)

_old, _text = pytest.StashKey[dict[str, Any]](), pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="put this run into docs/benchmarks.md")
    parser.addoption("--compare", metavar="OLD.json", type=Path, help="print what got slower since another run")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--record") and (config.getoption("--quick") or config.getoption("keyword")):
        raise pytest.UsageError("--record needs a full run: leave out --quick and -k")
    config.stash[_text] = []
    if (path := config.getoption("--compare")) is not None:
        config.stash[_old] = _read(path)  # now: the run may write to the same place
    config.option.benchmark_json = config.option.benchmark_json or LAST
    config.option.benchmark_json.parent.mkdir(parents=True, exist_ok=True)
    config.option.benchmark_quiet = True  # one table is enough
    warnings.filterwarnings("ignore", "Not saving anything")  # what is said where no rival was found


def _read(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text())
        table.cases(run), run["quick"], run["machine_info"]["cpu"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise pytest.UsageError(f"--compare {path}: not a JSON file that a run has written: {error!r}") from error
    return run


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    described = machine.describe(machine_info["cpu"])
    machine_info.clear()
    machine_info.update(described)


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Complete the JSON file before it is written; write what is made of it."""
    run = output_json
    run.update(quick=config.getoption("--quick"), not_measured=ratios.not_measured)
    for benchmark in run["benchmarks"]:
        del benchmark["stats"]["data"]  # thousands of numbers, of which the quartiles are kept
    page = f"{table.measured_on(run)}\n\n{table.table(run)}\n"
    path = config.option.benchmark_json
    path.with_suffix(".md").write_text(page)
    plot.plot(run, path.with_suffix(".svg"))
    config.stash[_text] += [page, f"written: {path}, {path.with_suffix('.md').name}, {path.with_suffix('.svg').name}"]
    if _old in config.stash:
        config.stash[_text] += ["", table.slower(run, config.stash[_old])]
    if config.getoption("--record"):
        _record(run, page)
        config.stash[_text].append(f"recorded: {PAGE}, {PICTURE}, {RECORDED}")


def _record(run: dict[str, Any], page: str) -> None:
    """Put a run into the docs; pytest-benchmark's notes on the checkout stay out of the JSON file kept with it."""
    PICTURE.parent.mkdir(exist_ok=True)
    plot.plot_headlines(run, PICTURE)
    picture = f"![Ten ratios of the recorded run](pictures/{PICTURE.name})"
    summary = f"{table.summary(run)}\n\n{picture}\n\n"
    text = SUMMARY.sub(lambda found: found[1] + summary + found[2], PAGE.read_text())
    PAGE.write_text(REGION.sub(lambda found: found[1] + page + "\n" + found[2], text))
    kept = {key: run[key] for key in ("datetime", "quick", "machine_info", "not_measured")}
    kept["benchmarks"] = [{"extra_info": benchmark["extra_info"]} for benchmark in run["benchmarks"]]
    RECORDED.write_text(json.dumps(kept, indent=1) + "\n")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in ["", *config.stash[_text]]:
        terminalreporter.write_line(line)
