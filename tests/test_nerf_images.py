"""Laws of loading photos: what the files hold is in memory, reduced as stated; or one line."""

import io
import logging
import shutil
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image as PilImage

from ngp_warp.errors import ConfigError, DataError, NgpError, ResourceError
from ngp_warp.primitive import Progress
from ngp_warp.primitives.image.readers.source import silent_output
from ngp_warp.primitives.image.writers import save_image
from ngp_warp.primitives.nerf import downscale as d
from ngp_warp.primitives.nerf.images import estimate_bytes, load_photos
from ngp_warp.primitives.nerf.photo_files import unmuted
from ngp_warp.primitives.nerf.types import Photos, View
from ngp_warp.rays.lenses import Lens

W, H = 24, 16


def pixels(channels: int = 3, dtype: str = "uint8", size: tuple[int, int] = (W, H), seed: int = 0):
    rng = np.random.default_rng(seed)
    most = np.iinfo(dtype).max
    return rng.integers(0, most, (size[1], size[0], channels), dtype, endpoint=True)


def save_png(path: Path, array: np.ndarray) -> Path:
    path.write_bytes(imagecodecs.png_encode(array[..., 0] if array.shape[2] == 1 else array))
    return path


def view(path: Path, size: tuple[int, int] = (W, H), **given: Any) -> View:
    width, height = size
    lens = Lens(width=width, height=height, fx=30.0, fy=31.0, cx=width / 2, cy=height / 2, k1=0.1)
    return View(name=path.name, image=path, lens=lens, pose=np.eye(3, 4), **given)


def of(photos: Photos, i: int, values: np.ndarray | None = None) -> np.ndarray:
    """Return view i of the pixels, or of other values of each."""
    values = photos.pixels if values is None else values
    own = values[photos.offsets[i] : photos.offsets[i + 1]]
    return own.reshape(photos.sizes[i, 1], photos.sizes[i, 0], *own.shape[1:])


def load(views: Sequence[View], **options: Any) -> tuple[Photos, list[Lens]]:
    return load_photos(views, threads=2, **options)


# --- as they are


def test_eight_bits_stay_as_they_are(tmp_path: Path) -> None:
    arrays = [pixels(c, seed=c) for c in (1, 2, 3, 4)]
    views = [view(save_png(tmp_path / f"{a.shape[2]}.png", a)) for a in arrays]
    photos, lenses = load(views)
    assert photos.pixels.dtype == np.uint8
    assert photos.color_space == "srgb"
    assert photos.has_alpha
    assert (photos.offsets == np.arange(5) * W * H).all()
    assert photos.masks is None
    assert photos.depths is None
    for i, array in enumerate(arrays):
        n_colors = array.shape[2] - (array.shape[2] % 2 == 0)
        assert (of(photos, i)[..., :3] == array[..., :n_colors]).all()
        expected = array[..., -1] if array.shape[2] % 2 == 0 else 255
        assert (of(photos, i)[..., 3] == expected).all()
        assert lenses[i] == views[i].lens
    assert not load([views[2]])[0].has_alpha


def test_one_deep_photo_makes_all_of_them_float16(tmp_path: Path) -> None:
    shallow, deep = pixels(3), pixels(4, "uint16")
    views = [
        view(save_png(tmp_path / "8.png", shallow)),
        view(save_png(tmp_path / "16.png", deep)),
    ]
    photos, _ = load(views)
    assert photos.pixels.dtype == np.float16
    assert photos.color_space == "srgb"
    # 11 bits of a float16, and one of its roundings
    assert np.abs(of(photos, 0)[..., :3] - shallow / 255.0).max() < 2**-11
    assert np.abs(of(photos, 1) - deep / 65535.0).max() < 2**-11
    assert (of(photos, 0)[..., 3] == 1).all()


