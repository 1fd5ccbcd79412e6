"""The import, in a process of its own, against that of what it stands on."""

from __future__ import annotations

import subprocess
import sys


def run(code):
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)


def test_import(against):
    against(
        "import fc_arrayapi",
        run("import fc_arrayapi"),
        "import numpy, opt_einsum, array_api_compat",
        run("import numpy, opt_einsum, array_api_compat"),
        at_most=1.2,
        seconds=8.0,
        peaks="none",
    )
