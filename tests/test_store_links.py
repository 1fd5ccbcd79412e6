"""What lies where store works and is not its own: links are not followed, other people's files are not touched."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from helpers.assertions import nothing_computes, refused
from helpers.batches import X
from helpers.results import PART, Source, break_off_at_the_end, lazy, names, own_threads, read

import fc_arrayapi as fc
from fc_arrayapi._files import unfinished, unfinished_folder

pytestmark = [pytest.mark.only("dask.array"), pytest.mark.needs("the_disk")]

OPTIONS = ({"resume": True}, {"overwrite": True}, {"resume": True, "overwrite": True})
SUFFIXES = pytest.mark.parametrize("suffix", [".npy", ".zarr"])


@pytest.fixture
def victim(tmp_path):
    """A folder of someone's files."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    (folder / "12ab").mkdir()
    (folder / "12ab" / "fingerprint.json").write_text("{}")
    yield folder
    assert names(folder) == ["12ab", "thesis.txt"]
    assert names(folder / "12ab") == ["fingerprint.json"]
    assert (folder / "thesis.txt").read_text() == "years of work"


def unfinished_result(backend, path):
    """Leave an unfinished result with six finished blocks, and return its array and the folder of its data."""
    source = Source(X, fail_at=60)
    x = lazy(backend, source)
    with own_threads(), pytest.raises(RuntimeError):
        fc.store({path: x})
    source.mend()
    (work,) = path.with_name(path.name + PART).iterdir()
    return x, work


@SUFFIXES
def test_a_link_in_the_place_of_the_folder_is_not_followed(backend, tmp_path, suffix, victim):
    path = tmp_path / f"y{suffix}"
    path.with_name(path.name + PART).symlink_to(victim)
    for options in ({}, *OPTIONS):
        with nothing_computes(backend), refused(FileExistsError, f"{path}{PART}", "a link", "move it away"):
            fc.store({path: backend.asarray(X)}, **options)
    assert names(tmp_path) == ["victim", path.name + PART]


@SUFFIXES
@pytest.mark.parametrize("inside", ["", "12ab"])
def test_a_folder_with_other_files_is_not_emptied(backend, tmp_path, suffix, inside):
    path = tmp_path / f"y{suffix}"
    folder = path.with_name(path.name + PART) / inside
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    for options in OPTIONS:
        with nothing_computes(backend), refused(FileExistsError, str(folder / "thesis.txt"), "did not write"):
            fc.store({path: backend.asarray(X)}, **options)
    assert names(folder) == ["thesis.txt"]


@SUFFIXES
@pytest.mark.parametrize("file", ["", "data", "data/zarr.json", "data/c.0.0", "finished", "fingerprint.json", "state"])
def test_a_link_in_an_unfinished_result_is_not_followed(backend, tmp_path, suffix, file, victim):
    path = tmp_path / f"y{suffix}"
    x, work = unfinished_result(backend, path)
    if "/" in file and suffix == ".npy":
        file = "data"
    place = work / file
    moved = tmp_path / "moved"
    if place.exists():
        place.rename(moved)
    place.symlink_to(moved if moved.exists() else victim / "thesis.txt")
    before = moved.read_bytes() if moved.is_file() else None
    for options in OPTIONS:
        with nothing_computes(backend), refused(FileExistsError, str(place), "a link", "did not write"):
            fc.store({path: x}, **options)
    assert place.is_symlink()
    assert before is None or moved.read_bytes() == before
    assert not path.exists()


@SUFFIXES
def test_a_hard_link_in_an_unfinished_result_is_not_written_through(backend, tmp_path, suffix, victim):
    path = tmp_path / f"y{suffix}"
    x, work = unfinished_result(backend, path)
    place = work / "data" / "c.9.0" if suffix == ".zarr" else work / "data"
    other = tmp_path / "other"
    if suffix == ".zarr":
        place.unlink(missing_ok=True)
        os.link(victim / "thesis.txt", place)
        other = victim / "thesis.txt"
    else:
        os.link(place, other)
    before = other.read_bytes()
    with own_threads(), pytest.raises(OSError, match="hard link") as raised:
        fc.store({path: x}, resume=True)
    (place,) = path.with_name(path.name + PART).glob("*/data/c.9.0" if suffix == ".zarr" else "*/data")  # now
    assert str(place) in str(raised.value)
    assert other.read_bytes() == before
    place.unlink() if suffix == ".zarr" else other.unlink()
    fc.store({path: x}, resume=True)
    np.testing.assert_array_equal(read(path), X)


