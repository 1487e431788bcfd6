"""Laws of a volume's pictures: what can be shown has the size asked for, all else is one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from volume_runs import fit, fog

import ngp_warp
from ngp_warp.cli import app
from ngp_warp.errors import ConfigError, DataError, NgpError, ResourceError
from ngp_warp.primitive import Progress

SHOWS = ("shaded", "reference", "surface", "mip", "transfer", "slices")
KINDS = [("fog", "density"), ("level_set", "density"), ("scan", "density"), ("vectors", "density"),
         ("fog", "radiance"), ("scan", "radiance")]  # fmt: skip
NO_LIGHT = ("level_set", "vectors")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(("kind", "mode"), KINDS)
@pytest.mark.parametrize("show", SHOWS)
def test_everything_is_shown_or_refused(
    show: str, kind: str, mode: str, volume_runs: Any, tmp_path: Path
) -> None:
    run, path = volume_runs.run(kind, mode), tmp_path / "a.png"
    if show in ("shaded", "reference") and kind in NO_LIGHT:
        with pytest.raises(ConfigError, match="scatter no light: give --show") as caught:
            run.render(path, show=show, width=24)
        assert "\n" not in str(caught.value)
        assert not path.exists()
        return
    if show == "slices":
        run.render(path, show=show, width=64)
        picture = pixels(path)
    else:
        run.render(path, show=show, width=40, height=24, spp=4)
        picture = pixels(path)
        assert picture.shape == (24, 40, 3)
        # without a height it is as high as wide
        run.render(tmp_path / "b.png", show=show, width=24, spp=1)
        assert pixels(tmp_path / "b.png").shape == (24, 24, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 3


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_by_itself_it_shows_what_shows_most(
    kind: str, mode: str, volume_runs: Any, tmp_path: Path
) -> None:
    run = volume_runs.run(kind, mode)
    usual = {"level_set": "surface", "scan": "transfer", "vectors": "mip"}
    show = "shaded" if mode == "radiance" else usual.get(kind, "shaded")
    run.render(tmp_path / "a.png", width=24)
    run.render(tmp_path / "b.png", width=24, show=show)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_learned_light_is_like_the_reference(volume_runs: Any, tmp_path: Path) -> None:
    run = volume_runs.run("fog", "radiance")
    found = {
        show: pixels(run.render(tmp_path / f"{show}.png", show=show, width=32, spp=64))
        for show in ("shaded", "reference")
    }
    difference = found["shaded"].astype(float) - found["reference"]
    assert 0 < np.abs(difference).mean() < 12
    turned = run.render(
        tmp_path / "t.png", show="reference", width=32, spp=64, camera="orbit:210,-40,1.8"
    )
    assert np.abs(pixels(turned) - found["reference"].astype(float)).mean() > 12


@pytest.mark.parametrize("mode", ["density", "radiance"])
def test_exr_holds_the_linear_light(mode: str, volume_runs: Any, tmp_path: Path) -> None:
    import OpenEXR

    from ngp_warp.primitives.pictures import linear_to_srgb

    run = volume_runs.run("fog", mode)
    shown: dict[str, Any] = {"width": 32, "height": 20, "spp": 8}
    for exposure in (1.0, 0.5):
        run.render(tmp_path / "a.exr", exposure=exposure, **shown)
        run.render(tmp_path / "a.png", exposure=exposure, **shown)
        with OpenEXR.File(str(tmp_path / "a.exr"), separate_channels=True) as file:
            channels = {name: c.pixels.copy() for name, c in file.channels().items()}
        assert channels.keys() == {"R", "G", "B"}
        light = np.stack([channels[c] for c in "RGB"], axis=-1)
        assert light.shape == (20, 32, 3)
        display = np.rint(np.clip(linear_to_srgb(light), 0, 1) * 255)
        assert np.array_equal(display.astype(np.uint8), pixels(tmp_path / "a.png"))
        assert light.std() > 0.01
    run.render(tmp_path / "t.exr", background="transparent", **shown)
    with OpenEXR.File(str(tmp_path / "t.exr"), separate_channels=True) as file:
        channels = {name: c.pixels.copy() for name, c in file.channels().items()}
    assert channels.keys() == {"R", "G", "B", "A"}
    empty = channels["A"] == 0
    assert empty.any()
    assert channels["A"].max() > 0.5
    assert not channels["R"][empty].any()  # premultiplied


@pytest.mark.parametrize(
    ("kind", "mode", "show"),
    [
        ("fog", "density", "shaded"),
        ("fog", "radiance", "shaded"),
        ("fog", "radiance", "reference"),
        ("scan", "density", "transfer"),
        ("level_set", "density", "surface"),
    ],
)
def test_a_transparent_picture_has_its_opacity(
    kind: str, mode: str, show: str, volume_runs: Any, tmp_path: Path
) -> None:
    run = volume_runs.run(kind, mode)
    picture = pixels(
        run.render(tmp_path / "a.png", show=show, width=32, background="transparent", spp=8)
    )
    assert picture.shape == (32, 32, 4)
    assert picture[..., 3].min() == 0
    assert picture[..., 3].max() > 128
    black = pixels(run.render(tmp_path / "b.png", show=show, width=32, background="black", spp=8))
    empty = picture[..., 3] == 0
    assert black.shape == (32, 32, 3)
    # an opacity that rounds to 0 leaves 1 / 510 of the light: 6 of 255 in sRGB
    assert black[empty].max() <= 6
    assert black[~empty].max() > 60


@pytest.mark.parametrize("mode", ["density", "radiance"])
@pytest.mark.parametrize("suffix", ["png", "exr"])
def test_a_progressive_picture_is_whole_whenever_it_is_looked_at(
    suffix: str, mode: str, volume_runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ngp_warp.primitives.volume import painters

    monkeypatch.setattr(painters, "_SECONDS_BETWEEN", 0.0)
    run, path, seen = volume_runs.run("fog", mode), tmp_path / f"a.{suffix}", []

    def look(progress: Progress) -> None:
        assert [p.name for p in tmp_path.iterdir()] in ([], [path.name])
        if progress.stage == "write" and path.exists():
            seen.append(path.read_bytes())
            if suffix == "png":
                assert pixels(path).shape == (24, 24, 3)

    run.render(path, width=24, spp=18, progressive=True, progress=look)
    assert len(seen) >= 3
    assert len(set(seen)) == len(seen)  # better each time
    whole = run.render(tmp_path / f"b.{suffix}", width=24, spp=18)
    # samples in parts are those of one go
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("kind", "mode", "show"),
    [
        ("fog", "density", "shaded"),
        ("fog", "radiance", "shaded"),
        ("scan", "density", "mip"),
        ("vectors", "density", "transfer"),
        ("level_set", "density", "surface"),
    ],
)
def test_a_film_turns(kind: str, mode: str, show: str, volume_runs: Any, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "turn.mp4"
    volume_runs.run(kind, mode).render(path, show=show, width=48, height=32, frames=3, spp=2)
    with av.open(str(path)) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 3
    assert frames[0].shape == (32, 48, 3)
    if kind in ("fog", "vectors"):  # of the others all sides are alike
        assert np.abs(frames[0].astype(int) - frames[1]).mean() > 0.5


def test_a_film_along_a_path(volume_runs: Any, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    run, path = volume_runs.run("fog"), tmp_path / "a.mp4"
    side = 6.0 * np.array([[1, 0, 0], [0, 0.3, 1]])
    middle = np.array([1.1, 3.9, 3.7])  # of the fog, in its world
    frames = [{"position": (middle + s).tolist(), "look_at": middle.tolist()} for s in side]
    values = {"fps": 10, "seconds": 0.3, "keyframes": frames}
    (tmp_path / "path.json").write_text(json.dumps(values))
    run.render(path, camera_path=tmp_path / "path.json", width=32, spp=2, background="black")
    with av.open(str(path)) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(pictures) == 3
    for picture in pictures:  # it looks at the fog from all its places
        assert picture[12:20, 12:20].mean() > picture[:2].mean() + 20


@pytest.mark.parametrize(
    ("kind", "mode", "options", "match"),
    [
        ("fog", "density", {"show": "x-ray"}, "--show must be one of shaded"),
        ("fog", "density", {"show": "mip", "sun": "none"}, "--sun is not for"),
        ("fog", "density", {"show": "mip", "level": 0.5}, "--level is not for"),
        ("fog", "density", {"show": "mip", "background": "black"}, "--background is not for"),
        ("fog", "density", {"show": "shaded", "window": (0, 1)}, "--window is not for"),
        ("fog", "density", {"show": "surface", "exposure": 2.0}, "--exposure is not for"),
        ("fog", "density", {"show": "surface", "progressive": True}, "--progressive is not for"),
        ("fog", "density", {"show": "transfer", "albedo": 0.5}, "--albedo is not for"),
        ("fog", "density", {"show": "slices", "camera": "orbit:0,0,2"}, "--camera is not for"),
        ("fog", "density", {"show": "slices", "height": 30}, "--height is not for"),
        ("fog", "density", {"show": "slices", "spp": 3}, "--spp is not for"),
        ("fog", "density", {"frames": 3}, "--frames is not for a picture"),
        ("fog", "density", {"fps": 3.0}, "--fps is not for a picture"),
        ("fog", "density", {"camera_path": "a.json"}, "--camera-path is not for a picture"),
        ("fog", "density", {"crop": (0, 0, 1, 1)}, "--crop is not for a fitted volume"),
        ("fog", "density", {"scale": 2.0}, "--scale is not for a fitted volume"),
        ("fog", "radiance", {"sun": "none"}, "--sun is not for .* learned light"),
        ("fog", "radiance", {"albedo": 0.5}, "--albedo is not for .* learned light"),
        ("fog", "radiance", {"density_scale": 2.0}, "--density-scale is not for .* learned light"),
        ("fog", "radiance", {"show": "reference", "sun": "none"}, "--sun is not for"),
        ("fog", "density", {"sun": "noon"}, "sun must be AZIMUTH,ELEVATION"),
        ("fog", "density", {"sun": "0,91"}, "elevation"),
        ("fog", "density", {"albedo": 2.0}, "albedo must be from 0 to 1"),
        ("fog", "density", {"density_scale": 0.0}, "density_scale must be"),
        ("fog", "density", {"exposure": 0.0}, "exposure must be"),
        ("fog", "density", {"spp": 0}, "spp must be"),
        ("fog", "density", {"background": "white"}, "--background must be one of black, sky"),
        ("fog", "density", {"show": "surface", "background": "sky"}, "--background must be one"),
        ("fog", "density", {"camera": "front"}, "orbit:"),
        ("fog", "density", {"up": "w"}, "up"),
        ("fog", "density", {"show": "slices", "at": (100.0, 0.0, 0.0)}, "slice's x must be"),
        ("fog", "density", {"show": "slices", "window": (1.0, 0.0)}, "window"),
        ("fog", "density", {"show": "mip", "window": (1.0, 1.0)}, "window"),
        ("fog", "density", {"show": "mip", "window": (float("nan"), 1.0)}, "window"),
        ("fog", "density", {"show": "surface", "level": float("nan")}, "level must be"),
        ("fog", "density", {"show": "surface", "level": 50.0}, "no surface at level 50"),
        ("fog", "density", {"show": "transfer", "transfer": "rainbow"}, "must be one of"),
        ("fog", "density", {"show": "transfer", "transfer": "none.json"}, "none.json"),
        ("fog", "density", {"width": 0}, "pixels"),
        ("fog", "density", {"show": "slices", "width": 3}, "size"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_nothing_or_cannot_be_is_refused(
    kind: str, mode: str, options: Any, match: str, volume_runs: Any, tmp_path: Path
) -> None:
    with pytest.raises(NgpError, match=match) as caught:
        volume_runs.run(kind, mode).render(tmp_path / "a.png", **{"width": 16, **options})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("a.tiff", {}, r"\.png"),
        ("a", {}, r"\.png"),
        ("a.exr", {"show": "mip"}, r"\.png"),
        ("a.exr", {"show": "slices"}, r"\.png"),
        ("a.mp4", {"show": "slices"}, "not a film"),
        ("a.mp4", {"background": "transparent"}, "--background must be one of black, sky"),
        ("a.mp4", {"progressive": True}, "--progressive is not for a film"),
        ("a.mp4", {"fps": 0.0}, "fps"),
        ("a.mp4", {"frames": 0}, "at least 1 frame"),
        ("a.mp4", {"camera_path": "a.json", "frames": 3}, "--frames is not for"),
        ("a.mp4", {"camera_path": "none.json"}, "none.json"),
        ("none/a.png", {}, "does not exist"),
        ("none/a.mp4", {"frames": 2}, "does not exist"),
    ],
    ids=str,
)
def test_outputs_that_cannot_be_are_refused(
    name: str, options: Any, match: str, volume_runs: Any, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, DataError, ResourceError), match=match) as caught:
        volume_runs.run("fog").render(tmp_path / name, **{"width": 16, **options})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "mode", "changes"),
    [
        ("fog", "density", {"up": "z"}),
        ("fog", "density", {"camera": "orbit:200,-10,1.8"}),
        ("fog", "density", {"sun": "230,10"}),
        ("fog", "density", {"albedo": 0.1}),
        ("fog", "density", {"density_scale": 1.0}),
        ("fog", "density", {"exposure": 0.3}),
        ("fog", "density", {"background": "black"}),
        ("fog", "radiance", {"up": "z"}),
        ("fog", "radiance", {"camera": "orbit:200,-10,1.8"}),
        ("scan", "density", {"transfer": "fire"}),
        ("scan", "density", {"up": "x"}),
        ("scan", "density", {"background": "black"}),
        ("scan", "density", {"show": "mip", "window": (50.0, 60.0)}),
        ("scan", "density", {"show": "slices", "window": (50.0, 60.0)}),
        ("scan", "density", {"show": "slices", "at": (2.0, 5.0, 9.0)}),
        ("scan", "density", {"show": "slices", "up": "x"}),
        ("scan", "density", {"show": "surface", "level": 40.0}),
        ("level_set", "density", {"level": 0.5}),
    ],
    ids=str,
)  # fmt: skip
def test_every_option_counts(
    kind: str, mode: str, changes: Any, volume_runs: Any, tmp_path: Path
) -> None:
    run, base = volume_runs.run(kind, mode), {"width": 48}
    if "show" in changes:
        base["show"] = changes["show"]
    usual = pixels(run.render(tmp_path / "a.png", **base))
    other = pixels(run.render(tmp_path / "b.png", **{**base, **changes}))
    if usual.shape == other.shape:
        assert np.abs(usual.astype(int) - other).mean() > 0.3


def test_a_transfer_function_from_a_file(volume_runs: Any, tmp_path: Path) -> None:
    points = [[0, 0, 0, 0, 0], [255, 1, 0, 0, 1]]
    (tmp_path / "red.json").write_text(json.dumps({"points": points}))
    run = volume_runs.run("scan")
    path = run.render(
        tmp_path / "a.png", transfer=str(tmp_path / "red.json"), width=24, background="black"
    )
    red, green, blue = pixels(path).reshape(-1, 3).T.astype(int)
    assert red.max() > 100
    # highlights are white
    assert np.all(green <= red)
    assert np.all(blue <= red)
    assert red.sum() > 3 * green.sum()


@pytest.mark.parametrize("mode", ["density", "radiance"])
def test_the_reference_needs_the_original(mode: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", fog().values)
    run = fit(tmp_path / "a.npy", mode=mode, steps=2, out=tmp_path / "run")
    (tmp_path / "a.npy").unlink()
    run = ngp_warp.open_run(run.path, device="cpu")
    with pytest.raises(DataError, match=r"a\.npy") as caught:
        run.render(tmp_path / "no.png", show="reference", width=16)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "no.png").exists()
    run.render(tmp_path / "still.png", show="shaded", width=16, spp=1)


def test_numbers_with_commas_on_the_command_line(
    volume_runs: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, path = volume_runs.run("scan"), tmp_path / "a.png"
    command = ["render", str(run.path), "--quiet", "--device", "cpu", "--width", "32"]
    good = ["--show", "slices", "--window", "20,200.5", "--at", "3,4,5"]
    assert app.main([*command, "-o", str(path), *good]) == 0
    wanted = run.render(
        tmp_path / "b.png", show="slices", window=(20, 200.5), at=(3, 4, 5), width=32
    )
    assert path.read_bytes() == wanted.read_bytes()
    path.unlink()
    capfd.readouterr()
    for flags in (
        ["--window", "1"],
        ["--window", "1,2,3"],
        ["--window", "a,b"],
        ["--window", "2,1"],
        ["--window", "nan,1"],
        ["--at", "1,2"],
        ["--at", "1,2,x"],
        ["--at", "1,2,nan"],
        ["--at", "1,2,99"],
    ):
        assert app.main([*command, "-o", str(path), "--show", "slices", *flags]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("ngp: error: ")
        assert err.count("\n") == 1
        assert not path.exists()
    # negative indices are the fog's own
    fog_run = ["render", str(volume_runs.run("fog").path), "--quiet", "--device", "cpu"]
    assert app.main([*fog_run, "-o", str(path), "--show", "slices", "--at", "-3,6,0"]) == 0
