"""Files that may not be read or written, and a disk that is full: an error that names the path, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from helpers.assertions import refused
from helpers.hostile import W, X

import fc_arrayapi as fc
from fc_arrayapi._files import disk
from fc_arrayapi._files.formats import open_path

UNIX = pytest.mark.skipif(os.name == "nt", reason="the rights and limits of Unix")


@pytest.fixture
def folder():
    """Return a folder that other users can look into, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(os.path.realpath(name))


@contextlib.contextmanager
def without(path, mode=0):
    """Take the rights to a path, also from root, who becomes somebody else for that time."""
    before = path.stat().st_mode
    path.chmod(mode)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(before)


@UNIX
@pytest.mark.parametrize("name", ["x.npy", "parts", "x.zarr", "x.h5::X"])
def test_an_unreadable_file_is_named(folder, name):
    (folder / "parts").mkdir()
    np.save(folder / "x.npy", X)
    np.save(folder / "parts" / "part-0.npy", X)
    zarr.create_array(folder / "x.zarr", data=X)
    with h5py.File(folder / "x.h5", "w") as file:
        file["X"] = X
    source = folder / name
    open_path(str(source))  # whatever that imports
    place = folder / name.partition(":")[0]
    with without(place), refused(PermissionError, str(place)):
        open_path(str(source))


@UNIX
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_weights_that_may_not_be_read_or_written(folder, suffix):
    path = folder / f"layer{suffix}"
    fc.FullyConnected(W).save(path)
    before = path.read_bytes()
    with without(path), refused(PermissionError, "Errno 13", f"'{path}'"):
        fc.FullyConnected.load(path)
    with without(folder, 0o555), refused(PermissionError, "Errno 13", f"'{path}'"):
        fc.FullyConnected(2 * W).save(path)
    assert path.read_bytes() == before
    assert os.listdir(folder) == [path.name]


@UNIX
@pytest.mark.only("dask.array")
def test_a_folder_that_takes_no_files_is_refused_before_anything_is_written(backend, folder):
    (folder / "closed").mkdir()
    np.save(folder / "closed" / "x.npy", X)
    folder.chmod(0o777)
    wanted = {folder / "y.npy": backend.asarray(X + 1), folder / "closed" / "x.npy": backend.asarray(X + 1)}
    closed = folder / "closed"
    facts = str(closed / "x.npy"), f"folder {closed}"
    with without(closed, 0o555), refused(PermissionError, *facts):
        fc.store(wanted, overwrite=True)
    assert os.listdir(folder) == ["closed"]
    assert os.listdir(folder / "closed") == ["x.npy"]
    np.testing.assert_array_equal(np.load(folder / "closed" / "x.npy"), X)


@contextlib.contextmanager
def files_below(most):
    """Let the system refuse files that grow larger, as a full disk does."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@UNIX
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_weights_that_do_not_fit_on_the_disk(tmp_path, suffix):
    path = tmp_path / f"layer{suffix}"
    fc.FullyConnected(W).save(path)
    before = path.read_bytes()
    with files_below(2**16), refused(OSError, "Errno 27", f"'{path}'"):
        fc.FullyConnected(np.ones((100, 1000))).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@UNIX
@pytest.mark.only("dask.array")
@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_results_that_do_not_fit_on_the_disk(backend, tmp_path, suffix):
    path, other = tmp_path / f"x{suffix}", tmp_path / "a.npy"
    fc.store({path: backend.asarray(X)})
    large = backend.asarray(np.ones((100, 1000)), chunks=(50, 1000))
    with files_below(2**16), refused(OSError, "Errno 27", f"'{path}'"):
        fc.store({other: backend.asarray(X), path: large}, overwrite=True)
    np.testing.assert_array_equal(fc.open_array(path).compute(), X)
    # The .npy file gets its full size before anything is computed, a Zarr array its chunks one by one.
    left = [path.name] if suffix == ".npy" else [f"a.npy{disk.UNFINISHED}", path.name, path.name + disk.UNFINISHED]
    assert sorted(os.listdir(tmp_path)) == left
    fc.store({other: backend.asarray(X), path: large}, overwrite=True)
    np.testing.assert_array_equal(fc.open_array(path).compute(), 1)
    assert sorted(os.listdir(tmp_path)) == ["a.npy", path.name]
