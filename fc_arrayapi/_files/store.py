"""store: lazy arrays written to files in one pass, which can be resumed where it failed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, Never

from .._arrays.namespace import Array, is_lazy
from .._arrays.types import StandardArray
from .._dask import blas_threads, blocks, compute
from .disk import is_url, no_folder, target_path
from .result import PYTHON, Options, Result, places_read, write_block


def store(
    targets: Mapping[Any, StandardArray] | Sequence[tuple[Any, StandardArray]],
    *more: Never,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    memory_limit: float | str | None = None,
) -> None:
    """Write lazy arrays to files or object stores, all in one pass over the data, block by block.

    A file appears under its name only when it is complete. Until then the finished blocks are
    kept beside it, whatever stops the pass: an exception, Ctrl-C, a full disk, a killed process,
    a power cut. `resume` continues from there.

    In an object store nothing can be renamed. Chunks are written to their final place and the
    array's metadata last, so that nothing can open it before it is complete. With `overwrite`
    the old array is removed when the pass begins, its metadata first: until the end there is
    none. Objects beside it, in ``y.zarr.fc_arrayapi.part/``, record the finished blocks until
    then. There are no locks: of two passes to one address the first stops with an error, unless
    both write in the same moment.

    Parameters
    ----------
    targets : mapping of paths and addresses to dask arrays, or list of pairs
        For example ``{"y.zarr": Y, "dx.npy": grads.dX, "dw.npy": grads.dW}``. A name ends in

        - ``.npy``: blocks are written straight to their places;
        - ``.zarr``: a Zarr array of format 3, one chunk for each block, or several where
          blocks differ in size (needs the extra ``zarr``). It is not compressed: that would
          take longer than writing, and floating-point results hardly shrink.

        An address in an object store, ``"s3://bucket/y.zarr"`` or ``gs://``, is a Zarr array of the
        same form (needs the extra ``cloud``), with any name. What cannot be a key stands in a list
        of pairs, ``[(target, Y)]``: a store of zarr, at whose root the array is written; a
        ``zarr.storage.StorePath``, at whose path; or a ``zarr.Group`` that is empty, which the array
        replaces. A local store is written without fsync: pass its path instead.
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
    storage_options : dict, optional
        How to reach the addresses, in fsspec's names, as in `open_array`. Credentials travel to
        the tasks, and are in no name, fingerprint or message.
    memory_limit : int or str, optional
        Bytes that the pass may take, as in `compute`.

    Raises
    ------
    FileExistsError
        If a target or an unfinished result of it exists. Even with `overwrite`, if a target is a
        link, or a file where a folder would be written, or a folder that holds more than a Zarr
        array; and if another pass writes the target.
    FileNotFoundError
        If the folder of a target does not exist.
    PermissionError
        If the folder of a target is not writable, or an object store denies access.
    ValueError
        For another kind of file, two targets at one path, blocks of unknown size, or, with
        `resume`, an unfinished result that is damaged or of another array, or a source that
        may change and keep its Dask name; and for a target that the pass reads, which would be
        lost.
    TypeError
        For a target that is no path and no store, and an array that is not lazy or not numeric.
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
    write(
        targets,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
        storage_options=storage_options,
        memory_limit=memory_limit,
    )


def write(
    targets: Mapping[Any, StandardArray] | Sequence[tuple[Any, StandardArray]],
    *,
    resume: bool,
    overwrite: bool,
    progress: bool,
    storage_options: Mapping[str, Any] | None = None,
    memory_limit: float | str | None = None,
    options: Options = PYTHON,
) -> None:
    """Do what `store` does, with the options in messages as `options` writes them."""
    results = _check_targets(targets, storage_options, options)
    blas_threads.threadpoolctl()
    from .._dask import planned

    planned.check_memory([result.array for result in results], True, memory_limit)
    with contextlib.ExitStack() as stack:
        for result in results:
            stack.callback(result.close)
            result.inspect(resume, overwrite)
        read = [place for result in results for place in places_read(result.array)] if overwrite else []
        for result in results:
            result.check_read(read)
        _run(results, overwrite, progress, options)


