"""The law of broken files: a finite image comes out, or an NgpError of one line; nothing else."""

import struct
import zlib

import image_samples
import numpy as np
import pytest

from ngp_warp.errors import NgpError
from ngp_warp.primitives.image.data import load_image

FORMATS = ("jpeg", "png", "tiff", "webp", "avif", "exr", "hdr", "npy")
N_FILES = 1000
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER_BYTES = 320


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return image_samples.all_samples(tmp_path_factory.mktemp("samples"))


def flip(data, rng, position):
    data[position] ^= 1 << rng.integers(8)


def overwrite(data, rng, position):
    data[position] = rng.integers(256)


def extreme(data, rng, position):
    value, size = EXTREMES[rng.integers(len(EXTREMES))], (1, 2, 4)[rng.integers(3)]
    order = ("little", "big")[rng.integers(2)]
    field = (value & ((1 << 8 * size) - 1)).to_bytes(size, order)
    data[position : position + size] = field


def insert(data, rng, position):
    data[position:position] = rng.bytes(rng.integers(1, 9))


def remove(data, rng, position):
    del data[position : position + rng.integers(1, 9)]


def cut(data, rng, position):
    del data[position:]


def repeat(data, rng, position):
    data[position:position] = data[position : position + rng.integers(1, 65)]


MUTATIONS = (flip, flip, overwrite, extreme, extreme, extreme, insert, remove, cut, repeat)


def mutated(data, rng):
    """Return a copy with 1 to 4 changes, every second one among the first bytes."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if data:
            end = min(HEADER_BYTES, len(data)) if rng.integers(2) else len(data)
            MUTATIONS[rng.integers(len(MUTATIONS))](data, rng, rng.integers(end))
    return bytes(data)


def with_png_sums(data):
    """Return the PNG with its chunks' checksums made right, so that what is in them is read."""
    data, position = bytearray(data), 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[position + 4 : end]))
        position = end + 4
    return bytes(data)


def is_one_line_about(path, error):
    assert "\n" not in str(error)
    assert str(path) in str(error)
    return True


def check_law(path):
    """Load the file; return whether it was refused."""
    try:
        image = load_image(path, cache_dir=path.parent / "cache", max_bytes=2**30)
    except NgpError as error:
        return is_one_line_about(path, error)
    assert image.pixels.shape == image.info.shape
    assert image.pixels.dtype == image.info.dtype
    assert np.isfinite(image.pixels).all()
    return False


@pytest.mark.parametrize("image_format", FORMATS)
def test_broken_files_are_refused_or_read(image_format, samples, tmp_path, capfd):
    rng = np.random.default_rng(FORMATS.index(image_format))
    kinds = list(samples[image_format].values())
    n_refused = 0
    for i in range(N_FILES):
        data = mutated(kinds[i % len(kinds)], rng)
        if image_format == "png" and i % 2:
            data = with_png_sums(data)
        path = tmp_path / f"{i}.img"
        path.write_bytes(data)
        n_refused += check_law(path)
        path.unlink()
    assert n_refused > N_FILES // 20  # the mutations do break files
    assert capfd.readouterr() == ("", "")


def test_the_law_can_be_broken(samples, tmp_path, monkeypatch):
    """Without the reader's guard, broken files raise what the decoders raise."""
    import contextlib

    from ngp_warp.primitives.image import data, readers

    monkeypatch.setattr(data, "reading", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(readers, "reading", lambda _: contextlib.nullcontext())
    path = tmp_path / "cut.jpg"
    path.write_bytes(samples["jpeg"]["rgb"][:-200])
    with pytest.raises(OSError, match="truncated"):
        check_law(path)
