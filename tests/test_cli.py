"""The command fc-arrayapi: what it prints, what it writes, how it ends."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from helpers.assertions import lacks
from helpers.backends import BACKENDS

import fc_arrayapi as fc
from fc_arrayapi import _linear, cli
from fc_arrayapi._dask import progress
from fc_arrayapi._shell.arguments import BACKENDS as BACKENDS_OF_THE_SHELL
from fc_arrayapi._shell.arguments import make_parser
from fc_arrayapi._shell.installed import COMPANIONS
from fc_arrayapi._shell.messages import in_one_line
from fc_arrayapi.testing import backends, gradients

dask_only = pytest.mark.only("dask.array")


@pytest.fixture
def files(tmp_path, batch, monkeypatch):
    """A folder with X.npy, dY.npy and layer.npz, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    np.save("X.npy", batch["X"])
    np.save("dY.npy", batch["dY"])
    fc.FullyConnected(batch["W"], batch["B"]).save("layer.npz")
    return tmp_path


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command line; return its exit code and what it printed and complained, but not the progress."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", float("inf"))

    def run(line):
        try:
            code = cli.main(line.split())
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def fails(run, line, *facts, name=None):
    """Expect exit code 2 and one line, which begins with the command's name and has these facts."""
    code, printed, complaint = run(line)
    assert (code, printed, complaint.count("\n")) == (2, "", 1)
    name = f"fc-arrayapi {line.split()[0]}" if name is None else name
    assert complaint.startswith(f"{name}: ")
    assert lacks(complaint.rstrip("\n").removeprefix(f"{name}: "), *facts) == [], complaint


def test_info_names_versions(run, backend):
    code, printed, complaint = run("info")
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert (code, complaint) == (0, "")
    assert lines["fc_arrayapi"] == fc.__version__
    assert lines["numpy"] == np.__version__
    assert lines.keys() == {"fc_arrayapi", "Python", *BACKENDS_OF_THE_SHELL, *COMPANIONS, "BLAS", "cores"}
    if (module := backend.module.partition(".")[0]) in sys.modules:
        (name,) = (
            name for name, (its_module, _) in BACKENDS_OF_THE_SHELL.items() if its_module.partition(".")[0] == module
        )
        assert lines[name] == sys.modules[module].__version__


def test_every_backend_of_the_table_can_be_checked():
    modules = {backend.module for backend in BACKENDS.values() if not backend.only_by_name}
    assert {module for module, _ in BACKENDS_OF_THE_SHELL.values()} == modules


def test_check_passes(run, backend):
    (name,) = (name for name, (module, _) in BACKENDS_OF_THE_SHELL.items() if module == backend.module)
    code, printed, complaint = run(f"check {name}")
    head, line = printed.splitlines()
    assert (code, complaint) == (0, "")
    assert head.split() == ["backend", "version", "Y", "dX", "dW", "dB"]
    assert line.split()[0] == name
    assert line.split()[2:] == ["pass"] * 4


def test_check_without_a_name_checks_installed_backends(run, monkeypatch):
    monkeypatch.setattr(cli, "is_found", lambda name: name == "numpy")
    code, printed, _ = run("check")
    assert code == 0
    assert [line.split()[0] for line in printed.splitlines()] == ["backend", "numpy"]


def test_a_wrong_result_fails_the_check(run, monkeypatch):
    right = fc.grad_bias
    monkeypatch.setattr(_linear, "backward", lambda *a, **options: fc.backward(*a)._replace(dB=2 * right(a[2])))
    code, printed, complaint = run("check numpy")
    assert (code, complaint) == (1, "")
    assert printed.splitlines()[1].split()[2:] == ["pass", "pass", "pass", "fail"]
    line = printed.splitlines()[2]
    assert re.fullmatch(r"numpy: dB: .* [\d.]+", line)
    assert lacks(line.removeprefix("numpy: dB: "), "dB", "float32") == []


