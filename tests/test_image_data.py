"""Laws of reading: what was written comes back, turned and named right; what is broken does not."""

import io
import os
import struct
import sys
from pathlib import Path

import image_samples
import numpy as np
import pytest
from PIL import Image as PilImage

from ngp_warp import files, memory
from ngp_warp.errors import ConfigError, DataError, ResourceError
from ngp_warp.primitives.image import cache, data
from ngp_warp.primitives.image.data import load_image, probe
from ngp_warp.primitives.image.writers import save_image

EXIF_BLOCK = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%c\0\0\0\0\0\0"


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return image_samples.all_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture
def write(tmp_path):
    """Return a function that writes bytes to a file of any name and returns its path."""

    def write_file(content, name="image"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file


def turned(pixels, orientation):
    """Return stored pixels as they are seen, by the table of EXIF 2.32, tag 274."""
    if orientation >= 5:  # row 0 is the left or right side, column 0 the top or the bottom
        pixels = pixels.swapaxes(0, 1)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def png_with(chunk_name, content, png):
    """Return the PNG with a chunk after its header."""
    import zlib

    chunk = struct.pack(">I", len(content)) + chunk_name + content
    return png[:33] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + png[33:]


def test_probe_tells_what_load_gives_in_memory_and_cached(samples, write, tmp_path):
    for image_format, kinds in samples.items():
        for kind, content in kinds.items():
            path = write(content, f"{image_format}-{kind}")
            info, image = probe(path), load_image(path)
            cached = load_image(path, max_bytes=0, cache_dir=tmp_path / "cache")
            assert image.info == cached.info == info
            assert info.format == image_format
            assert image.pixels.shape == cached.pixels.shape == info.shape
            assert image.pixels.dtype == cached.pixels.dtype == info.dtype
            assert image.pixels.nbytes == info.bytes
            assert image.pixels.flags.c_contiguous
            assert cached.pixels.flags.c_contiguous
            assert isinstance(cached.pixels, np.memmap)
            assert not cached.pixels.flags.writeable
            assert np.array_equal(image.pixels, cached.pixels), (image_format, kind)
            assert len(info.channel_names) == info.channels
            assert info.hdr == (info.dtype == "float32")


LOSSLESS = [
    ("png", "1xuint8", 1, "uint8"),
    ("png", "2xuint16", 2, "uint16"),
    ("png", "3xuint16", 3, "uint16"),
    ("png", "4xuint8", 4, "uint8"),
    ("tiff", "strips", 3, "uint8"),
    ("tiff", "tiled", 3, "uint8"),
    ("tiff", "deflate", 4, "uint16"),
    ("tiff", "zstd", 3, "float32"),
    ("tiff", "planar", 3, "uint8"),
    ("tiff", "half", 1, "float16"),
    ("tiff", "double", 2, "float64"),
    ("tiff", "big-endian", 3, "uint16"),
    ("webp", "lossless", 4, "uint8"),
    ("npy", "3xf8F", 3, "float64"),
    ("npy", "2xu2C", 2, "uint16"),
]


@pytest.mark.parametrize(("image_format", "kind", "channels", "dtype"), LOSSLESS)
def test_lossless_files_come_back_exactly(samples, write, image_format, kind, channels, dtype):
    expected = image_samples.pixels(channels, dtype)
    pixels = load_image(write(samples[image_format][kind])).pixels
    assert np.array_equal(pixels, expected.astype(pixels.dtype))
    assert not np.array_equal(np.roll(pixels, 1, axis=1), expected.astype(pixels.dtype))


@pytest.mark.parametrize("kind", ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "tiled", "parts"])
def test_exr_comes_back_with_its_negative_values(samples, write, kind):
    names = ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB"]
    i = [*names, "tiled", "parts"].index(kind)
    expected = image_samples.pixels(1 + i % 4, "float16" if i % 3 == 1 else "float32", seed=i)
    image = load_image(write(samples["exr"][kind]))
    assert np.array_equal(image.pixels, expected.astype(np.float32))
    assert image.pixels.min() < 0
    assert image.info.hdr


