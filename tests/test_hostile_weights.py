"""Weight files that lie or are broken: each is refused with a message that has its facts, and takes no memory."""

from __future__ import annotations

import json
import os
import zipfile

import numpy as np
import pytest
from helpers.assertions import lacks, refused
from helpers.hostile import (
    DTYPES,
    LONGEST,
    MEGABYTE,
    WHOLE_NPZ,
    WHOLE_TENSORS,
    B,
    W,
    cut,
    memory_below,
    npy,
    npz,
    safetensors,
    tensor,
)

import fc_arrayapi as fc
from fc_arrayapi._files import safetensors as safetensors_files
from fc_arrayapi._files import weights

DEFLATED = zipfile.ZIP_DEFLATED
OBJECTS = ("W.npy", "Python objects")


def compressed_size(path):
    with zipfile.ZipFile(path) as archive:
        return f"{archive.infolist()[0].compress_size} bytes"


def file_size(path):
    return str(path.stat().st_size)


# Each with what writes it and the facts of its message, of which some follow from the file.

HOSTILE_NPZ = {
    "object array": (npz(("W.npy", npy([[None]]))), OBJECTS),
    "records with objects": (
        npz(("W.npy", npy(np.zeros((2, 2), [("a", "f8"), ("b", "O")])))),
        OBJECTS,
    ),
    "no W": (npz(("B.npy", npy(B))), ("['B']", "W", "B")),
    "nothing": (npz(), ("[]", "W", "B")),
    "one too many": (npz(("W.npy", npy(W)), ("b.npy", npy(B))), ("['W', 'b']", "W", "B")),
    "w.npy": (npz(("w.npy", npy(W))), ("['w']", "W", "B")),
    "twice W": (npz(("W.npy", npy(W)), ("W.npy", npy(W))), ("'W'", "2")),
    "twice W and B": (
        npz(("B.npy", npy(B)), ("W.npy", npy(W)), ("W.npy", npy(W))), ("'W'", "2")
    ),
    "../W.npy": (npz(("../W.npy", npy(W))), ("['../W']", "W", "B")),
    "/W.npy": (npz(("/W.npy", npy(W))), ("['/W']", "W", "B")),
    "W.npy/W.npy": (npz(("W.npy/W.npy", npy(W))), ("['W.npy/W']", "W", "B")),
    r"..\W.npy": (npz((r"..\W.npy", npy(W))), (r"['..\\W']", "W", "B")),
    "C:W.npy": (npz(("C:W.npy", npy(W))), ("['C:W']", "W", "B")),
    "W.npy before a null": (
        npz(("W.npy#.npy", npy(W)), replace=[(b"W.npy#.npy", b"W.npy\0.npy")]),
        (r"['W.npy\x00']", "W", "B"),
    ),
    "W without .npy": (npz(("W", npy(W))), ("'W'", ".npy")),
    "a long name": (npz((f"{'W' * 60000}.npy", npy(W))), ("['WWWWWWWWWWWWWWWWW...WWWWWWWWWWWWWWWWWW']", "W", "B")),
    "W of one axis": (npz(("W.npy", npy(B))), ("W", "(3,)", "(C, S)")),
    "W of three axes": (npz(("W.npy", npy(W[None]))), ("W", "(1, 2, 3)", "(C, S)")),
    "W of no axis": (npz(("W.npy", npy(1.0))), ("W", "()", "(C, S)")),
    "B of two axes": (
        npz(("W.npy", npy(W)), ("B.npy", npy(B[None]))), ("B", "(1, 3)", "(S,)")
    ),
    "B of another length": (
        npz(("W.npy", npy(W)), ("B.npy", npy(B[:2]))),
        ("axis s", "W has 3", "(2, 3)", "B has 2", "(2,)", "(S,)"),
    ),
    "integers": (npz(("W.npy", npy(W.astype("i8")))), ("W", "int64", *DTYPES)),
    "complex": (npz(("W.npy", npy(W.astype("c8")))), ("W", "complex64", *DTYPES)),
    "records": (npz(("W.npy", npy(np.zeros((2, 2), [("a", "f8")])))), ("W", "void64", *DTYPES)),
    "arrays of numbers": (
        npz(("W.npy", npy(header={"descr": ("<f8", (2,)), "shape": (2, 3)}, data=bytes(96)))),
        ("W", "void128", *DTYPES),
    ),
    "strings of no length": (
        npz(("W.npy", npy(header={"descr": "|S0", "shape": (2**40, 2)}))), ("W", "bytes", *DTYPES)
    ),
    "more than the member has": (
        npz(("W.npy", npy(header={"shape": (10**9, 10**9)}))),
        ("W.npy", "128 bytes", "8000000000000000128"),
    ),
    "less than the member has": (
        npz(("W.npy", npy(W, data=b"more"))),
        ("W.npy", "180 bytes", "176"),
    ),
    "a negative shape": (
        npz(("W.npy", npy(header={"shape": (-2, -3)}, data=bytes(48)))),
        ("W.npy", "header", "(-2, -3)"),
    ),
    "a shape of too many": (
        npz(("W.npy", npy(header={"shape": (0, 2**62)}))),
        ("W.npy", "header", "(0, 4611686018427387904)"),
    ),
    "a shape that is no numbers": (
        npz(("W.npy", npy(header={"shape": (True, 3)}, data=bytes(24)))),
        ("W.npy", "header", "(True, 3)"),
    ),
    "more axes than arrays have": (
        npz(("W.npy", npy(header={"shape": (1,) * 3000}, data=bytes(8)))),
        ("W.npy", "header", "(1, 1, 1, 1, 1, 1, ...)"),
    ),
    "no header": (npz(("W.npy", b"no array")), ("W.npy", "header")),
    "a header of 10,000 signs": (npz(("W.npy", npy(header=b"?" * 9990))), ("W.npy", "header")),
    "a header of 64 MB": (
        npz(("W.npy", npy(header=b" " * 2**26)), compression=DEFLATED),
        ("W.npy", compressed_size, "67108876", "100", "numpy.savez"),
    ),
    "a header of 64 MB, stored": (npz(("W.npy", npy(header=b" " * 2**26))), ("W.npy", "header", "EOF")),
    "a bomb of 256 MB": (
        npz(("W.npy", npy(header={"shape": (2**15, 2**10)}, data=bytes(2**28))), compression=DEFLATED),
        ("W.npy", compressed_size, "268435584", "100", "numpy.savez"),
    ),
    "a bomb that says 10 GiB": (
        npz(("W.npy", npy(header={"shape": (5 * 2**15, 2**13)}, data=bytes(2**16))), compression=DEFLATED,
            file_size=10 * 2**30 + 128),
        ("W.npy", compressed_size, "10737418368", "100", "numpy.savez"),
    ),
    "a bomb that says that it takes much": (
        npz(("W.npy", npy(header={"shape": (2**15, 2**15)}, data=bytes(2**16))), compression=DEFLATED,
            compress_size=2**40, file_size=2**33 + 128),
        ("W.npy", "1099511627776 bytes", file_size),
    ),
    "stored with two sizes": (
        npz(("W.npy", npy(header={"shape": (2**15, 2**15)})), file_size=2**33 + 128),
        ("W.npy", "128", "8589934720"),
    ),
    "compressed by bzip2": (
        npz(("W.npy", npy(W)), compression=zipfile.ZIP_BZIP2),
        ("W.npy", "12", "numpy.savez", "0", "numpy.savez_compressed", "8"),
    ),
    "encrypted": (npz(("W.npy", npy(W)), flag_bits=1), ("W.npy", "encrypted", "numpy.savez")),
    "a long name before the member": (
        npz((f"{'W' * 60000}.npy", npy(W)), filename="W.npy"),
        (".npz file", "File name in directory 'W.npy' and header b'"),
    ),
    "a later zip": (npz(("W.npy", npy(W)), extract_version=99), (".npz file", "zip file version 9.9")),
    "a patch": (npz(("W.npy", npy(W)), flag_bits=0x20), (".npz file", "compressed patched data (flag bit 5)")),
    "a name that is no text": (
        npz(("Ä.npy", npy(W)), replace=[("Ä".encode(), b"\xff\xff")]),
        (".npz file", "'utf-8' codec"),
    ),
    "10,000 members": (
        npz(*((f"{number}.npy", b"") for number in range(10_000))),
        ("['0', '1', '10', '100', '1000', '1001']", "9994", "W", "B"),
    ),
    "50,000 members": (npz(*((f"{number}.npy", b"") for number in range(50_000))), ("2738890 bytes", "2097152")),
    "a name that is shown on two lines": (npz(("\n.npy", npy(W))), (r"['\n']", "W", "B")),
    "other numbers than were written": (
        npz(("W.npy", npy(W)), replace=[(W[1].tobytes(), bytes(24))]),
        (".npz file", "Bad CRC-32 for file 'W.npy'"),
    ),
    "cut short": (cut(WHOLE_NPZ, -30), (".npz file", "File is not a zip file")),
    "cut at its end": (cut(WHOLE_NPZ, -1), (".npz file", "File is not a zip file")),
    "empty": (cut(WHOLE_NPZ, 0), (".npz file", "File is not a zip file")),
}  # fmt: skip

