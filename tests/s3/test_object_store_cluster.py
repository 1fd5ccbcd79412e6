"""Object stores on a cluster of processes: values, resumed passes, and no credentials in logs."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from helpers.s3_server import KEY, SECRET, TOKEN, options
from zarr.storage import MemoryStore

import fc_arrayapi as fc

X = np.random.default_rng(0).standard_normal((80, 6)).astype("float32")
W = np.random.default_rng(1).standard_normal((6, 3)).astype("float32")


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_pass_from_s3_to_s3(bucket, client, library):
    bucket.write("x.zarr", X, (10, 6))
    x = fc.open_array(bucket.url("x.zarr"), rows=10, storage_options=bucket.options)
    Y = fc.forward(x, W)
    grads = fc.backward(x, W, Y)
    targets = {bucket.url("y.zarr"): Y, bucket.url("dx.zarr"): grads.dX, bucket.url("dw.zarr"): grads.dW}
    fc.store(targets, storage_options=bucket.options)
    np.testing.assert_allclose(bucket.read("y.zarr"), X @ W, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(bucket.read("dx.zarr"), X @ W @ W.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bucket.read("dw.zarr"), X.T @ (X @ W), rtol=1e-4, atol=1e-4)
    assert [key for key in bucket.keys("") if ".part" in key] == []


def test_pass_that_fails_is_resumed_in_threads(bucket, client, proxy, library):
    bucket.write("x.zarr", X, (10, 6))
    given = options(proxy.port, token=TOKEN)
    Y = fc.forward(fc.open_array(bucket.url("x.zarr"), rows=10, storage_options=given), W)
    proxy.fault = lambda method, path: 403 if "/x.zarr/c/5/" in path else None
    with pytest.raises(PermissionError, match=f"{bucket.url('x.zarr/c/5/0')}"):
        fc.store({bucket.url("y.zarr"): Y}, storage_options=given)
    logs = str(client.get_worker_logs()) + str(client.cluster.scheduler.get_logs()) + str(client.cluster.get_logs())
    assert "x.zarr" in logs
    assert [secret for secret in (KEY, SECRET, TOKEN) if secret in logs] == []
    proxy.fault = lambda method, path: None
    with dask.config.set(scheduler="threads"):
        Y = fc.forward(fc.open_array(bucket.url("x.zarr"), rows=10, storage_options=bucket.options), W)
        fc.store({bucket.url("y.zarr"): Y}, storage_options=bucket.options, resume=True)
    np.testing.assert_allclose(bucket.read("y.zarr"), X @ W, rtol=1e-5, atol=1e-6)


def test_store_in_memory_is_not_reported_as_written(bucket, client):
    bucket.write("x.zarr", X, (10, 6))
    x = fc.open_array(bucket.url("x.zarr"), rows=10, storage_options=bucket.options)
    with pytest.raises((FileNotFoundError, RuntimeError)):
        fc.store([(MemoryStore(), x)])