def test_format_is_told_by_content(samples, write):
    assert probe(write(samples["tiff"]["lzw"], "photo.jpg")).format == "tiff"
    assert probe(write(samples["exr"]["ZIP"], "photo.png")).format == "exr"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(write, tmp_path, orientation):
    stored = image_samples.pixels(3, "uint8")
    picture, exif = PilImage.fromarray(stored), PilImage.Exif()
    exif[0x0112] = orientation
    # tolerance: what the lossy coders change; a wrong turn changes far more
    for image_format, options, tolerance in [
        ("PNG", {"exif": exif}, 0),
        ("WEBP", {"exif": exif, "lossless": True}, 0),
        ("TIFF", {"tiffinfo": {274: orientation}}, 0),
        ("JPEG", {"exif": exif, "quality": 95, "subsampling": 0}, 16),
        ("AVIF", {"exif": exif, "quality": 95, "subsampling": "4:4:4"}, 16),
    ]:
        file = io.BytesIO()
        picture.save(file, image_format, **options)
        path = write(file.getvalue(), image_format)
        expected = turned(stored, orientation).astype(int)
        for limits in ({}, {"max_bytes": 0, "cache_dir": tmp_path / "cache"}):
            pixels = load_image(path, **limits).pixels
            assert pixels.shape == expected.shape
            assert np.abs(pixels - expected).max() <= tolerance
        assert (probe(path).height, probe(path).width) == expected.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_view_is_the_inverse_of_turning(orientation):
    stored = image_samples.pixels(2, "uint16")
    assert np.array_equal(data.stored_view(turned(stored, orientation), orientation), stored)


def test_broken_exif_takes_nothing_from_the_pixels(samples, write):
    png = samples["png"]["3xuint8"]
    whole = EXIF_BLOCK % 6
    assert load_image(write(png_with(b"eXIf", whole[6:], png))).pixels.shape == (24, 17, 3)
    for n in range(len(whole) - 12):
        load_image(write(png_with(b"eXIf", whole[6 : 6 + n], png)))
    assert load_image(write(png_with(b"eXIf", EXIF_BLOCK % 9, png))).pixels.shape == (17, 24, 3)


@pytest.mark.parametrize(
    ("mode", "bits"), [("P", 8), ("P", 4), ("P", 2), ("1", 1), ("L", 8), ("LA", 8), ("RGBA", 8)]
)
def test_png_kinds_agree_with_pillow(write, mode, bits):
    picture = PilImage.fromarray(image_samples.pixels(4, "uint8"))
    picture = picture.convert("RGB").quantize(2**bits) if mode == "P" else picture.convert(mode)
    file = io.BytesIO()
    picture.save(file, "PNG", bits=bits)
    expected = np.asarray(picture.convert({"P": "RGB", "1": "L"}.get(mode, mode)))
    pixels = load_image(write(file.getvalue())).pixels
    assert np.array_equal(pixels, expected.reshape(pixels.shape))


def test_transparent_palette_and_color_become_alpha(samples, write):
    for kind in ("palette-alpha", "key"):
        content = samples["png"][kind]
        expected = PilImage.open(io.BytesIO(content)).convert("RGBA")
        image = load_image(write(content))
        assert image.info.channel_names == ("R", "G", "B", "A")
        assert np.array_equal(image.pixels, np.asarray(expected))


def test_cmyk_becomes_rgb(samples, write):
    content = samples["jpeg"]["cmyk"]
    expected = PilImage.open(io.BytesIO(content)).convert("RGB")
    assert np.array_equal(load_image(write(content)).pixels, np.asarray(expected))
    inks = image_samples.pixels(4, "uint8").astype(float) / 255
    expected = 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])
    difference = load_image(write(samples["tiff"]["cmyk"])).pixels - expected
    assert np.abs(difference).max() <= 0.51  # rounded once


def test_tiff_kinds_agree_with_pillow(samples, write):
    grey = image_samples.pixels(1, "uint8")
    assert np.array_equal(load_image(write(samples["tiff"]["white-is-zero"])).pixels, 255 - grey)
    picture = PilImage.fromarray(image_samples.pixels(3, "uint8"))
    for mode, back in [("P", "RGB"), ("1", "L")]:
        changed = picture.quantize(9) if mode == "P" else picture.convert(mode)
        for compression in (None, "tiff_lzw"):
            file = io.BytesIO()
            changed.save(file, "TIFF", compression=compression)
            pixels = load_image(write(file.getvalue())).pixels
            assert np.array_equal(pixels, np.asarray(changed.convert(back)).reshape(pixels.shape))


