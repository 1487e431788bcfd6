"""Laws of surface extraction: closed 2-manifolds, the right place, nothing missed, little asked."""

import math
from itertools import pairwise

import numpy as np
import pytest

from ngp_warp import launch, memory
from ngp_warp.config import GridEncodingConfig, NetworkConfig, OptimizerConfig
from ngp_warp.errors import ConfigError, DataError, ResourceError, ShapeError
from ngp_warp.field import Field
from ngp_warp.surfaces import cases, lattice
from ngp_warp.surfaces.extract import extract
from ngp_warp.surfaces.lattice import Lattice
from ngp_warp.surfaces.pieces import find_pieces, is_closed, volume
from tests.surface_case import (
    MAJOR,
    MINOR,
    RADIUS,
    bumpy,
    euler_characteristic,
    n_fans,
    noise,
    sphere,
    torus,
    triangles,
)


@pytest.fixture
def coarse_scan(monkeypatch):
    """Make small lattices sparse: their scan starts at 12 cubes a side."""
    monkeypatch.setattr(lattice, "_SCAN_MIN", 12)


def recorded(field):
    points = []

    def evaluate(x):
        points.append(x.copy())
        return field(x)

    return evaluate, points


def test_no_case_has_a_diagonal_that_a_neighbour_may_share():
    n_triangles = 0
    for case in range(256):
        for polygon in cases.polygons(case):
            sides = {frozenset(p) for p in zip(polygon, polygon[1:] + polygon[:1], strict=True)}
            assert all(cases.share_face(*side) for side in sides)
            for a, b, c in cases.triangulate(polygon):
                n_triangles += 1
                diagonals = {frozenset(d) for d in ((a, b), (b, c), (c, a))} - sides
                assert not any(cases.share_face(*d) for d in diagonals)
    assert len(cases.table().triangles) == n_triangles
    assert cases.share_face(0, 1)
    assert not cases.share_face(0, 3)


def test_every_crossed_edge_is_in_one_polygon():
    for case in range(256):
        crossed = [e for e, (a, b) in enumerate(cases.EDGES) if (case >> a ^ case >> b) & 1]
        assert sorted(e for polygon in cases.polygons(case) for e in polygon) == crossed


@pytest.mark.parametrize("seed", range(3))
def test_noise_gives_a_closed_manifold(seed):
    n = 21  # no multiple of a block's 8 cells
    mesh = extract(lambda x: noise(x, n, seed), n)
    assert len(mesh.faces) > 20_000
    assert is_closed(mesh.faces)
    assert n_fans(mesh.faces) == len(mesh.vertices)
    assert len(np.unique(mesh.vertices, axis=0)) == len(mesh.vertices)
    assert len(np.unique(mesh.faces)) == len(mesh.vertices)
    assert volume(mesh.vertices, mesh.faces) > 0
    # and the checks can fail
    assert not is_closed(mesh.faces[1:])
    assert not is_closed(np.concatenate([mesh.faces[:1, ::-1], mesh.faces[1:]]))
    a, b = mesh.faces[0, 0], mesh.faces[-1, 0]
    assert n_fans(np.where(mesh.faces == b, a, mesh.faces)) > len(mesh.vertices) - 1


@pytest.mark.parametrize(
    ("field", "characteristic", "wanted"),
    [(sphere, 2, 4 / 3 * np.pi * RADIUS**3), (torus, 0, 2 * np.pi**2 * MAJOR * MINOR**2)],
)
def test_topology_and_volume(field, characteristic, wanted):
    errors = []
    for resolution in (20, 40, 80):
        mesh = extract(field, resolution)
        assert is_closed(mesh.faces)
        assert len(find_pieces(mesh.vertices, mesh.faces)) == 1
        assert euler_characteristic(mesh) == characteristic
        errors.append(1 - volume(mesh.vertices, mesh.faces) / wanted)
    # A chord lies within the curve: the volume is too small, by a quarter at half the cell.
    assert 0 < errors[2] < 4e-3
    for coarse, fine in pairwise(errors):
        assert 3 < coarse / fine < 5