@SUFFIXES
@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_in_the_place_of_the_replaced_array_is_not_lost(backend, tmp_path, suffix, exists):
    path = tmp_path / f"y{suffix}"
    x, work = unfinished_result(backend, path)
    if exists:
        fc.store({tmp_path / f"z{suffix}": x})
        (tmp_path / f"z{suffix}").rename(path)
    thesis = work.parent / "old" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    for options in OPTIONS:
        with nothing_computes(backend), refused(FileExistsError, str(thesis.parent), "did not write", "move it away"):
            fc.store({path: x}, **options)
    assert thesis.read_text() == "years of work"
    assert path.exists() == exists


@SUFFIXES
@pytest.mark.parametrize("what", ["folder", "data"])
def test_a_link_that_appears_during_the_pass_is_not_followed(backend, tmp_path, suffix, what, victim):
    path = tmp_path / f"y{suffix}"
    part = path.with_name(path.name + PART)

    class Planter(Source):
        def __getitem__(self, index):
            if index[0] == slice(50, 60) or index[0].start == 50:
                (work,) = part.iterdir()
                place = part if what == "folder" else work / "data"
                place.rename(tmp_path / "moved")
                place.symlink_to(victim if what == "folder" else victim / "thesis.txt")
            return super().__getitem__(index)

    with own_threads(), pytest.raises((OSError, ValueError)):
        fc.store({path: lazy(backend, Planter(X))})
    assert not os.path.lexists(path)


@SUFFIXES
def test_a_target_that_is_a_link_is_refused(backend, tmp_path, suffix, victim):
    path = tmp_path / f"y{suffix}"
    for target in (victim / "thesis.txt", victim, tmp_path / "nowhere"):
        path.symlink_to(target)
        for options in ({}, *OPTIONS):
            with nothing_computes(backend), refused(FileExistsError, str(path), f"link to {target}"):
                fc.store({path: backend.asarray(X)}, **options)
        assert path.is_symlink()
        path.unlink()
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "linked").symlink_to(tmp_path)  # links on the way to the folder are the user's choice
    fc.store({tmp_path / "linked" / path.name: backend.asarray(X)})
    np.testing.assert_array_equal(read(path), X)


@pytest.mark.parametrize("inside", ["thesis.txt", "embeddings/zarr.json", "0/.zarray", "c/0/thesis.txt"])
def test_a_folder_that_is_more_than_an_array_is_not_replaced(backend, tmp_path, inside):
    path = tmp_path / "y.zarr"
    fc.store({path: backend.asarray(X)})
    (path / inside).parent.mkdir(parents=True, exist_ok=True)
    (path / inside).write_text("{}")
    with nothing_computes(backend), refused(FileExistsError, str(path / inside.split("/")[0]), "lost"):
        fc.store({path: backend.asarray(X + 1)}, overwrite=True)
    assert (path / inside).read_text() == "{}"


def other_arrays(path):
    import zarr

    for name, form in {
        "v2": {"zarr_format": 2},
        "nested": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
        "v3": {},
        "shards": {"shards": (10, 6)},
    }.items():
        array = zarr.create_array(path / f"{name}.zarr", shape=X.shape, dtype=X.dtype, chunks=(5, 6), **form)
        array[...] = X + 1
        array.attrs["units"] = "m"
        yield path / f"{name}.zarr"


def test_arrays_of_other_programs_are_replaced(backend, tmp_path):
    for path in other_arrays(tmp_path):
        fc.store({path: backend.asarray(X)}, overwrite=True)
        np.testing.assert_array_equal(read(path), X)


@contextmanager
def at_most(seconds):
    def give_up(*_):
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def a_fifo(path):
    os.mkfifo(path)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as opened:
        os.chdir(path.parent)
        opened.bind(path.name)