def _run(results: Sequence[Result], overwrite: bool, progress: bool, options: Options) -> None:
    """Compute the blocks that are missing, and give the results their names."""
    _prepare(results)
    unfinished = [result for result in results if result.missing]
    written = [
        blocks.each_block(
            write_block, result.array, writer=result.writer, record=result.record, where=str(result.where)
        )
        for result in unfinished
    ]
    try:
        if any(result.finished for result in results):
            compute.run([blocks.only_blocks(written, [result.missing for result in unfinished])], progress)
        else:
            compute.run(written, progress)
    except BaseException as error:
        lost = next(filter(None, (result.lost() for result in unfinished)), None)
        if isinstance(error, FileNotFoundError) and lost is not None:
            raise lost from error
        changeable = [result for result in unfinished if result.changeable]
        error.add_note((changeable or unfinished)[0].advice)
        raise
    for result in results:
        result.commit(overwrite)
    for result in results:  # after all have their names: until then each folder tells that its target is in place
        result.remove()


def _prepare(results: Sequence[Result]) -> None:
    """Prepare all results, or none."""
    begun: list[Result] = []
    try:
        for result in results:
            begun.append(result)
            result.prepare()
        for result in results:
            result.begin()
    except BaseException as error:
        for result in begun:
            result.rollback()
        if isinstance(error, OSError) and error.errno is not None:  # of the system, about a temporary name
            raise OSError(error.errno, error.strerror, begun[-1].where) from error
        raise


def _as_a_mapping(given: tuple[Any, ...]) -> str:
    """Write the call of `store` that is meant where a path and an array were given side by side."""
    paths = [os.fsdecode(value) for value in given if isinstance(value, (str, bytes, os.PathLike))]
    return f'call store({{"{paths[0] if paths else "y.zarr"}": Y}})'


def _check_targets(targets: Any, storage_options: Mapping[str, Any] | None, options: Options) -> list[Result]:
    results: dict[Any, Result] = {}
    for target, array in _pairs(targets):
        if isinstance(target, (str, bytes, os.PathLike)):
            name = os.fsdecode(target)
            _check_array(name, array)
            key, result = _at_path(name, array, storage_options, options)
        elif _is_zarr_target(target):
            from .unfinished_objects import result_in, target_place  # here for the reason in _at_path

            place = target_place(target)
            name = place.address
            _check_array(name, array)
            key, result = place, result_in(target, place, array, options)
        else:
            raise TypeError(
                f"a target is of type {type(target).__name__}, not a path, nor a group or store of zarr: what another "
                f"process writes to an array in memory is lost"
            )
        if key in results:
            raise ValueError(f"{name}: is the target of two arrays")
        results[key] = result
    return list(results.values())


def _pairs(targets: Any) -> list[tuple[Any, Any]]:
    """Return the targets and their arrays: of a mapping, or of a list, for targets that cannot be keys."""
    if isinstance(targets, Mapping):
        return list(targets.items())
    if isinstance(targets, (list, tuple)) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in targets):
        return list(targets)
    raise TypeError(
        f"targets is of type {type(targets).__name__}, not a mapping of paths to lazy arrays: "
        f"{_as_a_mapping((targets,))}"
    )


def _is_zarr_target(target: Any) -> bool:
    """Say whether this is a group, a store or a path in a store of zarr, or a session of icechunk."""
    module = type(target).__module__.partition(".")[0]
    return module in ("zarr", "icechunk") and not hasattr(target, "chunks")


def _at_path(
    name: str, array: Array, storage_options: Mapping[str, Any] | None, options: Options
) -> tuple[Any, Result]:
    """Return what tells a target from others, and its result."""
    if is_url(name):
        from .object_store import place_of  # here, since all of these take a third of the package's import time
        from .unfinished_objects import UnfinishedObjects

        place = place_of(name, storage_options)
        return place, UnfinishedObjects(place, array, options)
    from .unfinished import WRITERS, UnfinishedResult

    path = target_path(name)
    if path.suffix not in WRITERS:
        raise ValueError(f"{name}: store writes {' and '.join(WRITERS)}")
    if not path.parent.is_dir():
        raise no_folder(name, path.parent)
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f"{name}: the folder {path.parent} is not writable")
    return path, UnfinishedResult(path, array, options)


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
