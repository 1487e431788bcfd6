"""The sparse octree: its tables, and the laws of its features."""

import numpy as np
import pytest
import warp as wp

from ngp_warp.encodings.octree import OctreeEncoding
from ngp_warp.encodings.octree_cells import Octree, cells_of, morton_codes
from ngp_warp.errors import ConfigError, DataError
from ngp_warp.kernels import octree as kernels
from ngp_warp.kernels import octree_walk
from tests.encoding_case import OCTREE_POINTS, Runner, octree_case, run
from tests.reference import layout


def blocked(values, device):
    return wp.array(layout.to_blocked(np.asarray(values, np.float32)).ravel(), device=device)


def features(encoding, params, x):
    x = np.asarray(x, np.float32)
    y = wp.full(-(-len(x) // 32) * 32 * encoding.n_outputs, np.nan, dtype=float,
                device=encoding.device)  # fmt: skip
    table = wp.array(np.asarray(params, np.float32), device=encoding.device)
    run(encoding.forward(blocked(x, encoding.device), table, y))
    return layout.from_blocked(y.numpy().reshape(-1, encoding.n_outputs, 32), len(x))


def centres(n, n_dims):
    axes = np.meshgrid(*[(np.arange(n) + 0.5) / n] * n_dims, indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, n_dims)


def drawn(encoding, seed=0):
    return np.random.default_rng(seed).normal(size=encoding.n_params).astype(np.float32)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_codes_and_cells_are_inverse(n_dims):
    cells = np.random.default_rng(0).integers(0, 2**16, (100, n_dims))
    codes = morton_codes(cells, 16)
    assert np.array_equal(cells_of(codes, n_dims, 16), cells)
    # bits of the axes take turns, x lowest
    assert morton_codes(np.eye(n_dims, dtype=int), 1).tolist() == [1 << d for d in range(n_dims)]


def test_a_tree_by_hand():
    # two cells of level 2 side by side, in one cell of level 1; and one in the opposite corner
    points = [[0.1, 0.1], [0.3, 0.1], [0.31, 0.12], [1.0, 1.0]]
    tree = Octree.from_points(np.array(points), 1, 2)
    assert tree.codes.tolist() == [0, 1, 15]
    # root, two of level 1, three of level 2
    assert tree.child.tolist() == [[1, -1, -1, 2], [3, 4, -1, -1], [-1, -1, -1, 5]]
    assert tree.first_cell == 1
    assert tree.cell_offsets.tolist() == [0, 2, 5]
    # level 1: 4 + 4 corners, one shared; level 2: 6 of the two neighbours, 4 of the third
    assert tree.corner_offsets.tolist() == [0, 7, 17]
    assert tree.corner[0].tolist() == [0, 1, 2, 3]
    assert tree.corner[1].tolist() == [3, 4, 5, 6]
    assert tree.corner[2].tolist() == [7, 8, 10, 11]
    assert tree.corner[3].tolist() == [8, 9, 11, 12]
    assert tree.n_bytes == 4 * 4 * (3 + 5)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_a_full_tree_is_a_dense_grid(n_dims, device):
    # every cell of level 3: 9 vertices an axis, numbered x first
    tree = Octree.from_points(centres(8, n_dims), 3, 3)
    e = OctreeEncoding(tree, device, n_features=1)
    assert tree.n_corners == 9**n_dims
    params = drawn(e)
    grid = params[: 9**n_dims].reshape([9] * n_dims)
    x = np.random.default_rng(1).random((50, n_dims)).astype(np.float32)
    cell = np.minimum(np.floor(x * 8).astype(int), 7)
    wanted = np.zeros(len(x))
    for bit in np.ndindex(*[2] * n_dims):
        weight = np.where(bit, x * 8.0 - cell, 1 - (x * 8.0 - cell)).prod(axis=1)
        wanted += weight * grid[tuple((cell + bit).T[::-1])]
    assert np.allclose(features(e, params, x)[:, 0], wanted, atol=3e-6)
    # and at the vertices it is the entries, the far ones too
    vertices = np.stack(np.meshgrid(*[np.arange(9) / 8] * n_dims), axis=-1).reshape(-1, n_dims)
    at = (vertices * 8).astype(int)
    assert np.allclose(features(e, params, vertices)[:, 0], grid[tuple(at.T[::-1])], atol=1e-6)


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("reduction", ["concatenation", "sum"])
def test_ones_give_the_levels_that_have_a_cell(n_dims, reduction, device):
    points = OCTREE_POINTS[n_dims]
    tree = Octree.from_points(points, 1, 4)
    e = OctreeEncoding(tree, device, n_features=2, reduction=reduction)
    jitter = np.random.default_rng(2).uniform(-0.1, 0.1, (25, *points.shape))
    x = np.clip(points + jitter, 0, 1 - 1e-6).astype(np.float32).reshape(-1, n_dims)
    own = {level: {tuple(c) for c in np.floor(points * 2**level).astype(int)} for level in range(5)}
    has = np.array([[tuple(np.floor(p * 2**v).astype(int)) in own[v] for v in range(1, 5)]
                    for p in x])  # fmt: skip
    # weights sum to 1
    y = features(e, np.ones(e.n_params), x)
    wanted = np.repeat(has, 2, axis=1) if reduction == "concatenation" else has.sum(axis=1)[:, None]
    assert np.allclose(y, wanted, atol=1e-6)
    # some positions are in cells of all levels, some in none of the finest
    assert has[:, 3].any()
    assert not has[:, 3].all()
    # a cell's parents are there
    assert np.all(np.diff(has.astype(int), axis=1) <= 0)


def test_nothing_is_outside(device):
    e = OctreeEncoding(Octree.from_points(centres(4, 3), 0, 2), device)
    inside = [[0, 0, 0], [1, 1, 1], [1, 0.5, 0]]
    outside = [[-1e-6, 0.5, 0.5], [0.5, 1.0001, 0.5], [np.nan, 0.5, 0.5], [0.5, np.inf, 0.5],
               [0.5, 0.5, -3e38]]  # fmt: skip
    y = features(e, np.ones(e.n_params), inside + outside)
    assert np.allclose(y[:3], 1)
    assert np.all(y[3:] == 0)
    dx = wp.full(96, np.nan, dtype=float, device=device)
    dy = blocked(np.ones((8, e.n_outputs)), device)
    params = wp.array(drawn(e), device=device)
    run(e.backward(blocked(inside + outside, device), params, dy, dx=dx))
    dx = layout.from_blocked(dx.numpy().reshape(-1, 3, 32), 8)
    assert np.all(dx[:3] != 0)
    assert np.all(dx[3:] == 0)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_neighbours_share_corners(n_dims, device):
    # a face of level 4 between two cells: features are continuous across it
    below, above = np.full((2, 1, n_dims), 0.3)
    below[:, 0], above[:, 0] = 0.5 - 1e-3, 0.5 + 1e-3
    tree = Octree.from_points(np.concatenate([below, above]), 4, 4)
    assert tree.n_corners == 3 * 2 ** (n_dims - 1)
    e = OctreeEncoding(tree, device)
    below[:, 0] = np.nextafter(np.float32(0.5), np.float32(0))
    above[:, 0] = 0.5
    y = features(e, drawn(e), np.concatenate([below, above]))
    assert np.allclose(y[0], y[1], atol=1e-5)
    assert np.abs(y).max() > 0.1


def test_levels_share_nothing(device):
    e = OctreeEncoding(Octree.from_points(np.full((1, 3), 0.3), 0, 5), device, n_features=1)
    assert e.octree.n_corners == 6 * 8
    # padded to a multiple of 8 entries
    assert e.n_params == 48
    params = np.repeat(np.arange(6), 8)
    assert np.allclose(features(e, params, [[0.3, 0.3, 0.3]]), [np.arange(6)], atol=1e-6)


def test_the_state_makes_the_same_tree():
    tree = Octree.from_points(OCTREE_POINTS[3], 2, 5)
    again = Octree.from_codes(**tree.state)
    for name in ("codes", "child", "corner", "cell_offsets", "corner_offsets"):
        assert np.array_equal(getattr(again, name), getattr(tree, name))


def test_a_surface_has_a_number_of_cells_like_its_area():
    # a sphere: four times as many cells a level, where a volume has eight
    d = np.random.default_rng(4).normal(size=(200_000, 3))
    points = 0.5 + 0.4 * d / np.linalg.norm(d, axis=1, keepdims=True)
    tree = Octree.from_points(points, 3, 6)
    sizes = np.diff(tree.cell_offsets)
    assert np.all((sizes[1:] / sizes[:-1] > 3) & (sizes[1:] / sizes[:-1] < 5))
    corners = np.diff(tree.corner_offsets)
    # sheets of cells have about two layers of corners
    assert np.all((corners / sizes > 1.3) & (corners / sizes < 3))
    assert tree.n_bytes == 32 * (len(tree.child) + len(tree.corner))


def test_points_of_float64_lie_in_their_cells(device):
    # 0.5 - 1e-12 is 0.5 in float32, where the kernel looks
    points = np.array([[0.5 - 1e-12, 0.3]])
    e = OctreeEncoding(Octree.from_points(points, 8, 8), device)
    assert np.allclose(features(e, np.ones(e.n_params), points), 1)


@pytest.mark.parametrize(
    ("points", "levels", "error", "match"),
    [
        (np.zeros((0, 3)), (1, 2), DataError, r"got \(0, 3\)"),
        (np.zeros((4, 4)), (1, 2), DataError, r"got \(4, 4\)"),
        (np.zeros(3), (1, 2), DataError, r"got \(3,\)"),
        (np.full((1, 3), 1.1), (1, 2), DataError, "unit cube"),
        (np.full((1, 3), np.nan), (1, 2), DataError, "unit cube"),
        (np.zeros((1, 3)), (3, 2), ConfigError, "first_level must be from 0 to 2, got 3"),
        (np.zeros((1, 3)), (0, 17), ConfigError, "last_level must be from 0 to 16, got 17"),
    ],
)
def test_wrong_trees_are_refused(points, levels, error, match):
    with pytest.raises(error, match=match):
        Octree.from_points(points, *levels)


def test_wrong_settings_are_refused():
    tree = Octree.from_points(np.zeros((1, 2)), 0, 0)
    with pytest.raises(ConfigError, match="n_features must be one of 1, 2, 4, 8, got 3"):
        OctreeEncoding(tree, "cpu", n_features=3)
    with pytest.raises(ConfigError, match="reduction must be one of"):
        OctreeEncoding(tree, "cpu", reduction="product")


@pytest.mark.parametrize("case", [octree_case(2, 2, False), octree_case(3, 1, True)],
                         ids=lambda case: case.name)  # fmt: skip
def test_the_text_for_cuda_is_the_cpus(case, monkeypatch):
    plain = Runner(case, "cpu")
    wanted = [plain.forward(), *plain.backward().values(), *plain.second_order().values()]

    def as_cuda(text):
        return text.replace("#ifdef __CUDA_ARCH__", "#if 1").replace(
            "atomicAdd(D + j, ", "D[j] += ("
        )

    for module, name in ((kernels, "points"), (kernels, "_scatter")):
        make = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, make=make: as_cuda(make(*args)))
    for name in ("forward_kernel", "backward_kernel", "second_order_kernel", "scatter_kernel"):
        monkeypatch.setattr(kernels, name, getattr(kernels, name).__wrapped__)
    monkeypatch.setattr("ngp_warp.encodings.octree.block_items", lambda n, device: n * 32)
    monkeypatch.setattr(Octree, "n_levels", property(lambda tree: 64))  # items of the scatter
    points = Runner(case, "cpu")
    got = [points.forward(), *points.backward().values(), *points.second_order().values()]
    for one, other in zip(got, wanted, strict=True):
        assert np.allclose(one, other, atol=1e-5)
    assert octree_walk.OctreeShape is kernels.OctreeShape