@pytest.mark.parametrize("name", ["dX", "dW", "dB"])
def test_a_gradient_that_is_none_fails_though_the_literal_form_agrees(run, monkeypatch, name):
    def wrong(function):
        def changed(*arrays, **options):
            grads = function(*arrays, **options)
            part = getattr(grads, name)
            return grads if part is None else grads._replace(**{name: part * grads.dW.dtype.type(1.01)})

        return changed

    monkeypatch.setattr(_linear, "backward", wrong(_linear.backward))
    monkeypatch.setattr(backends, "reference_backward", wrong(backends.reference_backward))
    code, printed, _ = run("check numpy")
    assert code == 1
    line = printed.splitlines()[2]
    assert line.startswith(f"numpy: {name}: ")
    assert lacks(line.removeprefix(f"numpy: {name}: "), "float32", name, gradients.IDENTITIES[name]) == []


def test_a_library_that_raises_fails_the_check(run, monkeypatch):
    monkeypatch.setattr(_linear, "forward", lambda *arrays: 1 / 0)
    code, printed, _ = run("check numpy")
    assert code == 1
    assert printed.splitlines()[2] == "numpy: Y: ZeroDivisionError: division by zero"


def test_check_fails_for_a_library_that_cannot_be_imported(run, monkeypatch):
    def broken(name):
        raise OSError(f"{name}: no\nlibrary")

    monkeypatch.setattr(cli.importlib, "import_module", broken)
    code, printed, _ = run("check numpy")
    assert code == 1
    assert printed.splitlines()[2] == "numpy: Y: OSError: numpy: no library"


def test_check_fails_for_any_line_but_a_missing_float64(run, monkeypatch):
    def found(*what):
        checks = tuple(backends.BackendCheck(one, False, "not here") for one in what)
        monkeypatch.setattr(fc.testing, "check_backend", lambda xp: backends.BackendReport("numpy", checks))

    found("float64", "views")
    code, printed, _ = run("check numpy")
    assert (code, printed.splitlines()[2:]) == (1, ["numpy: views: not here"])
    found("float64")
    assert run("check numpy")[0] == 0


def test_a_backend_that_is_missing_is_named(run, monkeypatch):
    monkeypatch.setattr(cli, "is_found", lambda name: name != "cupy")
    fails(run, "check cupy", "cupy", "pip install 'cupy-cuda12x'")


@pytest.mark.parametrize(
    ("line", "name", "facts"),
    [
        ("nonsense", "fc-arrayapi", ("command", "'nonsense'", *cli.COMMANDS)),
        ("forwrad", "fc-arrayapi", ("command", "'forwrad'", "did you mean forward?")),
        ("check nonsense", "fc-arrayapi check", ("backend", "'nonsense'", *BACKENDS_OF_THE_SHELL)),
        ("check tirch", "fc-arrayapi check", ("'tirch'", "did you mean torch?")),
        (
            "forward X.npy --weihgts layer.npz --out Y.npy",
            "fc-arrayapi forward",
            ("--weihgts", "did you mean --weights?"),
        ),
        ("forward X.npy", "fc-arrayapi forward", ("--weights", "--out")),
        ("info --nonsense", "fc-arrayapi info", ("--nonsense", "--json")),
    ],
)
def test_a_wrong_command_line_is_one_line(run, line, name, facts):
    fails(run, line, *facts, f"{name} --help", name=name)


def test_the_bare_command_prints_help(run):
    code, printed, complaint = run("")
    assert (code, complaint) == (0, "")
    assert printed == run("--help")[1]


def test_json_of_info_and_check(run, backend):
    found = json.loads(run("info --json")[1])
    assert found["fc_arrayapi"] == fc.__version__
    assert found["numpy"] == np.__version__
    assert found["cores"] == os.cpu_count()
    assert json.loads(run("check numpy --json")[1]) == {"numpy": {"version": np.__version__, "failures": {}}}


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_prints_a_script_with_every_command(run, shell):
    code, printed, complaint = run(f"completion {shell}")
    assert (code, complaint) == (0, "")
    assert lacks(printed, *cli.COMMANDS, "weights") == []


