"""Laws of a volume's exports: the original's place, its types, and values within what was told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warp as wp
from volume_runs import CENTRE, RADIUS, SHEARED, VOXEL, fit, scan

import ngp_warp
from ngp_warp.errors import ConfigError, DataError, NgpError, ResourceError
from ngp_warp.primitives.volume.data import load_volume
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.subject import BAND_THRESHOLD, FLOAT_THRESHOLD

SPARSE, DENSE, MESHES = ("nvdb", "vdb"), ("npy", "npz", "nii"), ("obj", "ply", "glb", "stl")
SCALARS = ("fog", "level_set", "mirrored", "scan")


def like(found: Volume, true: Volume) -> np.ndarray:
    """Return what was found in the true one's box, of the background where it has nothing."""
    background = found.background if found.n_channels > 1 else found.background[0]
    result = np.full(true.values.shape, 0, np.float64) + background
    low = np.array(found.first) - true.first
    assert np.all(low >= 0)
    box = tuple(slice(a, a + n) for a, n in zip(low, found.values.shape, strict=False))
    assert result[box].shape == found.values.shape
    result[box] = found.values
    return result


def export(run: ngp_warp.Run, name: str, folder: Path, **options: Any) -> tuple[Any, Volume]:
    made = run.export(name, folder / f"a.{name}", **options)
    assert made["bytes"] == made["output"].stat().st_size
    return made, load_volume(made["output"])


@pytest.mark.parametrize("kind", [*SCALARS, "vectors"])
@pytest.mark.parametrize("name", SPARSE)
def test_sparse_files_keep_place_background_and_values(
    name: str, kind: str, volume_runs: Any, tmp_path: Path
) -> None:
    run = volume_runs.run(kind)
    true = load_volume(run.source)
    made, found = export(run, name, tmp_path)
    np.testing.assert_array_equal(found.to_world, true.to_world)
    assert tuple(made["voxel_size"]) == found.voxel_size == true.voxel_size
    assert (found.background, found.name) == (true.background, true.name)
    assert found.grid_class == true.grid_class
    assert made["n_voxels"] == found.n_active > 0
    values = like(found, true)
    if kind in ("level_set", "mirrored"):
        width = abs(true.background[0])
        band = np.abs(true.values) < width * 0.8
        assert np.abs(values - true.values)[band].max() <= run.metrics["max_error"] * 1.00001
        assert np.array_equal(np.sign(values), np.sign(true.values)) or (
            np.abs(true.values[np.sign(values) != np.sign(true.values)]).max()
            <= run.metrics["max_error"]
        )
        inside = true.values < -0.9 * width
        assert inside.any()
        assert values[inside].max() < -0.7 * width
        assert np.abs(values).max() <= width
        return
    assert made["threshold"] > 0
    limit = run.metrics["max_error"] + made["threshold"]
    assert np.abs(values - true.values).max() <= limit * 1.00001
    # proof: a voxel aside the values are others
    assert np.abs(values - np.roll(true.values, 1, axis=0)).max() > 2 * limit


@pytest.mark.parametrize("kind", [*SCALARS, "vectors"])
@pytest.mark.parametrize("name", DENSE)
def test_dense_files_keep_place_type_and_values(
    name: str, kind: str, volume_runs: Any, tmp_path: Path
) -> None:
    run = volume_runs.run(kind)
    true = load_volume(run.source)
    made, found = export(run, name, tmp_path)
    assert found.values.shape == true.values.shape
    assert np.abs(found.values - true.values).max() <= run.metrics["max_error"] * 1.00001
    assert found.dtype == ("uint8" if kind == "scan" else "float32")
    assert tuple(made["voxel_size"]) == true.voxel_size
    if name == "npy":
        beside = json.loads((tmp_path / "a.npy.json").read_text())
        assert np.array_equal(beside["to_world"], true.to_world)
        assert beside["first"] == list(true.first)
        return
    if name == "npz":
        assert (found.first, found.background) == (true.first, true.background)
        np.testing.assert_array_equal(found.to_world, true.to_world)
    else:
        moved = true.to_world.copy()
        moved[:3, 3] += moved[:3, :3] @ true.first
        np.testing.assert_array_equal(found.to_world, moved)
        assert made["output"].suffix == ".nii"
    assert found.voxel_size == true.voxel_size