NOT_WHOLE = (".safetensors file",)
HOSTILE_TENSORS = {
    "no W": (safetensors({"B": tensor([3])}, bytes(24)), ("['B']", "W", "B")),
    "nothing": (safetensors({}), ("[]", "W", "B")),
    "one too many": (
        safetensors({"W": tensor([2, 3]), "b": tensor([3], 48)}, bytes(72)), ("['W', 'b']", "W", "B")
    ),
    "w": (safetensors({"w": tensor([2, 3])}, bytes(48)), ("['w']", "W", "B")),
    "../W": (safetensors({"../W": tensor([2, 3])}, bytes(48)), ("['../W']", "W", "B")),
    "twice W": (
        safetensors(f'{{"W": {json.dumps(tensor([2, 3]))}, "W": {json.dumps(tensor([3, 2]))}}}', bytes(48)),
        ("'W'", "2"),
    ),
    "W of one axis": (safetensors({"W": tensor([6])}, bytes(48)), ("W", "(6,)", "(C, S)")),
    "B of two axes": (
        safetensors({"W": tensor([2, 3]), "B": tensor([1, 3], 48)}, bytes(72)),
        ("B", "(1, 3)", "(S,)"),
    ),
    "B of another length": (
        safetensors({"W": tensor([2, 3]), "B": tensor([2], 48)}, bytes(64)),
        ("axis s", "W has 3", "(2, 3)", "B has 2", "(2,)", "(S,)"),
    ),
    "integers": (safetensors({"W": tensor([2, 3], dtype="I64")}, bytes(48)), ("W", "I64", *DTYPES)),
    "float8": (safetensors({"W": tensor([2, 3], dtype="F8_E4M3", size=1)}, bytes(6)), ("W", "F8_E4M3", *DTYPES)),
    "a shape of too many": (
        safetensors({"W": tensor([0, 2**62])}),
        ("W", "shape", "(0, 4611686018427387904)"),
    ),
    "more axes than arrays have": (
        safetensors({"W": tensor([1] * 30_000)}, bytes(8)),
        ("W", "(1, 1, 1, 1, 1, 1, ...)", "(C, S)"),
    ),
    "a dtype of 100,000 signs": (safetensors({"W": tensor([2, 3], dtype="F" * 10**5)}, bytes(48)), NOT_WHOLE),
    "a negative shape": (safetensors({"W": {**tensor([2, 3]), "shape": [-2, -3]}}, bytes(48)), NOT_WHOLE),
    "more than there is": (safetensors({"W": tensor([2**15, 2**15])}, bytes(48)), NOT_WHOLE),
    "another size than its shape": (safetensors({"W": {**tensor([2, 3]), "shape": [200, 3]}}, bytes(48)), NOT_WHOLE),
    "less than there is": (safetensors({"W": tensor([2, 3])}, bytes(80)), NOT_WHOLE),
    "the same bytes twice": (safetensors({"W": tensor([3, 1]), "B": tensor([3])}, bytes(24)), NOT_WHOLE),
    "a header of an exbibyte": (safetensors({"W": tensor([2, 3])}, bytes(48), length=2**60), NOT_WHOLE),
    "a header of 64 MB": (
        safetensors({"W": tensor([2, 3]), "__metadata__": {"a": "b" * 2**26}}, bytes(48)),
        ("header", "67108956 bytes", "4194304"),
    ),
    "a list of fields": (safetensors({"W": ["F64", [2, 3], [0, 48]]}, bytes(48)), NOT_WHOLE),
    "20,000 tensors": (
        safetensors({str(number): tensor([0]) for number in range(20_000)}),
        ("['0', '1', '10', '100', '1000', '10000']", "19994", "W", "B"),
    ),
    "no JSON": (safetensors("{", bytes(48)), NOT_WHOLE),
    "cut short": (cut(WHOLE_TENSORS, -8), NOT_WHOLE),
    "cut in its header": (cut(WHOLE_TENSORS, 40), NOT_WHOLE),
    "cut in its length": (cut(WHOLE_TENSORS, 5), NOT_WHOLE),
    "empty": (cut(WHOLE_TENSORS, 0), NOT_WHOLE),
}  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "write", "facts"),
    [
        pytest.param(suffix, *row, id=f"{suffix} {name}")
        for suffix, rows in ((".npz", HOSTILE_NPZ), (".safetensors", HOSTILE_TENSORS))
        for name, row in rows.items()
    ],
)
def test_each_hostile_weight_file_has_its_message_and_takes_no_memory(tmp_path, suffix, write, facts):
    path = tmp_path / f"layer{suffix}"
    write(path)
    expected = TypeError if facts[-3:] == DTYPES else ValueError
    facts = [fact(path) if callable(fact) else fact for fact in facts]
    with memory_below(50 * MEGABYTE), refused(expected, str(path), *facts) as raised:
        fc.FullyConnected.load(path)
    assert len(str(raised.value)) < LONGEST


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
                assert lacks(str(error), str(path)) == []  # noqa: PT017 - most of them, and not all, are refused
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
    with refused(ValueError, str(path), "72 bytes", "71", "max_bytes=72"):
        fc.FullyConnected.load(path, max_bytes=71)
    for limit in (-1, 2.5, "72", None, True):
        with refused(ValueError, "max_bytes", repr(limit)):
            fc.FullyConnected.load(path, max_bytes=limit)