@pytest.mark.parametrize("bits", [2, 4, 10, 12])
def test_odd_depths_are_spread_over_the_whole_range(tmp_path, bits):
    import tifffile

    most = 2**bits - 1
    values = np.linspace(0, most, 256).astype("uint16" if bits > 8 else "uint8").reshape(16, 16)
    tifffile.imwrite(tmp_path / "a.tif", values, bitspersample=bits, metadata=None)
    pixels = load_image(tmp_path / "a.tif").pixels[..., 0]
    assert (pixels.min(), pixels.max()) == (0, np.iinfo(pixels.dtype).max)
    exact = values / most * np.iinfo(pixels.dtype).max
    assert np.abs(pixels - exact).max() <= 0.5


def test_deep_avif_keeps_its_bits(write):
    import imagecodecs

    for bits in (10, 12):
        for channels in (1, 3, 4):
            values = image_samples.pixels(channels, "uint16") >> (16 - bits)
            layout = {"pixelformat": "400"} if channels == 1 else {}
            content = imagecodecs.avif_encode(
                image_samples.squeezed(values), bitspersample=bits, level=100, **layout
            )
            pixels = load_image(write(content)).pixels
            assert np.abs(pixels - values / (2**bits - 1) * 65535).max() <= 0.5


def test_uncompressed_files_are_mapped_in_place(samples, write):
    for content in (samples["tiff"]["strips"], samples["tiff"]["big"], samples["npy"]["4xf4C"]):
        image = load_image(write(content), max_bytes=0)
        assert isinstance(image.pixels, np.memmap)
        assert Path(str(image.pixels.filename)).name == "image"
        assert not image.pixels.flags.writeable


def test_sparse_tiles_are_zero(tmp_path):
    import tifffile

    tile = np.full((16, 16), 9, np.uint8)
    tiles = iter([tile, None, None, tile])
    tifffile.imwrite(tmp_path / "a.tif", tiles, shape=(32, 32), dtype="uint8", tile=(16, 16),
                     compression="zlib")  # fmt: skip
    pixels = load_image(tmp_path / "a.tif").pixels[..., 0]
    assert np.array_equal(pixels, np.kron(np.eye(2, dtype=np.uint8) * 9, np.ones((16, 16))))


@pytest.mark.parametrize(
    ("line", "orientation"),
    [("-Y 17 +X 24", 1), ("-Y 17 -X 24", 2), ("+Y 17 -X 24", 3), ("+Y 17 +X 24", 4),
     ("+X 17 -Y 24", 5), ("-X 17 -Y 24", 6), ("-X 17 +Y 24", 7), ("+X 17 +Y 24", 8)],
)  # fmt: skip
def test_radiance_axes(samples, write, line, orientation):
    upright = load_image(write(samples["hdr"]["flat"])).pixels
    content = samples["hdr"]["flat"].replace(b"-Y 17 +X 24", line.encode())
    pixels = load_image(write(content)).pixels
    assert np.array_equal(pixels, turned(upright, orientation))


def test_radiance_first_pixel(samples, write):
    """+Y counts upwards from the bottom, -Y downwards from the top, +X rightwards from the left."""
    first = load_image(write(samples["hdr"]["flat"])).pixels[0, 0]
    for line, row, column in [
        ("+Y 17 +X 24", -1, 0),
        ("-X 17 +Y 24", -1, -1),
        ("+X 17 -Y 24", 0, 0),
    ]:
        content = samples["hdr"]["flat"].replace(b"-Y 17 +X 24", line.encode())
        assert np.array_equal(load_image(write(content)).pixels[row, column], first)


def test_exr_default_layer_and_data_window(tmp_path):
    import OpenEXR

    def written(names, window=None):
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        if window is not None:
            header["dataWindow"] = window
        channels = {n: np.full((17, 24), i, np.float32) for i, n in enumerate(names)}
        OpenEXR.File(header, channels).write(str(tmp_path / "a.exr"))
        return tmp_path / "a.exr"

    image = load_image(written(["A", "B", "G", "R", "Z", "diffuse.R"]))
    assert image.info.channel_names == ("R", "G", "B", "A")
    assert image.pixels[0, 0].tolist() == [3, 2, 1, 0]
    assert probe(written(["Z"])).channel_names == ("Y",)
    window = (np.array([-5, 7], np.int32), np.array([18, 23], np.int32))
    assert load_image(written(["B", "G", "R"], window)).pixels.shape == (17, 24, 3)
    for names in (["diffuse.R", "diffuse.G", "diffuse.B"], ["A"], ["G", "R"], ["BY", "RY", "Y"]):
        with pytest.raises(DataError, match="no default layer"):
            load_image(written(names))


