"""A cap of memory, as a small machine has it; and a program that loads a whole file under the same cap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import fc_arrayapi as fc

# What a process may hold beside Python and its libraries. The limit counts memory that is reserved, also where it is
# never used, such as the buffers of BLAS.
CAP = 10**9


def cap_memory() -> bool:
    """Let this process hold CAP bytes more than now; return False where the system has no such limit."""
    try:
        import resource

        held = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
    except (ImportError, FileNotFoundError):  # not Linux
        return False
    resource.setrlimit(resource.RLIMIT_DATA, (held + CAP, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    return True


def loading_dies(path: str) -> str | None:
    """Load a whole file in another process under the same cap; return how that died, None if it did not."""
    child = subprocess.run([sys.executable, __file__, path], capture_output=True, text=True)
    if child.returncode == 0:
        return None
    last = (child.stderr.strip().splitlines() or [""])[-1]
    return last.rpartition("Exceptions._")[2].rpartition("exceptions._")[2] or f"exit code {child.returncode}"


if __name__ == "__main__":
    cap_memory()
    name = sys.argv[1]
    X = np.load(name) if name.endswith(".npy") else np.asarray(fc.open_array(name))
