"""Snapshots of instant-ngp: what ours become in its layout and back, and what cannot be read.

The format's sizes are checked against the numbers that others report of real files.
"""

import copy
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import image_runs
import nerf_runs
import numpy as np
import pytest
import sdf_runs
from nerf_scenes import write_scene
from ngp_snapshots import CELLS, density_grid, field_snapshot, morton_index, nerf_snapshot, write

import ngp_warp
from ngp_warp import ngp_parameters, ngp_snapshot
from ngp_warp.cli import app
from ngp_warp.config import GridEncodingConfig, NetworkConfig
from ngp_warp.encodings.grid import grid_levels, resolve
from ngp_warp.errors import CheckpointError, DataError, NgpError, ResourceError
from ngp_warp.ngp_parameters import PaddedNetwork, morton_codes
from ngp_warp.primitives.snapshot import import_snapshot
from ngp_warp.radiance.settings import RadianceSettings

ROOT = Path(__file__).resolve().parents[1]

msgpack = pytest.importorskip("msgpack", reason="msgpack is not installed")


@pytest.fixture(scope="module")
def nerf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a small trained scene's model with weights that float16 holds."""
    folder = tmp_path_factory.mktemp("nerf")
    run = ngp_warp.fit_nerf(
        write_scene(folder / "scene"),
        steps=300,
        out=folder / "run",
        device="cpu",
        **{**nerf_runs.SMALL, "march_steps": 1024, "render_steps": 1024},
    )
    _round(run.fitted.radiance)
    return run


def _round(radiance: Any) -> None:
    for part in (radiance.weights, radiance.table):
        part.assign(part.value.numpy().astype(np.float16).astype(np.float32))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("image")
    picture = image_runs.write_picture(folder / "a.png")
    return ngp_warp.fit_image(
        picture, steps=50, out=folder / "run", device="cpu", **image_runs.SMALL
    )


@pytest.fixture(scope="module")
def sdf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("sdf")
    mesh = sdf_runs.write_sphere(folder / "ball.ply")
    with pytest.MonkeyPatch.context() as patch:
        sdf_runs.make_quick(patch)
        return ngp_warp.fit_sdf(mesh, steps=50, out=folder / "run", device="cpu", **sdf_runs.SMALL)


# --- what others report of real files


@pytest.mark.parametrize(
    ("aabb_scale", "padding", "n_params"), [(1, 16, 12206480), (4, 8, 13084640)]
)
def test_sizes_are_those_of_real_files(aabb_scale: int, padding: int, n_params: int) -> None:
    # 16 levels of 2 features, 2^19 entries. The first number is what three readers of snapshots
    # expect; the second was reported of a CutlassMLP's (github.com/NVlabs/instant-ngp/issues/845).
    grid = resolve(GridEncodingConfig(n_levels=16, finest_resolution=2048 * aabb_scale))
    last = grid_levels(grid, 3)[-1]
    density = PaddedNetwork(NetworkConfig(n_hidden_layers=1), 32, 16, padding)
    color = PaddedNetwork(NetworkConfig(n_hidden_layers=2), 32, 3, padding)
    assert (density.n_params, color.n_params) == (3072, 6144 + 64 * padding)
    assert density.n_params + color.n_params + 2 * (last.offset + last.size) == n_params


def test_morton_codes_are_those_of_the_twin() -> None:
    z, y, x = np.meshgrid(*[np.arange(CELLS)] * 3, indexing="ij")
    assert (morton_codes() == morton_index(x, y, z)).all()


# --- radiance fields


