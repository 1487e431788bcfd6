"""Laws of exports: a pyramid is the picture and its 2x2 means, its page stands alone."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_runs import settings, smooth, write_picture
from PIL import Image

import ngp_warp
from ngp_warp.cli import app
from ngp_warp.errors import ResourceError
from ngp_warp.files import atomic_folder
from ngp_warp.primitives import get
from ngp_warp.primitives.image.data import load_image
from ngp_warp.primitives.image.pyramid import OVERLAP, TILE_SIZE, Pyramid, halve, level_sizes

EXPORTERS = get("image").exporters


def tiles_of(pixels: np.ndarray, rows: int) -> dict[tuple[int, int, int], np.ndarray]:
    """Return every tile of the pyramid of ``pixels``, fed ``rows`` rows at a time."""
    tiles: dict[tuple[int, int, int], np.ndarray] = {}

    def keep(level: int, column: int, row: int, tile: np.ndarray) -> None:
        assert (level, column, row) not in tiles
        tiles[level, column, row] = tile.copy()

    pyramid = Pyramid(pixels.shape[1], pixels.shape[0], pixels.shape[2], keep)
    for y in range(0, len(pixels), rows):
        pyramid.add(pixels[y : y + rows])
    return tiles


def joined(tiles: dict[tuple[int, int, int], np.ndarray], level: int, size: tuple[int, int]) -> Any:
    """Return a level put together from its tiles; what overlaps must agree."""
    width, height = size
    whole: np.ndarray | None = None
    seen = np.zeros((height, width), bool)
    count = 0
    for (n, column, row), tile in tiles.items():
        if n != level:
            continue
        count += 1
        whole = np.zeros((height, width, tile.shape[2]), np.uint8) if whole is None else whole
        left, top = max(column * TILE_SIZE - OVERLAP, 0), max(row * TILE_SIZE - OVERLAP, 0)
        part = (slice(top, top + tile.shape[0]), slice(left, left + tile.shape[1]))
        assert np.array_equal(whole[part][seen[part]], tile[seen[part]])
        whole[part], seen[part] = tile, True
    assert seen.all()
    assert count == -(-width // TILE_SIZE) * -(-height // TILE_SIZE)
    return whole


def test_sizes_halve_down_to_one_pixel() -> None:
    assert level_sizes(1, 1) == [(1, 1)]
    assert level_sizes(5, 3) == [(1, 1), (2, 1), (3, 2), (5, 3)]
    assert level_sizes(1024, 1) == [(2**n, 1) for n in range(11)]
    assert len(level_sizes(32769, 5)) == 17


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (509, 300), (254, 255), (30, 1000)])
@pytest.mark.parametrize("rows", [1, 97, 2000])
def test_a_pyramid_is_the_picture_and_its_means(
    channels: int, width: int, height: int, rows: int
) -> None:
    rng = np.random.default_rng(channels)
    pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    tiles = tiles_of(pixels, rows)
    sizes = level_sizes(width, height)
    assert {key[0] for key in tiles} == set(range(len(sizes)))
    expected = pixels.astype(np.uint16) * 256
    for level in reversed(range(len(sizes))):
        whole = joined(tiles, level, sizes[level])
        assert np.array_equal(whole, (expected + 128) // 256)
        expected = halve(expected)


def test_a_mean_is_of_the_pixels_that_there_are() -> None:
    pixels = np.array([[[0], [4], [10]], [[8], [16], [20]], [[3], [5], [7]]], np.uint16)
    assert halve(pixels)[..., 0].tolist() == [[7, 15], [4, 7]]


def test_transparent_pixels_lend_no_colour() -> None:
    pixels = np.zeros((2, 2, 4), np.uint16)
    pixels[0, 0] = [1000, 2000, 3000, 400]
    pixels[1, 1] = [9000, 9000, 9000, 0]
    assert halve(pixels)[0, 0].tolist() == [1000, 2000, 3000, 100]


def test_the_means_do_not_drift() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 1), dtype=np.uint8)
    tip = tiles_of(noise, 64)[0, 0, 0]
    assert abs(int(tip[0, 0, 0]) - float(noise.mean())) <= 0.6  # 0.5 of rounding, once


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ngp_warp.Run]:
    """A run of a picture of 1, 3 and 4 channels, wider than a tile."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        channels: ngp_warp.fit_image(
            write_picture(folder / f"{channels}.png", smooth(channels, width=300, height=40)),
            steps=30,
            out=folder / str(channels),
            device="cpu",
            **settings(),
        )
        for channels in (1, 3, 4)
    }


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_exported_pyramid_is_the_decoded_picture(
    channels: int, runs: dict[int, ngp_warp.Run], tmp_path: Path
) -> None:
    page = EXPORTERS["dzi"](runs[channels], tmp_path / "dzi")["output"]
    root = ET.parse(page.with_name("image.dzi")).getroot()
    size = root[0].attrib
    assert (size["Width"], size["Height"]) == ("300", "40")
    suffix = root.attrib["Format"]
    assert suffix == ("png" if channels == 4 else "jpg")
    tiles = {}
    for path in (page.parent / "image_files").glob(f"*/*.{suffix}"):
        column, row = map(int, path.stem.split("_"))
        tile = np.asarray(Image.open(path))
        tiles[int(path.parent.name), column, row] = tile.reshape(*tile.shape[:2], channels)
    sizes = level_sizes(300, 40)
    assert len(tiles) == len(sizes) + 1  # two tiles in the largest level, one in the others
    whole = load_image(runs[channels].render(tmp_path / "whole.png")).pixels
    error = np.zeros(whole.shape)
    for (level, column, row), tile in tiles.items():
        if level == len(sizes) - 1:
            left, top = max(column * TILE_SIZE - 1, 0), max(row * TILE_SIZE - 1, 0)
            part = (slice(top, top + tile.shape[0]), slice(left, left + tile.shape[1]))
            error[part] = np.abs(tile.astype(int) - whole[part])
    # PNG is exact; JPEG of quality 90 errs by a few steps of 255, more at edges
    assert error.max() <= (0 if channels == 4 else 32)
    assert error.mean() <= (0 if channels == 4 else 3)


