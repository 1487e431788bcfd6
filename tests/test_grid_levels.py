"""The levels of a grid and the index of a vertex, against values computed by hand."""

import numpy as np
import pytest
import warp as wp

from ngp_warp.config import GridEncodingConfig
from ngp_warp.encodings.grid import GridEncoding, grid_levels, resolve
from ngp_warp.errors import ConfigError
from ngp_warp.kernels.grid import DENSE, GROUP, HASH, TILED
from tests.grid_case import small
from tests.reference import grid, layout


def levels(n_dims, **settings):
    return grid_levels(resolve(GridEncodingConfig(**settings)), n_dims)


def test_default_grid_in_three_dimensions():
    # 16 * 1.3819^l - 1, rounded up, plus 1: level 1 is ceil(21.11) + 1 = 23, level 5 is
    # ceil(79.63) + 1 = 81, and 81^3 = 531,441 > 2^19 = 524,288
    table = levels(3, n_levels=16, per_level_scale=1.3819, log2_hashmap_size=19)
    assert [v.resolution for v in table[:6]] == [16, 23, 31, 43, 59, 81]
    assert [v.mode for v in table] == [DENSE] * 5 + [HASH] * 11
    # 23^3 = 12,167 entries are rounded up to a multiple of 8
    assert [v.size for v in table[:2]] == [4096, 12168]
    assert [v.offset for v in table[:3]] == [0, 4096, 16264]
    assert all(v.size == 2**19 for v in table[5:])
    assert table[0].scale == 15.0
    assert table[1].scale == pytest.approx(21.1104, abs=1e-5)


@pytest.mark.parametrize(
    ("scale", "level", "resolution"),
    [
        # 16 * 1.75^2 = 49, 16 * 1.3125 = 21: whole numbers that float32 meets
        (1.75, 2, 49),
        (1.3125, 1, 21),
        # 16 * 2.5^2 = 100, of which glibc's exp2f(2 * log2f(2.5f)) is a bit more than a sixteenth
        (2.5, 2, 101),
    ],
)
def test_whole_resolutions_are_the_c_librarys(scale, level, resolution):
    table = levels(2, n_levels=4, per_level_scale=scale, log2_hashmap_size=19)
    assert table[level].resolution == resolution


def test_finest_resolution_gives_the_scale():
    config = resolve(GridEncodingConfig(finest_resolution=2048))
    # (2048 / 16)^(1 / 15) = 2^(7 / 15)
    assert config.per_level_scale == pytest.approx(2 ** (7 / 15), rel=1e-12)
    # ceil() may fall on either side of a float32 whole number
    assert grid_levels(config, 3)[-1].resolution in {2048, 2049}
    assert resolve(config) == config


@pytest.mark.parametrize(
    ("n_dims", "resolution"),
    [
        (3, 1386),  # 1386^3 wraps a signed 32-bit integer to a negative number
        (3, 1626),  # 1626^3 = 2^32 + 3,975,080
        (2, 65536),  # 65536^2 = 2^32 wraps to 0
        (2, 65537),  # 2^32 + 131,073 wraps to less than 2^19
        (2, 2**18),
    ],
)
def test_large_levels_do_not_pass_as_dense(n_dims, resolution):
    settings = {"n_levels": 1, "base_resolution": resolution, "finest_resolution": resolution}
    (level,) = levels(n_dims, log2_hashmap_size=19, **settings)
    assert (level.resolution, level.mode, level.size) == (resolution, HASH, 2**19)


def test_two_to_the_24_entries_are_accepted():
    table = levels(2, n_levels=16, finest_resolution=2**17, log2_hashmap_size=24)
    assert table[-1].size == 2**24
    assert table[-1].mode == HASH
    assert table[-1].resolution > 2**16


@pytest.mark.parametrize("grid_type", ["hash", "dense", "tiled"])
@pytest.mark.parametrize("log2_hashmap_size", [3, 8])
def test_levels_are_whole_groups(grid_type, log2_hashmap_size):
    for n_dims in (2, 3):
        config = small(grid_type=grid_type, base_resolution=3, log2_hashmap_size=log2_hashmap_size)
        for level in grid_levels(config, n_dims):
            assert level.size % GROUP == 0
            assert level.offset % GROUP == 0


def test_tables_smaller_than_a_group_are_refused():
    with pytest.raises(ConfigError, match="log2_hashmap_size"):
        GridEncodingConfig(log2_hashmap_size=2)


def test_tiled_levels_have_the_coarsest_levels_entries():
    table = levels(3, grid_type="tiled", n_levels=4, base_resolution=5, per_level_scale=2.0)
    # 5^3 = 125, rounded up
    assert [v.size for v in table] == [128] * 4
    assert [v.mode for v in table] == [DENSE, TILED, TILED, TILED]


