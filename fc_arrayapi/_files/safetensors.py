"""Tensors in .safetensors files: views of the file, without a library for tensors. bfloat16 is read as its bits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .disk import open_file
from .mapped import MappedArray
from .source import brief, check_names, file_state, holding, naming_damage, one_of

# A tensor takes about 100 bytes of the header, a whole model up to some hundred thousand. Longer ones are refused
# unread: the parsed lists of a hostile header take up to 32 times its bytes.
HEADER_BYTES = 2**22

_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "BF16": "V2", "U32": "<u4",
    "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip


class SafetensorsTensor(MappedArray):
    """One tensor of a ``.safetensors`` file, a view of it."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        header, start, state = read_header(path)
        what = one_of({key: holding(found["shape"], found["dtype"]) for key, found in header.items()}, f"{path}::{{}}")
        if name not in header:
            raise ValueError(f"{path}: {f'has no tensor {name}' if name else 'names no tensor'}: open {what}")
        found = header[name]
        if found["dtype"] not in _DTYPES:
            raise ValueError(
                f"{path}::{name}: has dtype {brief(found['dtype'])}, which open_array does not read: save it as F32, "
                f"F16 or BF16"
            )
        super().__init__(
            path, state, f"{path}::{name}", tuple(found["shape"]), np.dtype(_DTYPES[found["dtype"]]),
            start + found["data_offsets"][0], bfloat16=True,
        )  # fmt: skip


def read_header(path: Path) -> tuple[dict[str, Any], int, tuple[int, int]]:
    """Read which tensors a file holds.

    Returns
    -------
    dict
        By name, each with ``dtype``, ``shape`` and ``data_offsets``, as safetensors has checked them.
    int
        Where the first tensor begins.
    tuple
        The `file_state`.
    """
    safetensors = safetensors_module()
    with open_file(path) as file:
        status = os.fstat(file.fileno())
        length = int.from_bytes(file.read(8), "little")
        if HEADER_BYTES < length <= status.st_size:
            raise ValueError(
                f"{path}: its header takes {length} bytes, and at most {HEADER_BYTES} are read: save fewer tensors in "
                f"a file"
            )
        text = file.read(min(length, HEADER_BYTES))
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass  # it compares the header with itself and with the size of the file
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: is not a valid .safetensors file ({brief(error)})") from None
    # safetensors ignores a second entry of one name and unknown fields, which may be nested as deep as they like.
    with naming_damage(str(path), ": is not a valid .safetensors file"):
        pairs = [(name, dict(found)) for name, found in json.loads(text, object_pairs_hook=list)]
    pairs = [(name, found) for name, found in pairs if name != "__metadata__"]
    check_names(path, [name for name, _ in pairs])
    return dict(pairs), 8 + length, file_state(status)


def safetensors_module() -> Any:
    """Return safetensors, which is imported only when it is used."""
    try:
        import safetensors
    except ImportError:
        raise ImportError("a .safetensors file needs the safetensors package: pip install safetensors") from None
    return safetensors
