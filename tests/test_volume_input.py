"""Laws of what a user can get wrong with volumes: one line, status 2, nothing half-written."""

import gzip
import shutil
import struct
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import volume_samples as samples
from volume_runs import SMALL_FLAGS, VolumeRuns, fog, level_set, make_quick, scan, vectors

import ngp_warp
from ngp_warp import memory
from ngp_warp.cli import app
from ngp_warp.primitives.volume.writers import save_volume

Check = Callable[..., str]
Usage = namedtuple("Usage", "total used free")
FLAGS = ["--steps", "3", *SMALL_FLAGS, "--out", "run"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


def cut(suffix: str, share: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        made = scan() if suffix == ".nii.gz" else fog()
        whole = path.with_name(f"whole{suffix}")
        save_volume(whole, made)
        content = whole.read_bytes()
        whole.unlink()
        path.write_bytes(content[: int(len(content) * share)])

    return write


def array(values: Any) -> Callable[[Path], None]:
    return lambda path: np.save(path.with_suffix(".npy"), values)


def saved(volume: Any) -> Callable[[Path], None]:
    return lambda path: save_volume(path, volume) and None


def several(path: Path) -> None:
    leaves = {0: samples.leaf(np.random.default_rng(0))}
    grids = [samples.Grid(leaves=leaves, form=0, name=n) for n in ("smoke", "heat")]
    path.write_bytes(samples.vdb(*grids))


def raw(path: Path) -> None:
    path.write_bytes(bytes(range(60)))


def text(path: Path) -> None:
    path.write_text("Dear volume,\n" * 40)


RADIANCE = ["--mode", "radiance"]
BAD: list[tuple[str, Callable[[Path], None] | None, list[str], str]] = [
    *((f"cut{int(10 * s)}.nvdb", cut(".nvdb", s), [], "cut") for s in (0.01, 0.3, 0.9)),
    *((f"cut{int(10 * s)}.vdb", cut(".vdb", s), [], "cut") for s in (0.01, 0.3, 0.9)),
    *((f"cut{int(10 * s)}.nii.gz", cut(".nii.gz", s), [], "is it whole") for s in (0.3, 0.9)),
    ("a.raw", raw, ["--shape", "3,4,6", "--dtype", "uint8"], "it has 60 bytes"),
    ("a.raw", raw, ["--shape", "3,4,5", "--dtype", "int16"], "120"),
    ("a.raw", raw, [], "--shape"),
    ("a.raw", raw, ["--shape", "3,4,5"], "needs shape and dtype"),
    ("a.raw", raw, ["--dtype", "uint8"], "needs shape and dtype"),
    ("a.raw", raw, ["--big-endian"], "needs shape and dtype"),
    ("a.raw", raw, ["--shape", "3,4", "--dtype", "uint8"], "shape must be"),
    ("a.raw", raw, ["--shape", "3,4,x", "--dtype", "uint8"], "shape must be"),
    ("a.raw", raw, ["--shape", "3,4,0", "--dtype", "uint8"], "shape"),
    ("a.raw", raw, ["--shape", "3,4,5", "--dtype", "complex64"], "dtype"),
    ("fog.nvdb", saved(fog()), ["--shape", "3,4,5", "--dtype", "uint8"], "nvdb"),
    ("two.vdb", several, [], "smoke (float32, fog), heat (float32, fog)"),
    ("two.vdb", several, ["--grid", "fire"], "no grid 'fire'; it has smoke"),
    ("one.nvdb", saved(fog()), ["--grid", "fire"], "it has density"),
    ("none.vdb", lambda path: path.write_bytes(samples.vdb(samples.Grid())) and None, [], "empty"),
    ("zeros.npy", array(np.zeros((3, 4, 5))), [], "every value is 0"),
    ("nans.npy", array(np.full((3, 4, 5), np.nan)), [], "none of its voxels is active and finite"),
    ("size0.npy", array(np.ones((3, 0, 5))), [], "no voxels"),
    ("flat.npy", array(np.ones((3, 4))), [], "[3, 4]"),
    ("complex.npy", array(np.ones((3, 4, 5), complex)), [], "complex"),
    (
        "ball.nvdb",
        saved(level_set()),
        RADIANCE,
        "signed distances, which are no densities; fit them with --mode density",
    ),
    ("wind.vdb", saved(vectors()), RADIANCE, "vectors; fit them with --mode density"),
    ("dark.npy", array(np.full((3, 4, 5), -1.0)), RADIANCE, "above 0"),
    ("fog.nvdb", saved(fog()), ["--sun", "noon"], "sun must be AZIMUTH,ELEVATION"),
    ("fog.nvdb", saved(fog()), ["--sun", "1,2,3"], "sun must be AZIMUTH,ELEVATION"),
    ("fog.nvdb", saved(fog()), ["--sun", "0,91"], "sun_elevation must be from -90 to 90"),
    ("fog.nvdb", saved(fog()), ["--sun", "nan,1"], "sun_azimuth"),
    ("fog.nvdb", saved(fog()), ["--density-scale", "0"], "density_scale must be"),
    ("fog.nvdb", saved(fog()), ["--density-scale", "inf"], "density_scale must be"),
    ("fog.nvdb", saved(fog()), ["--albedo", "2"], "albedo must be from 0 to 1"),
    ("fog.nvdb", saved(fog()), ["--albedo", "nan"], "albedo must be from 0 to 1"),
    ("fog.nvdb", saved(fog()), ["--mode", "light"], "mode"),
    ("fog.nvdb", saved(fog()), ["--up", "w"], "up"),
    ("fog.nvdb", saved(fog()), ["--target", "cubic"], "target"),
    ("fog.nvdb", saved(fog()), ["--occupied-share", "1.5"], "occupied_share must be"),
    ("fog.nvdb", saved(fog()), ["--loss", "l3"], "loss"),
    ("missing.nvdb", None, [], "no such file"),
    ("folder.vdb", Path.mkdir, [], "folder"),
    ("text.nvdb", text, [], "format"),
    ("empty.vdb", Path.touch, [], "empty"),
]


@pytest.mark.parametrize(
    ("name", "write", "flags", "words"), BAD, ids=[f"{b[0]} {' '.join(b[2])}" for b in BAD]
)
def test_what_cannot_be_fitted_is_refused(
    name: str, write: Any, flags: list[str], words: str, tmp_path: Path, refused: Check
) -> None:
    if write:
        write(tmp_path / name)
    line = refused("fit-volume", name, *FLAGS, *flags)
    assert words in line
    if not flags:
        assert name in line


def test_whole_files_are_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same flags and files, but for what is wrong with them."""
    monkeypatch.chdir(tmp_path)
    raw(Path("a.raw"))
    several(Path("two.vdb"))
    save_volume("fog.nvdb", fog())
    np.save("int.npy", np.arange(1, 61, dtype=np.int16).reshape(3, 4, 5))
    cases = [
        ["a.raw", "--shape", "3,4,5", "--dtype", "uint8"],
        ["two.vdb", "--grid", "heat"],
        ["fog.nvdb", "--sun", "none"],
        ["fog.nvdb", "--sun", "-20,-90"],
        ["int.npy", *RADIANCE],
        ["fog.nvdb", "--albedo", "0", *RADIANCE],
    ]
    for number, case in enumerate(cases):
        args = ["fit-volume", *case, *FLAGS[:-1], f"run{number}", "--quiet"]
        assert app.main(args) == 0, case
    assert ngp_warp.open_run("run1").header["data"]["grid"] == "heat"


def test_the_line_names_the_grids(tmp_path: Path, refused: Check) -> None:
    several(tmp_path / "two.vdb")
    line = refused("fit-volume", "two.vdb", *FLAGS)
    assert "choose one by its name (--grid NAME): smoke (float32, fog), heat (float32, fog)" in line


def test_checksums_are_no_volumes(tmp_path: Path, refused: Check) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(struct.pack("<100f", *range(100))))
    refused("fit-volume", "a.nii.gz", *FLAGS)


def test_too_little_memory_is_refused(
    tmp_path: Path, refused: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_volume(tmp_path / "fog.nvdb", fog())
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 17)
    for flags in ([], RADIANCE):
        line = refused("fit-volume", "fog.nvdb", *FLAGS, *flags)
        assert "131.1 kB" in line


def test_a_full_disk_is_noticed_before_training(small_disk: Path, refused: Check) -> None:
    save_volume(small_disk.parent / "fog.nvdb", fog())
    (small_disk / "filler").write_bytes(bytes(40 << 10))
    for flags in ([], RADIANCE):
        line = refused("fit-volume", "fog.nvdb", *FLAGS, *flags, "--out", "disk/run")
        assert "free" in line


def test_a_disk_that_fills_up_is_refused(
    small_disk: Path, refused: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_volume(small_disk.parent / "fog.nvdb", fog())
    (small_disk / "filler").write_bytes(bytes(56 << 10))
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(1 << 40, 0, 1 << 40))
    for flags in ([], RADIANCE):
        refused("fit-volume", "fog.nvdb", *FLAGS, *flags, "--out", "disk/run")


@pytest.mark.parametrize("name", ["nvdb", "vdb", "npy", "npz", "nii", "ply", "glb"])
def test_an_export_to_a_full_disk_leaves_nothing(
    name: str, volume_runs: VolumeRuns, small_disk: Path, refused: Check
) -> None:
    shutil.copytree(volume_runs.run("fog").path, small_disk.parent / "run")
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(free - 4096))
    refused("export", "run", "-f", name, "-o", f"disk/a.{name}")


@pytest.mark.parametrize("name", ["a.png", "a.exr", "a.mp4"])
def test_a_picture_to_a_full_disk_leaves_nothing(
    name: str, volume_runs: VolumeRuns, small_disk: Path, refused: Check
) -> None:
    shutil.copytree(volume_runs.run("fog").path, small_disk.parent / "run")
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    flags = ["--frames", "2"] if name.endswith("mp4") else []
    refused("render", "run", "-o", f"disk/{name}", "--width", "32", "--spp", "1", *flags)


def test_exports_and_pictures_that_cannot_be_are_refused(
    volume_runs: VolumeRuns, tmp_path: Path, refused: Check
) -> None:
    shutil.copytree(volume_runs.run("fog").path, tmp_path / "run")
    for flags in (
        ["-f", "dzi"],
        ["-f", "nvdb", "--level", "1"],
        ["-f", "obj", "--threshold", "1"],
        ["-f", "nvdb", "--threshold", "-1"],
        ["-f", "nvdb", "--threshold", "99"],
        ["-f", "obj", "--level", "99"],
        ["-f", "obj", "--faces", "2"],
        ["-f", "nii", "-o", "a.npy"],
        ["-f", "compact"],
    ):
        refused("export", "run", *flags)
    for flags in (["--show", "x"], ["--sun", "noon"], ["--albedo", "2"], ["--density-scale", "0"]):
        refused("render", "run", "-o", "a.png", *flags)
    refused("view", "run", "--screenshot", "a.png")
    assert "no run" in refused("render", "none", "-o", "a.png")