def test_the_limit_holds_for_what_is_compressed(tmp_path):
    path = tmp_path / "layer.npz"
    np.savez_compressed(path, W=np.zeros((2**10, 2**10)))
    assert path.stat().st_size < 10_000
    with memory_below(MEGABYTE), refused(ValueError, str(path), "8388608 bytes", "1000000", "max_bytes=8388608"):
        fc.FullyConnected.load(path, max_bytes=10**6)
    np.testing.assert_array_equal(fc.FullyConnected.load(path).W, 0)


def test_the_default_limit_is_16_gibibytes(tmp_path):
    path = tmp_path / "layer.safetensors"
    shape = [2**17, 2**14]
    safetensors({"W": tensor(shape)})(path)
    os.truncate(path, path.stat().st_size + 2**34)  # sparse
    with refused(ValueError, str(path), "17179869188 bytes", "17179869184", "max_bytes=17179869188"):
        headers = {"W": ("W", "float32", (2**32 + 1, 1))}
        weights._check_arrays(path, headers, weights.OWN, weights.FORMATS[".npz"].dtypes, weights.MAX_BYTES)
    facts = f"{2**34} bytes", f"{2**34 - 1}", f"max_bytes={2**34}"
    with memory_below(MEGABYTE), refused(ValueError, str(path), *facts):
        fc.FullyConnected.load(path, max_bytes=2**34 - 1)


