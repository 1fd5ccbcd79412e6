"""store: lazy arrays written to files in one pass, which can be resumed where it failed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Never

from .._arrays.namespace import Array, is_lazy
from .._arrays.types import StandardArray
from .._dask import blas_threads, blocks, compute
from .disk import kind_at, target_path
from .unfinished import PYTHON, WRITERS, Options, UnfinishedResult, write_block


def store(
    targets: Mapping[Any, StandardArray],
    *more: Never,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Write lazy arrays to files, all in one pass over the data, block by block.

    A file appears under its name only when it is complete. Until then the finished blocks are
    kept beside it, whatever stops the pass: an exception, Ctrl-C, a full disk, a killed process,
    a power cut. `resume` continues from there.

    Parameters
    ----------
    targets : mapping of paths to dask arrays
        For example ``{"y.zarr": Y, "dx.npy": grads.dX, "dw.npy": grads.dW}``. A name ends in

        - ``.npy``: blocks are written straight to their places;
        - ``.zarr``: a Zarr array of format 3, one chunk for each block, or several where
          blocks differ in size (needs the extra ``zarr``). It is not compressed: that would
          take longer than writing, and floating-point results hardly shrink.
    resume : bool
        Continue an unfinished result: compute only the missing blocks. Start if there is none.
        The arrays must be the same: built from unchanged files and equal weights. That is told
        from their Dask names, so their sources must be of `open_array`, NumPy arrays, or others
        of which the name changes with the content, not ``da.from_zarr`` or an h5py dataset.
    overwrite : bool
        Replace an existing file, at the end, when the new one is complete. Without `resume`,
        start over if there is an unfinished result.
    progress : bool
        Show the progress, as `compute` does.

    Raises
    ------
    FileExistsError
        If a target or an unfinished result of it exists. Even with `overwrite`, if a target is a
        link, or a file where a folder would be written, or a folder that holds more than a Zarr
        array; and if another pass writes the target.
    FileNotFoundError
        If the folder of a target does not exist.
    PermissionError
        If the folder of a target is not writable.
    ValueError
        For another kind of file, two targets at one path, blocks of unknown size, or, with
        `resume`, an unfinished result that is damaged or of another array, or a source that
        may change and keep its Dask name.
    TypeError
        For a target that is not a path, and an array that is not lazy or not numeric.
    ImportError
        If the library that writes a target is not installed.

    All of these are raised before anything is computed or written.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> import fc_arrayapi as fc
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/x.npy", np.ones((10, 4)))
    ...     X, W = fc.open_array(folder + "/x.npy", rows=4), np.ones((4, 3))
    ...     Y = fc.forward(X, W)
    ...     fc.store({folder + "/y.npy": Y, folder + "/dw.npy": fc.grad_weight(X, Y)})
    ...     np.load(folder + "/y.npy").shape, np.load(folder + "/dw.npy").shape
    ((10, 3), (4, 3))
    """
    if more:
        call = _as_a_mapping((targets, *more))
        raise TypeError(f"store takes one mapping of paths to lazy arrays, and options by name: {call}")
    write(targets, resume=resume, overwrite=overwrite, progress=progress)


def write(
    targets: Mapping[Any, StandardArray],
    *,
    resume: bool,
    overwrite: bool,
    progress: bool,
    options: Options = PYTHON,
) -> None:
    """Do what `store` does, with the options in messages as `options` writes them."""
    results = _check_targets(targets, options)
    blas_threads.threadpoolctl()
    with contextlib.ExitStack() as stack:
        for result in results:
            stack.callback(result.folder.close)
            result.inspect(resume, overwrite)
        _run(results, overwrite, progress, options)


def _run(results: Sequence[UnfinishedResult], overwrite: bool, progress: bool, options: Options) -> None:
    """Compute the blocks that are missing, and give the results their names."""
    _prepare(results)
    unfinished = [result for result in results if result.missing]
    written = [
        blocks.each_block(write_block, result.array, writer=result.writer, where=str(result.path))
        for result in unfinished
    ]
    try:
        if any(result.finished for result in results):
            compute.compute(blocks.only_blocks(written, [result.missing for result in unfinished]), progress=progress)
        else:
            compute.compute(*written, progress=progress)
    except BaseException as error:
        for result in unfinished:
            if isinstance(error, FileNotFoundError) and kind_at(result.work) is None:
                raise result.folder.lost() from error
        changeable = next(filter(None, (result.changeable for result in unfinished)), None)
        advice = f"pass {options.resume} to compute the others"
        if changeable:
            advice = f"but {changeable} may change without a change of its name, so they can only be computed anew"
        error.add_note(f"The finished blocks are kept: {advice}.")
        raise
    for result in results:
        result.commit(overwrite)
    for result in results:  # after all have their names: until then each folder tells that its target is in place
        result.remove()


def _prepare(results: Sequence[UnfinishedResult]) -> None:
    """Prepare all results, or none."""
    begun: list[UnfinishedResult] = []
    try:
        for result in results:
            begun.append(result)
            result.prepare()
    except BaseException as error:
        for result in begun:
            result.rollback()
        if isinstance(error, OSError) and error.errno is not None:  # of the system, about a temporary name
            raise OSError(error.errno, error.strerror, str(begun[-1].path)) from error
        raise


def _as_a_mapping(given: tuple[Any, ...]) -> str:
    """Write the call of `store` that is meant where a path and an array were given side by side."""
    paths = [os.fsdecode(value) for value in given if isinstance(value, (str, bytes, os.PathLike))]
    return f'call store({{"{paths[0] if paths else "y.zarr"}": Y}})'


def _check_targets(targets: Mapping[Any, Array], options: Options) -> list[UnfinishedResult]:
    if not isinstance(targets, Mapping):
        raise TypeError(
            f"targets is of type {type(targets).__name__}, not a mapping of paths to lazy arrays: "
            f"{_as_a_mapping((targets,))}"
        )
    results: dict[Path, UnfinishedResult] = {}
    for name, array in targets.items():
        if not isinstance(name, (str, bytes, os.PathLike)):
            raise TypeError(
                f"a target is of type {type(name).__name__}, not a path: what another process writes to an array in "
                f"memory is lost"
            )
        name = os.fsdecode(name)
        path = target_path(name)
        _check_array(name, array)
        if path.suffix not in WRITERS:
            raise ValueError(f"{name}: store writes {' and '.join(WRITERS)}")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{name}: the folder {path.parent} does not exist: create it first")
        if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(f"{name}: the folder {path.parent} is not writable")
        if path in results:
            raise ValueError(f"{name}: is the target of two arrays")
        results[path] = UnfinishedResult(path, array, options)
    return list(results.values())


def _check_array(name: Any, array: Any) -> None:
    if array is None:
        raise TypeError(f"{name}: the array is None: include the gradient in needs of backward")
    if not is_lazy(array):
        raise TypeError(f"{name}: the array is of type {type(array).__name__}, not lazy: write it with numpy.save")
    for axis, sizes in enumerate(array.chunks):
        if any(size != size for size in sizes):
            raise ValueError(
                f"{name}: axis {axis} has blocks of unknown size: call compute_chunk_sizes() on the array first"
            )
    if array.dtype.kind not in "biufc" or array.dtype.char in "gG":
        raise TypeError(
            f"{name}: the array has dtype {array.dtype}; store writes standard numeric dtypes: convert it "
            f"first, for example to float32"
        )