def test_dense_grids_have_every_vertex_or_are_refused():
    table = levels(2, grid_type="dense", n_levels=3, base_resolution=100, per_level_scale=4.0)
    assert [v.size for v in table] == [10_000, 160_000, 2_560_000]
    assert {v.mode for v in table} == {DENSE}
    with pytest.raises(ConfigError, match="parameters"):
        levels(3, grid_type="dense", n_levels=16, finest_resolution=2048)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"finest_resolution": 8},
        {"per_level_scale": 16.0, "n_levels": 64},
        {"per_level_scale": 16.0, "n_levels": 16},
    ],
)
def test_contradictory_resolutions_are_refused(settings):
    with pytest.raises(ConfigError, match=r"resolution|scale"):
        resolve(GridEncodingConfig(**settings))


@pytest.mark.parametrize("n_dims", [1, 4])
def test_other_dimensions_are_refused(n_dims, device):
    with pytest.raises(ConfigError, match="dimensions"):
        GridEncoding(n_dims, small(), device)


# Vertex coordinates v and the hash (v0 ^ v1 * 2654435761 ^ v2 * 805459861) modulo 2^32 modulo 2^19
HASHED_2D = [((3, 0), 3), ((1, 1), 489904), ((5, 1000), 220013), ((1024, 1024), 442368)]
HASHED_3D = [((3, 0, 0), 3), ((1, 1, 1), 339493), ((5, 6, 7), 311088), ((1024, 512, 3), 286911)]


def indices_at(vertices, config, n_dims, device, backend, level=0):
    """Return the entry that the kernel reads at vertices of a level: a table of its own indices."""
    encoding = GridEncoding(n_dims, config, device, backend)
    it = encoding.levels[level]
    # exact in float32 where scale is a power of two
    x = ((np.array(vertices) - 0.5) / it.scale).astype(np.float32)
    table = np.arange(encoding.n_entries, dtype=np.float32)
    blocked = layout.to_blocked(x)
    out = wp.zeros(len(blocked) * 32 * encoding.n_outputs, dtype=float, device=device)
    arrays = [wp.array(a.ravel(), dtype=float, device=device) for a in (blocked, table)]
    encoding.forward(*arrays, out, encoding.n_outputs).run()
    features = layout.from_blocked(out.numpy().reshape(-1, encoding.n_outputs, 32), len(x))
    return (features[:, level] - it.offset).tolist()


def one_feature(**settings):
    return small(n_features_per_level=1, **settings)


@pytest.mark.parametrize("values", [HASHED_2D, HASHED_3D], ids=["2D", "3D"])
def test_hashed_indices(device, backend, values):
    vertices, wanted = [list(part) for part in zip(*values, strict=True)]
    # base 1025: scale 1024
    settings = {"n_levels": 1, "base_resolution": 1025, "log2_hashmap_size": 19}
    n_dims = len(vertices[0])
    # a vertex coordinate of 0 lies outside the cube: positions are clamped to half a cell
    inside = [i for i, v in enumerate(vertices) if min(v) > 0]
    got = indices_at(
        [vertices[i] for i in inside], one_feature(**settings), n_dims, device, backend
    )
    assert got == [wanted[i] for i in inside]
    assert grid.entry(vertices, 1025, 2**19, "hash").tolist() == wanted
    assert grid.entry(vertices, 1025, 2**19, "hash", (1, 2654435759, 805459861)).tolist() != wanted


def test_dense_indices(device, backend):
    # base 17: scale 16, resolution 17, x + 17 y + 289 z of 4913 entries
    vertices = [(1, 1, 1), (16, 1, 2), (3, 16, 16)]
    config = one_feature(n_levels=1, base_resolution=17, log2_hashmap_size=19)
    wanted = [1 + 17 + 289, 16 + 17 + 578, 3 + 272 + 4624]
    assert indices_at(vertices, config, 3, device, backend) == wanted


def test_tiled_indices(device, backend):
    # nearest, so that an inexact position still falls on its vertex
    config = one_feature(grid_type="tiled", interpolation="nearest", base_resolution=4, n_levels=4)
    # 64 entries; level 3 has 32 vertices an axis: stride 1024 has no place and z is left out
    assert indices_at([(5, 6, 7), (31, 2, 9)], config, 3, device, backend, level=3) == [
        (5 + 6 * 32) % 64,
        (31 + 2 * 32) % 64,
    ]


def test_the_far_corner_wraps_inside_its_level(device, backend):
    # At x = 1 half of each weight lies on the vertices past the last row. 17 x 17 vertices in 296
    # entries: corners 288, 289, and 305, 306 wrapped to 9, 10; their mean is 149.
    config = one_feature(n_levels=2, base_resolution=17, log2_hashmap_size=19)
    assert indices_at([(16.5, 16.5)], config, 2, device, backend) == [149.0]
