"""Files that lie, are broken, or may not be touched: each is refused with its own message, and costs nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import struct
import tempfile
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import fc_arrayapi as fc
from fc_arrayapi import storage, weights

W, B = np.arange(6.0).reshape(2, 3), np.arange(3.0)
X = np.arange(40.0).reshape(10, 4)
MEGABYTE = 10**6
DTYPES = "weights are float16, float32, float64"


def npy(array=None, header=None, data=b"", version=(1, 0)):
    """Return the bytes of a .npy file, or of a header that may lie, followed by other data."""
    file = io.BytesIO()
    if array is not None:
        np.lib.format.write_array(file, np.asarray(array))
    elif isinstance(header, bytes):
        file.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header)
    else:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, **header})
    return file.getvalue() + data


def npz(*members, compression=zipfile.ZIP_STORED, replace=(), **claims):
    """Return a function that writes an archive; `claims` are what its directory says of the first member."""

    def write(path):
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
            warnings.simplefilter("ignore")  # of a name that is there twice
            for name, content in members:
                archive.writestr(name, content)
            for key, value in claims.items():
                setattr(archive.infolist()[0], key, value)
        for old, new in replace:
            path.write_bytes(path.read_bytes().replace(old, new))

    return write


def tensor(shape, start=0, dtype="F64", size=8):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + int(np.prod(shape, dtype=object)) * size]}


def safetensors(header, data=b"", length=None):
    """Return a function that writes a header and data."""
    header = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    content = struct.pack("<Q", len(header) if length is None else length) + header + data
    return lambda path: path.write_bytes(content)


def cut(write, by):
    def write_less(path):
        write(path)
        path.write_bytes(path.read_bytes()[:by])

    return write_less


WHOLE_NPZ = npz(("W.npy", npy(W)), ("B.npy", npy(B)))
WHOLE_TENSORS = safetensors({"W": tensor([2, 3]), "B": tensor([3], 48)}, bytes(72))
DEFLATED = zipfile.ZIP_DEFLATED
FOLDER = "a layer's lie in no folder"
LISTED = "a layer's file has W and, for a bias, B"
TWICE = "2 times, and readers differ in which they take: write each once"
TOO_BIG = (2**31, 2**31)

HOSTILE_NPZ = {
    "object array": (npz(("W.npy", npy([[None]]))), "W.npy: holds Python objects, which are never unpickled here"),
    "records with objects": (
        npz(("W.npy", npy(np.zeros((2, 2), [("a", "f8"), ("b", "O")])))),
        "W.npy: holds Python objects, which are never unpickled here",
    ),
    "no W": (npz(("B.npy", npy(B))), f"has the entries ['B']; {LISTED}"),
    "nothing": (npz(), f"has the entries []; {LISTED}"),
    "one too many": (npz(("W.npy", npy(W)), ("b.npy", npy(B))), f"has the entries ['W', 'b']; {LISTED}"),
    "w.npy": (npz(("w.npy", npy(W))), f"has the entries ['w']; {LISTED}"),
    "twice W": (npz(("W.npy", npy(W)), ("W.npy", npy(W))), f"has the entry 'W' {TWICE}"),
    "twice W and B": (
        npz(("B.npy", npy(B)), ("W.npy", npy(W)), ("W.npy", npy(W))), f"has the entry 'W' {TWICE}"
    ),
    "../W.npy": (npz(("../W.npy", npy(W))), f"has the entry '../W.npy': {FOLDER}"),
    "/W.npy": (npz(("/W.npy", npy(W))), f"has the entry '/W.npy': {FOLDER}"),
    "W.npy/W.npy": (npz(("W.npy/W.npy", npy(W))), f"has the entry 'W.npy/W.npy': {FOLDER}"),
    r"..\W.npy": (npz((r"..\W.npy", npy(W))), rf"has the entry '..\\W.npy': {FOLDER}"),
    "C:W.npy": (npz(("C:W.npy", npy(W))), f"has the entry 'C:W.npy': {FOLDER}"),
    "W.npy before a null": (
        npz(("W.npy#.npy", npy(W)), replace=[(b"W.npy#.npy", b"W.npy\0.npy")]),
        rf"has the entry 'W.npy\x00.npy': {FOLDER}",
    ),
    "W without .npy": (npz(("W", npy(W))), "has the entry 'W': a layer's are .npy files"),
    "a long name": (npz((f"{'W' * 60000}.npy", npy(W))), f"has the entries ['WWWWWWWWWWWW...WWWWWWWWWWWWW']; {LISTED}"),
    "W of one axis": (npz(("W.npy", npy(B))), "W has shape (3,); the W of a layer is (C, S)"),
    "W of three axes": (npz(("W.npy", npy(W[None]))), "W has shape (1, 2, 3); the W of a layer is (C, S)"),
    "W of no axis": (npz(("W.npy", npy(1.0))), "W has shape (); the W of a layer is (C, S)"),
    "B of two axes": (
        npz(("W.npy", npy(W)), ("B.npy", npy(B[None]))), "B has shape (1, 3); the B of a layer is (S,)"
    ),
    "B of another length": (
        npz(("W.npy", npy(W)), ("B.npy", npy(B[:2]))),
        "axis s (output features): W has 3, B has 2; W has shape (2, 3), B must be (S,), has (2,)",
    ),
    "integers": (npz(("W.npy", npy(W.astype("i8")))), f"W has dtype int64; {DTYPES}"),
    "complex": (npz(("W.npy", npy(W.astype("c8")))), f"W has dtype complex64; {DTYPES}"),
    "records": (npz(("W.npy", npy(np.zeros((2, 2), [("a", "f8")])))), f"W has dtype void64; {DTYPES}"),
    "strings of no length": (
        npz(("W.npy", npy(header={"descr": "|S0", "shape": (2**40, 2)}))), f"W has dtype bytes; {DTYPES}"
    ),
    "more than the member has": (
        npz(("W.npy", npy(header={"shape": (10**9, 10**9)}))),
        "W.npy: has 128 bytes, its header asks for 8000000000000000128: the file was cut short",
    ),
    "less than the member has": (
        npz(("W.npy", npy(W, data=b"more"))),
        "W.npy: has 180 bytes, its header asks for 176: what follows belongs to no array",
    ),
    "a negative shape": (
        npz(("W.npy", npy(header={"shape": (-2, -3)}, data=bytes(48)))),
        "W.npy: its header asks for the shape (-2, -3)",
    ),
    "a shape of too many": (
        npz(("W.npy", npy(header={"shape": (0, 2**62)}))),
        "W.npy: its header asks for the shape (0, 4611686018427387904)",
    ),
    "no header": (npz(("W.npy", b"no array")), "W.npy: has no .npy header (...)"),
    "a header of 64 MB": (
        npz(("W.npy", npy(header=b" " * 2**26)), compression=DEFLATED),
        "W.npy: ... bytes ask for 67108876, more than 100 times as many, as bombs do: if it is yours, write it "
        "with numpy.savez",
    ),
    "a header of 64 MB, stored": (npz(("W.npy", npy(header=b" " * 2**26))), "W.npy: has no .npy header (EOF: ...)"),
    "a bomb of 256 MB": (
        npz(("W.npy", npy(header={"shape": (2**15, 2**10)}, data=bytes(2**28))), compression=DEFLATED),
        "W.npy: ... bytes ask for 268435584, more than 100 times as many, as bombs do: if it is yours, write it with "
        "numpy.savez",
    ),
    "a bomb that says 10 GiB": (
        npz(("W.npy", npy(header={"shape": (5 * 2**15, 2**13)}, data=bytes(2**16))), compression=DEFLATED,
            file_size=10 * 2**30 + 128),
        "W.npy: ... bytes ask for 10737418368, more than 100 times as many, as bombs do: if it is yours, write it with "
        "numpy.savez",
    ),
    "a bomb that says that it takes much": (
        npz(("W.npy", npy(header={"shape": (2**15, 2**15)}, data=bytes(2**16))), compression=DEFLATED,
            compress_size=2**40, file_size=2**33 + 128),
        "W.npy: takes 1099511627776 bytes of an archive of ...: the file was cut short",
    ),
    "stored with two sizes": (
        npz(("W.npy", npy(header={"shape": (2**15, 2**15)})), file_size=2**33 + 128),
        "W.npy: is not compressed and gives two sizes, 128 and 8589934720 bytes",
    ),
    "compressed by bzip2": (
        npz(("W.npy", npy(W)), compression=zipfile.ZIP_BZIP2),
        "W.npy: is compressed by method 12; numpy.savez and numpy.savez_compressed write 0 and 8",
    ),
    "encrypted": (npz(("W.npy", npy(W)), flag_bits=1), "W.npy: is encrypted: write it with numpy.savez"),
    "a later zip": (npz(("W.npy", npy(W)), extract_version=99), "is no whole .npz file (zip file version 9.9)"),
    "a patch": (npz(("W.npy", npy(W)), flag_bits=0x20), "is no whole .npz file (compressed patched data (flag bit 5))"),
    "a name that is no text": (
        npz(("Ä.npy", npy(W)), replace=[("Ä".encode(), b"\xff\xff")]),
        "is no whole .npz file ('utf-8' codec ...)",
    ),
    "10,000 members": (
        npz(*((f"{number}.npy", b"") for number in range(10_000))),
        "its list of entries takes ... bytes; that of W and B takes a few hundred",
    ),
    "other numbers than were written": (
        npz(("W.npy", npy(W)), replace=[(W[1].tobytes(), bytes(24))]),
        "is no whole .npz file (Bad CRC-32 for file 'W.npy')",
    ),
    "cut short": (cut(WHOLE_NPZ, -30), "is no whole .npz file (File is not a zip file)"),
    "cut at its end": (cut(WHOLE_NPZ, -1), "is no whole .npz file (File is not a zip file)"),
    "empty": (cut(WHOLE_NPZ, 0), "is no whole .npz file (File is not a zip file)"),
}  # fmt: skip

NOT_WHOLE = "is no whole .safetensors file (...)"
HOSTILE_TENSORS = {
    "no W": (safetensors({"B": tensor([3])}, bytes(24)), f"has the entries ['B']; {LISTED}"),
    "nothing": (safetensors({}), f"has the entries []; {LISTED}"),
    "one too many": (
        safetensors({"W": tensor([2, 3]), "b": tensor([3], 48)}, bytes(72)), f"has the entries ['W', 'b']; {LISTED}"
    ),
    "w": (safetensors({"w": tensor([2, 3])}, bytes(48)), f"has the entries ['w']; {LISTED}"),
    "../W": (safetensors({"../W": tensor([2, 3])}, bytes(48)), f"has the entries ['../W']; {LISTED}"),
    "twice W": (
        safetensors(f'{{"W": {json.dumps(tensor([2, 3]))}, "W": {json.dumps(tensor([3, 2]))}}}', bytes(48)),
        f"has the entry 'W' {TWICE}",
    ),
    "W of one axis": (safetensors({"W": tensor([6])}, bytes(48)), "W has shape (6,); the W of a layer is (C, S)"),
    "B of two axes": (
        safetensors({"W": tensor([2, 3]), "B": tensor([1, 3], 48)}, bytes(72)),
        "B has shape (1, 3); the B of a layer is (S,)",
    ),
    "B of another length": (
        safetensors({"W": tensor([2, 3]), "B": tensor([2], 48)}, bytes(64)),
        "axis s (output features): W has 3, B has 2; W has shape (2, 3), B must be (S,), has (2,)",
    ),
    "integers": (safetensors({"W": tensor([2, 3], dtype="I64")}, bytes(48)), f"W has dtype I64; {DTYPES}"),
    "bfloat16": (safetensors({"W": tensor([2, 3], dtype="BF16", size=2)}, bytes(12)), f"W has dtype BF16; {DTYPES}"),
    "a shape of too many": (
        safetensors({"W": tensor([0, 2**62])}),
        "W has shape (0, 4611686018427387904), of which no machine holds an array",
    ),
    "a negative shape": (safetensors({"W": {**tensor([2, 3]), "shape": [-2, -3]}}, bytes(48)), NOT_WHOLE),
    "more than there is": (safetensors({"W": tensor([2**15, 2**15])}, bytes(48)), NOT_WHOLE),
    "another size than its shape": (safetensors({"W": {**tensor([2, 3]), "shape": [200, 3]}}, bytes(48)), NOT_WHOLE),
    "less than there is": (safetensors({"W": tensor([2, 3])}, bytes(80)), NOT_WHOLE),
    "the same bytes twice": (safetensors({"W": tensor([3, 1]), "B": tensor([3])}, bytes(24)), NOT_WHOLE),
    "a header of an exbibyte": (safetensors({"W": tensor([2, 3])}, bytes(48), length=2**60), NOT_WHOLE),
    "a header of 64 MB": (
        safetensors({"W": tensor([2, 3]), "__metadata__": {"a": "b" * 2**26}}, bytes(48)),
        "its header takes 67108956 bytes; that of W and B takes a few hundred",
    ),
    "no JSON": (safetensors("{", bytes(48)), NOT_WHOLE),
    "cut short": (cut(WHOLE_TENSORS, -8), NOT_WHOLE),
    "cut in its header": (cut(WHOLE_TENSORS, 40), NOT_WHOLE),
    "cut in its length": (cut(WHOLE_TENSORS, 5), NOT_WHOLE),
    "empty": (cut(WHOLE_TENSORS, 0), NOT_WHOLE),
}  # fmt: skip


def full(message):
    """Return a pattern of a whole message, in which ... is what another library says, or a compressed size."""
    return f"^{re.escape(message).replace(re.escape('...'), '.*')}$"


@contextlib.contextmanager
def memory_below(most):
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


@pytest.mark.parametrize(
    ("suffix", "write", "message"),
    [
        pytest.param(suffix, *row, id=f"{suffix} {name}")
        for suffix, rows in ((".npz", HOSTILE_NPZ), (".safetensors", HOSTILE_TENSORS))
        for name, row in rows.items()
    ],
)
def test_each_hostile_weight_file_has_its_message_and_takes_no_memory(tmp_path, suffix, write, message):
    path = tmp_path / f"layer{suffix}"
    write(path)
    pattern = full(f"{path}: {message}")
    expected = TypeError if message.endswith(DTYPES) else ValueError
    with memory_below(50 * MEGABYTE), pytest.raises(expected, match=pattern) as raised:
        fc.FullyConnected.load(path)
    assert raised.type is expected


@pytest.mark.parametrize("name", ["layer.npz", "layer.safetensors"])
def test_any_byte_may_be_wrong_and_any_end_missing(tmp_path, name):
    """Every error is one of ours; what is read all the same has the shapes of a layer."""
    path = tmp_path / name
    for write in (WHOLE_NPZ, npz(("W.npy", npy(W)), compression=DEFLATED)) if name.endswith("z") else (WHOLE_TENSORS,):
        write(path)
        content = path.read_bytes()
        broken = [content[:length] for length in range(len(content))]
        for place in range(len(content)):
            for change in (0xFF, 0x01):
                broken.append(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
        for some in broken:
            path.write_bytes(some)
            try:
                weight, bias = weights.load_weights(path)
            except (ValueError, TypeError) as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017 - most of them, and not all, are refused
            else:
                assert weight.ndim == 2
                assert bias is None or bias.shape == weight.shape[1:]
    assert len(broken) > 500


# What is read, and how much of it.


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_caller_sets_a_limit(tmp_path, suffix):
    path = tmp_path / f"layer{suffix}"
    fc.FullyConnected(W, B).save(path)
    np.testing.assert_array_equal(fc.FullyConnected.load(path, max_bytes=72).W, W)
    np.testing.assert_array_equal(fc.FullyConnected.load(path, max_bytes=np.int64(72)).W, W)
    message = f"{path}: asks for 72 bytes, the limit is 71: pass max_bytes=72 if you trust the file"
    with pytest.raises(ValueError, match=full(message)):
        fc.FullyConnected.load(path, max_bytes=71)
    for limit in (-1, 2.5, "72", None, True):
        message = f"max_bytes is {limit!r}: the most bytes that W and B may take is a whole number"
        with pytest.raises(ValueError, match=full(message)):
            fc.FullyConnected.load(path, max_bytes=limit)


def test_the_limit_holds_for_what_is_compressed(tmp_path):
    path = tmp_path / "layer.npz"
    np.savez_compressed(path, W=np.zeros((2**10, 2**10)))
    assert path.stat().st_size < 10_000
    message = f"{path}: asks for 8388608 bytes, the limit is 1000000: pass max_bytes=8388608 if you trust the file"
    with memory_below(MEGABYTE), pytest.raises(ValueError, match=full(message)):
        fc.FullyConnected.load(path, max_bytes=10**6)
    np.testing.assert_array_equal(fc.FullyConnected.load(path).W, 0)


def test_the_default_limit_is_16_gibibytes(tmp_path):
    path = tmp_path / "layer.safetensors"
    shape = [2**17, 2**14]
    safetensors({"W": tensor(shape)})(path)
    os.truncate(path, path.stat().st_size + 2**34)  # sparse
    with pytest.raises(ValueError, match=r"asks for 17179869188 bytes, the limit is 17179869184: "):
        weights._check_arrays(path, {"W": ("float32", (2**32 + 1, 1))}, weights.MAX_BYTES)
    message = rf"asks for {2**34} bytes, the limit is {2**34 - 1}: "
    with memory_below(MEGABYTE), pytest.raises(ValueError, match=message):
        fc.FullyConnected.load(path, max_bytes=2**34 - 1)


def test_no_more_is_inflated_than_is_declared(tmp_path):
    """The member goes on after the array that its header and the directory describe."""
    path = tmp_path / "layer.npz"
    content = npy(W)
    npz(("W.npy", content + bytes(2**26)), compression=DEFLATED, file_size=len(content),
        CRC=zipfile.crc32(content))(path)  # fmt: skip
    with memory_below(2 * MEGABYTE):
        np.testing.assert_array_equal(fc.FullyConnected.load(path).W, W)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f2", ">f4", ">f8"])
def test_what_numpy_compresses_comes_back(tmp_path, rng, dtype):
    path = tmp_path / "layer.npz"
    weight, bias = rng.normal(size=(300, 50)).astype(dtype), rng.normal(size=50).astype(dtype)
    for order in "CF":
        np.savez_compressed(path, W=np.asarray(weight, order=order), B=bias)
        layer = fc.FullyConnected.load(path)
        assert layer.W.dtype == np.dtype(dtype).newbyteorder("=")
        assert layer.W.astype(dtype).tobytes() == weight.tobytes()
        assert layer.B.astype(dtype).tobytes() == bias.tobytes()


NUMBERS = {  # -0.0, infinities, a subnormal number, a quiet and a signalling NaN with payloads
    2: [0x8000, 0x7C00, 0xFC00, 0x0001, 0x7E55, 0x7C01],
    4: [0x80000000, 0x7F800000, 0xFF800000, 0x00000001, 0x7FC12345, 0xFF800001],
    8: [1 << 63, 0x7FF << 52, 0xFFF << 52, 1, 0x7FF8000012345678, 0xFFF0000000000001],
}
LAYOUTS = {
    "C order": lambda array: array,
    "Fortran order": np.asfortranarray,
    "transposed": lambda array: array.T,
    "every other": lambda array: np.repeat(np.repeat(array, 2, 0), 3, 1)[::2, ::3],
    "reversed": lambda array: array[::-1, ::-1],
    "no rows": lambda array: array[:0],
    "no columns": lambda array: array[:, :0],
    "nothing": lambda array: array[:0, :0],
    "one": lambda array: array[-1:, -1:],
    "read only": lambda array: np.broadcast_to(array[:1], array.shape),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"])
def test_every_bit_comes_back(tmp_path, suffix, layout, dtype):
    path = tmp_path / f"layer{suffix}"
    size = np.dtype(dtype).itemsize
    bits = np.asarray(NUMBERS[size], dtype=f"<u{size}").reshape(2, 3)
    weight = LAYOUTS[layout](bits.astype(f"{dtype[0]}u{size}").view(dtype))
    bias = weight[0] if len(weight) else np.zeros(weight.shape[1], dtype)
    fc.FullyConnected(weight, bias).save(path)
    loaded = fc.FullyConnected.load(path)
    for array, before in ((loaded.W, weight), (loaded.B, bias)):
        assert array.shape == before.shape
        assert array.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(array.view(f"u{size}"), np.ascontiguousarray(before).view(f"{dtype[0]}u{size}"))


def test_weights_are_on_the_disk_before_and_after_they_get_their_name(tmp_path, monkeypatch):
    path = tmp_path / "layer.npz"
    flushed = []

    def fsync(descriptor):
        flushed.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    fc.FullyConnected(W).save(path)
    assert flushed == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


@pytest.mark.parametrize("number", [22, 13], ids=["EINVAL", "EACCES"])
def test_a_folder_that_can_not_be_flushed_is_none_the_worse(tmp_path, monkeypatch, number):
    path, real = tmp_path / "layer.npz", os.fsync

    def fsync(descriptor):
        if os.fstat(descriptor).st_ino == tmp_path.stat().st_ino:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    fc.FullyConnected(W).save(path)
    np.testing.assert_array_equal(fc.FullyConnected.load(path).W, W)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, os.strerror(5))))
    with pytest.raises(OSError, match="Input/output error"):
        fc.FullyConnected(W).save(path)


# Arrays.


def data(header):
    return npy(header=header, data=bytes(80))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy([None]), "holds Python objects, which are never unpickled here"),
        (npy(np.zeros(2, [("a", "O")])), "holds Python objects, which are never unpickled here"),
        (data({"shape": (10**6, 10**6)}), "has 208 bytes, its header asks for 8000000000128: the file was cut short"),
        (data({"shape": (2, 10)})[:-1], "has 207 bytes, its header asks for 288: the file was cut short"),
        (data({"shape": (-1, 2)}), "its header asks for the shape (-1, 2)"),
        (data({"shape": (2**70, 0)}), f"its header asks for the shape ({2**70}, 0)"),
        (data({"shape": ()}), "holds a single number, not an array of rows"),
        (npy(header=b"(" * 5000), "has no .npy header (...)"),
        (npy(header=b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"-" * 9000 + b"1,)}"),
         "has no .npy header (...)"),
        (npy(header=b"{[]: 1}"), "has no .npy header (...)"),
        (npy(header=b"{'descr': {1: 2}, 'fortran_order': False, 'shape': (1,)}"), "has no .npy header (...)"),
        (npy(header=b" " * 10**6), "has no .npy header (EOF: ...)"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "has no .npy header (EOF: ...)"),
        (b"\x93NUMPY\x09\x00" + bytes(200), "has no .npy header (...)"),
        (b"", "has no .npy header (EOF: ...)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_hostile_npy_file_has_its_message(tmp_path, content, message):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with memory_below(5 * MEGABYTE), pytest.raises(ValueError, match=full(f"{path}: {message}")):
        storage._open(str(path))


@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")
def test_any_byte_of_a_header_may_be_wrong(tmp_path):
    path = tmp_path / "x.npy"
    content = npy(X)
    for place in range(128):
        for change in (0xFF, 0x01):
            path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
            try:
                source = storage._open(str(path))
            except ValueError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017 - most of them, and not all, are refused
            else:
                source[(slice(0, 1), *[slice(None)] * (source.ndim - 1))]


ARRAY = {
    "zarr_format": 3, "node_type": "array", "shape": [10, 4], "data_type": "float64", "fill_value": 0, "attributes": {},
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 4]}},
    "chunk_key_encoding": {"name": "default"}, "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
}  # fmt: skip
GRID = "chunk_grid"


@pytest.mark.parametrize(
    "metadata",
    [
        "", "{", "[]", "null", '"x"', '{"zarr_format": 9, "node_type": "array"}',
        *(json.dumps({**ARRAY, key: value}) for key, value in (
            ("shape", [-10, 4]), ("shape", "x"), ("shape", [1.5, 4]), ("data_type", "nonsense"), ("codecs", []),
            ("codecs", 5), ("codecs", [{"name": "numcodecs.pickle"}]), ("fill_value", "x"), ("node_type", "group"),
            (GRID, {"name": "regular", "configuration": {"chunk_shape": [0, 4]}}),
            (GRID, {"name": "regular", "configuration": {"chunk_shape": [2]}}),
        )),
        json.dumps({key: value for key, value in ARRAY.items() if key != "fill_value"}),
    ],
)  # fmt: skip
def test_metadata_that_are_not_zarrs(tmp_path, metadata):
    path = tmp_path / "x.zarr"
    path.mkdir()
    (path / "zarr.json").write_text(metadata)
    with pytest.raises(ValueError, match=full(f"{path}: holds no Zarr array (...)")):
        storage._open(str(path))


@pytest.mark.parametrize("where", ["filters", "compressor"])
def test_no_zarr_codec_unpickles(tmp_path, where):
    path = tmp_path / "x.zarr"
    zarr.create_array(path, data=X, zarr_format=2, filters=None, compressors=None)
    metadata = json.loads((path / ".zarray").read_text())
    codec = {"id": "pickle", "protocol": 5}
    metadata[where] = [codec] if where == "filters" else codec
    (path / ".zarray").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=full(f"{path}: holds no Zarr array (...)")):
        storage._open(str(path))


def test_a_zarr_shape_that_no_machine_holds(tmp_path):
    path = tmp_path / "x.zarr"
    path.mkdir()
    (path / "zarr.json").write_text(json.dumps({**ARRAY, "shape": [2**70, 4]}))
    message = f"{path}: has shape ({2**70}, 4), of which no machine holds an array"
    with pytest.raises(ValueError, match=full(message)):
        storage._open(str(path))


def test_both_formats_of_zarr_in_one_folder(tmp_path):
    path = tmp_path / "x.zarr"
    zarr.create_array(path, data=X)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    np.testing.assert_array_equal(storage._open(str(path))[:, :], X)


@pytest.mark.only("dask.array")
def test_a_number_of_blocks_that_dask_does_not_hold(backend, tmp_path):
    path = tmp_path / "x.zarr"
    zarr.create_array(path, shape=(10**9, 4), dtype="f8", chunks=(2, 4))
    message = f"{path}: has 1000000000 rows, in blocks of 2 more than 10000000 blocks: pass more rows"
    with memory_below(50 * MEGABYTE), pytest.raises(ValueError, match=full(message)):
        fc.open_array(path, rows=3)
    npy_path = tmp_path / "x.npy"
    npy_path.write_bytes(npy(header={"shape": (10**15, 0)}))
    with memory_below(50 * MEGABYTE):
        assert fc.open_array(npy_path).chunks == ((10**15,), (0,))


# Chunks that are missing.


@pytest.fixture
def stored(backend, tmp_path):
    """Return the path of a Zarr array of five chunks that store wrote."""
    fc.store({tmp_path / "x.zarr": backend.asarray(X, chunks=(2, 4))})
    return tmp_path / "x.zarr"


def remove(file):
    file.unlink()


def shorten(file):
    os.truncate(file, 8)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(("lose", "left"), [(remove, 0), (shorten, 8)])
def test_a_result_that_lost_a_chunk_is_no_result(backend, stored, lose, left):
    opened = fc.open_array(stored, rows=4)
    lose(stored / "c.3.0")
    message = (
        f"{stored}: the chunk c.3.0 was lost: it has {left} bytes, store wrote 64: store the array again with "
        "overwrite=True"
    )
    with pytest.raises(ValueError, match=full(message)):
        opened.compute()
    with pytest.raises(ValueError, match=full(message)):
        fc.open_array(stored)
    np.testing.assert_array_equal(opened[:4].compute(), X[:4])
    np.testing.assert_array_equal(opened[2].compute(), X[2])
    fc.store({stored: backend.asarray(X, chunks=(2, 4))}, overwrite=True)
    np.testing.assert_array_equal(fc.open_array(stored).compute(), X)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(("dtype", "fill"), [("f2", np.nan), (">f8", np.nan), ("c16", np.nan), ("i4", 0), ("?", 0)])
def test_a_lost_chunk_is_no_number_in_other_readers(backend, tmp_path, dtype, fill):
    path = tmp_path / "x.zarr"
    fc.store({path: backend.asarray(X.astype(dtype), chunks=(2, 4))})
    (path / "c.3.0").unlink()
    read = zarr.open_array(path, mode="r")[...]
    np.testing.assert_array_equal(read[6:8], np.full((2, 4), fill))
    np.testing.assert_array_equal(read[:6], X[:6].astype(dtype))


@pytest.mark.only("dask.array")
def test_a_copy_in_another_form_may_leave_chunks_out(backend, stored):
    for name, form in {
        "compressed": {"compressors": "auto", "chunk_key_encoding": {"name": "default", "separator": "."}},
        "other names": {"compressors": None, "chunk_key_encoding": {"name": "default", "separator": "/"}},
        "names of format 2": {"compressors": None, "chunk_key_encoding": {"name": "v2", "separator": "."}},
        "sharded": {
            "compressors": None, "shards": (4, 4), "chunk_key_encoding": {"name": "default", "separator": "."},
        },
        "format 2": {"compressors": None, "zarr_format": 2},
    }.items():  # fmt: skip
        path = stored.with_name(f"{name}.zarr")
        zarr.create_array(path, shape=X.shape, dtype=X.dtype, chunks=(2, 4), attributes=storage.WHOLE, **form)
        np.testing.assert_array_equal(fc.open_array(path).compute(), np.zeros_like(X))


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_missing_chunk_of_another_writer_is_the_fill_value(backend, tmp_path, zarr_format):
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=X.shape, dtype=X.dtype, chunks=(2, 4), fill_value=7, zarr_format=zarr_format
    )
    array[:4] = X[:4]
    expected = np.concatenate([X[:4], np.full((6, 4), 7.0)])
    np.testing.assert_array_equal(fc.open_array(tmp_path / "x.zarr", rows=2).compute(), expected)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("X", shape=X.shape, dtype=X.dtype, chunks=(2, 4), fillvalue=7.0)[:4] = X[:4]
    np.testing.assert_array_equal(fc.open_array(f"{tmp_path / 'x.h5'}::X", rows=2).compute(), expected)


# Links.


def test_parts_that_are_links(tmp_path):
    folder, outside = tmp_path / "parts", tmp_path / "secret.npy"
    folder.mkdir()
    np.save(outside, X)
    np.save(folder / "part-0.npy", X)
    (folder / "part-1.npy").symlink_to("part-0.npy")
    np.testing.assert_array_equal(storage._open(str(folder))[0:20, :], np.concatenate([X, X]))
    for target in (outside, Path("../secret.npy"), tmp_path / "missing.npy"):
        link = folder / "part-2.npy"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        message = (
            f"{link}: is a link to {tmp_path / target.name}, outside the folder: copy the file into the folder, "
            "or open it by that path"
        )
        with pytest.raises(ValueError, match=full(message)):
            storage._open(str(folder))
    link.unlink()
    link.symlink_to("nowhere.npy")
    with pytest.raises(FileNotFoundError, match=re.escape(str(link))):
        storage._open(str(folder))
    (tmp_path / "other").symlink_to(folder)  # the path that is given may be a link
    link.unlink()
    assert storage._open(str(tmp_path / "other")).shape == (20, 4)


@pytest.mark.parametrize("what", ["zarr.json", "c/3/0", "c"])
def test_links_in_a_zarr_array(tmp_path, what):
    path, outside = tmp_path / "x.zarr", tmp_path / "outside"
    zarr.create_array(path, data=X, chunks=(2, 4))
    shutil.move(path / what, outside)
    (path / what).symlink_to(outside)
    message = f"{path / what}: is a link to {outside}, in a Zarr array: copy what it leads to in its place"
    with pytest.raises(ValueError, match=full(message)):
        storage._open(str(path))


def test_hdf5_datasets_that_lie_in_other_files(tmp_path):
    path, other = tmp_path / "x.h5", tmp_path / "other.h5"
    (tmp_path / "secret").write_bytes(X.tobytes())
    with h5py.File(other, "w") as file:
        file["X"] = X
    with h5py.File(path, "w") as file:
        file["linked"] = h5py.ExternalLink(str(other), "X")
        file.create_dataset("raw", X.shape, X.dtype, external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])
        for name, source in (("virtual", str(other)), ("own", ".")):
            layout = h5py.VirtualLayout(X.shape, X.dtype)
            layout[...] = h5py.VirtualSource(source, "X", X.shape)
            file.create_virtual_dataset(name, layout)
        file["X"], file["soft"] = X, h5py.SoftLink("/X")
        file["lost"] = h5py.ExternalLink(str(tmp_path / "missing.h5"), "X")
    for name, where in (("linked", other), ("virtual", other), ("raw", tmp_path / "secret")):
        message = (
            f"{path}::{name}: lies in other files, {where}: open them by their own paths, or copy the dataset into one "
            "file"
        )
        with pytest.raises(ValueError, match=full(message)):
            storage._open(f"{path}::{name}")
    with pytest.raises(ValueError, match=re.escape(f"{path}: has no dataset lost: open ")):
        storage._open(f"{path}::lost")
    for name in ("own", "soft"):
        np.testing.assert_array_equal(storage._open(f"{path}::{name}")[0:10, :], X)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    os.mkfifo(tmp_path / "x.npz")
    (tmp_path / "parts" / "part-0.npy").mkdir(parents=True)
    for path, opened in (("x.npy", "x.npy"), ("parts/part-0.npy", "parts")):
        with pytest.raises(ValueError, match=full(f"{tmp_path / path}: is no file")):
            storage._open(str(tmp_path / opened))
    with pytest.raises(ValueError, match=full(f"{tmp_path / 'x.npz'}: is no file")):
        fc.FullyConnected.load(tmp_path / "x.npz")


# No permission, no space.

UNIX = pytest.mark.skipif(os.name == "nt", reason="the rights and limits of Unix")


@pytest.fixture
def folder():
    """Return a folder that other users can look into, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(os.path.realpath(name))


