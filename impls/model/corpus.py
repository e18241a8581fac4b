"""What the model reads: the Python standard library's own source, there wherever Python is, or a file or folder.

Split by file, by a hash of its path, because the tail of one file resembles its head. The corpus differs between Python
versions, so its digest goes with every result, and only results of equal digest are compared. `xz_bits` is what a good
general compressor makes of the validation part, without having seen the rest.
"""

from __future__ import annotations

import hashlib
import lzma
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

EXCLUDED = {
    "__pycache__",
    "dist-packages",
    "encodings",
    "ensurepip",
    "idle_test",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}
SHARE = 0.1
PIECE = 1 << 16
END = b"\0"
Part = tuple[str, bytes]


@dataclass(frozen=True)
class Corpus:
    """Bytes to train on and to validate on; each file ends with a zero byte.

    label      what it is, for a person
    digest     SHA-256 of the training part followed by the validation part
    files      how many files (pieces, of a single file) each part has: training, validation
    """

    label: str
    train: bytes
    validation: bytes
    digest: str
    files: tuple[int, int]

    @property
    def train_N(self) -> Tensor:
        """The training part, uint8 [N]."""
        return torch.frombuffer(bytearray(self.train), dtype=torch.uint8)

    @property
    def validation_N(self) -> Tensor:
        """The validation part, uint8 [N]."""
        return torch.frombuffer(bytearray(self.validation), dtype=torch.uint8)

    @property
    def xz_bits(self) -> float:
        """Bits a byte of the validation part under xz -9e; takes seconds."""
        return 8 * len(lzma.compress(self.validation, preset=9 | lzma.PRESET_EXTREME)) / len(self.validation)


@dataclass(frozen=True)
class Text:
    """What a trial trains on: bytes, uint8 [N], and windows to validate on, int64 [B, T + 1], on the device."""

    train_N: Tensor
    windows_BT: Tensor
    label: str
    digest: str

    @property
    def told(self) -> str:
        """What it is, for the record: only results of equal text are compared."""
        return f"{self.label}, digest {self.digest[:12]}"


def read_text(count: int, length: int, device: torch.device) -> Text:
    """The standard library's text with up to `count` windows of `length` + 1 bytes."""
    corpus = _library()
    return Text(corpus.train_N, windows(corpus.validation_N, count, length).to(device), corpus.label, corpus.digest)


@lru_cache(maxsize=1)
def _library() -> Corpus:
    """The standard library's, read once by a process: cases of several seeds share it."""
    return read_corpus()


def is_validation(name: str) -> bool:
    """Whether a file of this path, relative and with forward slashes, is validated on: one in ten is."""
    return _place(name) < SHARE


def _place(name: str) -> float:
    """The name's hash, uniform in 0 to 1."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def read_corpus(path: str | Path | None = None) -> Corpus:
    """The standard library without tests, encodings, documentation data and packages; or a file; or a folder's files.

    A single file is cut into pieces of 64 KiB that are split as files are. Where the hash puts no file into
    validation, the one of least hash goes there. Raises ValueError for a path with fewer than two files or pieces.
    """
    if path is None:
        root, label = Path(sysconfig.get_paths()["stdlib"]), f"Python {platform.python_version()} standard library"
        parts = [(name, data) for name, data in _files(root, EXCLUDED) if name.endswith(".py")]
    else:
        root = Path(path).expanduser()
        label, parts = root.name, list(_pieces(root) if root.is_file() else _files(root, set()))
    if len(parts) < 2:
        raise ValueError(f"{root} has {len(parts)} files or pieces of 64 KiB with text in them, at least 2 are needed")
    return _split(label, parts)


def _split(label: str, parts: list[Part]) -> Corpus:
    names = [name for name, _ in parts if is_validation(name)]
    if not names or len(names) == len(parts):
        names = [min((name for name, _ in parts), key=_place)]
    train = b"".join(data + END for name, data in parts if name not in names)
    validation = b"".join(data + END for name, data in parts if name in names)
    digest = hashlib.sha256(train + validation).hexdigest()
    return Corpus(label, train, validation, digest, (len(parts) - len(names), len(names)))


def _files(root: Path, excluded: set[str]) -> Iterator[Part]:
    """Relative path and content of every file that is not empty, in order of the path; hidden ones are left out."""
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
        inner = path.relative_to(root)
        if any(part in excluded or part.startswith(".") for part in inner.parts) or not path.is_file():
            continue
        data = path.read_bytes()
        if data:
            yield inner.as_posix(), data


def _pieces(path: Path) -> Iterator[Part]:
    data = path.read_bytes()
    for start in range(0, len(data), PIECE):
        yield f"{path.name}#{start // PIECE}", data[start : start + PIECE]


def generator(*words: object) -> torch.Generator:
    """Random numbers that follow from `words` alone, such as seed and step."""
    # torch's CPU generator reads 32 bits of its seed, so two numbers cannot be put side by side in it
    mixed = hashlib.sha256(" ".join(map(str, words)).encode()).digest()[:4]
    return torch.Generator().manual_seed(int.from_bytes(mixed, "big"))


def batch(data_N: Tensor, count: int, length: int, seed: int, step: int) -> Tensor:
    """Windows of `length` + 1 bytes at random places, int64 [count, length + 1]: a function of seed and step alone.

    So the order is the same whoever trains, and resuming needs the step and nothing else.
    Raises ValueError where the data is shorter than a window.
    """
    if len(data_N) < length + 1:
        raise ValueError(f"the data has {len(data_N)} bytes, a window needs {length + 1}")
    starts_B = torch.randint(len(data_N) - length, (count, 1), generator=generator(seed, step))
    return data_N[starts_B + torch.arange(length + 1)].long()


def windows(data_N: Tensor, count: int, length: int) -> Tensor:
    """Up to `count` windows of `length` + 1 bytes spread evenly over the data, int64: the same for every model."""
    count = min(count, len(data_N) // (length + 1))
    if count < 1:
        raise ValueError(f"the data has {len(data_N)} bytes, a window needs {length + 1}")
    starts_B = torch.arange(count)[:, None] * (len(data_N) - length - 1) // max(1, count - 1)
    return data_N[starts_B + torch.arange(length + 1)].long()