@dask_only
def test_quiet_prints_errors_alone(run, files, backend, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    assert run("forward X.npy --weights layer.npz --out Y.npy --rows 1 --quiet") == (0, "", "")
    assert np.load("Y.npy").shape == (7, 3)
    fails(run, "forward X.npy --weights layer.npz --out Y.npy --quiet", "already")


@dask_only
def test_a_pass_beyond_the_limit_of_memory_is_refused(run, files, backend):
    fails(run, "forward X.npy --weights layer.npz --out Y.npy --memory-limit 10kB", "--memory-limit is '10kB'")
    assert not Path("Y.npy").exists()


@dask_only
def test_messages_are_in_the_terms_of_the_shell(run, files, batch, backend):
    """No call of Python is advised, and no name of the command is said twice."""
    np.save("I.npy", np.ones((7, 4), "int8"))
    np.savez("turned.npz", W=batch["W"].T)
    np.savez("torch.npz", weight=batch["W"].T, bias=batch["B"])
    np.save("many.npy", np.ones((1000, 4), "float32"))
    fails(run, "forward I.npy --weights layer.npz --out Y.npy", "X has dtype int8", "use --dtype float32")
    fails(run, "forward X.npy --weights turned.npz --out Y.npy", "use --layout torch")
    fails(run, "forward X.npy --weights torch.npz --out Y.npy", "torch.npz", "use --layout torch")
    _, printed, _ = run("plan many.npy --weights layer.npz --rows 1")
    assert re.search(r"warning .*: use --rows \d+\n", printed)
    for line in ("forward I.npy --weights layer.npz", "forward X.npy --weights turned.npz"):
        complaint = run(f"{line} --out Y.npy")[2]
        assert not re.search(r"astype|W\.T,? or use Fully|rows=|layout=|forward: forward", complaint), complaint


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_has_examples_that_are_understood(run, command):
    code, printed, _ = run(f"{command} --help")
    assert code == 0
    examples = [line.strip() for line in printed.partition("examples:\n")[2].splitlines()]
    assert examples
    for example in examples:
        name, *arguments = example.split()
        assert name == "fc-arrayapi"
        assert make_parser().parse_args(arguments).command == command


@dask_only
def test_plan_prints_the_plan(run, files, backend):
    code, printed, complaint = run("plan X.npy --weights layer.npz --rows 3 --threads 1")
    assert (code, complaint) == (0, "")
    assert "in 3 blocks\n" in printed
    assert "with 1 thread\n" in printed
    code, printed, _ = run("plan X.npy --weights layer.npz --dY dY.npy --rows 3")
    assert code == 0
    assert "warning" not in printed
    code, printed, _ = run("plan X.npy --weights layer.npz --dY dY.npy --rows 3 --measure --json")
    plan = json.loads(printed)
    assert (plan["blocks"], plan["warnings"]) == (3, [])
    assert plan["seconds"] > 0
    assert sorted(path.name for path in files.iterdir()) == ["X.npy", "dY.npy", "layer.npz"]


@dask_only
def test_dY_is_opened_in_the_blocks_of_X(run, files, backend, monkeypatch):
    monkeypatch.setattr("fc_arrayapi._files.default_rows.BLOCK_BYTES", 96)  # 3 rows of X, but 4 rows of dY
    printed = run("plan X.npy --weights layer.npz --dY dY.npy")[1]
    assert "in 3 blocks\n" in printed


@dask_only
def test_forward_and_backward_write_the_results_of_the_layer(run, files, batch, backend):
    code, printed, complaint = run("forward X.npy --weights layer.npz --out Y.npy --rows 3 --threads 2")
    assert (code, complaint) == (0, "")
    assert re.fullmatch(r"Y.npy: 7 x 3 float64, 168 bytes\n[\d.]+ s\n", printed)
    np.testing.assert_allclose(np.load("Y.npy"), fc.testing.reference_forward(batch["X"], batch["W"], batch["B"]))
    code, printed, complaint = run("backward X.npy dY.npy --weights layer.npz --out grads --needs dW,dB")
    assert (code, complaint) == (0, "")
    assert re.fullmatch(
        r"grads.dW.npy: 4 x 3 float64, 96 bytes\ngrads.dB.npy: 3 float64, 24 bytes\n[\d.]+ s\n", printed
    )
    expected = fc.testing.reference_backward(batch["X"], batch["W"], batch["dY"])
    np.testing.assert_allclose(np.load("grads/dW.npy"), expected.dW)
    np.testing.assert_allclose(np.load("grads/dB.npy"), expected.dB)
    assert sorted(os.listdir("grads")) == ["dB.npy", "dW.npy"]


@dask_only
def test_arrays_of_a_file_have_names_and_a_dtype_is_taken(run, files, batch, backend):
    np.savez("data.npz", X=(10 * batch["X"]).astype("int8"), dY=batch["dY"])
    line = "data.npz::X data.npz::dY --weights layer.npz --out grads --needs dW --dtype float64"
    code, _, complaint = run(f"backward {line}")
    assert (code, complaint) == (0, "")
    np.testing.assert_allclose(np.load("grads/dW.npy"), (10 * batch["X"]).astype("int8").T @ batch["dY"])
    code, _, complaint = run("backward data.npz::X data.npz::dY --weights layer.npz --out grads --dtype bfloat16")
    assert code == 2
    assert lacks(complaint, "dtype is 'bfloat16'", "'float32'") == []


@dask_only
def test_results_go_to_zarr_and_come_from_it(run, files, batch, backend):
    assert run("forward X.npy --weights layer.npz --out Y.zarr --rows 3")[0] == 0
    code, _, complaint = run("backward X.npy Y.zarr --weights layer.npz --out grads")
    assert (code, complaint) == (0, "")
    Y = fc.testing.reference_forward(batch["X"], batch["W"], batch["B"])
    np.testing.assert_allclose(fc.open_array("Y.zarr").compute(), Y)
    dX = fc.testing.reference_backward(batch["X"], batch["W"], Y).dX
    np.testing.assert_allclose(fc.open_array("grads/dX.zarr").compute(), dX)
    assert sorted(os.listdir("grads")) == ["dB.npy", "dW.npy", "dX.zarr"]


@dask_only
def test_weights_are_one_layer_of_a_model(run, files, batch, backend):
    np.savez("model.npz", **{"head.weight": batch["W"].T, "head.bias": batch["B"], "body.weight": np.ones((2, 2))})
    model = "--weights model.npz --prefix head --layout torch"
    assert run(f"forward X.npy {model} --out Y.npy")[0] == 0
    np.testing.assert_allclose(np.load("Y.npy"), fc.testing.reference_forward(batch["X"], batch["W"], batch["B"]))
    code, printed, _ = run(f"backward X.npy dY.npy {model} --out grads --needs dW")
    assert (code, printed.splitlines()[0]) == (0, "grads/dW.npy: 4 x 3 float64, 96 bytes")
    assert run(f"plan X.npy {model}") == run("plan X.npy --weights layer.npz")
    fails(run, "plan X.npy --weights model.npz", "model.npz", "'head.weight'", "--prefix body --layout torch")
    fails(run, f"plan X.npy {model[:-5]}keras", "model.npz", "'head.kernel' or 'head/kernel'", "'head.weight'")
    fails(run, f"plan X.npy {model[:-5]}tf", "--layout", "'tf'", "keras", "flax", name="fc-arrayapi plan")


@dask_only
def test_forward_keeps_or_replaces_an_existing_file(run, files, backend):
    Path("Y.npy").write_bytes(b"mine")
    fails(run, "forward X.npy --weights layer.npz --out Y.npy", str(files / "Y.npy"), "already", "--overwrite")
    assert Path("Y.npy").read_bytes() == b"mine"
    assert run("forward X.npy --weights layer.npz --out Y.npy --overwrite")[0] == 0
    assert np.load("Y.npy").shape == (7, 3)


@dask_only
def test_a_layer_without_bias_has_no_dB(run, files, batch, backend):
    fc.FullyConnected(batch["W"]).save("layer.npz")
    assert run("backward X.npy dY.npy --weights layer.npz --out grads")[0] == 0
    assert sorted(os.listdir("grads")) == ["dW.npy", "dX.zarr"]
    fails(
        run, "backward X.npy dY.npy --weights layer.npz --out more --needs dW,dB",
        "layer.npz", "B", "dB", "--needs",
    )  # fmt: skip


@dask_only
def test_forward_refuses_to_overwrite_an_input(run, files, backend):
    before = Path("X.npy").read_bytes()
    for out in ("X.npy", "./X.npy"):
        fails(
            run, f"forward X.npy --weights layer.npz --out {out} --overwrite",
            "X.npy", "is read", "another place",
        )  # fmt: skip
    assert Path("X.npy").read_bytes() == before


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "Y.zarr"),
         ("Y.zarr", "no space left on device", "free space")),
        (OSError(errno.ENOSPC, "No space left on device"),
         ("no space left on device", "free space")),
        (PermissionError(errno.EACCES, "Permission denied", "Y.zarr"),
         ("Y.zarr", "permission denied", "permissions", "path")),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"),
         ("broken pipe", "output")),
        (MemoryError(), ("memory", "--rows", "--threads")),
        (ValueError("x"), ("x",)),
        (KeyError("x"), ("KeyError", "'x'", "--debug")),
    ],
)  # fmt: skip
def test_an_error_gives_advice(error, facts):
    error.add_note("What is here\nis added, with --resume")
    line = in_one_line(error, "forward")
    assert "\n" not in line
    assert lacks(line, *facts) == []
    assert line.endswith("What is here is added, with --resume")