def test_cut_files_are_refused(samples, write, capfd):
    for image_format, kinds in samples.items():
        for kind, content in kinds.items():
            if (image_format, kind) == ("exr", "parts"):
                continue  # its second part is not read
            for tenth in range(10):
                path = write(content[: len(content) * tenth // 10])
                with pytest.raises(DataError) as caught:
                    load_image(path)
                assert str(path) in str(caught.value)
                assert "\n" not in str(caught.value)
            with pytest.raises(DataError):
                load_image(write(content[:-1]))
    assert capfd.readouterr() == ("", "")


def test_cut_jpeg_is_refused_when_streamed(samples, write, tmp_path):
    for n_missing in (1, 2, 100, 400):
        path = write(samples["jpeg"]["rgb"][:-n_missing])
        with pytest.raises(DataError):
            load_image(path, max_bytes=0, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_what_is_no_image_is_refused(write, tmp_path):
    cases = [
        (tmp_path / "missing.jpg", "No such file"),
        (tmp_path, "folder"),
        (write(b"", "empty.jpg"), "empty"),
        (write(b"Dear diary,\n", "text.jpg"), "not an image"),
        (Path("/dev/null"), "not a regular file"),
        (tmp_path / "\0", "null"),
    ]
    for path, reason in cases:
        for read in (probe, load_image):
            with pytest.raises(DataError, match=reason) as caught:
                read(path)
            assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_unreadable_file_is_refused(samples, write):
    path = write(samples["png"]["3xuint8"])
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        load_image(path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4, 4, 0), np.uint8),
        np.zeros((4, 4, 3, 1), np.uint8),
        np.zeros((4, 4), bool),
        np.zeros((4, 4), np.int16),
        np.zeros((4, 4), complex),
        np.zeros((4, 4), [("a", "u1")]),
        np.array([[{}, 1]], object),
        np.full((4, 4), 1e300),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError):
        load_image(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".exr"])
def test_pixels_that_are_not_finite_are_counted(tmp_path, monkeypatch, suffix):
    from ngp_warp.primitives.image.writers import save_image

    monkeypatch.setattr(data, "rows_per_band", lambda _: 3)
    pixels = image_samples.pixels(3, "float32")
    path = tmp_path / f"a{suffix}"
    save_image(path, pixels)
    load_image(path)
    pixels[7, 5, 1] = np.inf
    pixels[7, 5, 2] = np.nan
    pixels[9, 2] = np.nan
    save_image(path, pixels)
    for limits in ({}, {"max_bytes": 0, "cache_dir": tmp_path / "cache"}):
        with pytest.raises(DataError, match=r"2 pixels .* \[x, y\] = \[5, 7\]"):
            load_image(path, **limits)
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())


def test_cache_is_found_again_until_the_file_changes(samples, write, tmp_path, monkeypatch):
    path = write(samples["png"]["3xuint16"])
    limits = {"max_bytes": 0, "cache_dir": tmp_path / "deep" / "cache"}
    first = load_image(path, **limits).pixels
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_write", lambda *_: pytest.fail("decoded again"))
        assert np.array_equal(load_image(path, **limits).pixels, first)
    write(samples["png"]["4xuint8"])
    assert load_image(path, **limits).pixels.shape == (17, 24, 4)
    assert len(list(limits["cache_dir"].iterdir())) == 2


def test_damaged_cache_is_made_anew(samples, write, tmp_path):
    path, folder = write(samples["png"]["3xuint8"]), tmp_path / "cache"
    expected = load_image(path).pixels
    load_image(path, max_bytes=0, cache_dir=folder)
    (cached,) = folder.iterdir()
    cached.write_bytes(cached.read_bytes()[:-1])
    assert np.array_equal(load_image(path, max_bytes=0, cache_dir=folder).pixels, expected)


def test_cache_needs_room(samples, write, tmp_path, monkeypatch):
    path = write(samples["png"]["3xuint8"])
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("U", (), {"free": 1000}))
    with pytest.raises(ResourceError, match=r"2\.2 kB .* 1\.0 kB free.*--cache-dir") as caught:
        load_image(path, max_bytes=0, cache_dir=tmp_path / "cache")
    assert str(path) in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())
    with pytest.raises(ResourceError, match="--cache-dir"):
        load_image(path, max_bytes=0, cache_dir=path)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_full_disk_is_met_before_a_map_of_it_is_written(samples, write, tmp_path):
    """A map written on a full disk would kill the process."""
    import resource
    import signal

    path = write(samples["png"]["3xuint8"])
    old_action = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old_limit[1]))
        with pytest.raises(ResourceError, match="File too large"):
            load_image(path, max_bytes=0, cache_dir=tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_action)
    assert not list((tmp_path / "cache").iterdir())


