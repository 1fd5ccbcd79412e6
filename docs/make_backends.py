"""Write docs/backends.md from what the test runs recorded in docs/backends/: `python docs/make_backends.py`."""

import json
import runpy
from pathlib import Path

HERE = Path(__file__).parent
ORDER = list(runpy.run_path(str(HERE.parent / "fc_arrayapi" / "_arrays" / "backends.py"))["runs"]())

HEAD = """\
# Backends

The libraries that have a session of tests of their own, and what the last recorded run of each said. Made by
`python docs/make_backends.py` from the files that the runs write; do not edit.

| session | version | Python | date | passed | failed | known to fail | what, and why | not tested, and why |
|---|---|---|---|---|---|---|---|---|
"""

FOOT = """
A test of what a library does not have is left out of its session, with the reason in the last column. A test that meets
a known bug of the library is run, and must fail: the run says so when the bug is mended. Tests that are about no single
library, such as those of weights, run in each session.

To record a run, name a folder:

```sh
FC_ARRAYAPI_RECORD=docs/backends nox -s "tests(torch)"
python docs/make_backends.py
```

[Other libraries](other_libraries.md) has those without a session.
"""


def line(record):
    """Return a run as a line of the table."""
    cells = (record["backend"], f"{record['module'].partition('.')[0]} {record['version']}", record["python"],
             record["date"], f"{record['passed']:,}", record["failed"], record["xfailed"], reasons(record["fails"]),
             reasons(record["not_tested"]))  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def reasons(why):
    return "; ".join(f"{what}: {reason}" for what, reason in why.items())


def main():
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (HERE / "backends").glob("*.json")]
    records.sort(key=lambda record: ORDER.index(record["backend"]))
    missing = [name for name in ORDER if name not in {record["backend"] for record in records}]
    table = "".join(line(record) for record in records)
    note = f"\nNot recorded: {', '.join(missing)}.\n" if missing else ""
    (HERE / "backends.md").write_text(HEAD + table + note + FOOT, encoding="utf-8")


if __name__ == "__main__":
    main()