@pytest.mark.parametrize("packed", ["plain", "zlib", "gzip"])
def test_a_radiance_field_comes_back(nerf: Any, packed: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ingp", nerf_snapshot(nerf.fitted), packed)
    run, about = import_snapshot(path, out=tmp_path / "run")
    assert run is not None
    model, other = nerf.fitted, run.fitted
    points = np.random.default_rng(0).random((500, 3)).astype(np.float32)
    # the same values in the same kernels
    assert np.array_equal(other.radiance.density(points), model.radiance.density(points))
    ways = np.tile(np.float32([[0.6, 0.0, 0.8]]), (500, 1))
    assert np.array_equal(other.radiance.color(points, ways), model.radiance.color(points, ways))
    about = "\n".join(about["notes"])
    assert "not taken over: envmap" in about
    assert "snapshot.bounding_radius" in about
    assert "snapshot.nerf.sharpen" in about
    assert "unproven" in about


def test_its_cells_cameras_and_views_come_back(nerf: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.msgpack", nerf_snapshot(nerf.fitted))
    run, _ = import_snapshot(path, out=tmp_path / "run")
    assert run is not None
    model, other = nerf.fitted, run.fitted
    ours, theirs = model.radiance.occupancy, other.radiance.occupancy
    values = ours.values.numpy().astype(np.float16).astype(np.float32)
    threshold = min(0.01, 0.5 * float(np.maximum(values, 0).mean(dtype=np.float64)))
    occupied = theirs.occupied()
    assert (occupied.reshape(-1) == (values > np.float32(threshold))).all()
    assert 0 < occupied.mean() < 0.9
    assert len(other.trained) == len(model.trained)
    for a, b in zip(other.trained, model.trained, strict=True):
        np.testing.assert_allclose(a.pose, b.pose, atol=1e-9)
        assert a.lens.fx == pytest.approx(b.lens.fx)
        assert a.lens.cx == pytest.approx(b.lens.cx)
    # cells that no camera sees count as used here, so the threshold differs a little
    ours.set_values(values.reshape(-1, CELLS, CELLS, CELLS))
    rays = np.random.default_rng(1)
    origins = rays.normal(size=(300, 3))
    origins *= 4 / np.linalg.norm(origins, axis=1, keepdims=True)
    aims = rays.uniform(-0.8, 0.8, (300, 3)) - origins
    a, b = nerf.render_rays(origins, aims), run.render_rays(origins, aims)
    assert b.opacity.max() > 0.5
    # what differs is where cells lie at the threshold
    np.testing.assert_allclose(b.opacity, a.opacity, atol=0.01)
    behind = (1 - a.opacity)[:, None]  # the run's background is white, the snapshot's black
    np.testing.assert_allclose(b.color, a.color - behind, atol=0.02)


def test_a_box_of_several_cascades_is_drawn_alike(tmp_path: Path) -> None:
    settings = {**nerf_runs.SMALL, "march_steps": 1024, "render_steps": 1024, "aabb_scale": 4}
    scene = write_scene(tmp_path / "scene")
    out = tmp_path / "mine"
    mine = ngp_warp.fit_nerf(scene, steps=20, out=out, device="cpu", background="black", **settings)
    model = mine.fitted
    _round(model.radiance)
    path = write(tmp_path / "a.ingp", nerf_snapshot(model))
    run, _ = import_snapshot(path, out=tmp_path / "run")
    assert run is not None
    cells, _ = ngp_parameters.density_cells(ngp_snapshot.read_snapshot(path), 3)
    assert cells is not None
    model.radiance.occupancy.set_values(cells)
    rays = np.random.default_rng(1)
    origins = rays.normal(size=(100, 3))
    aims = rays.uniform(-0.8, 0.8, (100, 3)) - origins
    a, b = mine.render_rays(origins, aims), run.render_rays(origins, aims)
    assert b.opacity.max() > 0.5
    # the same values in the same cells
    assert np.array_equal(b.opacity, a.opacity)
    assert np.array_equal(b.color, a.color)


def test_the_offset_is_turned_as_the_axes_are(nerf: Any, tmp_path: Path) -> None:
    # a point p of transforms.json lies at scale p + offset, and its y, z, x are the snapshot's axes
    values = nerf_snapshot(nerf.fitted)
    dataset = values["snapshot"]["nerf"]["dataset"]
    scale, offset, point = 0.25, np.array([0.1, 0.5, 0.8]), np.array([1.0, -2.0, 3.0])
    dataset |= {"scale": scale, "offset": offset.tolist()}
    turned = np.eye(3, 4)
    turned[:, 3] = (scale * point + offset)[[1, 2, 0]]
    dataset["xforms"][0] = turned.tolist()
    run, _ = import_snapshot(write(tmp_path / "a.ingp", values), out=tmp_path / "run")
    assert run is not None
    np.testing.assert_allclose(run.fitted.trained[0].pose[:, 3], point[[1, 2, 0]], atol=1e-12)
    inside = run.fitted.frame.to_box(point[[1, 2, 0]])  # aabb_scale 1: the box is the inner cube
    np.testing.assert_allclose(inside, turned[:, 3], atol=1e-12)


def test_what_cameras_have_besides_is_named(nerf: Any, tmp_path: Path) -> None:
    values = nerf_snapshot(nerf.fitted)
    dataset = values["snapshot"]["nerf"]["dataset"]
    dataset["metadata"][1]["rolling_shutter"] = [0.0] * 4
    dataset["xforms"][2]["end"] = np.eye(3, 4).tolist()
    del dataset["is_hdr"]
    _, about = import_snapshot(write(tmp_path / "a.ingp", values, "plain"), write=False)
    notes = "\n".join(about["notes"])
    assert "not taken over: snapshot.nerf.dataset.metadata.rolling_shutter" in notes
    assert "where 1 cameras moved to" in notes
    assert "is_hdr is not in the file" in notes
    assert "training_step is not in the file" in notes


def test_cells_too_dense_for_their_format_are_occupied(nerf: Any, tmp_path: Path) -> None:
    values = nerf_snapshot(nerf.fitted)
    cells = np.zeros((1, CELLS, CELLS, CELLS), np.float16)
    cells[0, 40:80, 40:80, 40:80] = np.inf
    values["snapshot"]["density_grid_binary"] = density_grid(cells)
    run, _ = import_snapshot(write(tmp_path / "a.ingp", values), out=tmp_path / "run")
    assert run is not None
    assert (run.fitted.radiance.occupancy.occupied() == (cells > 0)).all()


def test_vectors_and_the_ones_after_them_are_folded(nerf: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ingp", nerf_snapshot(nerf.fitted, n_extra=10))
    run, about = import_snapshot(path, out=tmp_path / "run")
    assert run is not None
    assert any("learned vectors of 10" in note for note in about["notes"])
    config, model = nerf.config, nerf.fitted
    n = config.color_network.n_neurons
    at = model.radiance.weights.value.size - (n * 32 + n * 3)
    mine = model.radiance.weights.value.numpy()[at : at + n * 32].reshape(n, 32)
    theirs = run.fitted.radiance.weights.value.numpy()[at : at + n * 32].reshape(n, 32)
    # six ones of 0.25 after the vector
    np.testing.assert_allclose(theirs[:, 16], mine[:, 16] + 6 * 0.25 / 0.28209479, rtol=1e-5)
    assert np.array_equal(np.delete(theirs, 16, 1), np.delete(mine, 16, 1))


def test_without_a_grid_or_cameras_there_are_stand_ins(nerf: Any, tmp_path: Path) -> None:
    values = nerf_snapshot(nerf.fitted, np.float32)
    del values["snapshot"]["density_grid_binary"]
    del values["snapshot"]["nerf"]["dataset"]
    del values["snapshot"]["mode"]
    run, about = import_snapshot(write(tmp_path / "a.ingp", values), out=tmp_path / "run")
    assert run is not None
    assert run.config.encoding.dtype == "float32"
    text = "\n".join(about["notes"])
    for said in ("cells are filled", "cameras are not in the file", "scale and offset"):
        assert said in text
    assert 0 < run.fitted.radiance.occupancy.occupied().mean() < 1
    run.render(tmp_path / "a.png", width=16, height=16)
    assert (tmp_path / "a.png").stat().st_size > 0


@pytest.mark.parametrize("value", [None, "x", 1e300, float("nan"), [[1, 2], [3]], {"start": 1}])
def test_cameras_that_cannot_be_are_left_out(value: Any, nerf: Any, tmp_path: Path) -> None:
    values = nerf_snapshot(nerf.fitted)
    values["snapshot"]["nerf"]["dataset"]["xforms"][2] = value
    path = write(tmp_path / "a.ingp", values, "plain")
    _, about = import_snapshot(path, write=False)
    assert any("not taken over: cameras (xforms[2]" in note for note in about["notes"])
    values = nerf_snapshot(nerf.fitted)
    values["snapshot"]["nerf"]["dataset"]["metadata"][2]["focal_length"] = value
    path = write(tmp_path / "a.ingp", values, "plain")
    _, about = import_snapshot(path, write=False)
    assert any("lenses of 1 cameras are not in the file" in note for note in about["notes"])


def test_the_commands_open_it(nerf: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, out = write(tmp_path / "a.ingp", nerf_snapshot(nerf.fitted)), str(tmp_path / "run")
    capfd.readouterr()
    assert app.main(["import-snapshot", str(path), "--dry-run", "--quiet"]) == 0
    stdout, err = capfd.readouterr()
    assert "snapshot.params_binary" in stdout
    assert err == ""
    assert not (tmp_path / "run").exists()
    assert app.main(["import-snapshot", str(path), "--out", out, "--json"]) == 0
    stdout, err = capfd.readouterr()
    told = json.loads(stdout)
    assert (told["mode"], told["run"]) == ("nerf", out)
    assert "unproven" in told["notes"][0]
    assert "unproven" in err
    assert "not taken over: envmap" in err
    assert app.main(["info", out, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["primitive"] == "nerf"
    picture = str(tmp_path / "a.png")
    size = ["--width", "16", "--height", "16"]
    assert app.main(["render", out, "--output", picture, "--quiet", *size]) == 0
    assert app.main(["nerf", "--resume", out, "--steps", "9"]) == 2
    assert "is an imported snapshot" in capfd.readouterr().err
    assert app.main(["eval", out]) == 2
    assert "is an imported snapshot: there is no original" in capfd.readouterr().err
    assert app.main(["import-snapshot", str(path), "--out", out]) == 2
    assert "already holds a run" in capfd.readouterr().err


def test_coarse_cells_hold_what_is_inside_them() -> None:
    cells = np.zeros((2, CELLS, CELLS, CELLS), np.float32)
    cells[0, 10, 20, 31] = 2.0
    values = {"density_grid_binary": density_grid(cells)}
    snapshot = ngp_snapshot.Snapshot(path=Path("a"), config={}, values=values, n_bytes=0)
    found, _ = ngp_parameters.density_cells(snapshot, 2)
    assert found is not None
    assert np.argwhere(found).tolist() == [[0, 10, 20, 31], [1, 37, 42, 47]]
    _, notes = ngp_parameters.density_cells(snapshot, 1)
    assert notes == ["not taken over: cascades 1 to 1 of the density grid"]
    assert RadianceSettings.n_cascades  # one more a doubling of the box


# --- images, meshes, volumes


def test_an_image_comes_back(image: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ingp", field_snapshot(image, "image"))
    with pytest.raises(NgpError, match="give --source PICTURE"):
        import_snapshot(path)
    run, about = import_snapshot(path, out=tmp_path / "run", source=image.source)
    assert run is not None
    points = np.random.default_rng(0).random((300, 2))
    assert np.array_equal(run.query(points), image.query(points))
    assert run.header["step"] == 7
    assert "not taken over: loss (nothing is trained)" in about["notes"]
    a, b = image.render(tmp_path / "a.npy"), run.render(tmp_path / "b.npy")
    assert np.array_equal(np.load(a), np.load(b))
    assert run.export("png")["output"].stat().st_size > 0


def test_a_distance_field_comes_back_in_the_unit_cube(sdf: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ingp", field_snapshot(sdf, "sdf"), "plain")
    run, about = import_snapshot(path, out=tmp_path / "run")
    assert run is not None
    points = np.random.default_rng(0).random((300, 3))
    assert np.array_equal(run.query(points)[:, 0], sdf.fitted.query(points)[:, 0])
    assert any("unit cube" in note for note in about["notes"])
    run.export("ply", tmp_path / "a.ply", resolution=32)
    assert (tmp_path / "a.ply").stat().st_size > 0


def test_a_missing_scale_is_said(sdf: Any, tmp_path: Path) -> None:
    values = field_snapshot(sdf, "sdf")
    del values["encoding"]["per_level_scale"]
    run, about = import_snapshot(write(tmp_path / "a.ingp", values), out=tmp_path / "run")
    assert run is not None
    assert run.config.encoding.finest_resolution == 2048
    assert any("per_level_scale is not in the file" in note for note in about["notes"])
    # with larger tables the levels of 2048 have another size
    values = field_snapshot(sdf, "sdf")
    values["encoding"] = {**values["encoding"], "log2_hashmap_size": 19}
    with pytest.raises(DataError, match="its config says"):
        import_snapshot(write(tmp_path / "a.ingp", values))


def test_a_network_padded_to_eight_is_known_by_its_size(sdf: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ingp", field_snapshot(sdf, "sdf", to=8))
    run, about = import_snapshot(path, out=tmp_path / "run")
    assert run is not None
    points = np.random.default_rng(0).random((300, 3))
    assert np.array_equal(run.query(points)[:, 0], sdf.fitted.query(points)[:, 0])
    assert "networks are padded to 8, by the number of parameters" in about["notes"]


def test_of_a_volume_only_what_it_holds_is_told(sdf: Any, tmp_path: Path) -> None:
    values = field_snapshot(sdf, "volume")
    path = write(tmp_path / "a.ingp", values)
    run, about = import_snapshot(path, write=False)
    assert run is None
    assert about["mode"] == "volume"
    with pytest.raises(DataError, match="where the volume lies"):
        import_snapshot(path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- what cannot be read


def _changed(values: dict[str, Any], change: Any) -> dict[str, Any]:
    values = copy.deepcopy(values)
    change(values, values["snapshot"])
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, s: s.update(params_binary=s["params_binary"][:-2]), r"has (\d+) bytes of par.*"),
        (lambda v, s: s.pop("params_binary"), "has no parameters"),
        (lambda v, s: s.update(params_binary="text"), "has no parameters"),
        (lambda v, s: s.update(n_params=3), "says 3 parameters, its config"),
        (lambda v, s: s.update(params_type="float"), "says its parameters are float, they have 2"),
        (lambda v, s: s.update(params_type="int"), "says its parameters are int, they have 2"),
        (
            lambda v, s: s.update(params_binary=b"\xff" * len(s["params_binary"])),
            "no finite numbers",
        ),
        (lambda v, s: v["encoding"].update(n_levels=5), "its config says"),
        (lambda v, s: v["network"].update(n_neurons=32), "its config says"),
        (lambda v, s: v["encoding"].update(otype="Frequency"), "encoding Frequency"),
        (lambda v, s: v.update(dir_encoding={"otype": "OneBlob"}), "SphericalHarmonics"),
        (lambda v, s: s["nerf"].update(aabb_scale=3), "a power of two"),
        (lambda v, s: s["nerf"].update(aabb_scale=2), "bytes of density grid, its box needs"),
        (lambda v, s: s["nerf"].pop("aabb_scale"), "how large its box is"),
        (lambda v, s: s.update(density_grid_size=64), "64.3 cells, not of 128.3"),
        (lambda v, s: s.update(density_grid_binary=b"ab"), "2 bytes of density grid, .* 4194304"),
        (lambda v, s: s["nerf"]["dataset"].update(n_extra_learnable_dims="x"), "must be a number"),
        (lambda v, s: s["nerf"]["dataset"].update(scale=-1.0), r"a\.ingp: .*scale must be above 0"),
        (
            lambda v, s: s.update(density_grid_binary=b"\xff\x7f" * CELLS**3),
            f"{CELLS**3} cells of density that are no numbers",
        ),
        (lambda v, s: s.update(density_grid_binary="text"), "grid_binary must be bytes, got str"),
        (lambda v, s: s.update(mode="Foam"), "of 'Foam', which is not known; give --mode"),
        (lambda v, s: v.pop("encoding"), "has no encoding in its config"),
        (lambda v, s: v.pop("network"), "has no network in its config"),
        (lambda v, s: v.pop("rgb_network"), "has no rgb_network in its config"),
        (lambda v, s: v.pop("dir_encoding"), "has no dir_encoding in its config"),
        (
            lambda v, s: v["encoding"].update(n_levels=99),
            r"a\.ingp: encoding.n_levels must be from",
        ),
        (lambda v, s: s.update(mode="sdf"), "encoding|config"),
        (lambda v, s: v.update(snapshot=[1]), "no map named snapshot"),
    ],
)
def test_what_does_not_fit_is_one_line(
    change: Any, message: str, nerf: Any, tmp_path: Path
) -> None:
    values = _changed(nerf_snapshot(nerf.fitted), change)
    path = write(tmp_path / "a.ingp", values)
    with pytest.raises(NgpError, match=message) as caught:
        import_snapshot(path, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("packed", ["plain", "zlib", "gzip"])
def test_a_file_cut_short_is_named(image: Any, packed: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ingp", field_snapshot(image, "image"), packed)
    data = path.read_bytes()
    for end in (0, 1, 2, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(DataError, match=r"a\.ingp (is|has)"):
            import_snapshot(path, source=image.source)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"\x89PNG\r\n\x1a\n",
        b"\x81\xc1\x00",
        b"\x81\x81\x01\x02\x03",  # a map as a key
        b"\xdd\xff\xff\xff\xff",  # four billion items that are not there
        b"\x91" * 5000,
        b"\x81\xa8snapshot\xa3abc",
        zlib.compress(b"nothing"),
        b"\x78\x9cdamaged",
    ],
)
def test_what_is_no_snapshot_is_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.ingp"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.ingp"):
        import_snapshot(path)
    with pytest.raises(DataError, match="cannot read"):
        import_snapshot(tmp_path / "gone.ingp")
    with pytest.raises(DataError, match="cannot read"):
        import_snapshot(tmp_path)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngp_snapshot, "MAX_BYTES", 1 << 20)
    path = tmp_path / "a.ingp"
    path.write_bytes(zlib.compress(bytes(1 << 26)))
    assert path.stat().st_size < 1 << 17
    with pytest.raises(DataError, match="too much for a snapshot"):
        import_snapshot(path)
    path.write_bytes(b"\x80" + bytes(1 << 21))
    with pytest.raises(DataError, match="too much for a snapshot"):
        import_snapshot(path)
    monkeypatch.setattr(ngp_snapshot.memory, "available_bytes", lambda: 1 << 20)
    with pytest.raises(ResourceError, match="half of the memory that is free"):
        import_snapshot(path)


def test_a_bomb_of_small_values_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngp_snapshot, "MAX_VALUES", 1000)
    path = tmp_path / "a.ingp"
    for values in ([[]] * 1001, [[None] * 500] * 2, {"a": {i: {} for i in range(1000)}}):
        write(path, {"snapshot": {"a": values}})
        with pytest.raises(DataError, match="more than 1,000 values"):
            import_snapshot(path)


def test_a_mode_must_be_known_and_agree(image: Any, tmp_path: Path) -> None:
    values = field_snapshot(image, "image")
    path = write(tmp_path / "a.ingp", values)
    with pytest.raises(DataError, match="is of image, not of sdf"):
        import_snapshot(path, mode="sdf")
    other = write(tmp_path / "b.ingp", _changed(values, lambda v, s: s.update(mode="sdf")))
    with pytest.raises(NgpError, match="--source is for snapshots of images"):
        import_snapshot(other, source=image.source)
    path = write(tmp_path / "c.ingp", _changed(values, lambda v, s: s.pop("mode")))
    with pytest.raises(NgpError, match="give --mode"):
        import_snapshot(path)
    assert import_snapshot(path, mode="image", source=image.source, write=False)[0] is None


def test_without_msgpack_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ResourceError, match=r"pip install 'ngp-warp\[ngp\]'"):
        import_snapshot(tmp_path / "a.ingp")


def test_a_process_of_its_own_prints_nothing_else(nerf: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ingp", nerf_snapshot(nerf.fitted))
    command = [sys.executable, "-m", "ngp_warp.cli.app", "import-snapshot", str(path), "--quiet"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], cwd=ROOT, capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_an_imported_run_is_not_trained_on(sdf: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ingp", field_snapshot(sdf, "sdf"))
    run, _ = import_snapshot(path, out=tmp_path / "run")
    assert run is not None
    with pytest.raises(CheckpointError, match="imported snapshot"):
        ngp_warp.fit_sdf(None, resume=run.path, steps=9)
