"""Object stores: an address and fsspec's storage_options as a zarr store."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .disk import URL
from .zarr_store import zarr_module

# The schemes that are read and written, and what pip installs for fsspec where obstore cannot take the options.
SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "https": "aiohttp", "http": "aiohttp"}

# Where the AWS tools keep keys that obstore does not read, and what it reads instead.
_PROFILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")


class Address(str):
    """Where an array lies, as messages name it: ``s3://bucket/x.zarr``."""

    @property
    def name(self) -> str:
        """The last part."""
        return self.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class Place:
    """Where an array lies in a zarr store.

    It travels to the tasks with the store, and so with the credentials: neither `repr` nor Dask's name has them.

    Parameters
    ----------
    store : zarr store
    path : str
        In the store, "" for its root.
    root : str
        The address of the store, as messages name it.
    server : str
        What distinguishes equal addresses: the endpoint.
    """

    store: Any = field(repr=False, compare=False)
    path: str
    root: str
    server: str = ""

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return (str(self.address), self.server)

    @property
    def address(self) -> Address:
        """The address of the array."""
        return Address(self.address_of(self.path) if self.path else self.root)

    def address_of(self, key: str) -> str:
        """Return the address of a key of the store."""
        return f"{self.root.rstrip('/')}/{key}"

    def inner(self, key: str) -> str:
        """Return the key of an object of the array."""
        return f"{self.path}/{key}" if self.path else key


def place_of(url: str, storage_options: Mapping[str, Any] | None = None) -> Place:
    """Return the place of an address.

    Raises
    ------
    ValueError
        For another scheme, and for an address with a password or a query, which would be in messages.
    ImportError
        If neither obstore nor fsspec's file system for the scheme is installed.
    """
    match = URL.match(url)
    scheme, rest = (match.group(1).lower(), match.group(2)) if match else ("", url)
    if scheme not in SCHEMES:
        raise ValueError(
            f"{url}: store and open_array know {', '.join(f'{known}://' for known in SCHEMES)}: for another store pass "
            f"the array that zarr opens, or zarr's store"
        )
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        raise ValueError(f"{scheme}://...: has a user or a query, which would stand in messages: use storage_options")
    if storage_options is not None and not isinstance(storage_options, Mapping):
        raise TypeError(f"storage_options is of type {type(storage_options).__name__}: pass a dict of fsspec's options")
    bucket, _, key = rest.partition("/")
    key = "/".join(part for part in key.split("/") if part)
    if not bucket:
        raise ValueError(f"{url}: names no {'server' if scheme.startswith('http') else 'bucket'}")
    if scheme.startswith("http"):  # with the path in the root, as it is encoded
        bucket, key = f"{bucket}/{key}".rstrip("/"), ""
    root, options = f"{scheme}://{bucket}", dict(storage_options or {})
    store = _by_obstore(scheme, bucket, options)
    if store is None:
        store = _by_fsspec(root, SCHEMES[scheme], options)
    return Place(store, key, root, _server(store))


def place_in(store: Any, path: str = "") -> Place:
    """Return the place of a path in a zarr store."""
    inner = getattr(store, "store", None)
    if type(inner).__module__.startswith("obstore"):
        root = _address_of_obstore(inner)
    elif hasattr(store, "fs"):
        root = store.fs.unstrip_protocol(store.path)
    elif hasattr(store, "session"):
        root = f"icechunk://{store.session.branch or store.session.snapshot_id}"
    elif "://" in str(store):
        root = str(store)
    else:
        root = f"{type(store).__name__}:/"
    return Place(store, path.strip("/"), _without_user(root), _server(store))


def _address_of_obstore(store: Any) -> str:
    if hasattr(store, "url"):
        return str(store.url)
    scheme = {"S3Store": "s3", "GCSStore": "gs", "AzureStore": "az"}.get(type(store).__name__)
    if scheme is None:
        return f"{type(store).__name__}:/{getattr(store, 'prefix', None) or ''}"
    config = store.config
    bucket = config.get("bucket") or config.get("container_name") or ""
    return f"{scheme}://{bucket}/{store.prefix or ''}".rstrip("/")


