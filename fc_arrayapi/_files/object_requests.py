"""Requests to a zarr store: what lies below an address, reading, writing and deleting; errors name the address."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .object_store import Place
from .source import brief
from .zarr_store import zarr_module

if TYPE_CHECKING:  # where they are used: they take a third of the package's import time
    from concurrent.futures import ThreadPoolExecutor
    from datetime import datetime

# Requests of one task at a time, where fsspec makes them.
AT_ONCE = 8

# The threads in which obstore makes requests, for each process and number.
_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}

# Options whose values must not be in a message, and the length from which a value is no ordinary word.
_SECRET = re.compile("key|secret|token|passw|credential|auth|sas|header", re.IGNORECASE)
_SHORTEST_SECRET = 8


# Where the machines of clouds have theirs.
_METADATA_SERVERS = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")


class Stored(NamedTuple):
    """An object in a listing. `version` changes with its content, `modified` is None where the store does not say."""

    size: int
    version: str
    modified: datetime | None


def listing(place: Place, path: str | None = None) -> dict[str, Stored] | None:
    """Return the objects below a path of the store, that of the array by default, by the rest of their keys.

    None where the store cannot list, or does not say how large its objects are and when they change.
    """
    path = place.path if path is None else path
    prefix = f"{path}/" if path else ""
    store = obstore_of(place.store)
    try:
        if store is not None:
            return _listed_by_obstore(store, prefix)
        if hasattr(place.store, "fs"):
            return _listed_by_fsspec(place.store, prefix)
    except Exception as error:
        raise failure(error, place, path) from None
    return None


def _listed_by_obstore(store: Any, prefix: str) -> dict[str, Stored] | None:
    import obstore

    if type(store).__name__ == "HTTPStore":
        return None
    found = obstore.list(store, prefix=prefix or None).collect()
    return {
        each["path"][len(prefix) :]: Stored(
            each["size"], str(each["e_tag"] or each["last_modified"]), each["last_modified"]
        )
        for each in found
        if each["path"].startswith(prefix)
    }


def _listed_by_fsspec(store: Any, prefix: str) -> dict[str, Stored] | None:
    from zarr.core.sync import sync

    if "http" in store.fs.protocol:
        return None
    store.fs.invalidate_cache()
    start = f"{store.path.rstrip('/')}/{prefix}".lstrip("/")
    found = sync(store.fs._find(start.rstrip("/"), detail=True))
    listed = {}
    for key, each in found.items():
        stored = _stored(each)
        if stored is None:
            return None
        key = key.lstrip("/")
        if key.startswith(start):
            listed[key[len(start) :]] = stored
    return listed


def _stored(each: dict[str, Any]) -> Stored | None:
    """Return what fsspec knows of an object, None if it has no version."""
    names = ("ETag", "etag", "Last-Modified", "LastModified", "mtime", "updated", "created")
    version = next((each[name] for name in names if each.get(name)), None)
    return None if version is None else Stored(int(each["size"] or 0), str(version), None)


def state_of(place: Place, key: str) -> Stored | None:
    """Return what the server says of one object of the array, None where the store says nothing."""
    key = place.inner(key)
    store = obstore_of(place.store)
    try:
        if store is not None:
            import obstore

            each = obstore.head(store, key)
            return Stored(each["size"], str(each["e_tag"] or each["last_modified"]), each["last_modified"])
        if hasattr(place.store, "fs"):
            from zarr.core.sync import sync

            found = sync(place.store.fs._info(f"{place.store.path.rstrip('/')}/{key}"))
            return _stored(found) or Stored(int(found["size"] or 0), "", None)
    except Exception as error:
        raise failure(error, place, key) from None
    return None


def keys_below(place: Place, path: str) -> dict[str, int | None]:
    """Return the rest of the keys below a path of the store, with sizes where the store tells them at once."""
    found = listing(place, path)
    if found is not None:
        return {key: each.size for key, each in found.items()}
    prefix = f"{path}/" if path else ""

    async def collect() -> list[str]:
        return [key async for key in place.store.list_prefix(prefix)]

    return {key[len(prefix) :]: None for key in _run(collect(), place, path)}


def read_object(place: Place, key: str) -> bytes | None:
    """Return the content of an object, None if there is none."""
    inner = obstore_of(place.store)
    if inner is not None:
        try:
            return bytes(get_by_obstore(inner, key, {}))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise failure(error, place, key) from None
    from zarr.core.buffer import default_buffer_prototype

    value = _run(place.store.get(key, default_buffer_prototype()), place, key)
    return None if value is None else value.to_bytes()


def write_objects(place: Place, objects: Iterable[tuple[str, Any]]) -> None:
    """Write objects, keys with bytes or contiguous NumPy arrays, several at a time; each is made in its turn."""
    inner = obstore_of(place.store)
    plain = ((key, _as_bytes(content)) for key, content in objects)
    if inner is not None:
        import obstore

        _each_in_threads(plain, lambda item: obstore.put(inner, item[0], item[1]), place)
        return
    from zarr.core.buffer import default_buffer_prototype

    buffer = default_buffer_prototype().buffer
    _run(_each(plain, lambda item: place.store.set(item[0], buffer.from_array_like(item[1])), place), place, "")


def _as_bytes(content: Any) -> Any:
    import numpy as np

    return np.frombuffer(content, "u1") if isinstance(content, bytes) else content.reshape(-1).view("u1")


def delete_objects(place: Place, keys: Iterable[str]) -> None:
    """Delete objects; one that is not there is no error."""
    pairs = [(key, None) for key in keys]
    inner = obstore_of(place.store)
    if inner is not None:
        import obstore

        def delete(pair: tuple[str, None]) -> None:
            with contextlib.suppress(FileNotFoundError):
                obstore.delete(inner, pair[0])

        _each_in_threads(pairs, delete, place)
        return
    _run(_each(pairs, lambda pair: place.store.delete(pair[0]), place), place, "")


def delete_below(place: Place, path: str) -> None:
    """Delete all objects below a path of the store, and the folders of a store that has any."""
    if obstore_of(place.store) is not None:
        delete_objects(place, [f"{path}/{key}" for key in keys_below(place, path)])
        return
    _run(place.store.delete_dir(path), place, path)


def obstore_of(store: Any) -> Any:
    """Return obstore's own store in one of zarr, None if another library makes the requests.

    Its requests are made in threads and not as coroutines: those run on in threads of Rust for a moment after they are
    done, and a process that ends just then is aborted (pyo3-async-runtimes #40): 5 of 120 under load.
    """
    inner = getattr(store, "store", None)
    return inner if type(inner).__module__.startswith("obstore") else None


def get_by_obstore(inner: Any, key: str, options: dict[str, Any]) -> Any:
    """Read an object, or a range of it."""
    import obstore

    return obstore.get(inner, key, options=options).bytes()


def requests_at_once() -> int:
    """Return how many requests zarr makes at a time: its limit is here one for the process.

    zarr counts for each block, and each thread of Dask has one: two with 10 requests each get a quarter less from a
    small server than 10 together, and hold 20 chunks beside their blocks.
    """
    return int(zarr_module().config.get("async.concurrency") or 10)


def request_pool() -> ThreadPoolExecutor:
    """Return the threads for requests."""
    from concurrent.futures import ThreadPoolExecutor

    limit = requests_at_once()
    key = (os.getpid(), limit)
    if key not in _POOLS:  # a forked process has none of its parent's threads
        _POOLS[key] = ThreadPoolExecutor(limit, thread_name_prefix="fc_arrayapi-requests")
    return _POOLS[key]


def _each_in_threads(items: Iterable[Any], request: Callable[[Any], object], place: Place) -> None:
    """Make a request for each item, a pair that begins with a key; when this raises, none is under way."""
    from concurrent.futures import wait

    left, lock = iter(items), threading.Lock()

    def some() -> None:
        while True:
            with lock:
                item = next(left, None)
            if item is None:
                return
            try:
                request(item)
            except Exception as error:
                raise failure(error, place, item[0]) from None

    pool = request_pool()
    ended = [pool.submit(some) for _ in range(AT_ONCE)]
    wait(ended)
    for each in ended:
        each.result()


async def _each(items: Iterable[Any], request: Callable[[Any], Coroutine[Any, Any, None]], place: Place) -> None:
    """Make a request for each item, a pair that begins with a key; when this raises, none is under way."""
    import asyncio

    left = iter(items)

    async def some() -> None:
        for item in left:
            try:
                await request(item)
            except Exception as error:
                raise failure(error, place, item[0]) from None

    for ended in await asyncio.gather(*(some() for _ in range(AT_ONCE)), return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended


def _run(made: Coroutine[Any, Any, Any], place: Place, key: str) -> Any:
    """Run a request on zarr's own event loop, which lives as long as the process."""
    from zarr.core.sync import sync

    try:
        return sync(made)
    except Exception as error:
        raise failure(error, place, key) from None


def failure(error: BaseException, place: Place, key: str) -> OSError:
    """Return the error of a request that failed for good: it names the address, and no credentials."""
    if isinstance(error, OSError) and error.filename and place.root in str(error.filename):
        return error  # it does so already
    kind, said = type(error).__name__, str(error)
    status = re.search(r"status code: (\d+)", said)  # obstore has no types for what fails while it lists
    code = status.group(1) if status else ""
    denied = code in ("401", "403") or kind in ("PermissionDeniedError", "UnauthenticatedError")
    if denied or isinstance(error, PermissionError):
        number = errno.EACCES
    else:
        number = errno.ENOENT if isinstance(error, FileNotFoundError) or code == "404" else errno.EIO
    text = said.partition("\n\nDebug source")[0]
    if any(server in text for server in _METADATA_SERVERS):  # which are asked where no credentials are given
        number = errno.EACCES
        text = (
            "no credentials were found: set them in the environment, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or pass storage_options={'anon': True} if the bucket is public"
        )
    for secret in _secrets(place.store):
        text = text.replace(secret, "***")
    return OSError(number, brief(" ".join(text.split()) or kind), place.address_of(key) if key else place.root)


def _secrets(store: Any) -> set[str]:
    """Return what must not be in a message: the credentials that the store was made with."""
    inner = getattr(store, "store", None)
    given = [getattr(inner, "config", None), getattr(inner, "client_options", None)]
    given += [getattr(getattr(store, "fs", None), "storage_options", None)]
    return {value for options in given for value in _secret_values(options, False)}


def _secret_values(value: Any, secret: bool) -> set[str]:
    if isinstance(value, Mapping):
        return {
            found for key, inner in value.items() for found in _secret_values(inner, bool(_SECRET.search(str(key))))
        }
    return {value} if secret and isinstance(value, str) and len(value) >= _SHORTEST_SECRET else set()