def test_memory_is_checked_before_decoding(samples, write, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2000)
    path = write(samples["webp"]["lossy"])
    for limits in ({"max_bytes": 10**9}, {"cache_dir": tmp_path / "cache"}):
        with pytest.raises(ResourceError, match=r"kB of memory .* 2\.0 kB are available: .*TIFF"):
            load_image(path, **limits)
    load_image(write(samples["png"]["3xuint8"]), cache_dir=tmp_path / "cache")


def test_pillows_limit_does_not_stop_large_images_and_stays(samples, write, monkeypatch):
    monkeypatch.setattr(PilImage, "MAX_IMAGE_PIXELS", 10)
    for image_format in ("jpeg", "webp", "avif"):
        load_image(write(samples[image_format]["rgb" if image_format != "webp" else "lossy"]))
    assert PilImage.MAX_IMAGE_PIXELS == 10


def test_small_file_that_promises_too_much_is_refused(samples, write):
    png = bytearray(samples["png"]["3xuint8"])
    png[16:24] = struct.pack(">II", 100_000, 100_000)
    exr_kinds = samples["exr"]
    exr = exr_kinds["ZIP"].replace(
        struct.pack("<4i", 0, 0, 23, 16), struct.pack("<4i", 0, 0, 10**5, 10**5)
    )
    hdr = samples["hdr"]["rle"].replace(b"-Y 17 +X 24", b"-Y 99999 +X 99999")
    jpeg = samples["jpeg"]["rgb"].replace(
        struct.pack(">HH", 17, 24), struct.pack(">HH", 60000, 60000)
    )
    for content in (bytes(png), exr, hdr, jpeg):
        with pytest.raises(DataError, match="cannot hold them"):
            load_image(write(content))


@pytest.mark.parametrize(
    ("kind", "marker", "places"),
    [("jpeg", b"\xff\xc0\x00\x11\x08", [5]), ("jpeg2000", b"\xff\x4f\xff\x51", [8, 12])],
)
def test_tiles_that_promise_more_than_their_tiff_are_refused(samples, write, kind, marker, places):
    content = bytearray(samples["tiff"][kind])
    start = content.index(marker)
    for place in places:
        content[start + place : start + place + 4] = b"\x00\x60\x60\x60"
    with pytest.raises(DataError, match="another size inside"):
        load_image(write(bytes(content)))


def test_bundled_photo(tmp_path):
    path = Path(__file__).parent.parent / "examples" / "seeding.jpg"
    image = load_image(path)
    assert image.info.shape == (2988, 5312, 3)
    streamed = load_image(path, max_bytes=0, cache_dir=tmp_path)
    assert np.array_equal(streamed.pixels, image.pixels)


@pytest.mark.parametrize("name", ["a.npy", "a.png", "a.tif", "cached.png"])
@pytest.mark.parametrize("box", [(3, 5, 20, 11), (0, 4, 40, 9), (0, 0, 40, 30)])
def test_a_crop_is_read_alone(name: str, box: tuple[int, int, int, int], tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    path = tmp_path / name
    save_image(path, truth)
    limit = 0 if name == "cached.png" else None
    image = load_image(path, crop=box, max_bytes=limit, cache_dir=tmp_path / "cache")
    left, top, width, height = box
    assert (image.info.width, image.info.height) == (width, height)
    assert image.pixels.flags.c_contiguous
    assert np.array_equal(image.pixels, truth[top : top + height, left : left + width])
    mapped = name in ("a.npy", "cached.png") and width == 40
    assert isinstance(image.pixels, np.memmap) == mapped
    assert image.pixels.base is None or width == 40  # no view that keeps the whole picture
    for outside in ((30, 0, 11, 5), (0, 25, 5, 6)):
        with pytest.raises(ConfigError, match="reaches outside"):
            load_image(path, crop=outside)


def test_only_the_crop_must_be_finite(tmp_path: Path) -> None:
    pixels = np.ones((30, 40, 1), np.float32)
    pixels[20, 7] = np.nan
    np.save(tmp_path / "a.npy", pixels)
    assert load_image(tmp_path / "a.npy", crop=(0, 0, 40, 20)).unit_range
    with pytest.raises(DataError, match=r"\[x, y\] = \[7, 20\]"):
        load_image(tmp_path / "a.npy", crop=(5, 10, 10, 15))
