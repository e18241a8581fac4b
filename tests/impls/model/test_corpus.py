"""The data: disjoint by file, the same every time, and batches that depend on seed and step alone."""

from __future__ import annotations

import hashlib
import lzma

import pytest
import torch

from impls.model.corpus import END, batch, is_validation, read_corpus, windows


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        path = tmp_path / f"part{number % 4}" / f"file{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"this is file {number}\n".encode() * 5)
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"not read")
    return tmp_path


def test_the_standard_library_is_split_by_file_and_its_digest_is_stable():
    one, two = read_corpus(), read_corpus()
    assert one.digest == two.digest == hashlib.sha256(one.train + one.validation).hexdigest()
    train, validation = one.train.split(END), one.validation.split(END)
    assert (len(train) - 1, len(validation) - 1) == one.files
    assert not {t for t in train if len(t) > 200} & {v for v in validation if len(v) > 200}
    assert 0.03 < len(one.validation) / len(one.train) < 0.25
    assert len(one.train) > 3_000_000


def test_a_folder_is_split_by_the_hash_of_its_paths(folder):
    found = read_corpus(folder)
    expected = [b"", b""]
    for path in sorted(folder.rglob("file*.txt"), key=lambda path: path.relative_to(folder).as_posix()):
        expected[is_validation(path.relative_to(folder).as_posix())] += path.read_bytes() + END
    assert [found.train, found.validation] == expected and sum(found.files) == 40 and found.files[1] > 0
    before = found.digest
    (folder / "part0" / "file0.txt").write_bytes(b"changed")
    assert read_corpus(folder).digest != before


def test_a_file_is_cut_in_pieces_and_too_little_is_refused(tmp_path):
    path = tmp_path / "one.bin"
    path.write_bytes(bytes(range(1, 256)) * 2000)
    found = read_corpus(path)
    assert sum(found.files) == 8 and len(found.train) + len(found.validation) == 255 * 2000 + 8
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="at least 2 are needed"):
        read_corpus(path)
    with pytest.raises(ValueError, match="has 0 files"):
        read_corpus(tmp_path / "missing")


def test_there_is_always_something_to_validate_on(tmp_path):
    names = [name for name in (f"{n}.txt" for n in range(50)) if not is_validation(name)][:3]
    for name in names:
        (tmp_path / name).write_text(name * 9)
    assert read_corpus(tmp_path).files == (2, 1)


def test_xz_bits_are_those_of_the_validation_part(folder):
    found = read_corpus(folder)
    size = len(lzma.compress(found.validation, preset=9 | lzma.PRESET_EXTREME))
    assert found.xz_bits == 8 * size / len(found.validation)


def test_batches_follow_from_seed_and_step():
    data_N = torch.arange(5000) % 251
    data_N = data_N.to(torch.uint8)
    one = batch(data_N, 4, 32, seed=1, step=7)
    assert torch.equal(one, batch(data_N, 4, 32, seed=1, step=7)) and one.shape == (4, 33)
    assert not torch.equal(one, batch(data_N, 4, 32, seed=1, step=8))
    assert not torch.equal(one, batch(data_N, 4, 32, seed=2, step=7))
    assert bool((one.diff(dim=1).remainder(251) == 1).all())  # each window is a stretch of the data
    with pytest.raises(ValueError, match="a window needs 5001"):
        batch(data_N, 1, 5000, 0, 0)


def test_windows_are_spread_from_the_first_byte_to_the_last():
    data_N = (torch.arange(1000) % 251).to(torch.uint8)
    found = windows(data_N, 5, 32)
    assert found.shape == (5, 33)
    assert found[0, 0] == data_N[0] and found[-1, -1] == data_N[-1]
    assert len(windows(data_N, 1000, 32)) == 1000 // 33
    with pytest.raises(ValueError, match="a window needs 2001"):
        windows(data_N, 1, 2000)
