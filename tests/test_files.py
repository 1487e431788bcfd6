"""Laws of atomic writes: all or nothing, nothing left over, one clear line."""

import os

import pytest

from ngp_warp import files, memory
from ngp_warp.errors import ResourceError


def write_half_and_raise(path, error):
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_file_appears_whole_and_replaces(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_failed_block_leaves_what_was(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        write_half_and_raise(path, error)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_space_is_one_line(tmp_path):
    with pytest.raises(ResourceError, match=r"a\.bin: No space left on device") as caught:
        write_half_and_raise(tmp_path / "a.bin", OSError(28, os.strerror(28)))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["missing/a.bin", "folder", "a" * 300])
def test_impossible_places_are_refused(tmp_path, where):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ResourceError), files.atomic_path(tmp_path / where) as temporary:
        temporary.write_bytes(b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_free_space_is_checked(tmp_path):
    files.check_free_space(tmp_path, 1, "it", "")
    with pytest.raises(ResourceError, match=r"it needs 100000\.0 TB .* free; give another"):
        files.check_free_space(tmp_path, 10**17, "it", "give another")


def test_reserved_file_has_its_size(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        files.reserve(file, 100_001)
    assert (tmp_path / "a").stat().st_size == 100_001


def test_reserve_without_fallocate_writes_zeros(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with (tmp_path / "a").open("wb") as file:
        files.reserve(file, 100_001)
    assert (tmp_path / "a").read_bytes() == bytes(100_001)


def test_available_memory_is_plausible():
    assert 2**26 < memory.available_bytes() < 2**50