def test_vertices_lie_on_the_edges_and_on_the_surface():
    lower, upper = (0.0, 0.1, -0.2), (1.0, 1.3, 1.2)
    mesh = extract(sphere, 50, lower=lower, upper=upper)
    cells = (mesh.vertices - lower) / (np.subtract(upper, lower) / 50)
    on_node = np.abs(cells - np.rint(cells)) < 1e-9
    assert np.all(on_node.sum(axis=1) == 2)
    # the linear interpolant of a curve of radius R is off by up to (cell / 2)^2 / (2 R)
    off = np.abs(sphere(mesh.vertices.astype(np.float32)))
    assert off.max() < 1.5 * (1.4 / 50) ** 2 / (8 * RADIUS)
    normals = mesh.vertices - (0.51, 0.49, 0.5)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    assert np.all(np.einsum("ij,ij->i", np.cross(b - a, c - a), normals[mesh.faces[:, 0]]) > 0)


def test_a_level_moves_the_surface():
    mesh = extract(lambda x: -sphere(x), 40, level=0.1)
    # inside is where the negated distance is below the level: outside of a smaller sphere
    assert is_closed(mesh.faces)
    inner = volume(mesh.vertices, mesh.faces)
    assert inner == pytest.approx(1 - 4 / 3 * np.pi * (RADIUS - 0.1) ** 3, rel=1e-2)


def test_a_value_on_the_level_gives_no_degenerate_face():
    mesh = extract(lambda x: np.abs(x - np.float32(0.5)).max(axis=1) - np.float32(0.25), 16)
    assert is_closed(mesh.faces)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 0
    assert len(np.unique(mesh.vertices.astype(np.float32), axis=0)) == len(mesh.vertices)
    # a vertex keeps a thousandth of a cell from the node on which the surface lies
    assert mesh.vertices.min() == pytest.approx(0.25, abs=1.1e-3 / 16)
    assert mesh.vertices.max() == pytest.approx(0.75, abs=1.1e-3 / 16)


@pytest.mark.parametrize("centre", [(0.0, 0.5, 0.5), (1.0, 1.0, 0.5), (0.5, 0.45, 1.2)])
def test_a_body_cut_by_the_box_is_closed_at_its_sides(coarse_scan, centre):
    mesh = extract(lambda x: sphere(x, centre), 52)
    assert is_closed(mesh.faces)
    assert mesh.vertices.min() >= 0
    assert mesh.vertices.max() <= 1
    points = np.random.default_rng(0).random((200_000, 3), dtype=np.float32)
    wanted = np.mean(sphere(points, centre) < 0)
    assert volume(mesh.vertices, mesh.faces) == pytest.approx(wanted, rel=0.05)


def test_inside_everywhere_is_the_box(coarse_scan):
    mesh = extract(lambda x: np.full(len(x), -9.0, np.float32), 64)
    assert is_closed(mesh.faces)
    # each of the 12 edges loses half a cell's square
    lost = 1 - volume(mesh.vertices, mesh.faces)
    assert lost == pytest.approx(12 * 0.5 / 64**2, rel=0.2)


@pytest.mark.parametrize("resolution", [24, 50, 64, 77])
@pytest.mark.parametrize("field", [torus, bumpy])
def test_sparse_is_dense(coarse_scan, field, resolution):
    evaluate, points = recorded(field)
    sparse = extract(evaluate, resolution)
    dense = extract(field, resolution, lipschitz=math.inf)
    assert np.array_equal(sparse.vertices, dense.vertices)
    assert np.array_equal(triangles(sparse), triangles(dense))
    assert len(triangles(dense)) == len(dense.faces)
    assert dense.n_evaluated == (resolution + 1) ** 3
    assert sparse.n_evaluated == sum(map(len, points))
    if resolution > 50:
        assert sparse.n_evaluated < 0.6 * dense.n_evaluated
    changed = extract(lambda x: field(x) + np.float32(1e-5), resolution)
    assert not np.array_equal(sparse.vertices, changed.vertices)


def test_no_node_is_evaluated_twice():
    evaluate, points = recorded(torus)
    extract(evaluate, 45)
    together = np.concatenate(points)
    assert len(np.unique(together, axis=0)) == len(together) == 46**3