@contextlib.contextmanager
def without(path, mode=0):
    """Take the rights to a path, also from root, who becomes somebody else for that time."""
    before = path.stat().st_mode
    path.chmod(mode)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(before)


@UNIX
@pytest.mark.parametrize("name", ["x.npy", "parts", "x.zarr", "x.h5::X"])
def test_what_may_not_be_read_is_named(folder, name):
    (folder / "parts").mkdir()
    np.save(folder / "x.npy", X)
    np.save(folder / "parts" / "part-0.npy", X)
    zarr.create_array(folder / "x.zarr", data=X)
    with h5py.File(folder / "x.h5", "w") as file:
        file["X"] = X
    source = folder / name
    storage._open(str(source))  # whatever that imports
    with (
        without(folder / name.partition(":")[0]),
        pytest.raises(PermissionError, match=re.escape(str(folder / name[:4]))),
    ):
        storage._open(str(source))


@UNIX
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_weights_that_may_not_be_read_or_written(folder, suffix):
    path = folder / f"layer{suffix}"
    fc.FullyConnected(W).save(path)
    before = path.read_bytes()
    with without(path), pytest.raises(PermissionError, match=full(f"[Errno 13] Permission denied: '{path}'")):
        fc.FullyConnected.load(path)
    with without(folder, 0o555), pytest.raises(PermissionError, match=full(f"[Errno 13] Permission denied: '{path}'")):
        fc.FullyConnected(2 * W).save(path)
    assert path.read_bytes() == before
    assert os.listdir(folder) == [path.name]


