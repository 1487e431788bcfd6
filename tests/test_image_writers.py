"""Laws of writing: what is written reads back, whole or by rows; what fails leaves nothing."""

import os
import sys

import image_samples
import numpy as np
import pytest

from ngp_warp import files, memory
from ngp_warp.errors import ConfigError, NgpError, ResourceError, ShapeError
from ngp_warp.primitives.image import row_writers, writers
from ngp_warp.primitives.image.data import load_image
from ngp_warp.primitives.image.writers import check_output, open_writer, save_image

EXTENSIONS = ("png", "jpg", "jpeg", "tif", "tiff", "webp", "exr", "hdr", "npy")
DTYPES = ("uint8", "uint16", "float16", "float32")
LOSSY = {"jpg": 16, "jpeg": 16, "webp": 40}  # largest differences seen in these noisy pictures


def written_whole(path, pixels):
    save_image(path, pixels)


def written_by_rows(path, pixels):
    height, width, channels = pixels.shape
    with open_writer(path, width, height, channels, pixels.dtype) as writer:
        for y in range(0, height, 5):
            writer.write(pixels[y : y + 5])


@pytest.mark.parametrize("written", [written_whole, written_by_rows])
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_kind_reads_back_or_is_refused_beforehand(tmp_path, extension, written):
    n_written = 0
    for dtype in DTYPES:
        for channels in (1, 2, 3, 4):
            pixels = image_samples.pixels(channels, dtype)
            path = tmp_path / f"{dtype}{channels}.{extension}"
            try:
                check_output(path, 24, 17, channels, dtype)
            except ConfigError:
                with pytest.raises(ConfigError, match=r"cannot write .*; (use \.|no format)"):
                    written(path, pixels)
                assert not path.exists()
                continue
            written(path, pixels)
            check_reads_back(path, pixels)
            n_written += 1
    assert n_written
    assert not [p for p in tmp_path.iterdir() if ".tmp" in p.name]


def check_reads_back(path, pixels):
    extension = path.suffix[1:]
    image = load_image(path)
    if extension == "webp" and pixels.shape[2] < 3:  # grey becomes RGB
        pixels = np.concatenate([np.repeat(pixels[..., :1], 3, 2), pixels[..., 1:]], 2)
    if extension == "hdr":  # 8 bits of mantissa shared by three channels, cut off
        expected = np.maximum(pixels, 0)
        tolerance = 2.0**-7 * expected.max(axis=2, keepdims=True)
        assert (np.abs(image.pixels - expected) <= tolerance).all()
        return
    assert image.pixels.shape == pixels.shape
    assert image.pixels.dtype == (np.float32 if pixels.dtype.kind == "f" else pixels.dtype)
    difference = np.abs(image.pixels.astype(np.float64) - pixels)
    assert difference.max() <= LOSSY.get(extension, 0)


def test_grey_without_a_channel_axis(tmp_path):
    pixels = image_samples.pixels(1, "uint16")
    save_image(tmp_path / "a.png", pixels[..., 0])
    assert np.array_equal(load_image(tmp_path / "a.png").pixels, pixels)
    with pytest.raises(ShapeError):
        save_image(tmp_path / "a.png", pixels[..., None])


def test_views_of_any_layout_are_written(tmp_path):
    wide = image_samples.pixels(4, "uint8")
    pixels = wide[::-1, ::2, :3]
    for extension in ("png", "tif", "npy", "webp", "jpg"):
        save_image(tmp_path / f"a.{extension}", pixels)
        check_reads_back(tmp_path / f"a.{extension}", np.ascontiguousarray(pixels))