def test_the_surface_is_followed_out_of_the_first_block(monkeypatch):
    evaluate, points = recorded(bumpy)
    mesh = extract(bumpy, 64)
    dense = [piece.n_faces for piece in find_pieces(mesh.vertices, mesh.faces).pieces]

    def one_block(self, lipschitz, margin=0.0):
        near = np.zeros((self.n_blocks,) * 3, bool)
        near[6, 4, 4] = True  # the torus's outer rim and its void
        return near

    monkeypatch.setattr(Lattice, "near_blocks", one_block)
    mesh = extract(evaluate, 64)
    assert is_closed(mesh.faces)
    # the whole body and the void in its way; not the floaters, of which nothing could be known
    assert [piece.n_faces for piece in find_pieces(mesh.vertices, mesh.faces).pieces] == dense[:2]
    assert len(dense) == 4
    together = np.concatenate(points)
    assert len(np.unique(together, axis=0)) == len(together) < 0.6 * 65**3


def trained_field():
    """A field after a few steps on the torus: wrong in many places, as learned fields are."""
    encoding = GridEncodingConfig(
        n_levels=8,
        n_features_per_level=2,
        log2_hashmap_size=12,
        base_resolution=8,
        per_level_scale=1.6,
    )
    optimizer = OptimizerConfig(learning_rate=1e-2)
    field = Field(
        3, 1, encoding=encoding, network=NetworkConfig(), optimizer=optimizer, seed=0, device="cpu"
    )
    n = 2**12
    x, target = field.zeros(n, 3), field.zeros(n, 1)
    stages, _ = field.train_stages(x, target, n, "mape")
    field.optimizer.n_steps.fill_(60)
    advance = field.optimizer.advance()
    rng = np.random.default_rng(0)
    for _ in range(60):
        points = rng.random((n, 3), dtype=np.float32)
        x.assign(points.reshape(-1, 32, 3).transpose(0, 2, 1).ravel())
        target.assign(torus(points))
        advance.run()
        for stage in stages:
            launch.run_all(stage)
    return field


def test_sparse_is_dense_for_a_learned_field(coarse_scan):
    field = trained_field()
    sparse = extract(field.query, 64)
    dense = extract(field.query, 64, lipschitz=math.inf)
    assert is_closed(dense.faces)
    assert np.array_equal(sparse.vertices, dense.vertices)
    assert np.array_equal(triangles(sparse), triangles(dense))
    assert sparse.n_evaluated < 0.5 * dense.n_evaluated


@pytest.mark.slow
def test_sparse_is_dense_at_256():
    sparse, dense = extract(bumpy, 256), extract(bumpy, 256, lipschitz=math.inf)
    assert np.array_equal(sparse.vertices, dense.vertices)
    assert np.array_equal(triangles(sparse), triangles(dense))
    assert sparse.n_evaluated < 0.3 * dense.n_evaluated


def test_progress_goes_up_to_its_end(coarse_scan):
    steps = []
    # so small a bound that only the following of the surface finds all blocks
    extract(sphere, 50, lipschitz=1e-3, progress=lambda p: steps.append((p.stage, p.step, p.total)))
    assert steps == sorted(steps)
    assert steps[-1] == ("evaluate", 100, 100)


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_no_surface_is_said(value):
    with pytest.raises(DataError, match="no surface: no value below 0 at resolution 20"):
        extract(lambda x: np.full(len(x), value, np.float32), 20)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(value):
    def field(x):
        return np.where(x[:, 0] > 0.6, np.float32(value), sphere(x))

    with pytest.raises(DataError, match=r"not finite at \[0\.6"):
        extract(field, 20)


def test_bad_arguments_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="resolution must be 2 to 4096, got 1"):
        extract(sphere, 1)
    with pytest.raises(ConfigError, match="lower < upper"):
        extract(sphere, 9, upper=(1.0, 0.0, 1.0))
    with pytest.raises(ShapeError, match="must give"):
        extract(lambda x: x, 9)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(ResourceError, match=r"resolution 20 needs 0\.3 MB|270\.0 kB"):
        extract(sphere, 20)