def zeros_without_end(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("plant", [a_fifo, a_socket, zeros_without_end])
def test_nothing_waits_for_what_has_no_end(backend, tmp_path, monkeypatch, plant):
    import zarr

    monkeypatch.chdir(tmp_path)
    places = {name: tmp_path / name for name in ("x.npy", "x.h5", "x.npz", "x.safetensors")}
    for name in ("metadata", "chunk", "v2"):
        path = tmp_path / f"{name}.zarr"
        array = zarr.create_array(
            path, shape=X.shape, dtype=X.dtype, chunks=(50, 6), zarr_format=2 if name == "v2" else 3
        )
        array[...] = X
        place = path / {"metadata": "zarr.json", "chunk": "c/1/0", "v2": ".zarray"}[name]
        place.unlink()
        places[path.name] = place
    for name, place in places.items():
        plant(place)
        read_it = fc.FullyConnected.load if name.startswith("x.npz") or "safe" in name else fc.open_array
        with at_most(10), pytest.raises((ValueError, FileNotFoundError)) as raised:
            read_it(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)


@pytest.mark.parametrize("plant", [a_fifo, zeros_without_end])
def test_a_task_waits_for_nothing_that_has_no_end(backend, tmp_path, plant):
    import zarr

    np.save(tmp_path / "x.npy", X)
    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(50, 6))
    for path, place in ((tmp_path / "x.npy", tmp_path / "x.npy"), (tmp_path / "x.zarr", tmp_path / "x.zarr/c/1/0")):
        x = fc.open_array(path, rows=50)
        place.unlink()
        plant(place)
        with at_most(10), pytest.raises(ValueError, match=r"changed|damaged"):
            x.compute(scheduler="sync")


@pytest.mark.parametrize("plant", [a_fifo, a_socket, zeros_without_end])
@SUFFIXES
def test_store_waits_for_nothing_that_has_no_end(backend, tmp_path, monkeypatch, plant, suffix):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"y{suffix}"
    x, work = unfinished_result(backend, path)
    for name in ("finished", "fingerprint.json", "state"):
        place = work / name
        if place.exists():
            place.rename(tmp_path / name)
        plant(place)
        with at_most(10), refused(FileExistsError, str(place)):
            fc.store({path: x}, resume=True)
        place.unlink()
        if (tmp_path / name).exists():
            (tmp_path / name).rename(place)
    plant(path)
    with at_most(10), refused(FileExistsError, str(path)):
        fc.store({path: x}, resume=True, overwrite=True)


# What store wrote, changed since.


def garble(metadata):
    metadata.write_bytes(metadata.read_bytes()[:-20] + b"x" * 20)


def empty(metadata):
    metadata.write_bytes(b"")


def another_dtype(metadata):
    changed = metadata.read_bytes().replace(b"float64", b"float32").replace(b"<f8", b"<f4")
    metadata.write_bytes(changed)


def nest_deep(metadata):
    metadata.write_text("[" * 100_000)


@pytest.mark.parametrize("change", [garble, empty, another_dtype, nest_deep])
def test_resume_refuses_metadata_that_have_changed(backend, tmp_path, change):
    path = tmp_path / "y.zarr"
    x, work = unfinished_result(backend, path)
    before = sorted(file.name for file in (work / "data").glob("c.*"))
    change(work / "data" / "zarr.json")
    with nothing_computes(backend), refused(ValueError, f"{path}{PART}", "damaged", "zarr.json", "overwrite=True"):
        fc.store({path: x}, resume=True)
    assert sorted(file.name for file in (work / "data").glob("c.*")) == before


@pytest.mark.parametrize("at", [0, 20, 60, 127])
def test_resume_refuses_a_header_that_has_changed(backend, tmp_path, at):
    path = tmp_path / "y.npy"
    x, work = unfinished_result(backend, path)
    with open(work / "data", "r+b") as file:
        file.seek(at)
        file.write(b"\0")
    with nothing_computes(backend), refused(ValueError, f"{path}{PART}", "damaged", "header", "overwrite=True"):
        fc.store({path: x}, resume=True)
    assert (work / "data").stat().st_size == 128 + X.nbytes


@pytest.mark.parametrize("line", ["[" * 100_000, "[[0.5, 10], [0, 6]]", "[[[0], [10]], [[0], [6]]]", "7", '"x"'])
def test_any_line_may_stand_among_the_finished_blocks(backend, tmp_path, line):
    path = tmp_path / "y.npy"
    x, work = unfinished_result(backend, path)
    with open(work / "finished", "a") as file:
        file.write(f"\n{line}")
    fc.store({path: x}, resume=True)
    np.testing.assert_array_equal(read(path), X)


# Two passes.


@SUFFIXES
def test_a_second_pass_is_told_of_the_first(backend, tmp_path, suffix):
    path = tmp_path / f"y{suffix}"
    said = []

    class Meddler(Source):
        def __getitem__(self, index):
            if index[0].start == 50:
                for options in ({"overwrite": True}, {"resume": True}):
                    with pytest.raises(FileExistsError) as raised:
                        fc.store({path: backend.asarray(X + 1)}, **options)
                    said.append(str(raised.value))
            return super().__getitem__(index)

    fc.store({path: lazy(backend, Meddler(X))})
    assert len(said) == 2
    assert all(f"{path}: another pass writes this target" in message for message in said)
    np.testing.assert_array_equal(read(path), X)


