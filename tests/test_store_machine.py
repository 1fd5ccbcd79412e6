"""store against a model: whatever is stored, resumed, overwritten, broken off or changed from outside, in any order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import zarr
from helpers.results import PART, break_off_at_the_end, finished_rows, read
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import fc_arrayapi as fc

pytestmark = [pytest.mark.only("dask.array"), pytest.mark.needs("the_disk")]

ROWS, BLOCK = 100, 10
FOREIGN = 9.0


class Numbers:
    """Rows of one number; its name is made of the number, so that a later pass is told the same array."""

    shape, dtype, ndim = (ROWS, 3), np.dtype(float), 2

    def __init__(self, value):
        self.value, self.fail_at, self.reads = value, None, np.zeros(ROWS, int)

    def __dask_tokenize__(self):
        return ("Numbers", self.value)

    def __getitem__(self, index):
        rows = range(ROWS)[index[0]]
        if self.fail_at is not None and self.fail_at in rows:
            raise RuntimeError("this block cannot be read")
        self.reads[index[0]] += 1
        return np.full((len(rows), 3), self.value)


# One for each name: under query planning the first array of a name is taken for every other.
SOURCES = {value: Numbers(value) for value in (1.0, 2.0)}


class Store(RuleBasedStateMachine):
    """One target. The model: the number in the file, and that of the unfinished result with its finished rows."""

    xp, suffix = None, ".npy"

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / f"y{self.suffix}"
        self.part = self.path.with_name(self.path.name + PART)
        self.target = self.unfinished = None
        self.aside = None  # the older Zarr array, when a pass was killed between two renames
        self.finished = np.zeros(ROWS, int)
        self.damaged = self.foreign = False

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def one_by_one(self):
        import dask

        return dask.config.set(scheduler="sync")

    def data(self):
        (data,) = self.part.glob("*/data")
        return data

    def recorded(self):
        """Return the rows whose block is recorded and there: one that was lost keeps its line, and may get another."""
        rows = np.minimum(finished_rows(self.path), 1)
        if self.suffix == ".zarr":
            for number in range(ROWS // BLOCK):
                if not (self.data() / f"c.{number}.0").exists():
                    rows[number * BLOCK : (number + 1) * BLOCK] = 0
        return rows

    def refusal(self, value, resume, overwrite):
        """Return the error that a call must raise before it computes anything."""
        if self.unfinished is not None:
            if self.foreign or not (resume or overwrite):
                return FileExistsError
            if resume and (self.damaged or value != self.unfinished):
                return ValueError
        return FileExistsError if self.target is not None and not overwrite else None

    @rule(
        value=st.sampled_from(sorted(SOURCES)),
        fail_at=st.none() | st.integers(0, ROWS - 1),
        killed_at_the_end=st.booleans(),
        resume=st.booleans(),
        overwrite=st.booleans(),
    )
    def store(self, value, fail_at, killed_at_the_end, resume, overwrite):
        if self.unfinished is not None and (resume or overwrite) and not self.foreign and self.target is None:
            self.target, self.aside = self.aside, None  # put back
        source = SOURCES[value]
        source.fail_at, source.reads[:] = fail_at, 0
        x = self.xp.from_array(source, chunks=(BLOCK, -1))
        options = {"resume": resume, "overwrite": overwrite}
        refused = self.refusal(value, resume, overwrite)
        kept = self.finished if resume and self.unfinished == value else np.zeros(ROWS, int)
        with self.one_by_one():
            if refused:
                with pytest.raises(refused):
                    fc.store({self.path: x}, **options)
                assert not source.reads.any()
                return
            if fail_at is not None and not kept[fail_at]:
                with pytest.raises(RuntimeError, match="cannot be read"):
                    fc.store({self.path: x}, **options)
                self.unfinished, self.damaged = value, False
                assert not (source.reads & kept).any()
                self.finished = self.recorded()
                np.testing.assert_array_equal(self.finished, np.minimum(source.reads + kept, 1))
                return
            if killed_at_the_end:
                break_off_at_the_end({self.path: x}, **options)
                self.unfinished, self.damaged = value, False
                self.finished = np.ones(ROWS, int)
                if self.suffix == ".zarr" and self.target is not None:
                    self.target, self.aside = None, self.target
            else:
                fc.store({self.path: x}, **options)
                self.target, self.unfinished, self.aside = value, None, None
                self.finished = np.zeros(ROWS, int)
            np.testing.assert_array_equal(source.reads, 1 - kept)

    @precondition(lambda self: self.target is not None)
    @rule()
    def someone_removes_the_target(self):
        shutil.rmtree(self.path) if self.path.is_dir() else self.path.unlink()
        self.target = None

    @rule()
    def someone_writes_the_target(self):
        if self.suffix == ".npy":
            np.save(self.path, np.full((ROWS, 3), FOREIGN))
        else:
            zarr.create_array(self.path, data=np.full((ROWS, 3), FOREIGN), chunks=(BLOCK, 3), overwrite=True)
        self.target = FOREIGN

    @precondition(lambda self: self.unfinished is not None)
    @rule()
    def someone_removes_the_unfinished_result(self):
        shutil.rmtree(self.part)
        self.unfinished, self.aside, self.damaged, self.foreign = None, None, False, False
        self.finished = np.zeros(ROWS, int)

    @precondition(lambda self: self.unfinished is not None and not self.damaged and self.finished.any())
    @rule()
    def the_metadata_are_damaged(self):
        data = self.data()
        with open(data if self.suffix == ".npy" else data / "zarr.json", "r+b") as file:
            file.seek(50)
            file.write(b"#####")
        self.damaged = True

    @precondition(lambda self: self.unfinished is not None and not self.damaged and self.finished.any())
    @rule(number=st.integers(0, ROWS // BLOCK - 1))
    def blocks_are_lost(self, number):
        data = self.data()
        if self.suffix == ".npy":
            data.write_bytes(data.read_bytes()[:-8])
            self.finished[:] = 0
        else:
            (data / f"c.{number}.0").unlink(missing_ok=True)
            self.finished[number * BLOCK : (number + 1) * BLOCK] = 0

    @precondition(lambda self: self.unfinished is not None and not self.foreign)
    @rule()
    def someone_puts_a_file_into_the_unfinished_result(self):
        (self.part / "thesis.txt").write_text("years of work")
        self.foreign = True

    @precondition(lambda self: self.unfinished is not None and self.foreign)
    @rule()
    def someone_takes_that_file_away(self):
        (self.part / "thesis.txt").unlink()
        self.foreign = False

    @invariant()
    def a_file_is_whole_and_nothing_else_lies_there(self):
        if not hasattr(self, "folder"):
            return
        there = {path.name for path in self.folder.iterdir()}
        expected = {self.path.name} if self.target is not None else set()
        assert there == expected | ({self.part.name} if self.unfinished is not None else set())
        if self.target is not None:
            np.testing.assert_array_equal(read(self.path), np.full((ROWS, 3), self.target))


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_any_sequence_of_passes_and_changes(backend, suffix):
    machine = type("Machine", (Store,), {"xp": backend.xp, "suffix": suffix})
    run_state_machine_as_test(machine, settings=settings(max_examples=20, stateful_step_count=12, deadline=None))
