"""The moment when results get their names: an old one is replaced at the end, and none is taken for another."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
import zarr
from helpers.assertions import lacks, refused
from helpers.batches import X
from helpers.results import (
    PART,
    Source,
    break_off_at_the_end,
    lazy,
    lose_everything,
    names,
    read,
)

import fc_arrayapi as fc
from fc_arrayapi._files import unfinished, unfinished_folder

pytestmark = pytest.mark.only("dask.array")


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_a_target_is_replaced_only_at_the_end_and_only_if_asked(backend, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    fc.store({path: backend.asarray(X)})
    for resume, facts in ((False, ()), (True, ("resume",))):
        with refused(FileExistsError, str(path), "already", "overwrite=True", *facts):
            fc.store({path: backend.asarray(X + 1)}, resume=resume)
    source = Source(X + 1, fail_at=99)
    x = lazy(backend, source)
    with pytest.raises(RuntimeError):
        fc.store({path: x}, overwrite=True)
    np.testing.assert_array_equal(read(path), X)
    source.mend()
    with pytest.raises(FileExistsError):
        fc.store({path: x}, resume=True)
    fc.store({path: x}, resume=True, overwrite=True)
    np.testing.assert_array_equal(read(path), X + 1)
    assert names(tmp_path) == [f"x{suffix}"]


@pytest.mark.parametrize("source", ["x.npy", "link.npy", "x.zarr", "folder"])
def test_what_the_pass_reads_is_not_replaced(backend, tmp_path, source):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "link.npy").symlink_to("x.npy")
    zarr.save_array(tmp_path / "x.zarr", X)
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "x.npy", tmp_path / "folder" / "part-0.npy")
    target = {"link.npy": "x.npy", "folder": "folder/part-0.npy"}.get(source, source)
    check_is_not_replaced(backend, tmp_path / target, fc.open_array(tmp_path / source))


@pytest.mark.needs("other_sources")
def test_an_array_of_zarr_that_the_pass_reads_is_not_replaced(backend, tmp_path):
    zarr.save_array(tmp_path / "x.zarr", X)
    check_is_not_replaced(backend, tmp_path / "x.zarr", backend.xp.from_zarr(tmp_path / "x.zarr"))


def check_is_not_replaced(backend, target, x):
    """Store what is made of x, and another array beside that, where x lies."""
    other = target.with_name("y.npy")
    for targets in ({target: x + 1}, {target: backend.asarray(X + 1), other: x.astype("float32").sum(axis=1)}):
        with refused(ValueError, str(target), "is read", "another place"):
            fc.store(targets, overwrite=True)
    np.testing.assert_array_equal(x.compute(), X)
    assert not list(target.parent.glob(f"*{PART}"))


def test_a_target_that_appears_during_the_pass_is_not_overwritten(backend, tmp_path):
    path = tmp_path / "x.npy"

    class Meddler(Source):
        def __getitem__(self, index):
            if index[0].stop == 60:
                np.save(path, np.zeros(3))
            return super().__getitem__(index)

    source = Meddler(X)
    x = lazy(backend, source)
    with refused(FileExistsError, str(path), "resume=True", "overwrite=True"):
        fc.store({path: x})
    np.testing.assert_array_equal(read(path), np.zeros(3))
    path.unlink()
    source.mend()
    fc.store({path: x}, resume=True)
    assert source.reads.sum() == 0
    np.testing.assert_array_equal(read(path), X)


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_a_folder_or_file_that_appears_during_the_pass_is_not_replaced(backend, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"

    class Meddler(Source):
        def __getitem__(self, index):
            if index[0].stop == 60:
                path.mkdir() if suffix == ".npy" else path.touch()
            return super().__getitem__(index)

    source = Meddler(X)
    x = lazy(backend, source)
    for options in ({"overwrite": True}, {"overwrite": True, "resume": True}):
        with refused(FileExistsError, str(path), "a folder" if suffix == ".npy" else "a file"):
            fc.store({path: x}, **options)
    path.rename(tmp_path / "moved")
    source.mend()
    fc.store({path: x}, resume=True)
    assert source.reads.sum() == 0
    np.testing.assert_array_equal(read(path), X)


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_an_old_result_is_not_taken_for_the_new_one(backend, tmp_path, suffix):
    """The pass is killed just before the new one gets its name, and what it computed is lost."""
    path = tmp_path / f"x{suffix}"
    fc.store({path: backend.asarray(X + 1)})
    source = Source(X)
    x = lazy(backend, source)
    break_off_at_the_end({path: x}, overwrite=True)
    (data,) = tmp_path.glob(f"x{suffix}{PART}/*/data")
    lose_everything(data)
    source.mend()
    with refused(FileExistsError, str(path), "already", "overwrite=True") as raised:
        fc.store({path: x}, resume=True)
    assert lacks(str(raised.value), "resume") == ["resume"]  # which goes on once the old result may be replaced
    assert source.reads.sum() == 0
    np.testing.assert_array_equal(read(path), X + 1)  # a folder was moved aside, and is put back
    fc.store({path: x}, resume=True, overwrite=True)
    np.testing.assert_array_equal(source.reads, 1)
    np.testing.assert_array_equal(read(path), X)
    assert names(tmp_path) == [f"x{suffix}"]


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_a_file_of_another_process_is_not_taken_for_the_result(backend, tmp_path, monkeypatch, suffix):
    """The pass is killed after its result got its name, and before the folder beside it was removed."""
    path, other = tmp_path / f"x{suffix}", tmp_path / f"other{suffix}"
    fc.store({path: backend.asarray(X + 1), other: backend.asarray(X + 2)})
    source = Source(X)
    x = lazy(backend, source)

    def interrupted(result):
        raise KeyboardInterrupt

    for written_since in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(unfinished.UnfinishedResult, "remove", interrupted)
            with pytest.raises(KeyboardInterrupt):
                fc.store({path: x}, overwrite=True)
        np.testing.assert_array_equal(read(path), X)
        source.mend()
        if written_since:
            if suffix == ".npy":
                path.write_bytes(other.read_bytes())  # the same inode and size, at another time
            else:
                shutil.rmtree(path)
                other.rename(path)
            with refused(FileExistsError, str(path), "already", "overwrite=True"):
                fc.store({path: x}, resume=True)
            np.testing.assert_array_equal(read(path), X + 2)
        fc.store({path: x}, resume=True, overwrite=written_since)
        np.testing.assert_array_equal(source.reads, int(written_since))
        np.testing.assert_array_equal(read(path), X)
        assert not path.with_name(path.name + PART).exists()


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_the_folder_of_a_complete_result_is_removed_after_a_kill(backend, tmp_path, suffix):
    """The pass is killed while it removes that folder."""
    path = tmp_path / f"x{suffix}"
    fc.store({path: backend.asarray(X)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfinished_folder.shutil, "rmtree", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fc.store({path: backend.asarray(X + 1)}, overwrite=True)
    assert path.with_name(path.name + PART).exists()
    shutil.copytree(path.with_name(path.name + PART), tmp_path / "kept")
    with refused(FileExistsError, str(path), "already", "resume", "overwrite=True"):
        fc.store({path: backend.asarray(X + 1)}, resume=True)
    assert names(tmp_path) == ["kept", path.name]
    np.testing.assert_array_equal(read(path), X + 1)
    (tmp_path / "kept").rename(path.with_name(path.name + PART))
    fc.store({path: backend.asarray(X + 2)}, resume=True, overwrite=True)
    assert names(tmp_path) == [path.name]
    np.testing.assert_array_equal(read(path), X + 2)


def cut_the_fingerprint(work):
    os.truncate(work / "fingerprint.json", 20)


def empty_the_fingerprint(work):
    (work / "fingerprint.json").write_text("{}")


def another_fingerprint(work):
    (work / "fingerprint.json").write_text("[1]")


def bytes_for_a_fingerprint(work):
    (work / "fingerprint.json").write_bytes(b"\xff\xfe")


def nested_deep(work):
    (work / "fingerprint.json").write_text("[" * 100_000)


def lose_the_lines(work):
    (work / "finished").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        cut_the_fingerprint,
        empty_the_fingerprint,
        another_fingerprint,
        bytes_for_a_fingerprint,
        lose_the_lines,
        nested_deep,
    ],
)
def test_a_damaged_unfinished_result_is_refused(backend, tmp_path, damage):
    path = tmp_path / "x.npy"
    source = Source(X)
    x = lazy(backend, source)
    break_off_at_the_end({path: x})
    (work,) = path.with_name(path.name + PART).iterdir()
    damage(work)
    source.mend()
    for overwrite in (False, True):
        with refused(ValueError, f"{path}{PART}", "damaged", "overwrite=True", "not resume=True"):
            fc.store({tmp_path / "y.npy": x, path: x}, resume=True, overwrite=overwrite)
    assert source.reads.sum() == 0
    assert names(tmp_path) == [f"x.npy{PART}"]
    fc.store({path: x}, overwrite=True)
    np.testing.assert_array_equal(read(path), X)
    assert names(tmp_path) == ["x.npy"]


def test_a_disk_that_is_full_at_the_end(backend, tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    source = Source(X)
    x = lazy(backend, source)

    write = unfinished.atomic_write

    def full(path):
        if path.name == "state":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path)

    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "atomic_write", full)
        with refused(OSError, os.strerror(errno.ENOSPC), f"'{path}'"):
            fc.store({path: x})
    source.mend()
    fc.store({path: x}, resume=True)
    assert source.reads.sum() == 0
    np.testing.assert_array_equal(read(path), X)


@pytest.mark.parametrize("broken_at", [1, 2, 3])
def test_broken_off_while_the_targets_get_their_names(backend, tmp_path, monkeypatch, broken_at):
    fc.store({tmp_path / "b.zarr": backend.asarray(X + 1)})
    source = Source(X)
    wanted = {tmp_path / name: lazy(backend, source) for name in ("a.npy", "b.zarr", "c.npy")}
    calls = []

    def replace(old, new):
        if new in wanted:
            calls.append(new)
            if len(calls) == broken_at:
                raise KeyboardInterrupt
        os.rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(unfinished.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            fc.store(wanted, overwrite=True)
    source.reads[:] = 0
    fc.store(wanted, resume=True, overwrite=True)
    assert source.reads.sum() == 0
    for path in wanted:
        np.testing.assert_array_equal(read(path), X)
    assert names(tmp_path) == ["a.npy", "b.zarr", "c.npy"]


def test_an_old_folder_that_was_moved_aside_is_put_back(backend, tmp_path, monkeypatch):
    path = tmp_path / "x.zarr"
    fc.store({path: backend.asarray(X)})

    def replace(old, new):
        if new == path:
            raise KeyboardInterrupt
        os.rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(unfinished.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            fc.store({path: lazy(backend, Source(X + 1))}, overwrite=True)
    assert not path.exists()
    with pytest.raises(RuntimeError):
        fc.store({path: lazy(backend, Source(X + 2, fail_at=0))}, overwrite=True)
    np.testing.assert_array_equal(read(path), X)


def test_a_new_folder_in_the_place_of_the_old_one_is_replaced_too(backend, tmp_path):
    path = tmp_path / "x.zarr"
    fc.store({path: backend.asarray(X)})
    x = lazy(backend, Source(X + 1))
    break_off_at_the_end({path: x}, overwrite=True)
    assert not path.exists()  # moved aside
    fc.store({tmp_path / "other.zarr": backend.asarray(X)})
    (tmp_path / "other.zarr").rename(path)
    fc.store({path: x}, resume=True, overwrite=True)
    np.testing.assert_array_equal(read(path), X + 1)
    assert names(tmp_path) == ["x.zarr"]
