"""storage_options in fsspec's names: what obstore is given, and what goes through fsspec."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.s3_server import KEY, SECRET, TOKEN
from zarr.storage import FsspecStore, ObjectStore

import fc_arrayapi as fc
from fc_arrayapi._files.object_store import place_in, place_of


@pytest.fixture(autouse=True)
def no_keys_of_this_machine(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def test_options_of_s3fs_are_translated():
    given = {
        "key": KEY,
        "secret": SECRET,
        "token": TOKEN,
        "endpoint_url": "http://127.0.0.1:9000",
        "client_kwargs": {"region_name": "eu-central-1"},
    }
    place = place_of("s3://bucket/a//x.zarr/", given)
    assert (place.path, place.address, place.server) == ("a/x.zarr", "s3://bucket/a/x.zarr", "http://127.0.0.1:9000")
    assert dict(place.store.store.config) == {
        "access_key_id": KEY,
        "secret_access_key": SECRET,
        "session_token": TOKEN,
        "endpoint": "http://127.0.0.1:9000",
        "region": "eu-central-1",
        "bucket": "bucket",
    }
    assert dict(place.store.store.client_options) == {"allow_http": "true"}
    inner = place_of(
        "s3://bucket/x.zarr", {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": "https://host"}}
    )
    assert inner.server == "https://host"


def test_anonymous_and_google():
    assert place_of("s3://bucket/x.zarr", {"anon": True}).store.store.config["skip_signature"] in (True, "true")
    google = place_of("gs://bucket/x.zarr", {"token": "anon", "project": "p"})
    assert google.address == "gs://bucket/x.zarr"
    assert google.store.store.config["skip_signature"] in (True, "true")


@pytest.mark.parametrize(
    "more", [{"profile": None}, {"default_block_size": 2**20}, {"client_kwargs": {"verify": False}}]
)
def test_options_that_obstore_lacks_go_through_s3fs(more):
    store = place_of("s3://bucket/x.zarr", {"key": KEY, "secret": SECRET, **more}).store
    assert isinstance(store, ObjectStore if more == {"profile": None} else FsspecStore)


def test_keys_of_a_profile_go_through_s3fs(tmp_path):
    assert isinstance(place_of("s3://bucket/x.zarr").store, ObjectStore)
    (tmp_path / "credentials").write_text("[default]\n")
    assert isinstance(place_of("s3://bucket/x.zarr").store, FsspecStore)
    assert isinstance(place_of("s3://bucket/x.zarr", {"key": KEY, "secret": SECRET}).store, ObjectStore)


def test_address_is_the_same_by_url_and_by_store(library):
    place = place_of("s3://bucket/a/x.zarr", {"key": KEY, "secret": SECRET})
    assert place_in(place.store, "a/x.zarr").address == place.address
    inner = FsspecStore.from_url("s3://bucket/a", storage_options={"key": KEY, "secret": SECRET})
    assert place_in(inner, "x.zarr").address == place.address
    assert [text for text in (repr(place), str(place.__dask_tokenize__())) if SECRET in text or KEY in text] == []


def test_missing_libraries_are_named():
    code = """
import sys
sys.modules["obstore"] = sys.modules["s3fs"] = None
import fc_arrayapi as fc
try:
    fc.open_array("s3://bucket/x.zarr", storage_options={"anon": True})
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("s3://bucket: needs obstore: pip install obstore; options that")
    assert run.stdout.endswith("pip install s3fs\n")


@pytest.mark.parametrize("given", [{"key": KEY}, {"key": KEY, "secret": SECRET, "endpoint_url": f"no url {SECRET}"}])
def test_options_that_do_not_fit_are_refused(given):
    with pytest.raises((ValueError, OSError), match=r"s3://bucket") as error:
        fc.open_array("s3://bucket/x.zarr", storage_options=given)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("given", [3, "key", [("key", "k")]])
def test_options_of_another_type_are_refused(given):
    with pytest.raises(TypeError, match="storage_options is of type"):
        fc.open_array("s3://bucket/x.zarr", storage_options=given)