@UNIX
@pytest.mark.only("dask.array")
def test_a_folder_that_takes_no_files_is_refused_before_anything_is_written(backend, folder):
    (folder / "closed").mkdir()
    np.save(folder / "closed" / "x.npy", X)
    folder.chmod(0o777)
    wanted = {folder / "y.npy": backend.asarray(X + 1), folder / "closed" / "x.npy": backend.asarray(X + 1)}
    closed = folder / "closed"
    message = f"{closed / 'x.npy'}: files can not be written to the folder {closed}: it is not permitted"
    with without(folder / "closed", 0o555), pytest.raises(PermissionError, match=full(message)):
        fc.store(wanted, overwrite=True)
    assert os.listdir(folder) == ["closed"]
    assert os.listdir(folder / "closed") == ["x.npy"]
    np.testing.assert_array_equal(np.load(folder / "closed" / "x.npy"), X)


@contextlib.contextmanager
def files_below(most):
    """Let the system refuse files that grow larger, as a full disk does."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@UNIX
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_weights_that_do_not_fit_on_the_disk(tmp_path, suffix):
    path = tmp_path / f"layer{suffix}"
    fc.FullyConnected(W).save(path)
    before = path.read_bytes()
    with files_below(2**16), pytest.raises(OSError, match=full(f"[Errno 27] File too large: '{path}'")):
        fc.FullyConnected(np.ones((100, 1000))).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@UNIX
@pytest.mark.only("dask.array")
@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_results_that_do_not_fit_on_the_disk(backend, tmp_path, suffix):
    path, other = tmp_path / f"x{suffix}", tmp_path / "a.npy"
    fc.store({path: backend.asarray(X)})
    large = backend.asarray(np.ones((100, 1000)), chunks=(50, 1000))
    message = full(f"[Errno 27] File too large: '{path}'")[:-1]  # a note may follow
    with files_below(2**16), pytest.raises(OSError, match=message):
        fc.store({other: backend.asarray(X), path: large}, overwrite=True)
    np.testing.assert_array_equal(fc.open_array(path).compute(), X)
    # The .npy file gets its full size before anything is computed, a Zarr array its chunks one by one.
    left = (
        [path.name] if suffix == ".npy" else [f"a.npy{storage.UNFINISHED}", path.name, path.name + storage.UNFINISHED]
    )
    assert sorted(os.listdir(tmp_path)) == left
    fc.store({other: backend.asarray(X), path: large}, overwrite=True)
    np.testing.assert_array_equal(fc.open_array(path).compute(), 1)
    assert sorted(os.listdir(tmp_path)) == ["a.npy", path.name]
