"""Laws of meshes and volumes in files: they reopen as they were written, whole or not at all."""

import io
import resource

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ConfigError, DataError, NgpError, ResourceError, ShapeError
from ngp_warp.surfaces.decimate import decimate
from ngp_warp.surfaces.extract import extract
from ngp_warp.surfaces.lattice import Lattice
from ngp_warp.surfaces.mesh_files import MESH_SUFFIXES, write_mesh
from ngp_warp.surfaces.normals import face_normals, gradient_normals
from ngp_warp.surfaces.nvdb import write_nvdb
from ngp_warp.surfaces.pieces import find_pieces, is_closed, largest_piece, volume
from ngp_warp.surfaces.volume_files import Placement, write_npz
from tests.surface_case import RADIUS, bumpy, sphere, torus

CENTRE = np.array([0.51, 0.49, 0.5])
PLACEMENT = Placement((100.0, -3.0, 7.0), 50.0 / 40, 50.0)


@pytest.fixture(scope="module")
def mesh():
    return extract(torus, 40)


def reopen(path):
    import trimesh

    # force="mesh" would compute the normals anew
    read = trimesh.load(path, process=False)
    return next(iter(read.geometry.values())) if isinstance(read, trimesh.Scene) else read


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_a_mesh_reopens_as_it_was_written(tmp_path, mesh, suffix, scale):
    vertices = mesh.vertices * scale + np.array([1.0, 2.0, 3.0]) * scale
    normals = face_normals(vertices, mesh.faces)
    n_bytes = write_mesh(tmp_path / f"a{suffix}", vertices, mesh.faces, normals)
    assert n_bytes == (tmp_path / f"a{suffix}").stat().st_size
    read = reopen(tmp_path / f"a{suffix}")
    assert len(read.faces) == len(mesh.faces)
    # coordinates up to 4 in float32, then a sum in float64
    corners = np.asarray(read.vertices)[np.asarray(read.faces)]
    assert np.abs(corners - vertices[mesh.faces]).max() < 2.5e-7 * scale
    assert np.abs(corners - vertices[np.roll(mesh.faces, 1, axis=0)]).max() > 1e-3 * scale
    if suffix == ".stl":
        return
    assert np.array_equal(read.faces, mesh.faces)
    assert read.is_watertight
    assert np.abs(read.vertex_normals - normals).max() < 1e-5


def test_welded_stl_is_watertight(tmp_path):
    # a body whose surface passes through nodes: its vertices nearly meet there
    body = extract(lambda x: np.abs(x - np.float32(0.5)).max(axis=1) - np.float32(0.25), 16)
    write_mesh(tmp_path / "a.stl", body.vertices, body.faces)
    import trimesh

    assert trimesh.load(tmp_path / "a.stl", force="mesh").is_watertight


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_a_mesh_needs_no_normals(tmp_path, mesh, suffix):
    write_mesh(tmp_path / f"a{suffix}", mesh.vertices, mesh.faces)
    read = reopen(tmp_path / f"a{suffix}")
    assert len(read.faces) == len(mesh.faces)
    assert read.volume == pytest.approx(volume(mesh.vertices, mesh.faces), rel=1e-4)


def test_text_keeps_digits_far_from_the_origin(tmp_path, mesh):
    vertices = mesh.vertices + 4.5e6
    write_mesh(tmp_path / "a.obj", vertices, mesh.faces)
    assert np.abs(reopen(tmp_path / "a.obj").vertices - vertices).max() < 2e-8 + 1e-9 * 4.5


def write_any(path, mesh):
    if path.suffix == ".npz":
        write_npz(path, Lattice(torus, 40), PLACEMENT)
    elif path.suffix == ".nvdb":
        write_nvdb(path, Lattice(torus, 40), PLACEMENT, lipschitz=2.0)
    else:
        write_mesh(path, mesh.vertices, mesh.faces)


@pytest.mark.parametrize("suffix", [*MESH_SUFFIXES, ".npz", ".nvdb"])
def test_a_full_disk_leaves_what_was(tmp_path, mesh, suffix):
    path = tmp_path / f"a{suffix}"
    write_any(path, mesh)
    before = path.read_bytes()
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(ResourceError, match=f"cannot write .*{suffix}: File too large"):
            write_any(path, mesh)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert len(before) > 20_000