def _server(store: Any) -> str:
    config = getattr(getattr(store, "store", None), "config", None)
    if isinstance(config, Mapping):
        server = config.get("endpoint")
    else:
        server = getattr(getattr(store, "fs", None), "endpoint_url", None)
    return _without_user(str(server or ""))


def _without_user(url: str) -> str:
    """Return an address without a user and a password."""
    return re.sub("//[^/]*@", "//", url)


def _by_obstore(scheme: str, bucket: str, options: dict[str, Any]) -> Any:
    """Return a store of obstore, or None where it is not installed, or has no such option."""
    try:
        from obstore import store
    except ImportError:
        return None
    config = {"s3": _s3_config, "gs": _gs_config}.get(scheme, _no_config)(options)
    if config is None:
        return None
    endpoint = str(config.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL") or "")
    if endpoint and not re.match("https?://[^/]", endpoint):  # obstore panics
        raise ValueError(f"{scheme}://{bucket}: storage_options: endpoint_url must begin with http:// or https://")
    if scheme == "http" or (scheme == "s3" and endpoint.lower().startswith("http://")):
        config["client_options"] = {"allow_http": True}
    try:
        if scheme == "s3":
            made = store.S3Store(bucket, **config)
        elif scheme == "gs":
            made = store.GCSStore(bucket, **config)
        else:
            made = store.HTTPStore.from_url(f"{scheme}://{bucket}", **config)
    except Exception as error:  # which names the option that is missing or wrong, and not its value
        why = str(error).partition("\n")[0]
        raise ValueError(f"{scheme}://{bucket}: storage_options: {why}") from None
    return zarr_module().storage.ObjectStore(made)


def _no_config(options: dict[str, Any]) -> dict[str, Any] | None:
    return None if options else {}


def _s3_config(options: dict[str, Any]) -> dict[str, Any] | None:
    """Translate options of s3fs; None if obstore has no word for one of them, or cannot find the keys."""
    rest = {name: value for name, value in options.items() if value is not None}
    client = dict(rest.pop("client_kwargs", {}))
    anonymous = rest.pop("anon", False)
    found = {
        "access_key_id": rest.pop("key", None),
        "secret_access_key": rest.pop("secret", None),
        "session_token": rest.pop("token", None),
        "endpoint": rest.pop("endpoint_url", None) or client.pop("endpoint_url", None),
        "region": client.pop("region_name", None),
        "skip_signature": anonymous or None,
    }
    if rest or client or not (anonymous or found["access_key_id"] or _obstore_finds_keys()):
        return None
    return {name: value for name, value in found.items() if value is not None}


def _obstore_finds_keys() -> bool:
    """Say whether keys come from the environment or the machine's role, and not from a profile of AWS's own tools."""
    if any(name in os.environ for name in _KEYS):
        return True
    files = [Path(os.environ.get(name, default)).expanduser() for name, default in _PROFILES.items()]
    return "AWS_PROFILE" not in os.environ and not any(file.exists() for file in files)


def _gs_config(options: dict[str, Any]) -> dict[str, Any] | None:
    """Translate options of gcsfs: `token` is "anon" or the path of a file with credentials."""
    rest = {name: value for name, value in options.items() if value is not None and name != "project"}
    token = rest.pop("token", None)
    if rest or not (token is None or isinstance(token, str)) or token in ("cloud", "browser", "cache"):
        return None
    if token in (None, "google_default"):
        return {}
    return {"skip_signature": True} if token == "anon" else {"application_credentials": token}


def _by_fsspec(root: str, library: str, options: dict[str, Any]) -> Any:
    try:
        return zarr_module().storage.FsspecStore.from_url(root, storage_options=options)
    except ImportError:
        raise ImportError(
            f"{root}: needs obstore: pip install obstore; options that obstore does not have need {library}: "
            f"pip install {library}"
        ) from None