def test_linear_photos_make_all_linear_and_colours_straight(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colors, alpha = rng.uniform(0, 20, (H, W, 3)), rng.uniform(0.1, 1, (H, W, 1))
    alpha[0] = 0
    stored = np.concatenate([colors * alpha, alpha], axis=2).astype(np.float32)
    save_image(tmp_path / "a.exr", stored)
    grey = np.full((H, W, 1), 128, np.uint8)
    said: list[str] = []
    photos, _ = load(
        [view(tmp_path / "a.exr"), view(save_png(tmp_path / "b.png", grey))],
        report=lambda p: said.append(p.message or ""),
    )
    assert photos.color_space == "linear"
    assert np.allclose(of(photos, 0)[1:, :, :3], colors[1:], rtol=2e-3)
    assert (of(photos, 0)[0] == 0).all()
    # IEC 61966-2-1 of 128 / 255
    assert np.allclose(of(photos, 1)[..., :3], 0.21586, atol=1e-4)
    assert any("linear" in line for line in said)


def test_palettes_bits_and_cmyk_become_colours(tmp_path: Path) -> None:
    picture = PilImage.fromarray(pixels(3))
    picture.quantize(16).save(tmp_path / "palette.png")
    picture.convert("1").save(tmp_path / "bit.png")
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
    photos, _ = load([view(tmp_path / n) for n in ("palette.png", "bit.png", "cmyk.jpg")])
    reference = np.asarray(picture.quantize(16).convert("RGB"))
    assert (of(photos, 0)[..., :3] == reference).all()
    assert set(np.unique(of(photos, 1))) == {0, 255}


def test_the_order_and_the_values_do_not_depend_on_threads(tmp_path: Path) -> None:
    views = [
        view(save_png(tmp_path / f"{i}.png", pixels(4, size=(W + i, H), seed=i)), (W + i, H))
        for i in range(12)
    ]
    one, many = (load_photos(views, downscale=2, threads=n)[0] for n in (1, 5))
    assert (one.pixels == many.pixels).all()
    assert (one.sizes[:, 0] == [round((W + i) / 2 + 0.01) for i in range(12)]).all()


def process_state() -> tuple[Any, ...]:
    log = logging.getLogger("tifffile")
    return list(warnings.filters), PilImage.MAX_IMAGE_PIXELS, log.disabled


def test_the_process_is_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Readers change warnings, Pillow's limit, a log and stdout: in threads they must restore."""
    save_image(tmp_path / "a.exr", np.ones((H, W, 3), np.float32))
    save_png(tmp_path / "b.png", pixels())
    views = [view(tmp_path / n) for n in ("a.exr", "b.png") * 20]
    before = process_state()
    load_photos(views, threads=8, report=lambda p: print("said", flush=True))
    assert process_state() == before
    assert capfd.readouterr().out.count("said") >= len(views)


def test_nothing_is_said_while_output_goes_to_nowhere() -> None:
    said, silent, done = threading.Event(), threading.Event(), threading.Event()

    def decode() -> None:
        with silent_output():
            silent.set()
            done.wait(10)

    decoding = threading.Thread(target=decode)
    saying = threading.Thread(target=unmuted(lambda p: said.set()), args=(Progress(stage="load"),))
    decoding.start()
    silent.wait(10)
    saying.start()
    assert not said.wait(0.2)
    done.set()
    assert said.wait(10)
    decoding.join()
    saying.join()


# --- which way up


def turned_jpeg(path: Path, orientation: int) -> np.ndarray:
    smooth = np.linspace(0, 255, W * H * 3).reshape(H, W, 3).astype(np.uint8)
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    PilImage.fromarray(smooth).save(path, exif=exif, quality=95)
    return np.asarray(PilImage.open(path).convert("RGB"))


def test_the_size_in_the_scene_decides_whether_a_photo_is_turned(tmp_path: Path) -> None:
    stored = turned_jpeg(tmp_path / "a.jpg", 6)
    photos, _ = load([view(tmp_path / "a.jpg"), view(tmp_path / "a.jpg", (H, W))])
    assert (of(photos, 0)[..., :3] == stored).all()
    assert (of(photos, 1)[..., :3] == np.rot90(stored, -1)).all()
    upside_down = turned_jpeg(tmp_path / "b.jpg", 3)
    assert (of(load([view(tmp_path / "b.jpg")])[0], 0)[..., :3] == upside_down).all()


# --- reduced


def test_averages_are_exact_means_of_opaque_photos(tmp_path: Path) -> None:
    array = pixels(3)
    path = save_png(tmp_path / "a.png", array)
    photos, (lens,) = load([view(path)], downscale=2)
    sums = array.reshape(H // 2, 2, W // 2, 2, 3).sum(axis=(1, 3), dtype=int)
    assert (of(photos, 0)[..., :3] == (sums + 2) // 4).all()  # rounded half up, exactly
    assert (lens.width, lens.height, lens.fx, lens.fy) == (W // 2, H // 2, 15.0, 15.5)
    assert (lens.cx, lens.cy, lens.k1) == (W / 4, H / 4, 0.1)


@pytest.mark.parametrize("size", [(23, 15), (7, 5), (24, 3), (1, 1), (24, 16)])
def test_averages_count_shares_of_pixels(size: tuple[int, int]) -> None:
    array = pixels(3).astype(np.float64)

    def resample(values: np.ndarray, n: int) -> np.ndarray:
        """Integrate along axis 0 and take differences: exact for any ratio."""
        total = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
        ends = np.arange(n + 1) * len(values) / n
        low = np.minimum(ends.astype(int), len(values) - 1)
        share = (ends - low).reshape(-1, *[1] * (values.ndim - 1))
        at = total[low] * (1 - share) + total[low + 1] * share
        return np.diff(at, axis=0) * n / len(values)

    expected = resample(resample(array, size[1]).swapaxes(0, 1), size[0]).swapaxes(0, 1)
    assert np.abs(d.average(pixels(3), size) - expected).max() < 1e-3  # float32 sums up to 255
    assert np.allclose(d.average(np.full((16, 24, 1), 7, np.uint8), size), 7.0, atol=1e-5)


def test_transparent_colours_do_not_bleed(tmp_path: Path) -> None:
    array = np.zeros((H, W, 4), np.uint8)
    array[..., :3] = (0, 255, 0)
    array[:, ::2] = (200, 10, 50, 255)  # every other column is opaque, the others are not seen
    photos, _ = load([view(save_png(tmp_path / "a.png", array))], downscale=2)
    assert (of(photos, 0) == (200, 10, 50, 128)).all()
    assert photos.has_alpha


def test_lenses_keep_their_rays_at_odd_sizes() -> None:
    lens = view(Path("a"), (101, 67)).lens
    size = d.reduced_size((101, 67), 4)
    assert size == (25, 17)
    small = d.scale_lens(lens, size)
    for u in (0.0, 0.3, 1.0):  # shares of the width
        assert (u * 25 - small.cx) / small.fx == pytest.approx((u * 101 - lens.cx) / lens.fx)
        assert (u * 17 - small.cy) / small.fy == pytest.approx((u * 67 - lens.cy) / lens.fy)


def test_reduced_copies_of_a_data_set_are_used(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images_2").mkdir()
    big, small = pixels(3), pixels(3, size=(W // 2, H // 2), seed=1)
    save_png(tmp_path / "images" / "a.png", big)
    save_png(tmp_path / "images_2" / "a.png", small)
    said: list[str] = []
    views = [view(tmp_path / "images" / "a.png")]
    photos, (lens,) = load(views, downscale=2, report=lambda p: said.append(p.message or ""))
    assert (of(photos, 0)[..., :3] == small).all()
    assert lens.fx == 15.0
    assert any("images_2" in line for line in said)
    # Of another downscale, or of not all photos, they are not.
    assert load(views, downscale=4)[0].sizes.tolist() == [[W // 4, H // 4]]
    save_png(tmp_path / "images" / "b.png", big)
    both = [*views, view(tmp_path / "images" / "b.png")]
    assert (of(load(both, downscale=2)[0], 0)[..., :3] != small).any()


@pytest.mark.parametrize("factor", [0.5, 0.0, -1.0, float("nan"), float("inf"), 1000.0])
def test_a_downscale_must_leave_something(tmp_path: Path, factor: float) -> None:
    path = save_png(tmp_path / "a.png", pixels())
    with pytest.raises(ConfigError, match="--downscale"):
        load([view(path)], downscale=factor)


# --- masks and depth maps


def test_no_masked_pixel_leaks(tmp_path: Path) -> None:
    mask = np.full((H, W, 1), 255, np.uint8)
    mask[5, 7] = 0
    image, path = save_png(tmp_path / "a.png", pixels()), save_png(tmp_path / "m.png", mask)
    views = [view(image, mask=path), view(image)]
    photos, _ = load(views)
    assert photos.masks is not None
    assert np.argwhere(of(photos, 0, photos.masks) == 0).tolist() == [[5, 7]]
    assert (of(photos, 1, photos.masks) == 255).all()
    photos, _ = load(views, downscale=1.6)  # 15x10: the pixel lies in rows 3, columns 4
    assert photos.masks is not None
    assert np.argwhere(of(photos, 0, photos.masks) == 0).tolist() == [[3, 4]]


@pytest.mark.parametrize("size", [(24, 16), (11, 7), (48, 31), (1, 1)])
def test_a_reduced_mask_is_the_minimum_of_what_it_touches(size: tuple[int, int]) -> None:
    mask = np.where(pixels(1)[..., 0] < 20, 0, 255).astype(np.uint8)
    got = d.smallest(mask, size)
    for y in range(size[1]):
        for x in range(size[0]):
            rows = [r for r in range(H) if r * size[1] < (y + 1) * H and (r + 1) * size[1] > y * H]
            cols = [c for c in range(W) if c * size[0] < (x + 1) * W and (c + 1) * size[0] > x * W]
            assert got[y, x] == mask[np.ix_(rows, cols)].min()


def test_depth_maps_keep_their_values(tmp_path: Path) -> None:
    image = save_png(tmp_path / "a.png", pixels())
    depth = pixels(1, "uint16")
    depth[0, :3] = 0
    floats = depth[..., 0].astype(np.float32)
    floats[1, 0], floats[1, 1], floats[1, 2] = np.nan, np.inf, -3.0
    save_png(tmp_path / "d.png", depth)
    np.save(tmp_path / "d.npy", floats)
    save_image(tmp_path / "d.exr", np.nan_to_num(floats, posinf=0)[..., None])
    views = [view(image, depth=tmp_path / f"d.{kind}") for kind in ("png", "npy", "exr")]
    photos, _ = load([*views, view(image)], depth_unit=0.001)
    assert photos.depths is not None
    assert photos.depths.dtype == np.float32
    assert np.allclose(of(photos, 0, photos.depths), depth[..., 0] * 0.001)
    for i in (1, 2):
        got = of(photos, i, photos.depths)
        assert (got[1, :3] == 0).all()
        assert np.allclose(got[2:], floats[2:] * 0.001)
    assert (of(photos, 3, photos.depths) == 0).all()


def test_reduced_depths_are_never_mixed(tmp_path: Path) -> None:
    image = save_png(tmp_path / "a.png", pixels())
    depth = np.full((H, W, 1), 1000, np.uint16)
    depth[:, W // 2 - 1 :] = 9000
    path = save_png(tmp_path / "d.png", depth)
    for factor in (1.3, 2, 3):
        photos, _ = load([view(image, depth=path)], downscale=factor)
        assert set(np.unique(photos.depths)) == {1000.0, 9000.0}


# --- memory


def test_the_estimate_is_what_is_taken(tmp_path: Path) -> None:
    image = save_png(tmp_path / "a.png", pixels())
    depth = save_png(tmp_path / "d.png", pixels(1, "uint16"))
    views = [view(image, mask=image, depth=depth)] * 3
    for factor in (None, 2):
        estimate = estimate_bytes(views, factor)
        photos, _ = load(views, downscale=factor)
        assert estimate["photos"] == photos.pixels.nbytes
        assert photos.masks is not None
        assert photos.depths is not None
        assert estimate["masks"] == photos.masks.nbytes
        assert estimate["depth maps"] == photos.depths.nbytes


def test_what_does_not_fit_is_reduced_with_a_word_or_refused(tmp_path: Path) -> None:
    size = (400, 300)
    image = save_png(tmp_path / "a.png", pixels(size=size))
    views = [view(image, size)] * 400
    decoding = estimate_bytes(views, threads=2)["decoding"]
    whole = 400 * 400 * 300 * 4
    said: list[Progress] = []
    photos, lenses = load(views, available_bytes=decoding + whole // 3, report=said.append)
    assert photos.sizes[0].tolist() == [200, 150]
    assert lenses[0].width == 200
    assert any("--downscale 2" in (p.message or "") for p in said)
    with pytest.raises(ResourceError, match="give --downscale 2"):
        load(views, downscale=1, available_bytes=decoding + whole // 3)
    with pytest.raises(ResourceError, match="not even"):
        load(views, available_bytes=1000)


# --- what is broken


def broken_files() -> dict[str, bytes]:
    buffer = io.BytesIO()
    PilImage.fromarray(pixels()).save(buffer, "PNG")
    png = buffer.getvalue()
    buffer = io.BytesIO()
    PilImage.fromarray(pixels()).save(buffer, "GIF")
    middle = bytearray(png)
    middle[len(png) // 2] ^= 0x55
    return {
        "empty.png": b"",
        "text.png": b"hello",
        "cut.png": png[: len(png) // 2],
        "flipped.png": bytes(middle),
        "animation.gif": buffer.getvalue(),
    }


@pytest.mark.parametrize("name", [*broken_files(), "missing.png", "folder", "wrong-size.png"])
def test_each_broken_photo_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "wrong-size.png":
        save_png(path, pixels(size=(20, 10)))
    elif name != "missing.png":
        path.write_bytes(broken_files()[name])
    good = view(save_png(tmp_path / "good.png", pixels()))
    with pytest.raises(DataError) as caught:
        load([good, view(path), good])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if name == "wrong-size.png":
        assert "20x10" in str(caught.value)
        assert f"{W}x{H}" in str(caught.value)


def _broken_maps() -> dict[str, Callable[[Path], dict[str, Path]]]:
    return {
        "small mask": lambda p: {"mask": save_png(p, pixels(1, size=(20, 10)))},
        "small depth": lambda p: {"depth": save_png(p, pixels(1, "uint16", size=(20, 10)))},
        "8-bit depth": lambda p: {"depth": save_png(p, pixels(1))},
        "colour depth": lambda p: {"depth": save_png(p, pixels(3, "uint16"))},
        "no mask": lambda p: {"mask": p},
    }


@pytest.mark.parametrize("kind", _broken_maps())
def test_each_broken_map_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "map.png"
    given = _broken_maps()[kind](path)
    image = save_png(tmp_path / "good.png", pixels())
    with pytest.raises(DataError) as caught:
        load([view(image), view(image, **given)])
    assert str(path) in str(caught.value)


def test_nan_in_a_photo_is_refused(tmp_path: Path) -> None:
    array = np.ones((H, W, 3), np.float32)
    array[3, 4, 1] = np.nan
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=r"a\.npy has pixels that are NaN"):
        load([view(tmp_path / "a.npy")])


def test_the_first_broken_photo_is_the_one_named(tmp_path: Path) -> None:
    good = save_png(tmp_path / "0.png", pixels())
    paths = [good]
    for i in range(1, 8):
        data = bytearray(good.read_bytes())
        data[len(data) // 2] ^= 0x55 if i >= 3 else 0
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(data)
    with pytest.raises(DataError, match=r"3\.png"):
        load_photos([view(p) for p in paths], threads=4)
    with pytest.raises(NgpError, match="no views"):
        load([])
    shutil.rmtree(tmp_path)
