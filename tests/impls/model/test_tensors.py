"""Files of tensors: the format is the package's, what was written comes back, and damage is named."""

from __future__ import annotations

import math

import pytest
import torch

from impls.model import checkpoint, tensors

STATE = {
    "model": {"w": torch.arange(6.0).view(2, 3), "b": torch.tensor([1.5, -2], dtype=torch.bfloat16)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"betas": (0.9, 0.95), "on": True}]},
    "empty": torch.zeros(0, 4, dtype=torch.int64),
    "curves": {"loss": [1.0, math.inf]},
    "name": None,
}


def same(one, two) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and one.shape == two.shape and torch.equal(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return one == two and type(one) is type(two)


def test_a_state_comes_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path / "a.safetensors", STATE)
    assert same(checkpoint.load(tmp_path / "a.safetensors"), STATE)
    with pytest.raises(TypeError, match=r"x\.0 is a set"):
        checkpoint.save(tmp_path / "b.safetensors", {"x": [{1}]})


def test_the_format_is_the_packages(tmp_path):
    package = pytest.importorskip("safetensors.torch")
    given = {
        name: (torch.randn(3, 2) * 4).to(dtype).contiguous()
        for name, dtype in tensors.DTYPES.items()
        if name != "F8_E5M2"
    }
    tensors.save(tmp_path / "ours.safetensors", given, {"a": "b"})
    found = package.load_file(tmp_path / "ours.safetensors")
    assert set(found) == set(given)
    assert all(torch.equal(found[n].view(torch.uint8), given[n].view(torch.uint8)) for n in given)
    package.save_file(given, tmp_path / "theirs.safetensors", {"a": "b"})
    back, metadata = tensors.load(tmp_path / "theirs.safetensors")
    assert metadata == {"a": "b"} and set(back) == set(given)
    assert all(torch.equal(back[n].view(torch.uint8), given[n].view(torch.uint8)) for n in given)


def test_every_cut_and_any_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, STATE)
    whole = path.read_bytes()
    for length in (0, 5, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.safetensors is no checkpoint: .*; remove it"):
            checkpoint.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="bytes of tensors, its header says"):
        checkpoint.load(path)
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(ValueError, match="its bytes are not those that were written"):
        checkpoint.load(path)


def test_files_of_something_else_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors.save(path, {"w": torch.ones(2)})
    with pytest.raises(ValueError, match="is no checkpoint: it holds no 'state'"):
        checkpoint.load(path)
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="it ends within its header"):
        checkpoint.load(path)
    header = b'{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ValueError, match="sizes and places do not agree"):
        tensors.load(path)
    with pytest.raises(ValueError, match=r"w is torch\.complex64"):
        tensors.save(path, {"w": torch.ones(1, dtype=torch.complex64)})
