"""Exports of a radiance field against closed forms, in the scene's units and axes."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
import warp as wp
from PIL import Image

from ngp_warp.errors import ConfigError, DataError, NgpError, ResourceError
from ngp_warp.primitives.nerf import PRIMITIVE
from ngp_warp.primitives.nerf.colors import to_srgb8
from ngp_warp.primitives.nerf.export_mesh import export_mesh, surface_colors
from ngp_warp.primitives.nerf.export_points import export_points
from ngp_warp.primitives.nerf.export_volume import export_occupancy, export_volume
from ngp_warp.primitives.nerf.options import EXPORT_OPTIONS
from ngp_warp.primitives.nerf.solid import Cells, Region, Solid, region_of
from ngp_warp.primitives.nerf.subject import Subject
from ngp_warp.radiance.settings import CELLS
from ngp_warp.rays.lenses import Lens
from ngp_warp.surfaces.texture import bake, unwrap
from tests.nerf_views import ring
from tests.radiance_stand_in import StandIn, odd_frame, settings

CENTRE = np.array([0.47, 0.55, 0.52])
"""Of the ball, in the box."""
RADIUS = 0.2
PEAK, SOFTNESS = 2000.0, 0.002


def ball(centre=CENTRE, radius=RADIUS):
    return lambda points: np.linalg.norm(points - centre, axis=1) - radius


def field(aabb_scale=1, **more):
    more.setdefault("distance", ball(radius=RADIUS / aabb_scale))
    return StandIn(tint=0.4, settings=settings(aabb_scale=aabb_scale), **more)


def in_scene(frame, aabb_scale=1):
    """Centre and radius of the level set e^2.5 in the scene."""
    radius = RADIUS / aabb_scale + SOFTNESS * np.log(PEAK / np.exp(2.5) - 1)
    return frame.to_scene(CENTRE[None])[0], radius / frame.scale


def load(path):
    mesh = trimesh.load(path, process=False)
    return next(iter(mesh.geometry.values())) if isinstance(mesh, trimesh.Scene) else mesh


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb", "stl"])
@pytest.mark.parametrize("aabb_scale", [1, 4])
def test_a_ball_comes_back(tmp_path, suffix, aabb_scale):
    a, frame = field(aabb_scale), odd_frame(aabb_scale)
    path = tmp_path / f"mesh.{suffix}"
    made = export_mesh(path, a, frame, resolution=64)
    centre, radius = in_scene(frame, aabb_scale)
    mesh = load(path)
    distance = np.linalg.norm(np.asarray(mesh.vertices) - centre, axis=1)
    voxel = 1 / aabb_scale / 64 / frame.scale
    assert made["voxel_size"] == pytest.approx(voxel)
    assert np.abs(distance - radius).max() < 0.25 * voxel
    assert made["watertight"]
    assert made["n_pieces"] == 1
    assert made["n_faces"] == len(mesh.faces)
    np.testing.assert_allclose(made["bounds"], mesh.bounds, atol=1e-4)
    assert made["bytes"] == path.stat().st_size


def expected_colors(a, frame, vertices):
    """What is seen of the ball along its normals."""
    places = frame.to_box(vertices)
    normals = places - CENTRE
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return to_srgb8(a.color(places, -normals), "srgb").astype(int)


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_colours_are_seen_along_the_normals(tmp_path, suffix):
    a, frame = field(), odd_frame()
    path = tmp_path / f"mesh.{suffix}"
    export_mesh(path, a, frame, resolution=48)
    mesh = load(path)
    found = np.asarray(mesh.visual.vertex_colors)[:, :3].astype(int)
    wanted = expected_colors(a, frame, np.asarray(mesh.vertices))
    # rays end a hundredth of the box below the level set
    assert np.abs(found - wanted).max() <= 5
    assert np.ptp(found, axis=0).min() > 30


def read_glb(path):
    data = path.read_bytes()
    n = int.from_bytes(data[12:16], "little")
    tree = json.loads(data[20 : 20 + n])
    body = data[28 + n :]
    assert len(data) == int.from_bytes(data[8:12], "little")

    def view(number):
        v = tree["bufferViews"][number]
        return body[v["byteOffset"] : v["byteOffset"] + v["byteLength"]]

    def accessor(number):
        found = tree["accessors"][number]
        kinds = {5126: "<f4", 5123: "<u2", 5125: "<u4"}
        widths = {"VEC4": 4, "VEC3": 3, "VEC2": 2, "SCALAR": 1}
        raw = view(found["bufferView"])
        return np.frombuffer(raw, kinds[found["componentType"]]).reshape(-1, widths[found["type"]])

    return tree, accessor, view


def test_colours_are_those_below_the_skin():
    a = field(peak=300.0, softness=0.01)
    directions = np.array([[1.0, 0, 0], [0, 0, -1.0]])
    a.color = lambda points, d: np.where(
        np.linalg.norm(points - CENTRE, axis=1)[:, None] < RADIUS + 0.03, [[0.2, 0.4, 0.6]], 1.0
    )
    points = CENTRE + (RADIUS + 0.04) * directions
    found = surface_colors(a, points, directions, 0.01)
    assert np.abs(found.astype(int) - [51, 102, 153]).max() < 40
    # with nothing below them, places have their own colours
    a.peak = 1e-3
    np.testing.assert_array_equal(surface_colors(a, points, directions, 0.01), 255)


def test_glb_has_linear_unlit_colours(tmp_path):
    a, frame = field(), odd_frame()
    export_mesh(tmp_path / "mesh.glb", a, frame, resolution=32)
    tree, accessor, _ = read_glb(tmp_path / "mesh.glb")
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    linear = accessor(attributes["COLOR_0"])[:, :3] / 65535
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    wanted = expected_colors(a, frame, accessor(attributes["POSITION"]))
    assert np.abs(srgb * 255 - wanted).max() <= 5.5
    assert "KHR_materials_unlit" in tree["materials"][0]["extensions"]
    for v in tree["bufferViews"]:
        assert v["byteOffset"] % 4 == 0


def test_normals_point_outward(tmp_path):
    a, frame = field(), odd_frame()
    export_mesh(tmp_path / "mesh.ply", a, frame, resolution=48)
    mesh = load(tmp_path / "mesh.ply")
    radial = np.asarray(mesh.vertices) - in_scene(frame)[0]
    radial /= np.linalg.norm(radial, axis=1, keepdims=True)
    assert np.einsum("ij,ij->i", radial, mesh.vertex_normals).min() > 0.995
    assert mesh.volume > 0


def test_the_threshold_moves_the_surface(tmp_path):
    a, frame = field(softness=0.01), odd_frame()
    volumes = []
    for threshold in (0.0, 2.5, 5.0):
        export_mesh(tmp_path / "m.ply", a, frame, resolution=64, threshold=threshold)
        volumes.append(load(tmp_path / "m.ply").volume)
        radius = (RADIUS + 0.01 * np.log(PEAK / np.exp(threshold) - 1)) / frame.scale
        assert volumes[-1] == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02)
    assert volumes[0] > volumes[1] > volumes[2]
    with pytest.raises(DataError, match="nowhere above"):
        export_mesh(tmp_path / "m.ply", a, frame, resolution=32, threshold=8.0)
    with pytest.raises(ConfigError, match="threshold"):
        export_mesh(tmp_path / "m.ply", a, frame, resolution=32, threshold=80.0)


def test_limits_cut_and_close(tmp_path):
    a, frame = field(), odd_frame()
    centre, radius = in_scene(frame)
    lower = centre - radius * np.array([2, 1.5, 1.5])
    upper = centre + np.array([0.0, 9e9, 2 * radius])
    bounds = (*lower, *upper)
    made = export_mesh(tmp_path / "m.ply", a, frame, resolution=64, bounds=bounds)
    mesh = load(tmp_path / "m.ply")
    assert made["watertight"]
    assert mesh.bounds[1, 0] == pytest.approx(centre[0], abs=2 * made["voxel_size"])
    assert mesh.bounds[0, 0] == pytest.approx(centre[0] - radius, abs=made["voxel_size"])
    assert mesh.volume == pytest.approx(2 / 3 * np.pi * radius**3, rel=0.05)
    for wrong, message in (
        ((0, 0, 0, 0, 1, 1), "x0 < x1"),
        ((0, 0, 0, np.nan, 1, 1), "x0 < x1"),
        ((900, 900, 900, 901, 901, 901), "outside of what was trained"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_mesh(tmp_path / "m.ply", a, frame, bounds=wrong)


def two_balls(points):
    return np.minimum(ball()(points), ball(np.array([0.85, 0.85, 0.85]), 0.06)(points))


def test_pieces_and_faces(tmp_path):
    a, frame = field(distance=two_balls), odd_frame()
    both = export_mesh(tmp_path / "m.ply", a, frame, resolution=64)
    assert both["n_pieces"] == 2
    one = export_mesh(tmp_path / "m.ply", a, frame, resolution=64, largest_only=True, n_faces=500)
    assert (one["n_pieces"], one["n_dropped_pieces"]) == (2, 1)
    assert one["n_faces"] <= 502
    assert load(tmp_path / "m.ply").bounds[1, 0] < frame.to_scene(np.array([[0.75] * 3]))[0, 0]


def test_what_no_camera_sees_is_left_out(tmp_path):
    a, frame = field(distance=two_balls), odd_frame()
    occupancy = a.occupancy
    values = occupancy.values.numpy().reshape(1, CELLS, CELLS, CELLS).copy()
    values[0, 96:, 96:, 96:] = -1

    class Blind(StandIn):
        occupancy = None

    b = Blind(distance=two_balls, settings=settings())
    b.occupancy = SimpleNamespace(
        values=SimpleNamespace(numpy=lambda: values.reshape(-1)),
        occupied=lambda: values > 0.01,
    )
    assert export_mesh(tmp_path / "m.ply", b, frame, resolution=64)["n_pieces"] == 1
    assert export_mesh(tmp_path / "m.ply", a, frame, resolution=64)["n_pieces"] == 2


@pytest.mark.parametrize("aabb_scale", [1, 8])
def test_blocks_are_those_of_occupied_cells(aabb_scale):
    a = field(aabb_scale, distance=lambda p: np.full(len(p), 1.0))
    random = np.random.default_rng(3)
    chosen = random.random((a.settings.n_cascades, CELLS, CELLS, CELLS)) < 2e-6
    cells = Cells(a)
    cells.occupied = chosen
    lower = np.array([0.1, 0.2, 0.05])
    sides = np.array([0.8, 0.5, 0.9])
    region = Region(lower=lower, upper=lower + sides, resolution=75)
    found = cells.blocks(region)
    points = lower + random.random((200_000, 3)) * sides
    wanted = cells.at(chosen, points)
    block = np.floor((points - lower) / (8 * region.cell)).astype(int)
    assert np.all(found[tuple(block[wanted].T)])
    # not many more than need be
    assert found.sum() < 0.5 * found.size
    beyond = np.floor(sides / (8 * region.cell) - 1e-9).astype(int)
    assert not found[:, beyond[1] + 1 :].any()


def test_few_points_are_evaluated(tmp_path):
    made = export_mesh(tmp_path / "m.ply", field(), odd_frame(), resolution=128)
    assert made["n_evaluated"] < 0.25 * 129**3


def test_the_level_set_is_a_number_everywhere():
    a = field()
    solid = Solid(a, region_of(a, odd_frame(), 32), 2.5, Cells(a))
    values = solid(np.random.default_rng(0).random((1000, 3)).astype(np.float32) * 1.4 - 0.2)
    assert np.all(np.abs(values) <= 8)


@pytest.mark.parametrize("suffix", ["obj", "glb"])
def test_textures_hold_the_colours(tmp_path, suffix):
    pytest.importorskip("xatlas")
    a, frame = field(), odd_frame()
    path = tmp_path / f"mesh.{suffix}"
    made = export_mesh(path, a, frame, resolution=32, texture=256)
    if suffix == "glb":
        tree, accessor, view = read_glb(path)
        attributes = tree["meshes"][0]["primitives"][0]["attributes"]
        uv, vertices = accessor(attributes["TEXCOORD_0"]), accessor(attributes["POSITION"])
        picture = np.asarray(Image.open(io.BytesIO(view(tree["images"][0]["bufferView"]))))
    else:
        assert {p.name for p in tmp_path.iterdir()} == {"mesh.obj", "mesh.mtl", "mesh.png"}
        assert "map_Kd mesh.png" in (tmp_path / "mesh.mtl").read_text()
        lines = [line.split() for line in path.read_text().splitlines()]
        vertices = np.array([line[1:] for line in lines if line[0] == "v"], float)
        uv = np.array([line[1:] for line in lines if line[0] == "vt"], float) * (1, -1) + (0, 1)
        picture = np.asarray(Image.open(tmp_path / "mesh.png"))
    assert picture.shape == (made["texture_height"], made["texture_width"], 3)
    assert 180 < max(picture.shape) < 360
    at = np.clip(np.floor(uv * picture.shape[1::-1]).astype(int), 0, None)
    x, y = np.minimum(at, np.array(picture.shape[1::-1]) - 1).T
    wanted = expected_colors(a, frame, vertices)
    # a texel is a hundredth of the ball: its colour is that of a place beside the vertex
    assert np.abs(picture[y, x].astype(int) - wanted).max() < 16
    assert np.abs(picture[y, x].astype(int) - wanted).mean() < 4


def test_bake_paints_every_texel_of_a_chart():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    pytest.importorskip("xatlas")
    flat = unwrap(vertices, faces, 64)

    def paint(places, normals):
        assert np.all(normals == (0, 0, 1))
        return np.rint(places * 255).astype(np.uint8)

    picture = bake(flat, vertices, np.tile([0, 0, 1.0], (4, 1)), paint)
    # the square fills the atlas but for its padding: every texel holds some of its colours
    assert picture[..., :2].reshape(-1, 2).std(axis=0).min() > 60
    assert not picture[..., 2].any()
    steps = np.abs(np.diff(picture[..., :2].astype(int), axis=0)).max()
    assert steps < 3 * 255 / 40


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xatlas", None)
    with pytest.raises(ResourceError, match=r"xatlas.*ngp-warp\[texture\]"):
        export_mesh(tmp_path / "m.glb", field(), odd_frame(), resolution=16, texture=64)
    assert not list(tmp_path.iterdir())


def run_of(tmp_path, **more):
    frame = odd_frame()
    lens = Lens(width=40, height=30, fx=60, fy=60, cx=20, cy=15)
    views = ring(frame, lens, 6)
    fitted = SimpleNamespace(
        radiance=field(n_steps=192, peak=50_000.0, **more),
        frame=frame,
        views=views,
        lenses=[lens] * len(views),
        photos_background=None,
        environment=None,
    )
    return SimpleNamespace(path=tmp_path, fitted=fitted)


def read_points(path):
    cloud = trimesh.load(path)
    data = path.read_bytes()
    head = data.index(b"end_header\n") + len(b"end_header\n")
    kinds = [(n, "<f4") for n in ("x", "y", "z", "nx", "ny", "nz")]
    rows = np.frombuffer(data[head:], [*kinds, ("rgb", "u1", 3)])
    np.testing.assert_allclose(np.asarray(cloud.vertices)[:, 0], rows["x"], atol=1e-6)
    return (
        np.stack([rows[n] for n in "xyz"], axis=1).astype(float),
        np.stack([rows[n] for n in ("nx", "ny", "nz")], axis=1),
        rows["rgb"].astype(int),
    )


def test_points_lie_on_the_ball(tmp_path):
    run = run_of(tmp_path)
    subject = Subject.of(run)
    shots = [subject.shot(i) for i in subject.trained]
    made = export_points(
        tmp_path / "p.ply", subject.field, subject.frame, shots, n_points=1000, seed=1
    )
    points, normals, colors = read_points(tmp_path / "p.ply")
    assert made["n_points"] == len(points) == 1000
    centre = subject.frame.to_scene(CENTRE[None])[0]
    radial = points - centre
    distance = np.linalg.norm(radial, axis=1)
    radius = RADIUS / subject.frame.scale
    # rays end in the soft skin, of which they see a twentieth of the radius
    assert (distance - radius).min() > 0
    assert (distance - radius).max() < 0.1 * radius
    assert distance.std() < 0.01 * radius
    assert np.einsum("ij,ij->i", normals, radial / distance[:, None]).min() > 0.9
    wanted = subject.frame.to_box(points) * 0.6 * 255
    assert np.all(colors > wanted - 12)
    assert np.all(colors < wanted + 0.4 * 255 + 12)


def test_points_in_limits(tmp_path):
    run = run_of(tmp_path)
    subject = Subject.of(run)
    centre = subject.frame.to_scene(CENTRE[None])[0]
    box = (*(centre - 100), centre[0], *(centre[1:] + 100))
    made = PRIMITIVE.exporters["points"](run, tmp_path / "p.ply", points=300, box=box)
    assert made["output"] == tmp_path / "p.ply"
    assert read_points(tmp_path / "p.ply")[0][:, 0].max() <= centre[0] + 0.02
    with pytest.raises(DataError, match="none of"):
        PRIMITIVE.exporters["points"](run, tmp_path / "q.ply", points=5, threshold=14.0)
    assert not (tmp_path / "q.ply").exists()


@pytest.mark.parametrize("aabb_scale", [1, 4])
def test_densities_are_for_a_scene_unit(tmp_path, aabb_scale):
    a, frame = field(aabb_scale), odd_frame(aabb_scale)
    made = export_volume(tmp_path / "d.npz", a, frame, resolution=24)
    with np.load(tmp_path / "d.npz") as file:
        density, origin, size = file["density"], file["origin"], float(file["voxel_size"])
    assert density.shape == (25, 25, 25) == tuple(made["shape"])
    assert density.dtype == np.float32
    nodes = origin + size * np.stack(np.indices(density.shape), axis=-1).reshape(-1, 3)
    boxed = frame.to_box(nodes)
    per_unit = aabb_scale * frame.scale
    wanted = a.density(boxed).reshape(density.shape) * per_unit
    # what cannot be seen is 0; what can is as it is
    assert np.abs(density - wanted).max() < 8 * per_unit
    assert density.max() == pytest.approx(PEAK * per_unit, rel=1e-3)
    assert (density == 0).mean() > 0.5
    export_volume(tmp_path / "d.npy", a, frame, resolution=24)
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), density)
    beside = json.loads((tmp_path / "d.npy.json").read_text())
    assert (beside["origin"], beside["voxel_size"]) == (pytest.approx(origin.tolist()), size)


def test_nanovdb_is_a_fog_of_the_same_densities(tmp_path):
    a, frame = field(), odd_frame()
    made = export_volume(tmp_path / "d.nvdb", a, frame, resolution=40)
    export_volume(tmp_path / "d.npy", a, frame, resolution=40)
    dense = np.load(tmp_path / "d.npy")
    volume = wp.Volume.load_from_nvdb((tmp_path / "d.nvdb").read_bytes(), device="cpu")
    info = volume.get_grid_info()
    assert info.name == "density"
    assert volume.get_voxel_size()[0] == pytest.approx(made["voxel_size"], rel=1e-6)
    np.testing.assert_allclose(info.translation, made["origin"], rtol=1e-6)
    voxels = volume.get_voxels().numpy()
    found = wp.zeros(len(voxels), dtype=float, device="cpu")
    wp.launch(
        read_voxels,
        len(voxels),
        [volume.id, wp.array(voxels, dtype=wp.vec3i, device="cpu"), found],
        device="cpu",
    )
    np.testing.assert_array_equal(found.numpy(), dense[tuple(voxels.T)])
    assert made["n_voxels"] == np.count_nonzero(dense) < len(voxels) < dense.size


@wp.kernel
def read_voxels(volume: wp.uint64, at: wp.array[wp.vec3i], out: wp.array[float]):
    i = wp.tid()
    out[i] = wp.volume_lookup_f(volume, at[i][0], at[i][1], at[i][2])


def test_occupancy_is_where_it_says(tmp_path):
    a, frame = field(2), odd_frame(2)
    made = export_occupancy(tmp_path / "o.npz", a, frame)
    with np.load(tmp_path / "o.npz") as file:
        occupied, origin, size = file["occupied"], file["origin"], file["cell_size"]
    assert occupied.shape == (2, CELLS, CELLS, CELLS)
    assert made["n_occupied"] == occupied.sum(axis=(1, 2, 3)).tolist()
    for cascade in range(2):
        cells = np.argwhere(occupied[cascade]) + 0.5
        middles = frame.to_box(origin[cascade] + size[cascade] * cells)
        np.testing.assert_allclose(middles.mean(axis=0), CENTRE, atol=1e-2)
        side = 2**cascade / 2
        np.testing.assert_allclose(frame.to_box(origin[cascade]), 0.5 - side / 2, atol=1e-9)
        assert size[cascade] == pytest.approx(side / CELLS / frame.scale)


def test_a_field_of_nothing_is_told(tmp_path):
    a, frame = field(distance=lambda p: np.full(len(p), 1.0)), odd_frame()
    for name, export in (("m.ply", export_mesh), ("d.nvdb", export_volume)):
        with pytest.raises(DataError):
            export(tmp_path / name, a, frame, resolution=32)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(EXPORT_OPTIONS))
def test_every_format_of_a_run(tmp_path, name):
    (tmp_path / "exports").mkdir()
    small = {"resolution": 24} if "resolution" in EXPORT_OPTIONS[name] else {}
    small |= {"points": 50} if name == "points" else {}
    made = PRIMITIVE.exporters[name](run_of(tmp_path), None, **small)
    assert made["output"].parent == tmp_path / "exports"
    assert made["bytes"] == made["output"].stat().st_size
    with pytest.raises(NgpError, match="writes to a file named"):
        PRIMITIVE.exporters[name](run_of(tmp_path), tmp_path / "a.xyz", **small)


def test_textures_are_for_formats_that_hold_them(tmp_path):
    with pytest.raises(ConfigError, match="--texture is for"):
        export_mesh(tmp_path / "m.ply", field(), odd_frame(), texture=64)
