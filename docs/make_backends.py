"""Write the test counts of docs/libraries.md from the runs in docs/backends/: `python docs/make_backends.py`."""

import json
import re
import runpy
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE / "libraries.md"
REGION = re.compile(r"(<!-- test counts: begin -->\n).*?(<!-- test counts: end -->)", re.DOTALL)
ORDER = list(runpy.run_path(str(HERE.parent / "fc_arrayapi" / "_arrays" / "backends.py"))["runs"]())

HEAD = """\
| session | version | date | passed | failed | known to fail |
|---|---|---|---|---|---|
"""


def line(record):
    """Return a run as a line of the table."""
    cells = (record["backend"], f"{record['module'].partition('.')[0]} {record['version']}", record["date"],
             f"{record['passed']:,}", record["failed"], record["xfailed"])  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def reasons(records, key):
    """Return a list of what `key` names in the runs, with the reasons and the sessions."""
    sessions = {}
    for record in records:
        for what, why in record[key].items():
            sessions.setdefault((what, why), []).append(record["backend"])
    return "".join(f"- {what}: {why} ({', '.join(names)})\n" for (what, why), names in sessions.items())


def main():
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (HERE / "backends").glob("*.json")]
    records.sort(key=lambda record: ORDER.index(record["backend"]))
    missing = [name for name in ORDER if name not in {record["backend"] for record in records}]
    pythons = sorted({record["python"] for record in records})
    text = HEAD + "".join(map(line, records)) + f"\nPython {', '.join(pythons)}."
    text += f" Not recorded: {', '.join(missing)}.\n" if missing else "\n"
    for title, key in (("Known to fail", "fails"), ("Not tested", "not_tested")):
        text += f"\n{title}:\n\n{listed}" if (listed := reasons(records, key)) else ""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(REGION.sub(lambda found: f"{found[1]}{text}{found[2]}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
