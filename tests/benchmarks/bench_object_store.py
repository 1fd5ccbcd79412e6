"""Zarr in S3: a pass against obstore alone, from a server on this machine."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

import numpy as np
import obstore
import pytest
import s3fs
import zarr
from obstore.store import S3Store

import fc_arrayapi as fc

sys.path.append(str(Path(__file__).parent.parent))  # for the server of the tests
from helpers.s3_server import options, s3_server

CHUNK = 1024  # rows of 4 KB


@pytest.fixture(scope="module")
def array(quick):
    """256 MB in chunks of 4 MB; a quarter of it in a quick run."""
    with s3_server() as port:
        given = options(port)
        s3fs.S3FileSystem(**given).mkdir("bucket")
        values = np.random.default_rng(0).random((CHUNK * (16 if quick else 64), 1024), "float32")
        made = zarr.create_array(
            "s3://bucket/x.zarr",
            storage_options=given,
            shape=values.shape,
            dtype="f4",
            chunks=(CHUNK, 1024),
            compressors=None,
        )
        made[...] = values
        yield given, values.nbytes


def test_pass_over_zarr_in_s3(against, array):
    given, size = array
    store = S3Store(
        "bucket",
        endpoint=given["endpoint_url"],
        access_key_id=given["key"],
        secret_access_key=given["secret"],
        client_options={"allow_http": True},
    )
    keys = [each["path"] for each in obstore.list(store, "x.zarr/c").collect()]
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def alone(at_once):
        left, read = iter(keys), []

        async def some():
            for key in left:
                read.append(len(await (await obstore.get_async(store, key)).bytes_async()))

        async def together():
            await asyncio.gather(*(some() for _ in range(at_once)))

        asyncio.run_coroutine_threadsafe(together(), loop).result()
        assert sum(read) == size

    def seconds(at_once):
        alone(at_once)
        start = time.perf_counter()
        alone(at_once)
        return time.perf_counter() - start

    best = min((1, 2, 4, 8), key=seconds)
    X = fc.open_array("s3://bucket/x.zarr", storage_options=given)
    blocks = X.map_blocks(lambda block: np.ones((1, 1)), dtype=float, chunks=(1, 1))
    against(
        f"every block of {size / 1e6:.0f} MB in chunks of {CHUNK * 4096 / 1e6:.0f} MB",
        lambda: fc.compute(blocks),
        f"obstore alone, {best} requests at once",
        lambda: alone(best),
        at_most=1 / 0.9,
        seconds=20.0,
        peaks="none",
    )
