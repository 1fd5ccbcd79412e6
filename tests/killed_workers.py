"""Kill the workers of a cluster one after another during passes: `nox -s crashes`, or `python tests/killed_workers.py`.

8 workers of one thread each. In each round a pass for the loss, dW and dB starts, and every worker is killed once, at a
random moment; the cluster starts new ones. A pass must come to the right numbers or raise an exception that says what
happened. Exits with 1 if one was wrong, or took longer than TIMEOUT.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, KilledWorker, LocalCluster

import fc_arrayapi as fc

WORKERS, TIMEOUT = 8, 120
# A pass takes about as long.
SECONDS = 2.0
N, C, S, ROWS = 64_000, 256, 16, 100


def lazy_pass(folder: Path, W: np.ndarray) -> Any:
    X, T = (fc.open_array(folder / f"{name}.npy", rows=ROWS) for name in "xt")
    dY = fc.forward(X, W) - T
    return (dY**2).sum() / 2, fc.backward(X, W, dY, needs=("dW", "dB"))


def kill_all(client: Client, rng: random.Random, killed: list[int]) -> None:
    """Kill each worker that is there now, one after another."""
    addresses = list(client.scheduler_info(n_workers=-1)["workers"])
    rng.shuffle(addresses)
    pids = client.run(os.getpid)
    for address in addresses:
        time.sleep(rng.uniform(0, 2 * SECONDS / WORKERS))
        with contextlib.suppress(KeyError, ProcessLookupError):  # it is gone already
            os.kill(pids[address], signal.SIGKILL)
            killed.append(pids[address])


def one_round(client: Client, folder: Path, W: np.ndarray, expected: Any, rng: random.Random) -> str:
    killed: list[int] = []
    killer = threading.Thread(target=kill_all, args=(client, rng, killed))
    killer.start()
    start = time.monotonic()
    try:
        with client.as_current():
            loss, grads = fc.compute(*lazy_pass(folder, W))
        in_time = len(killed)
    except KilledWorker:
        return "KilledWorker"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:100] if str(error) else "an exception without words"
    finally:
        killer.join()
    found = (loss, grads.dW, grads.dB)
    print(f"{in_time} of {WORKERS} workers were killed before it ended", end=", ")
    if time.monotonic() - start > TIMEOUT:
        return "too late"
    right = all(np.allclose(a, b, rtol=1e-4, atol=1e-3) for a, b in zip(found, expected, strict=True))
    return "right" if right else "wrong"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    numbers = np.random.default_rng(given.seed)
    W = (numbers.standard_normal((C, S)) / 16).astype("float32")
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, columns in (("x", C), ("t", S)):
            np.save(folder / f"{what}.npy", numbers.standard_normal((N, columns), dtype="float32"))
        loss, grads = fc.compute(*lazy_pass(folder, W))
        for number in range(given.rounds):  # a cluster of its own for each
            with (
                LocalCluster(
                    n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50
                ) as cluster,
                Client(cluster, set_as_default=False) as client,
            ):
                outcomes[one_round(client, folder, W, (loss, grads.dW, grads.dB), rng)] += 1
            print(f"round {number + 1} of {given.rounds}: {dict(outcomes)}", flush=True)
    return int(any(outcomes[bad] for bad in ("wrong", "too late", "an exception without words")))


if __name__ == "__main__":
    raise SystemExit(main())