def test_bad_outputs_are_refused(tmp_path, mesh):
    with pytest.raises(ConfigError, match=r"must end in \.obj or \.ply .* not in '\.xyz'"):
        write_mesh(tmp_path / "a.xyz", mesh.vertices, mesh.faces)
    with pytest.raises(ResourceError, match="does not exist"):
        write_mesh(tmp_path / "no" / "a.ply", mesh.vertices, mesh.faces)
    with pytest.raises(ShapeError, match="normals must be"):
        write_mesh(tmp_path / "a.ply", mesh.vertices, mesh.faces, mesh.vertices[1:])
    assert not list(tmp_path.iterdir())


def test_a_grid_reopens_with_its_distances(tmp_path):
    lattice = Lattice(sphere, 40)
    write_npz(tmp_path / "a.npz", lattice, PLACEMENT)
    with np.load(tmp_path / "a.npz") as read:
        distance, origin, size = read["distance"], read["origin"], read["voxel_size"]
    assert (distance.shape, distance.dtype) == ((41, 41, 41), np.float32)
    nodes = np.random.default_rng(0).integers(0, 41, (500, 3))
    points = origin + size * nodes
    centre, radius = origin + 50 * CENTRE, 50 * RADIUS
    wanted = np.linalg.norm(points - centre, axis=1) - radius
    assert np.abs(distance[tuple(nodes.T)] - wanted).max() < 50 * 1e-6
    assert np.abs(distance[tuple(nodes.T[::-1])] - wanted).max() > 0.1


@wp.kernel(enable_backward=False)
def sample_volume(grid: wp.uint64, points: wp.array(dtype=wp.vec3), values: wp.array(dtype=float)):
    i = wp.tid()
    index = wp.volume_world_to_index(grid, points[i])
    values[i] = wp.volume_sample_f(grid, index, wp.Volume.LINEAR)


def sampled(path, points):
    launch.init()
    volume = wp.Volume.load_from_nvdb(io.BytesIO(path.read_bytes()), device="cpu")
    values = wp.zeros(len(points), dtype=float, device="cpu")
    array = wp.array(points.astype(np.float32), dtype=wp.vec3, device="cpu")
    wp.launch(sample_volume, len(points), [volume.id, array, values], device="cpu")
    return volume, values.numpy()


@pytest.mark.parametrize("resolution", [40, 200])
def test_a_level_set_reopens_with_its_distances(tmp_path, resolution):
    path, size = tmp_path / "a.nvdb", 50.0 / resolution
    placement = Placement((100.0, -3.0, 7.0), size, 50.0)
    written = write_nvdb(path, Lattice(sphere, resolution), placement, lipschitz=2.0)
    assert written["bytes"] == path.stat().st_size
    unit = np.random.default_rng(0).random((20_000, 3)) * 0.97
    wanted = 50.0 * sphere(unit)
    volume, values = sampled(path, 50 * unit + placement.origin)
    near, far = np.abs(wanted) < 1.2 * size, np.abs(wanted) > 5 * size
    # linear interpolation: (voxel)^2 / (2 R)
    assert np.abs(values - wanted)[near].max() < 3 * size**2 / (8 * 50 * RADIUS) + 1e-4
    assert np.abs(values[far] - 3 * size * np.sign(wanted[far])).max() < 1e-5
    assert np.any(wanted < -5 * size)
    info = volume.get_grid_info()
    assert (info.name, tuple(info.translation)) == ("distance", placement.origin)
    assert volume.get_voxel_size() == pytest.approx((size,) * 3)
    # as many voxels as the shell of 3 voxels to each side has room for
    assert written["n_voxels"] == pytest.approx(
        6 * 4 * np.pi * (RADIUS * resolution) ** 2, rel=0.03
    )


def test_a_level_set_of_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="no surface"):
        write_nvdb(
            tmp_path / "a.nvdb", Lattice(lambda x: x[:, 0] + 1, 20), PLACEMENT, lipschitz=2.0
        )
    with pytest.raises(NgpError, match="band"):
        write_nvdb(tmp_path / "a.nvdb", Lattice(sphere, 20), PLACEMENT, lipschitz=2.0, band=0.0)
    assert not list(tmp_path.iterdir())


