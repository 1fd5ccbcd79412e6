"""The demo on a small batch, as a person runs it: to the end, twice, from each format, and stopped by Ctrl-C."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fc_arrayapi as fc

sys.path.insert(0, str(Path(__file__).parent))
from digits import Lift, write_batch
from formats import FORMATS
from memory_cap import loading_dies

SCRIPT = Path(__file__).parent / "linear_probe.py"


def start(folder, *options):
    command = [sys.executable, str(SCRIPT), "--out", str(folder), *options]
    # A shell's background job ignores Ctrl-C and its children inherit that: undone for the child.
    listen = None if sys.platform == "win32" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen)


def test_it_runs_to_the_end_and_the_second_run_reuses_the_batch(tmp_path):
    run = start(tmp_path, "--gb", "0.1")
    output, errors = run.communicate()
    assert run.returncode == 0, errors
    assert errors == ""
    assert float(re.search(r"accuracy +([\d.]+)% of 360 images", output)[1]) >= 97
    assert float(re.search(r"scikit-learn on 10,000 rows in memory: ([\d.]+)%", output)[1]) >= 97
    assert "reusing" not in output
    for line in (r"memory +\d+ MB at most", r"[\d.]+ s a pass", r"GB/s", "augmented: 1,437 real images"):
        assert re.search(line, output)
    assert "loading the file: it fits" in output  # 0.1 GB
    passes = [int(number) for number in re.findall(r"^pass +(\d+): ", output, re.MULTILINE)]
    assert passes == [1, 2, 5, 10, 20, 50][: len(passes)]
    assert [line[0] for line in output.splitlines()[-7:]] == ["+", "|", "|", "|", "|", "|", "+"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "X.npy", "batch.npy.json", "labels.npy", "layer.npz", "linear_probe.png",
    ]  # fmt: skip
    run = start(tmp_path, "--gb", "0.1", "--steps", "1")
    output, errors = run.communicate()
    assert (run.returncode, errors) == (0, "")
    assert "reusing" in output


def test_every_format_has_the_same_batch(tmp_path):
    images, labels = np.random.default_rng(0).random((20, 8, 8), "float32"), np.arange(20) % 10
    lift, rows, said = Lift(features=1024), 20_000, []  # three blocks

    def show(line, passing=False):
        said.append(line)

    for kind in [kind for kind in FORMATS if kind != "s3"]:  # which takes a server
        for again in (False, True):
            names = write_batch(tmp_path, images, labels, lift, rows, kind, show)
            assert ("reusing" in said[-1]) == again
        X, y = map(fc.open_array, names)
        assert (X.dtype, y.dtype) == ("float32", "int64")
        for array, name in ((X, "X.npy"), (y, "labels.npy")):
            np.testing.assert_array_equal(array.compute(), np.load(tmp_path / name))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")
def test_a_file_larger_than_the_cap_dies_when_it_is_loaded_and_is_trained_on(tmp_path):
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (2**20, 300)).flush()  # takes no space on the disk
    assert "MemoryError" in loading_dies(str(tmp_path / "x.npy"))
    np.save(tmp_path / "small.npy", np.ones((10, 300), "float32"))
    assert loading_dies(str(tmp_path / "small.npy")) is None


def test_it_reads_another_format(tmp_path):
    run = start(tmp_path, "--gb", "0.01", "--features", "64", "--steps", "10", "--from", "parquet")
    output, errors = run.communicate()
    assert (run.returncode, errors) == (0, "")
    assert float(re.search(r"accuracy +([\d.]+)% of 360 images", output)[1]) >= 70
    (file,) = FORMATS["parquet"].files
    assert f"{tmp_path / file}::X: 39,062 x 64 float32" in output
    assert {path.name for path in tmp_path.iterdir()} == {
        file, "batch.parquet.json", "layer.npz", "linear_probe.png",
    }  # fmt: skip


def wait_for(condition, run):
    deadline = time.monotonic() + 120
    while not condition():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one child")
def test_ctrl_c_while_the_batch_is_written_leaves_nothing(tmp_path):
    run = start(tmp_path, "--gb", "2", "--features", "256")
    batch = tmp_path / "X.npy"
    wait_for(lambda: batch.exists() and batch.stat().st_size > 10**7, run)
    run.send_signal(signal.SIGINT)
    output, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (130, "")
    assert output.endswith("stopped; a batch that was whole is kept and used again\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one child")
def test_ctrl_c_while_training_keeps_the_batch(tmp_path):
    run = start(tmp_path, "--gb", "0.3", "--features", "256")
    lines = []
    while not (lines and lines[-1].startswith("pass ")):
        lines.append(run.stdout.readline())
        assert lines[-1], run.communicate()
    run.send_signal(signal.SIGINT)
    output, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (130, "")
    assert output.endswith("stopped; a batch that was whole is kept and used again\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["X.npy", "batch.npy.json", "labels.npy"]