def test_the_density_of_learned_light_is_exported(volume_runs: Any, tmp_path: Path) -> None:
    for kind in ("fog", "scan"):
        run = volume_runs.run(kind, "radiance")
        true = load_volume(run.source)
        for name in (*SPARSE, "npz"):
            _, found = export(run, name, tmp_path)
            np.testing.assert_array_equal(found.to_world, true.to_world)
            assert found.dtype == "float32"
            assert found.values.min() >= 0
            error = np.abs(like(found, true) - true.values).mean()
            assert error < 0.1 * np.ptp(true.values)


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        (scan().values > 100, "uint8"),
        (scan().values.astype(np.int64) - 7, "int16"),
        (scan().values.astype(np.uint64) * 1000, "int32"),
        (scan().values.astype(np.int64) * 10**12, "float32"),
        (scan().values.astype(np.uint16), "uint16"),
        (scan().values.astype(np.float64), "float32"),
    ],
    ids=["bool", "int64", "uint64", "large", "uint16", "float64"],
)
def test_types_that_are_not_written_become_others(
    values: np.ndarray, stored: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", values)
    run = fit(tmp_path / "a.npy", steps=60, out=tmp_path / "run")
    for name in DENSE:
        _, found = export(run, name, tmp_path / "run")
        assert found.dtype == stored
        error = np.abs(found.values - values.astype(np.float64)).max()
        assert error <= run.metrics["max_error"] * 1.00001


def test_scaled_integers_are_no_integers(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    image = nib.Nifti1Image(scan().values / 100 - 1, np.diag([1, 2, 3, 1.0]))
    image.set_data_dtype(np.uint8)  # with a slope of 0.01 or so
    nib.save(image, tmp_path / "a.nii")
    run = fit(tmp_path / "a.nii", steps=300, out=tmp_path / "run")
    assert run.metrics["psnr"] > 50
    assert run.metrics["dense_bytes"] == scan().values.size
    assert "voxels' values" in run.metrics["psnr_of"]
    for name in (*SPARSE, *DENSE):
        made, found = export(run, name, tmp_path / "run")
        true = load_volume(run.source)
        assert found.dtype == "float32"
        limit = run.metrics["max_error"] + made.get("threshold", 0)
        assert np.abs(like(found, true) - true.values).max() <= limit * 1.00001


@pytest.mark.parametrize("name", ["nii", "nii.gz"])
def test_both_endings_of_nifti(name: str, volume_runs: Any, tmp_path: Path) -> None:
    run = volume_runs.run("scan")
    made = run.export("nii", tmp_path / f"a.{name}")
    head = made["output"].read_bytes()[:2]
    assert (head == b"\x1f\x8b") == name.endswith("gz")
    default = volume_runs.run("scan").export("nii")["output"]
    assert default == run.path / "exports" / "volume.nii.gz"


@pytest.mark.parametrize("kind", ["fog", "scan", "vectors"])
@pytest.mark.parametrize("name", SPARSE)
def test_no_active_voxel_is_nearer_to_the_background_than_the_threshold(
    name: str, kind: str, volume_runs: Any, tmp_path: Path
) -> None:
    run = volume_runs.run(kind)
    span = 1 / run.header["data"]["gain"]
    counts = []
    for share in (0.0, 0.01, 0.1, 0.3):
        made, found = export(run, name, tmp_path, threshold=share * span)
        assert made["threshold"] == share * span
        difference = found.values - np.float32(found.background if kind == "vectors" else 0)
        size = np.linalg.norm(difference, axis=-1) if kind == "vectors" else np.abs(difference)
        active = np.ones(size.shape, bool) if found.active is None else found.active
        assert size[active].min() > share * span
        assert not difference[~active].any()
        counts.append(made["n_voxels"])
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


def test_thresholds_by_themselves(volume_runs: Any, tmp_path: Path) -> None:
    span = {k: 1 / volume_runs.run(k).header["data"]["gain"] for k in (*SCALARS, "vectors")}
    shares = {"fog": FLOAT_THRESHOLD, "level_set": BAND_THRESHOLD}
    for kind, share in shares.items():
        run = volume_runs.run(kind)
        made, _ = export(run, "nvdb", tmp_path)
        # what is written is within the error that was told
        wanted = min(share * span[kind], run.metrics["max_error"])
        assert made["threshold"] == pytest.approx(wanted)
    assert export(volume_runs.run("scan"), "nvdb", tmp_path)[0]["threshold"] == 0.5


@pytest.mark.parametrize("name", DENSE)
def test_a_threshold_cleans_dense_files(name: str, volume_runs: Any, tmp_path: Path) -> None:
    run = volume_runs.run("scan")
    _, whole = export(run, name, tmp_path)
    _, clean = export(run, name, tmp_path, threshold=100.0)
    kept = whole.values > 100
    assert np.array_equal(clean.values, np.where(kept, whole.values, 0))
    assert 0 < kept.sum() < kept.size


@pytest.mark.parametrize("name", [*SPARSE, *DENSE])
def test_thresholds_that_leave_nothing_or_are_none(
    name: str, volume_runs: Any, tmp_path: Path
) -> None:
    for threshold, kind in ((1e9, DataError), (-1.0, ConfigError), (float("nan"), ConfigError)):
        for run in (volume_runs.run("fog"), volume_runs.run("level_set")):
            with pytest.raises(kind, match="threshold"):
                run.export(name, tmp_path / f"a.{name}", threshold=threshold)
    assert not list(tmp_path.iterdir())


def test_a_level_set_is_a_band(volume_runs: Any, tmp_path: Path) -> None:
    made, found = export(volume_runs.run("level_set"), "vdb", tmp_path)
    width = found.background[0]
    assert width == 3 * VOXEL
    assert found.active is not None
    assert np.abs(found.values[found.active]).max() < width
    assert np.all(np.abs(found.values[~found.active]) == np.float32(width))
    middle = tuple(n // 2 for n in found.values.shape)
    assert found.values[middle] == -np.float32(width)
    _, thinner = export(volume_runs.run("level_set"), "nvdb", tmp_path, threshold=0.5)
    assert 0 < thinner.n_active < made["n_voxels"]
    assert np.abs(thinner.values[thinner.active]).max() < width - 0.5


def test_warp_reads_the_same_transform(volume_runs: Any, tmp_path: Path) -> None:
    made, found = export(volume_runs.run("fog"), "nvdb", tmp_path)
    grid = wp.Volume.load_from_nvdb(made["output"].read_bytes(), device="cpu")
    info = grid.get_grid_info()
    assert np.allclose(np.array(info.transform_matrix).reshape(3, 3), SHEARED[:3, :3], rtol=1e-6)
    assert np.allclose(info.translation, SHEARED[:3, 3], rtol=1e-6)
    voxels = grid.get_voxels().numpy()  # of whole leaves
    assert len(voxels) >= made["n_voxels"]
    assert np.all(voxels.min(axis=0) <= found.first)
    assert np.all(voxels.max(axis=0) >= np.array(found.first) + found.values.shape - 1)


def reopen(path: Path) -> Any:
    import trimesh

    return trimesh.load(path, force="mesh")


@pytest.mark.parametrize("kind", ["level_set", "mirrored"])
@pytest.mark.parametrize("name", MESHES)
def test_a_sphere_is_the_same_sphere_in_the_world(
    name: str, kind: str, volume_runs: Any, tmp_path: Path
) -> None:
    run = volume_runs.run(kind)
    made = run.export(name, tmp_path / f"a.{name}", largest_only=True)
    assert made["watertight"]
    mesh = reopen(made["output"])
    assert mesh.is_watertight
    assert len(mesh.faces) == made["n_faces"] > 100
    away = np.linalg.norm(mesh.vertices - CENTRE, axis=1)
    assert abs(away.mean() - RADIUS) < 0.05
    assert np.abs(away - RADIUS).max() <= run.metrics["max_error"] + 0.05 * VOXEL
    assert np.abs(mesh.bounds.mean(axis=0) - CENTRE).max() < 0.15
    assert np.allclose(made["bounds"], mesh.bounds, atol=1e-5)
    # outward: the volume is positive, and so is the way along the normals
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.06)
    outward = (mesh.face_normals * (mesh.triangles_center - CENTRE)).sum(axis=1)
    assert (outward > 0).mean() > 0.99


def test_a_fog_s_surface_is_sheared_with_it(volume_runs: Any, tmp_path: Path) -> None:
    run = volume_runs.run("fog")
    made = run.export("ply", tmp_path / "a.ply", level=0.3)
    mesh = reopen(made["output"])
    assert made["watertight"]
    assert mesh.volume > 0
    # the vertices have the level's value, by a query in the world
    assert np.abs(run.query(np.array(mesh.vertices))[:, 0] - 0.3).mean() < 0.02
    higher = run.export("ply", tmp_path / "b.ply", level=0.6)
    assert reopen(higher["output"]).volume < mesh.volume


def test_what_the_box_cuts_is_closed(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 12, dtype=np.float32)
    np.save(tmp_path / "ramp.npy", np.broadcast_to(x[:, None, None], (12, 8, 10)).copy())
    run = fit(tmp_path / "ramp.npy", steps=150, out=tmp_path / "run")
    made = run.export("stl", tmp_path / "a.stl")
    mesh = reopen(made["output"])
    assert made["watertight"]
    assert mesh.is_watertight
    # from the middle of x to beyond its last middle, within a voxel everywhere
    assert np.all(mesh.bounds[0] >= np.array([5.2, -1, -1]))
    assert np.all(mesh.bounds[1] <= np.array([12, 8, 10]))
    assert mesh.bounds[0][0] < 5.8


def test_options_of_meshes(volume_runs: Any, tmp_path: Path) -> None:
    run = volume_runs.run("level_set")
    fine = run.export("ply", tmp_path / "a.ply", resolution=48)
    coarse = run.export("ply", tmp_path / "b.ply", resolution=16)
    assert fine["n_faces"] > 4 * coarse["n_faces"]
    few = run.export("ply", tmp_path / "c.ply", faces=100)
    assert few["n_faces"] <= 100
    light = volume_runs.run("fog", "radiance").export("glb", tmp_path / "d.glb")
    assert light["n_faces"] > 50


@pytest.mark.parametrize("name", MESHES)
def test_surfaces_that_are_not_there(name: str, volume_runs: Any, tmp_path: Path) -> None:
    path = tmp_path / f"a.{name}"
    with pytest.raises(ConfigError, match="vectors have no isosurface"):
        volume_runs.run("vectors").export(name, path)
    for level in (1e3, -1e3, 5.0):
        with pytest.raises(DataError, match="no surface at level") as caught:
            volume_runs.run("fog").export(name, path, level=level)
        assert "\n" not in str(caught.value)
    for level in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="level must be"):
            volume_runs.run("fog").export(name, path, level=level)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*SPARSE, *DENSE, *MESHES])
def test_outputs_that_cannot_be_are_refused(name: str, volume_runs: Any, tmp_path: Path) -> None:
    run = volume_runs.run("fog")
    with pytest.raises(ConfigError, match=rf"\*\.{name}"):
        run.export(name, tmp_path / "a.txt")
    with pytest.raises(ResourceError, match="does not exist"):
        run.export(name, tmp_path / "none" / f"a.{name}")
    wrong = {"level": 0.5} if name in (*SPARSE, *DENSE) else {"threshold": 0.5}
    with pytest.raises(ConfigError, match="is not for --format"):
        run.export(name, tmp_path / f"a.{name}", **wrong)
    (tmp_path / f"b.{name}").mkdir()
    with pytest.raises(NgpError):
        run.export(name, tmp_path / f"b.{name}")
    assert [p.name for p in tmp_path.iterdir()] == [f"b.{name}"]
