"""Tensors by name in a file of the safetensors format: a length, a JSON header, and the bytes one after the other.

Written here and not by the package of that name, because measuring needs torch, triton and NumPy alone; what is written
that package reads, and the other way round. Nothing in such a file can run. The header's metadata holds a digest of the
bytes, so that damage in the middle is noticed as well as an end that is missing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
METADATA, DIGEST = "__metadata__", "sha256"


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write beside the old file and put it in its place in one step, on disk when this returns; the bytes' digest.

    Raises ValueError for a dtype the format does not know.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header, blocks, end = {}, [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        if tensor.dtype not in NAMES:
            raise ValueError(f"{name} is {tensor.dtype}, which no file of tensors can hold")
        blocks.append(_bytes(tensor))
        begin, end = end, end + len(blocks[-1])
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    digest = digest_of(blocks)
    told = json.dumps({METADATA: {**(metadata or {}), DIGEST: digest}, **header}, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)  # so that the bytes begin at a multiple of 8
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(len(told).to_bytes(8, "little") + told)
        for block in blocks:
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return digest


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors on the CPU, and the metadata. Raises ValueError, saying why, for a file that is not whole."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise ValueError("it ends within its header")
    try:
        header = json.loads(data[8:start])
        metadata = header.pop(METADATA, {})
        places = {name: (DTYPES[one["dtype"]], one["shape"], *one["data_offsets"]) for name, one in header.items()}
        sizes = [(dtype.itemsize * math.prod(shape), end - begin) for dtype, shape, begin, end in places.values()]
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its header is not one of named tensors: {error}") from error
    if any(needed != given for needed, given in sizes):
        raise ValueError("its header is not one of named tensors: sizes and places do not agree")
    end = max((place[3] for place in places.values()), default=0)
    if len(data) - start != end:
        raise ValueError(f"it holds {len(data) - start:,} bytes of tensors, its header says {end:,}")
    body = memoryview(data)[start:]
    if metadata.get(DIGEST, hashlib.sha256(body).hexdigest()) != hashlib.sha256(body).hexdigest():
        raise ValueError("its bytes are not those that were written")
    return {
        name: _tensor(body[begin:end], dtype, shape) for name, (dtype, shape, begin, end) in places.items()
    }, metadata


def digest_of(blocks: list[bytes]) -> str:
    """SHA-256 of blocks one after the other."""
    found = hashlib.sha256()
    for block in blocks:
        found.update(block)
    return found.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _tensor(block: memoryview, dtype: torch.dtype, shape: list[int]) -> Tensor:
    if not len(block):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(block), dtype=torch.uint8).view(dtype).reshape(shape)