@SUFFIXES
def test_a_pass_whose_folder_is_removed_says_so(backend, tmp_path, suffix):
    path = tmp_path / f"y{suffix}"

    class Remover(Source):
        def __getitem__(self, index):
            if index[0].start == 50:
                path.with_name(path.name + PART).rename(tmp_path / "moved")
            return super().__getitem__(index)

    with own_threads(), refused(FileNotFoundError, f"{path}{PART}", "removed", "anew"):
        fc.store({path: lazy(backend, Remover(X))})
    fc.store({path: lazy(backend, Source(X))})
    np.testing.assert_array_equal(read(path), X)


@SUFFIXES
def test_a_folder_that_is_removed_after_the_result_has_its_name_is_no_failure(backend, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"y{suffix}"
    remove = unfinished.UnfinishedResult.remove

    def too_late(result):
        shutil.rmtree(path.with_name(path.name + PART))
        remove(result)

    monkeypatch.setattr(unfinished.UnfinishedResult, "remove", too_late)
    fc.store({path: backend.asarray(X)})
    assert names(tmp_path) == [path.name]
    np.testing.assert_array_equal(read(path), X)


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("lost", ["c*", "zarr.json"])
def test_data_that_are_removed_while_they_get_their_name_are_no_result(backend, tmp_path, monkeypatch, older, lost):
    path = tmp_path / "y.zarr"
    if older:
        fc.store({path: backend.asarray(X + 1)})
    replace = os.replace

    def removed_by_another(source, target):
        """Someone has opened the folder to remove it, and goes on when it has another name."""
        replace(source, target)
        if target == path:
            next(path.glob(lost)).unlink()

    monkeypatch.setattr(os, "replace", removed_by_another)
    with refused(FileNotFoundError, f"{path}{PART}", "removed", "anew"):
        fc.store({path: backend.asarray(X)}, overwrite=older)
    monkeypatch.undo()
    assert path.exists() == older
    if older:
        np.testing.assert_array_equal(read(path), X + 1)
    fc.store({path: backend.asarray(X)}, overwrite=True)
    np.testing.assert_array_equal(read(path), X)


@SUFFIXES
def test_a_pass_that_comes_a_moment_too_late_is_told_and_removes_nothing(backend, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"y{suffix}"
    other = unfinished_folder.UnfinishedFolder(path)
    create = unfinished_folder.UnfinishedFolder.create

    def too_late(folder):
        create(other)
        create(folder)

    monkeypatch.setattr(unfinished_folder.UnfinishedFolder, "create", too_late)
    with refused(FileExistsError, f"{path}: another pass writes this target"):
        fc.store({path: backend.asarray(X)}, overwrite=True)
    assert names(tmp_path) == [path.name + PART]
    other.close()


RIVAL = """
import sys
import dask.array as da, numpy as np, fc_arrayapi as fc
path, value = sys.argv[1], float(sys.argv[2])
x = da.full((40, 6), value, chunks=(10, 6))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    try:
        fc.store({path: x}, overwrite=True)
    except FileExistsError as error:
        print("told" if f"{path}: another pass writes this target" in str(error) else error)
    else:
        print("won")
"""


@SUFFIXES
def test_of_two_that_overwrite_one_target_one_wins_and_the_other_is_told(backend, tmp_path, suffix):
    path = tmp_path / f"y{suffix}"
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, str(path), value],
            env={**os.environ, **backend.environment}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for value in ("1", "2")
    ]  # fmt: skip
    assert [rival.stdout.readline() for rival in rivals] == ["ready\n"] * 2
    for rival in rivals:
        rival.stdin.write("go\n")
        rival.stdin.flush()
    said = [rival.communicate(timeout=100)[0].split() for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0]
    assert set(said[0]) | set(said[1]) <= {"told", "won"}
    assert "won" in said[0] + said[1]
    assert len(np.unique(read(path))) == 1
    assert names(tmp_path) == [path.name]


def test_the_lock_ends_with_the_pass(backend, tmp_path):
    path = tmp_path / "y.npy"
    x = lazy(backend, Source(X))
    before = len(os.listdir("/proc/self/fd"))
    break_off_at_the_end({path: x})
    with refused(FileExistsError, f"{path}{PART}", "unfinished"):
        fc.store({path: x})
    fc.store({path: x}, resume=True)
    assert len(os.listdir("/proc/self/fd")) == before
    np.testing.assert_array_equal(read(path), X)