def test_the_longest_header_takes_at_most_32_times_its_size(tmp_path):
    """Fields that the format does not know may hold anything; lists of one number take the most memory."""
    path = tmp_path / "layer.safetensors"
    known = json.dumps({"W": {**tensor([2, 3]), "more": []}})
    lists = ",".join(["[0]"] * ((safetensors_files.HEADER_BYTES - len(known)) // 4))
    safetensors(known.replace("[]", f"[{lists}]"), W.tobytes())(path)
    with memory_below(32 * safetensors_files.HEADER_BYTES):
        np.testing.assert_array_equal(fc.FullyConnected.load(path).W, W)
    safetensors(known.replace("[]", f"[{lists},{' ' * 10}0]"), W.tobytes())(path)
    with memory_below(MEGABYTE), refused(ValueError, str(path), "header", f"{safetensors_files.HEADER_BYTES}"):
        fc.FullyConnected.load(path)


def test_no_more_is_inflated_than_is_declared(tmp_path):
    """The member goes on after the array that its header and the directory describe."""
    path = tmp_path / "layer.npz"
    content = npy(W)
    npz(("W.npy", content + bytes(2**26)), compression=DEFLATED, file_size=len(content),
        CRC=zipfile.crc32(content))(path)  # fmt: skip
    with memory_below(2 * MEGABYTE):
        np.testing.assert_array_equal(fc.FullyConnected.load(path).W, W)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f2", ">f4", ">f8"])
def test_compressed_npz_files_load(tmp_path, rng, dtype):
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
def test_folders_without_fsync_are_accepted(tmp_path, monkeypatch, number):
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