def test_png_agrees_with_pillow_in_bands_of_any_height(tmp_path, monkeypatch):
    """Filters look at the row above: it must be right across bands too."""
    from PIL import Image

    pixels = image_samples.pixels(3, "uint8")
    for band_bytes in (1, 200, 10**6):
        monkeypatch.setattr(row_writers, "_PNG_BAND_BYTES", band_bytes)
        save_image(tmp_path / "a.png", pixels)
        with Image.open(tmp_path / "a.png") as picture:
            picture.verify()
        with Image.open(tmp_path / "a.png") as picture:
            assert np.array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("pixels", [np.zeros((5, 5, 3)), np.full((5, 5, 3), 255)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_extreme_pictures(tmp_path, pixels, dtype):
    save_image(tmp_path / "a.png", pixels.astype(dtype))
    assert np.array_equal(load_image(tmp_path / "a.png").pixels, pixels)


def test_tiff_by_rows_can_be_mapped(tmp_path):
    path = tmp_path / "a.tif"
    written_by_rows(path, image_samples.pixels(3, "float32"))
    assert isinstance(load_image(path, max_bytes=0).pixels, np.memmap)


def test_bigtiff_beyond_4_gb():
    uint8 = np.dtype("uint8")
    assert row_writers.needs_bigtiff(65536, 32768, 3, uint8)
    assert not row_writers.needs_bigtiff(32768, 32768, 3, uint8)


def test_big_tiff_layout_reads_back(tmp_path, monkeypatch):
    monkeypatch.setattr(row_writers, "needs_bigtiff", lambda *_: True)
    monkeypatch.setattr(writers, "needs_bigtiff", lambda *_: True)
    pixels = image_samples.pixels(3, "uint16")
    for written in (written_whole, written_by_rows):
        written(tmp_path / "a.tif", pixels)
        assert (tmp_path / "a.tif").read_bytes()[2] == 43  # BigTIFF's magic number
        check_reads_back(tmp_path / "a.tif", pixels)


@pytest.mark.parametrize(
    ("name", "channels", "dtype", "reason"),
    [
        ("a.gif", 3, "uint8", r"'\.gif' is not known; use \.png"),
        ("a", 3, "uint8", "extension '' is not known"),
        ("a.jpg", 4, "uint8", r"R, G, B, A\); use \.png"),
        ("a.jpg", 3, "uint16", r"not uint16; use \.png"),
        ("a.png", 3, "float32", r"use .*\.exr"),
        ("a.tif", 5, "uint8", "no format"),
        ("a.png", 3, "int64", "no format"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_advice(tmp_path, name, channels, dtype, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        save_image(tmp_path / name, np.zeros((4, 4, channels), dtype))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_sides_too_long_for_a_format(tmp_path):
    for name, side in (("a.jpg", 65536), ("a.webp", 16384)):
        with pytest.raises(ConfigError, match=f"at most {side - 1} pixels"):
            check_output(tmp_path / name, side, 1, 3, "uint8")
        check_output(tmp_path / name, side - 1, 1, 3, "uint8")
    with pytest.raises(ConfigError):
        check_output(tmp_path / "a.png", 0, 4, 3, "uint8")


@pytest.mark.parametrize("extension", ["png", "tif", "npy", "jpg"])
def test_unfinished_pictures_leave_nothing(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    path.write_bytes(b"what was there before")
    pixels = image_samples.pixels(3, "uint8")

    def write(rows_list, error=None):
        with open_writer(path, 24, 17, 3, "uint8") as writer:
            for rows in rows_list:
                writer.write(rows)
            if error is not None:
                raise error

    for rows_list in ([], [pixels[:16]], [pixels, pixels[:1]], [pixels[:, :23]], [pixels * 1.0]):
        with pytest.raises(ShapeError):
            write(rows_list)
    for error in (RuntimeError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            write([pixels[:4]], error)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"what was there before"


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_places_that_cannot_be_written(tmp_path, extension):
    pixels = image_samples.pixels(3, "float32" if extension in ("exr", "hdr") else "uint8")
    (tmp_path / f"folder.{extension}").mkdir()
    for place in (f"missing/a.{extension}", f"folder.{extension}", "a" * 300 + f".{extension}"):
        with pytest.raises(ResourceError) as caught:
            save_image(tmp_path / place, pixels)
        assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [f"folder.{extension}"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes all")
def test_read_only_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    with pytest.raises(ResourceError, match="Permission denied"):
        save_image(folder / "a.png", image_samples.pixels(3, "uint8"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
@pytest.mark.parametrize("written", [written_whole, written_by_rows])
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, extension, written, capfd):
    """A limit on the size of files gives the same error at the same place as a full disk."""
    import resource
    import signal

    float_format = extension in ("exr", "hdr")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 300, 3)).astype("float32" if float_format else "uint8")
    path = tmp_path / f"a.{extension}"
    old_action = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old_limit[1]))
        with pytest.raises(NgpError) as caught:
            written(path, pixels)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_action)
    assert isinstance(caught.value, ResourceError)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_free_space_is_checked_before_long_work(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("U", (), {"free": 1000}))
    for extension in ("tif", "npy"):
        with pytest.raises(ResourceError, match=r"needs 1\.2 kB .* 1\.0 kB free"):
            written_by_rows(tmp_path / f"a.{extension}", image_samples.pixels(3, "uint8"))
    assert not list(tmp_path.iterdir())


def test_whole_formats_need_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2000)
    with pytest.raises(ConfigError, match=r"in one go and 2\.4 kB .*\.tif, \.png and \.npy"):
        written_by_rows(tmp_path / "a.jpg", image_samples.pixels(3, "uint8"))
    written_by_rows(tmp_path / "a.png", image_samples.pixels(3, "uint8"))
