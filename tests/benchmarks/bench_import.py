"""The import, in a separate process and from compiled files, against that of what it stands on."""

from __future__ import annotations

import os
import subprocess
import sys


def test_import(against, folder):
    # Compiled as after pip install, also where a checkout is told to leave no compiled files.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder)

    def run(code):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    against(
        "import fc_arrayapi",
        run("import fc_arrayapi"),
        "import numpy, opt_einsum, array_api_compat",
        run("import numpy, opt_einsum, array_api_compat"),
        at_most=1.1,
        seconds=8.0,
        peaks="none",
    )
