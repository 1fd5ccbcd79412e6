"""A bucket for each test, on a server of moto's, through obstore and through s3fs."""

from __future__ import annotations

import sys
import uuid

import numpy as np
import pytest
import s3fs
import zarr
from helpers.s3_server import FaultProxy, options, s3_server


@pytest.fixture(scope="session")
def port():
    with s3_server() as port:
        yield port


@pytest.fixture(params=["obstore", "s3fs"])
def library(request, monkeypatch):
    """The library that makes the requests."""
    if request.param == "s3fs":
        monkeypatch.setitem(sys.modules, "obstore", None)
    return request.param


@pytest.fixture
def proxy(port):
    with FaultProxy(port) as proxy:
        yield proxy


class Bucket:
    """A bucket with what the tests ask of it."""

    def __init__(self, port):
        self.name, self.port = f"bucket-{uuid.uuid4().hex[:12]}", port
        self.options = options(port)
        self.files = s3fs.S3FileSystem(**self.options)
        self.files.mkdir(self.name)

    def url(self, key):
        return f"s3://{self.name}/{key}"

    def keys(self, below=""):
        self.files.invalidate_cache()
        start = f"{self.name}/"
        return sorted(key[len(start) :] for key in self.files.find(f"{self.name}/{below}".rstrip("/")))

    def write(self, key, values, chunks, **how):
        array = zarr.create_array(
            self.url(key), storage_options=self.options, shape=values.shape, chunks=chunks, dtype=values.dtype, **how
        )
        array[...] = values
        return array

    def read(self, key):
        return np.asarray(zarr.open_array(self.url(key), storage_options=self.options, mode="r")[...])


@pytest.fixture
def bucket(port):
    return Bucket(port)
