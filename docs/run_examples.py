"""A pytest plugin that runs the Python blocks of the Markdown pages, and compares what they print."""

import sys
from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

sys.path.append(str(Path(__file__).parent / "examples"))  # which pages import from

pytest_collect_file = Sybil(
    path=Path(__file__).parent.parent, patterns=["README.md", "docs/*.md"], parsers=[PythonCodeBlockParser()]
).pytest()