def test_help_has_examples(run):
    for line in ("--help", *(f"{command} --help" for command in cli.COMMANDS)):
        code, printed, complaint = run(line)
        assert (code, complaint) == (0, "")
        assert "examples:\n  fc-arrayapi " in printed


@dask_only
@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("forward no.npy --weights layer.npz --out Y.zarr", ("no.npy",)),
        ("forward X.npy --weights no.npz --out Y.zarr", ("no.npz", "no such file of weights", "numpy.savez")),
        ("forward X.npy --weights layer.npz --out Y.txt", ("Y.txt", ".npy", ".zarr")),
        ("forward dY.npy --weights layer.npz --out Y.zarr", ("axis c", "X has 3", "W has 4")),
        ("backward X.npy X.npy --weights layer.npz --out D", ("axis s", "dY has 4", "W has 3")),
        ("backward X.npy dY.npy --weights layer.npz --out D --needs dZ", ("needs", "'dZ'", "dX", "dW", "dB")),
        ("backward X.npy dY.npy --weights layer.npz --out D --needs=", ("needs", "''", "dX", "dW", "dB")),
        ("plan X.npy --weights layer.npz --rows 0", ("rows is 0", "positive")),
        ("plan X.npy --weights layer.npz --threads 0", ("threads is 0", "positive")),
        ("plan X.npy --weights layer.npz --threads 1 --scheduler a:1", ("--threads", "--scheduler")),
    ],
)
def test_errors_are_one_line(run, files, backend, line, facts):
    fails(run, line, *facts)
    assert sorted(path.name for path in files.iterdir()) == ["X.npy", "dY.npy", "layer.npz"]


