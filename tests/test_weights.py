"""Weight files: what is refused, and what is never half-written."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from helpers.assertions import refused

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace

W, B = np.arange(6.0).reshape(2, 3), np.arange(3.0)
DTYPES = ("float16", "float32", "float64")


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("arrays", "exception", "facts"),
    [
        ({"B": B}, ValueError, ("['B']", "W", "B")),
        ({"W": W, "b": B}, ValueError, ("['W', 'b']", "W", "B")),
        ({"W": W.astype(int)}, TypeError, ("W", "int64", *DTYPES)),
        (
            {"W": np.asarray([[None]])},
            ValueError,
            ("W.npy", "Python objects"),
        ),
    ],
)
def test_load_refuses_files_that_are_not_layers(tmp_path, arrays, exception, facts):
    path = npz(tmp_path / "layer.npz", **arrays)
    with refused(exception, str(path), *facts):
        fc.FullyConnected.load(path)


def test_a_broken_file_is_refused(tmp_path):
    whole = npz(tmp_path / "whole.npz", W=W).read_bytes()
    for name, content in (("cut.npz", whole[:-30]), ("text.npz", b"hello"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with refused(ValueError, str(tmp_path / name), ".npz file"):
            fc.FullyConnected.load(tmp_path / name)
        (tmp_path / name).rename(tmp_path / "x.safetensors")
        with refused(ValueError, str(tmp_path / "x.safetensors"), ".safetensors file"):
            fc.FullyConnected.load(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError):
        fc.FullyConnected.load(tmp_path / "missing.npz")


def test_a_header_that_asks_for_more_than_there_is_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "lie.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("W.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    with refused(ValueError, str(path), "W.npy", "128 bytes", "8000000000000000128"):
        fc.FullyConnected.load(path)


def npz_with(path, header=None, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        if header is None:
            with archive.open("W.npy", "w") as member:
                np.lib.format.write_array(member, W)
        else:
            with archive.open("W.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, header)
                member.write(bytes(80))
    return path


def test_load_refuses_files_that_save_never_writes(tmp_path):
    bomb = tmp_path / "bomb.npz"
    np.savez_compressed(bomb, W=np.zeros((10_000, 1000)))
    with zipfile.ZipFile(bomb) as archive:
        compressed = archive.getinfo("W.npy").compress_size
    with refused(ValueError, str(bomb), "W.npy", f"{compressed} bytes", "80000128", "100", "numpy.savez"):
        fc.FullyConnected.load(bomb)
    for shape in ((-2, -3), (-1, 3)):
        path = npz_with(tmp_path / "x.npz", {"descr": "<f8", "fortran_order": False, "shape": shape})
        with refused(ValueError, str(path), "W.npy", "header", str(shape)):
            fc.FullyConnected.load(path)
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("folder.npz", "folder.safetensors"):
        with refused(ValueError, str(tmp_path / name), "file"):
            fc.FullyConnected.load(tmp_path / name)


@pytest.mark.only("torch")
def test_safetensors_of_other_dtypes_are_refused(backend, tmp_path):
    from safetensors.torch import save_file

    for dtype, name in (("float8_e4m3fn", "F8_E4M3"), ("int32", "I32")):
        path = tmp_path / "layer.safetensors"
        save_file({"W": backend.xp.ones((2, 2)).to(backend.dtype(dtype))}, path)
        with refused(TypeError, str(path), "W", name, *DTYPES):
            fc.FullyConnected.load(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_saving_over_a_file_keeps_its_permissions(tmp_path, suffix):
    target = tmp_path / f"target{suffix}"
    target.touch(mode=0o600)
    fc.FullyConnected(W).save(target)
    assert target.stat().st_mode & 0o777 == 0o600
    np.testing.assert_array_equal(fc.FullyConnected.load(target).W, W)
    with refused(FileNotFoundError, str(tmp_path / "nowhere" / f"layer{suffix}"), f"folder {tmp_path / 'nowhere'}"):
        fc.FullyConnected(W).save(tmp_path / "nowhere" / f"layer{suffix}")
    long = tmp_path / f"{'n' * (255 - len(suffix))}{suffix}"
    fc.FullyConnected(W).save(long)
    assert long.exists()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_save_writes_through_no_link_and_to_no_fifo(tmp_path, suffix):
    thesis, path = tmp_path / "thesis.txt", tmp_path / f"layer{suffix}"
    thesis.write_text("years of work")
    path.symlink_to(thesis)
    with refused(FileExistsError, str(path), f"link to {thesis}"):
        fc.FullyConnected(W).save(path)
    assert thesis.read_text() == "years of work"
    assert path.is_symlink()
    path.unlink()
    os.mkfifo(path)
    for call in (fc.FullyConnected(W).save, fc.FullyConnected.load):
        with pytest.raises((FileExistsError, ValueError), match="a FIFO"):
            call(path)
    (tmp_path / "linked").symlink_to(tmp_path)  # links on the way to the folder are the user's choice
    fc.FullyConnected(W).save(tmp_path / "linked" / f"other{suffix}")
    assert (tmp_path / f"other{suffix}").exists()


def test_big_endian_weights_go_to_every_library(backend, tmp_path):
    fc.FullyConnected(W.astype(">f4")).save(tmp_path / "layer.npz")
    np.savez(tmp_path / "other.npz", W=W.astype(">f4"))
    for name in ("layer.npz", "other.npz"):
        loaded = fc.FullyConnected.load(tmp_path / name, xp=backend.xp)
        np.testing.assert_array_equal(namespace.to_numpy(loaded.W), W.astype("float32"))


def test_other_endings_and_dtypes_are_refused(tmp_path):
    with refused(ValueError, str(tmp_path / "layer.pt"), ".npz", ".safetensors"):
        fc.FullyConnected(W).save(tmp_path / "layer.pt")
    with refused(ValueError, str(tmp_path / "layer"), ".npz", ".safetensors"):
        fc.FullyConnected.load(tmp_path / "layer")
    dtype = np.dtype(np.longdouble).name
    with refused(TypeError, "W", dtype, *DTYPES, 'layer.astype("float32")'):
        fc.FullyConnected(W.astype(np.longdouble)).save(tmp_path / "layer.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("bfloat16")
def test_bfloat16_in_npz_is_refused_with_a_way_out(backend, tmp_path):
    layer = fc.FullyConnected(backend.xp.ones((2, 2), dtype=backend.xp.bfloat16))
    with refused(TypeError, "W", "bfloat16", ".npz", *DTYPES, ".safetensors", 'layer.astype("float32")'):
        layer.save(tmp_path / "layer.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file(tmp_path, suffix, error, monkeypatch):
    path = tmp_path / f"layer{suffix}"
    fc.FullyConnected(W, B).save(path)
    before = path.read_bytes()

    def fail(handle):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        fc.FullyConnected(2 * W, B).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    fc.FullyConnected(W).save(tmp_path / "layer.npz")
    (tmp_path / "other").touch()
    assert (tmp_path / "layer.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_layouts_and_sizes_come_back_bit_for_bit(tmp_path, dtype, suffix):
    for weight in (W, W[::-1, ::-1], W.T, np.zeros((0, 3)), np.asarray([[np.nan, -0.0, np.inf]])):
        array = weight.astype(dtype)
        fc.FullyConnected(array).save(tmp_path / f"layer{suffix}")
        loaded = fc.FullyConnected.load(tmp_path / f"layer{suffix}").W
        assert loaded.shape == array.shape
        assert loaded.astype(array.dtype).tobytes() == array.tobytes()


@pytest.mark.parametrize("kind", [str, os.fsencode])
def test_a_path_is_of_any_kind(tmp_path, kind):
    path = kind(tmp_path / "layer.npz")
    fc.FullyConnected(W, B).save(path)
    np.testing.assert_array_equal(fc.FullyConnected.load(path).B, B)


def test_a_missing_safetensors_package_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with refused(ImportError, ".safetensors", "pip install safetensors"):
        fc.FullyConnected(W).save(tmp_path / "layer.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_process_that_is_killed_while_it_saves_leaves_the_file_that_was(tmp_path, suffix):
    path = tmp_path / f"layer{suffix}"
    fc.FullyConnected(W, B).save(path)
    before = path.read_bytes()
    saves = (
        "import sys, fc_arrayapi as fc, numpy as np, fc_arrayapi._files.disk as disk\n"
        "disk.flush = lambda file: (print('written', flush=True), sys.stdin.read())\n"
        "fc.FullyConnected(np.ones((300, 300))).save(sys.argv[1])\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", saves, str(path)], text=True, **pipes) as process:
        assert process.stdout.readline() == "written\n"
        assert len(os.listdir(tmp_path)) == 2  # the new one has another name still
        process.kill()
    assert path.read_bytes() == before
    fc.FullyConnected(2 * W, B).save(path)  # what the killed process left is in the way of no later save
    np.testing.assert_array_equal(fc.FullyConnected.load(path).W, 2 * W)


@pytest.mark.only("dask.array")
@pytest.mark.needs("other_sources")
def test_lazy_weights_are_computed_in_one_pass_and_not_before_the_path_is_known_to_be_good(backend, tmp_path):
    import dask

    calls = []
    rows = dask.delayed(lambda: calls.append(1) or np.ones((4, 2)))()
    X = backend.xp.from_delayed(rows, (4, 2), float)
    layer = fc.FullyConnected(fc.grad_weight(X, X), X.sum(axis=0))
    for path in (tmp_path / "none" / "layer.npz", tmp_path / "layer.txt", tmp_path):
        with pytest.raises((OSError, ValueError)):
            layer.save(path)
    assert calls == []
    layer.save(tmp_path / "layer.npz")
    assert calls == [1]
    np.testing.assert_array_equal(fc.FullyConnected.load(tmp_path / "layer.npz").B, [4.0, 4.0])


def test_a_path_that_leads_nowhere_is_answered_with_the_one_that_was_meant(backend, tmp_path):
    layer = fc.FullyConnected.init(3, 2)
    layer.save(tmp_path / "weights.npz")
    (tmp_path / "runs").mkdir()
    with refused(FileNotFoundError, "no such file", f"did you mean {tmp_path / 'weights.npz'}?"):
        fc.FullyConnected.load(tmp_path / "wieghts.npz")
    with refused(FileNotFoundError, "no such file", os.path.expanduser("~/no.npz")):
        fc.FullyConnected.load("~/no.npz")
    with refused(FileNotFoundError, "does not exist", os.path.expanduser("~/no.npz")):
        layer.save("~/no.npz")
    with refused(FileNotFoundError, "does not exist", f"did you mean {tmp_path / 'runs'}?"):
        layer.save(tmp_path / "rnus" / "weights.npz")
    with refused(FileNotFoundError, "does not exist: create it first"):
        layer.save(tmp_path / "other" / "weights.npz")