def test_the_page_stands_alone(runs: dict[int, ngp_warp.Run], tmp_path: Path) -> None:
    page = EXPORTERS["dzi"](runs[3], tmp_path / "dzi")["output"]
    text = page.read_text()
    (script,) = re.findall(r'src="([^"]+)"', text)
    assert (page.parent / script).stat().st_size > 100_000
    assert "Redistributions" in (page.parent / "openseadragon-LICENSE.txt").read_text()
    source = json.loads(re.findall(r"tileSources: (.*)$", text, flags=re.MULTILINE)[0])["Image"]
    assert (page.parent / source["Url"] / "0" / f"0_0.{source['Format']}").is_file()
    assert "http" not in text.replace(source["xmlns"], "")
    assert (source["TileSize"], source["Overlap"]) == (TILE_SIZE, OVERLAP)


def test_every_format_reads_back(
    runs: dict[int, ngp_warp.Run], capfd: pytest.CaptureFixture[str]
) -> None:
    for name in sorted(set(EXPORTERS) - {"dzi", "compact"}):
        assert app.main(["export", str(runs[3].path), "--format", name, "--json"]) == 0
        output = json.loads(capfd.readouterr().out)["output"]
        assert output == str(runs[3].path / "exports" / f"image.{name}")
        pixels = load_image(output).pixels
        assert pixels.shape == (40, 300, 3)
        scale = 1.0 if pixels.dtype == np.float32 else 255.0
        value = runs[3].query((np.array([[150, 20]]) + 0.5) / [300, 40])[0]
        assert np.allclose(pixels[20, 150] / scale, np.clip(value, 0, 1), atol=0.02)


def test_a_pyramid_is_replaced_whole_and_nothing_else(
    runs: dict[int, ngp_warp.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = EXPORTERS["dzi"](runs[3], tmp_path / "dzi")["output"]
    (page.parent / "old").write_text("")
    EXPORTERS["dzi"](runs[3], tmp_path / "dzi")
    assert not (page.parent / "old").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(ResourceError, match="something else"):
        EXPORTERS["dzi"](runs[3], other)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(Pyramid, "add", full)
    with pytest.raises(ResourceError, match="No space left"):
        EXPORTERS["dzi"](runs[3], tmp_path / "dzi")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "a", "x") as folder:
            (folder / "x").write_text("")
            assert not (tmp_path / "a").exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
