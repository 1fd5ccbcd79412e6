"""The sentences of the messages about files that users meet most; the tests of each file hold the facts of the rest."""

from __future__ import annotations

import os
import sys

import h5py
import numpy as np
import pytest
from helpers.batches import X
from helpers.results import break_off_at_the_end

import fc_arrayapi as fc
from fc_arrayapi._files.formats import open_path


def find_an_unfinished_result(folder, backend):
    wanted = {folder / "Y.npy": backend.asarray(X)}
    break_off_at_the_end(wanted)
    fc.store(wanted)


def find_a_target_that_exists(folder, backend):
    wanted = {folder / "Y.npy": backend.asarray(X)}
    fc.store(wanted)
    fc.store(wanted)


def open_a_file_cut_short(folder, patch):
    np.save(folder / "X.npy", X)
    os.truncate(folder / "X.npy", 1000)
    open_path(str(folder / "X.npy"))


def open_without_dask(folder, patch):
    np.save(folder / "X.npy", X)
    patch.setitem(sys.modules, "dask", None)
    patch.setitem(sys.modules, "dask.array", None)
    fc.open_array(folder / "X.npy")


def open_hdf5_without_a_name(folder, patch):
    with h5py.File(folder / "x.h5", "w") as file:
        file["X"], file["dY"] = X, X
    open_path(str(folder / "x.h5"))


def message_of(call, *arguments, exception):
    with pytest.raises(exception) as raised:
        call(*arguments)
    assert raised.type is exception
    return str(raised.value)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            find_an_unfinished_result,
            "{folder}/Y.npy.fc_arrayapi.part: is an unfinished result of Y.npy: pass resume=True to compute the "
            "missing blocks, or overwrite=True to start over",
        ),
        (
            find_a_target_that_exists,
            "{folder}/Y.npy: already exists and is complete: leave it out of targets, or pass overwrite=True to "
            "replace it",
        ),
    ],
)
def test_sentences_about_results(backend, tmp_path, call, sentence):
    assert message_of(call, tmp_path, backend, exception=FileExistsError) == sentence.format(folder=tmp_path)


@pytest.mark.parametrize(
    ("call", "exception", "sentence"),
    [
        (
            open_a_file_cut_short,
            ValueError,
            "{folder}/X.npy: has 1000 bytes, its header requires 4928: the file is truncated",
        ),
        (open_without_dask, ImportError, "chunked arrays need Dask: pip install 'dask[array]' threadpoolctl"),
        (
            open_hdf5_without_a_name,
            ValueError,
            "{folder}/x.h5: names no dataset: open {folder}/x.h5::X ((100, 6), float64) or {folder}/x.h5::dY "
            "((100, 6), float64)",
        ),
    ],
)
def test_sentences_about_files_and_packages(tmp_path, monkeypatch, call, exception, sentence):
    assert message_of(call, tmp_path, monkeypatch, exception=exception) == sentence.format(folder=tmp_path)