@dask_only
def test_progress_in_a_log_is_lines(run, files, backend, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    code, printed, complaint = run("forward X.npy --weights layer.npz --out Y.npy --rows 1")
    assert (code, printed.splitlines()[0][:7]) == (0, "Y.npy: ")
    assert re.fullmatch(r"(\d+% of \d+ bytes in \d+\.\d s, [\d.]+ \w+/s(, \d+ s left)?\n)+", complaint)


@dask_only
def test_no_empty_folder_is_left_where_nothing_could_be_written(run, files, backend, monkeypatch):
    def refuse(targets, **_):
        for path in unfinished:
            (path / "dX.zarr.fc_arrayapi.part").mkdir()
        raise ValueError("refused")

    monkeypatch.setattr(cli.store, "write", refuse)
    line, unfinished = "backward X.npy dY.npy --weights layer.npz --out", []
    Path("mine").mkdir()
    for out in ("new/grads", "mine", "mine/grads"):
        fails(run, f"{line} {out}", "refused")
        assert [path.name for path in files.rglob("*") if path.is_dir()] == ["mine"]
    unfinished.append(Path("new/grads"))
    fails(run, f"{line} new/grads", "refused")
    assert Path("new/grads/dX.zarr.fc_arrayapi.part").exists()


@dask_only
def test_an_unexpected_error_is_one_line(run, files, backend, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("the disk\nis on fire")

    monkeypatch.setattr(cli.store, "write", broken)
    line = "forward X.npy --weights layer.npz --out Y.zarr"
    facts = "RuntimeError: the disk is on fire", "--debug"
    fails(run, line, *facts)
    code, printed, complaint = run(f"{line} --debug")
    assert (code, printed) == (2, "")
    assert "in broken\n" in complaint
    assert lacks(complaint.splitlines()[-1], *facts) == []
    assert complaint.splitlines()[-1].startswith("fc-arrayapi forward: ")


@pytest.mark.only("distributed")
def test_a_pass_runs_on_a_cluster(run, files, batch, backend):
    from distributed import LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 3, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster:
        where = f"--scheduler {cluster.scheduler_address}"
        assert "with 3 threads" in run(f"plan X.npy --weights layer.npz {where}")[1]
        code, _, complaint = run(f"forward X.npy --weights layer.npz --out Y.npy --rows 3 {where}")
    assert (code, complaint) == (0, "")
    np.testing.assert_allclose(np.load("Y.npy"), fc.testing.reference_forward(batch["X"], batch["W"], batch["B"]))
    fails(run, "plan X.npy --weights layer.npz --scheduler nonsense", "scheduler", "nonsense", "tcp://10.0.0.1:8786")


def start(*arguments, **options):
    root = str(Path(fc.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, "-m", "fc_arrayapi", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options,
    )  # fmt: skip


def test_it_runs_as_a_module_and_as_a_script():
    process = start("info")
    printed, complaint = process.communicate()
    assert (process.returncode, complaint) == (0, "")
    assert printed.startswith("fc_arrayapi ")
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["fc-arrayapi"].partition(":")
    assert getattr(importlib.import_module(module), name) is cli.main


def test_the_package_does_not_import_its_command():
    code = "import sys, fc_arrayapi; print([m for m in ('argparse', 'fc_arrayapi.cli') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@dask_only
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one child")
def test_ctrl_c_keeps_finished_blocks_and_resume_continues(run, files, backend):
    rows, block_rows = 2**18, 2**9  # blocks enough for this process to see three of them before the last is done
    np.lib.format.open_memmap("X.npy", "w+", "float64", (rows, 64)).flush()  # sparse: 128 MiB of zeros
    fc.FullyConnected.init(64, 16).save("layer.npz")
    line = f"forward X.npy --weights layer.npz --out Y.npy --rows {block_rows} --threads 1"
    # A shell's background job ignores Ctrl-C and its children inherit that: undone for the child.
    process = start(*line.split(), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    deadline = time.monotonic() + 60
    while sum(path.read_bytes().count(b"\n") for path in files.glob("Y.npy.fc_arrayapi.part/*/finished")) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    printed, complaint = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    last = complaint.splitlines()[-1]  # lines of progress before it
    assert last.startswith("fc-arrayapi forward: ")
    assert lacks(last, "stopped", "--resume") == []
    assert not Path("Y.npy").exists()
    fails(run, line, "Y.npy.fc_arrayapi.part", "unfinished", "--resume", "--overwrite")
    assert run(f"{line} --resume")[0] == 0
    assert np.load("Y.npy", mmap_mode="r").shape == (rows, 16)


PAGE = (Path(__file__).parent.parent / "docs" / "shell.md").read_text(encoding="utf-8")
EXAMPLES = [
    example.partition("\n")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for example in block.split("$ fc-arrayapi ")[1:]
]


@dask_only
@pytest.mark.needs("joined_tasks")
def test_the_page_of_the_shell_shows_the_real_output(run, files, backend, rng):
    np.save("X.npy", rng.random((100_000, 256), dtype="float32"))
    np.save("dY.npy", rng.random((100_000, 10), dtype="float32"))
    layer = fc.FullyConnected.init(256, 10, dtype="float32")
    layer.save("layer.npz")
    weight = np.ascontiguousarray(layer.W.T)
    safetensors.numpy.save_file({"body.weight": weight[:1], "head.weight": weight}, "model.safetensors")
    shown = [(line, output) for line, _, output in EXAMPLES if line.split()[0] in ("plan", "forward", "backward")]
    assert len(shown) == 5
    for line, output in shown:
        code, printed, complaint = run(line)
        assert (code, complaint) == (0, "")
        assert masked(printed) == masked(output)


def masked(output):
    """Leave out the time that a pass took and its memory, which Dask's order decides; write paths alike everywhere."""
    output = re.sub(r"^[\d.]+ s$", "... s", output, flags=re.MULTILINE)
    return re.sub(r"peak memory  [\d.]+ MiB", "peak memory  ... MiB", output).replace("\\", "/")


def test_the_page_shows_info_and_check_as_they_print(run):
    shown = {line: output for line, _, output in EXAMPLES if line in ("info", "check")}
    assert [line.split()[0] for line in run("info")[1].splitlines()] == [
        line.split()[0] for line in shown["info"].splitlines()
    ]
    assert run("check numpy")[1].splitlines()[0] == shown["check"].splitlines()[0]
