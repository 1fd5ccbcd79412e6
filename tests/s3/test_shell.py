"""The shell from bucket to bucket: addresses in the place of paths, credentials from the environment."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.assertions import lacks
from helpers.s3_server import KEY, SECRET

import fc_arrayapi as fc
from fc_arrayapi import cli

rng = np.random.default_rng(0)
X, dY = rng.normal(size=(100, 6)), rng.normal(size=(100, 3))
W, B = rng.normal(size=(6, 3)), np.arange(3.0)


@pytest.fixture
def environment(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.options["endpoint_url"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.chdir(tmp_path)
    bucket.write("x.zarr", X, (20, 6))
    bucket.write("dy.zarr", dY, (20, 3))
    fc.FullyConnected(W, B).save(bucket.url("layer.npz"), storage_options=bucket.options)
    return tmp_path


def test_a_pass_from_bucket_to_bucket(bucket, environment, capsys):
    x, dy, weights = (bucket.url(key) for key in ("x.zarr", "dy.zarr", "layer.npz"))
    assert cli.main(["forward", x, "--weights", weights, "--out", bucket.url("y.zarr")]) == 0
    assert cli.main(["backward", x, dy, "--weights", weights, "--out", bucket.url("grads")]) == 0
    np.testing.assert_allclose(bucket.read("y.zarr"), X @ W + B)
    for name, expected in fc.testing.reference_backward(X, W, dY)._asdict().items():
        np.testing.assert_allclose(bucket.read(f"grads/{name}.zarr"), expected)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{bucket.url('y.zarr')}: 100 x 3 float64, 2.34 KiB"
    assert list(environment.iterdir()) == []


def test_existing_results_and_inputs_stay(bucket, environment, capsys):
    x, weights = bucket.url("x.zarr"), bucket.url("layer.npz")
    before = bucket.keys()
    for out in (x, bucket.url("dy.zarr")):
        assert cli.main(["forward", x, "--weights", weights, "--out", out]) == 2
        complaint = capsys.readouterr().err
        assert complaint.count("\n") == 1
        assert lacks(complaint, out) == []
    assert bucket.keys() == before


def test_missing_credentials_are_named(bucket, environment, capsys, monkeypatch):
    def no_credentials(*_, **__):
        raise RuntimeError("Error performing PUT http://169.254.169.254/latest/api/token: 403 Forbidden")

    monkeypatch.setattr("fc_arrayapi._files.guarded_objects.get_by_obstore", no_credentials)
    x = bucket.url("x.zarr")
    assert cli.main(["forward", x, "--weights", bucket.url("layer.npz"), "--out", "Y.zarr"]) == 2
    assert lacks(capsys.readouterr().err, x, "no credentials were found", "AWS_ACCESS_KEY_ID") == []
