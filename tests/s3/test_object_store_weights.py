"""W and B of a layer in S3: written in one request, read up to a limit."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.assertions import refused

import fc_arrayapi as fc

W = np.random.default_rng(0).standard_normal((6, 3)).astype("float32")
B = np.arange(3, dtype="float32")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_layer_is_saved_and_loaded(bucket, ending):
    url = bucket.url(f"layer.{ending}")
    fc.FullyConnected(W, B).save(url, storage_options=bucket.options)
    layer = fc.FullyConnected.load(url, storage_options=bucket.options)
    np.testing.assert_array_equal(layer.W, W)
    np.testing.assert_array_equal(layer.B, B)
    fc.FullyConnected(2 * W).save(url, storage_options=bucket.options)
    np.testing.assert_array_equal(fc.FullyConnected.load(url, storage_options=bucket.options).W, 2 * W)


def test_what_is_wrong_names_the_address(bucket):
    url = bucket.url("layer.npz")
    with refused(FileNotFoundError, url):
        fc.FullyConnected.load(url, storage_options=bucket.options)
    fc.FullyConnected(W, B).save(url, storage_options=bucket.options)
    with refused(ValueError, url, "max_bytes=", "the limit is 10"):
        fc.FullyConnected.load(url, max_bytes=10, storage_options=bucket.options)
    with refused(ValueError, url, "'head.W'"):
        fc.FullyConnected.load(url, prefix="head", storage_options=bucket.options)
    with refused(ValueError, bucket.url("layer.txt"), ".npz or .safetensors"):
        fc.FullyConnected(W).save(bucket.url("layer.txt"), storage_options=bucket.options)
