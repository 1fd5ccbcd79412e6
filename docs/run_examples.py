"""A pytest plugin that runs the Python blocks of the Markdown pages, and compares what they print."""

from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(
    path=Path(__file__).parent.parent, patterns=["README.md", "docs/*.md"], parsers=[PythonCodeBlockParser()]
).pytest()