def test_pieces_are_counted_and_parted():
    mesh = extract(bumpy, 80)
    pieces = find_pieces(mesh.vertices, mesh.faces)
    assert len(pieces) >= 4
    assert [piece.n_faces for piece in pieces.pieces] == sorted(
        (piece.n_faces for piece in pieces.pieces), reverse=True
    )
    assert sum(piece.n_faces for piece in pieces.pieces) == len(mesh.faces)
    assert sum(piece.share for piece in pieces.pieces) == pytest.approx(1)
    # the void's wall counts negative
    assert sum(piece.volume < 0 for piece in pieces.pieces) == 1
    total = volume(mesh.vertices, mesh.faces)
    assert sum(piece.volume for piece in pieces.pieces) == pytest.approx(total)
    vertices, faces = largest_piece(mesh.vertices, mesh.faces, pieces)
    assert is_closed(faces)
    assert len(faces) == pieces.pieces[0].n_faces
    assert len(find_pieces(vertices, faces)) == 1
    assert volume(vertices, faces) == pytest.approx(pieces.pieces[0].volume)


def test_normals_point_outward():
    body = extract(sphere, 40)
    wanted = (body.vertices - CENTRE) / np.linalg.norm(body.vertices - CENTRE, axis=1)[:, None]
    from_faces = face_normals(body.vertices, body.faces)
    assert np.einsum("ij,ij->i", from_faces, wanted).min() > 0.99
    analytic = gradient_normals(body.vertices, body.faces, lambda x: 3 * (x - np.float32(CENTRE)))
    assert np.abs(analytic - wanted).max() < 1e-5
    wrong = gradient_normals(
        body.vertices,
        body.faces,
        lambda x: np.where(x[:, :1] > 0.5, np.nan, -(x - np.float32(CENTRE))),
    )
    assert np.array_equal(wrong, from_faces)
    assert np.abs(np.linalg.norm(wrong, axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("n_faces", [400, 3000])
def test_decimation_keeps_the_body(mesh, n_faces):
    far = mesh.vertices + 1e6
    vertices, faces = decimate(far, mesh.faces, n_faces)
    assert 0.98 * n_faces <= len(faces) <= n_faces
    assert is_closed(faces)
    assert len(np.unique(faces)) == len(vertices)
    assert volume(vertices, faces) == pytest.approx(volume(far, mesh.faces), rel=0.06)
    assert np.abs(torus(vertices - 1e6)).max() < 0.02


def test_decimation_to_more_faces_changes_nothing(mesh):
    vertices, faces = decimate(mesh.vertices, mesh.faces, len(mesh.faces))
    assert vertices is mesh.vertices
    assert faces is mesh.faces
    with pytest.raises(ConfigError, match="at least 4"):
        decimate(mesh.vertices, mesh.faces, 3)


def test_decimation_mends_folds_and_shared_edges(monkeypatch):
    import fast_simplification

    # two tetrahedra that share the edge 0-1, and two faces folded onto each other on the edge 2-3
    first = [[0, 1, 2], [1, 0, 3], [2, 3, 0], [3, 2, 1]]
    second = [[0, 1, 4], [1, 0, 5], [4, 5, 0], [5, 4, 1]]
    fold = [[2, 3, 6], [3, 2, 6]]
    points = np.random.default_rng(0).random((7, 3))
    broken = np.array(first + second + fold)
    assert not is_closed(broken)
    monkeypatch.setattr(fast_simplification, "simplify", lambda p, f, target_count: (p, broken))
    vertices, faces = decimate(points, np.zeros((100, 3), np.int32), 10)
    assert is_closed(faces)
    assert (len(faces), len(vertices)) == (8, 8)
    assert len(find_pieces(vertices, faces)) == 2
    wanted = np.unique(np.sort(points[np.array(first + second)].sum(axis=1), axis=1), axis=0)
    got = np.unique(np.sort(vertices[faces].sum(axis=1), axis=1), axis=0)
    assert np.allclose(got, wanted)
