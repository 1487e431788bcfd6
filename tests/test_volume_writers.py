"""Laws of written volumes: they reopen as they were, here and in what others read them with.

By hand, with OpenVDB 10.0.1: its accessor gives the same values, masks and transforms for all .vdb
of ``CASES``; nanovdb_validate passes all .nvdb; and where there are no active tiles the .nvdb are
those that nanovdb_convert makes of the .vdb but for checksums, means, deviations and the last bits
of inverse, world box and voxel size. Two of its tools run here, where they are.
"""

import io
import json
import resource
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_lookups import lookup_float, lookup_vector
from volume_runs import volume

from ngp_warp.errors import ConfigError, DataError, ResourceError
from ngp_warp.primitives.volume.data import load_volume
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.readers.nanovdb_tree import LAYOUTS
from ngp_warp.primitives.volume.writers import VOLUME_SUFFIXES, save_volume
from ngp_warp.primitives.volume.writers.sparse import sparse_grid
from ngp_warp.surfaces import nvdb_layout

SHEARED = np.array([[0.1, 0.02, 0.03, 1], [0, 0.2, 0.05, 2], [0.01, 0, 0.3, 3], [0, 0, 0, 1.0]])
SCALED = np.diag([0.3, -0.7, 1.1, 1.0])
SPARSE = (".nvdb", ".vdb")
WHOLE = (*SPARSE, ".npz")
WARP = Path(wp.__file__).parent


def tight(mask: np.ndarray) -> np.ndarray:
    """Make corners active, so that the box is that of the active voxels."""
    mask[0, 0, 0] = mask[-1, -1, -1] = True
    return mask


def fog() -> Volume:
    rng = np.random.default_rng(0)
    mask = tight(rng.random((37, 21, 150)) < 0.3)
    values = np.where(mask, rng.random(mask.shape) + 0.1, 0)
    return volume(values, mask, first=(-17, -13, -3), to_world=SHEARED)


def odd_fog() -> Volume:
    """A fog of a background, with holes of it, of its negative and of others; constant parts."""
    rng = np.random.default_rng(1)
    mask = tight(rng.random((60, 33, 41)) < 0.5)
    values = rng.standard_normal(mask.shape)
    values[~mask] = rng.choice([-2, 2, 3], mask.shape)[~mask]
    for x, value in ((8, 2), (16, -2), (24, 7)):
        values[x : x + 8, 8:24][~mask[x : x + 8, 8:24]] = value
    values[40:48, 8:24, 8:24], mask[40:48, 8:24, 8:24] = 0.5, True
    values[48:56, 8:24, 8:24], mask[48:56, 8:24, 8:24] = 4, False
    return volume(values, mask, first=(-32, -8, -16), background=(2.0,))


def level_set() -> Volume:
    """A ball around a block of 128^3 voxels that lies inside, over the root's boundaries."""
    low, high, centre = (-120, -135, 8), (256, 240, 384), np.array([64.0, 56, 192])
    axes = np.meshgrid(*map(np.arange, low, high), indexing="ij", sparse=True)
    distance = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))) - 180
    width = 2.5
    mask = np.abs(distance) < width
    bounds = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(b[0], b[-1] + 1) for b in bounds)
    first = tuple(int(n + b[0]) for n, b in zip(low, bounds, strict=True))
    return volume(
        np.clip(distance, -width, width)[box],
        mask[box],
        first=first,
        background=(width,),
        grid_class="level set",
        name="surface",
        to_world=np.array([[0.5, 0, 0, 1], [0, 0.5, 0, 2], [0, 0, 0.5, 3], [0, 0, 0, 1]]),
    )


def octant() -> Volume:
    """Eight upper nodes, of which one has a tile and no leaf."""
    values, mask = np.ones((16, 16, 16)), np.ones((16, 16, 16), bool)
    values[:8, :8, 8:], mask[:8, :8, 8:] = -3, False
    return volume(values, mask, first=(-8, -8, -8), background=(3.0,))


def vectors() -> Volume:
    rng = np.random.default_rng(2)
    mask = tight(rng.random((20, 30, 25)) < 0.4)
    values = rng.standard_normal((*mask.shape, 3))
    values[~mask] = (1, 2, 3)
    return volume(
        values,
        mask,
        first=(-10, -4100, 4090),
        background=(1.0, 2.0, 3.0),
        grid_class="staggered",
        name="velocity",
        to_world=SCALED,
    )


def constant() -> Volume:
    return volume(np.full((150, 140, 130), 0.5), first=(-10, -3, -1), to_world=SCALED)


CASES = {f.__name__: f() for f in (fog, odd_fog, level_set, octant, vectors, constant)}


def mask_of(it: Volume) -> np.ndarray:
    return np.ones(it.values.shape[:3], bool) if it.active is None else it.active


def check_whole(found: Volume, true: Volume) -> None:
    np.testing.assert_array_equal(found.values, true.values)
    np.testing.assert_array_equal(mask_of(found), mask_of(true))
    np.testing.assert_array_equal(found.to_world, true.to_world)
    for name in ("first", "background", "grid_class", "name", "n_active"):
        assert getattr(found, name) == getattr(true, name), name


def shifted(it: Volume) -> np.ndarray:
    """Return the transform of a file that counts from the first value."""
    matrix = it.to_world.copy()
    matrix[:3, 3] += matrix[:3, :3] @ it.first
    return matrix


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("suffix", WHOLE)
def test_nothing_is_lost(suffix: str, case: str, tmp_path: Path) -> None:
    path, true = tmp_path / f"a{suffix}", CASES[case]
    written = save_volume(path, true)
    assert written == {"bytes": path.stat().st_size, "n_voxels": true.n_active}
    check_whole(load_volume(path), true)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", WHOLE)
@pytest.mark.parametrize("change", ["to_world", "first", "values", "active", "background"])
def test_the_comparison_notices(suffix: str, change: str, tmp_path: Path) -> None:
    true = CASES["vectors"]
    other = {
        "to_world": np.nextafter(SCALED, SCALED + np.diag([1, 0, 0, 0])),
        "first": (-10, -4100, 4091),
        "values": np.roll(true.values, 1, axis=2),
        "active": tight(np.roll(mask_of(true), 1, axis=0)),
        "background": (1.0, 2.0, 3.5),
    }
    save_volume(tmp_path / f"a{suffix}", replace(true, **{change: other[change]}))
    with pytest.raises(AssertionError):
        check_whole(load_volume(tmp_path / f"a{suffix}"), true)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    first=st.tuples(*[st.integers(-4110, 4110)] * 3),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    n_channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
)
def test_any_box_is_the_same_again(tmp_path_factory, shape, first, share, n_channels, seed):
    rng = np.random.default_rng(seed)
    mask = tight(rng.random(shape) < share)
    values = rng.integers(1, 4, (*shape, n_channels)).astype(np.float32)
    values[~mask] = rng.choice([-5, 5, 6], p=[0.45, 0.5, 0.05])
    if n_channels == 1:
        values = values[..., 0]
    matrix = np.eye(4)
    matrix[:3] += rng.random((3, 4))
    true = volume(values, mask, first=first, background=(5.0,) * n_channels, to_world=matrix,
                  grid_class="unknown")  # fmt: skip
    folder = tmp_path_factory.mktemp("box")
    for suffix in WHOLE:
        save_volume(folder / f"a{suffix}", true)
        check_whole(load_volume(folder / f"a{suffix}"), true)


@pytest.mark.parametrize("name", ["examples/assets/rocks.nvdb", "tests/assets/torus.nvdb"])
def test_volumes_of_others_are_the_same_again(name: str, tmp_path: Path) -> None:
    true = load_volume(WARP / name)
    for suffix in WHOLE:
        save_volume(tmp_path / f"a{suffix}", true)
        check_whole(load_volume(tmp_path / f"a{suffix}"), true)


@wp.kernel
def and_back(volume: wp.uint64, at: wp.array[wp.vec3i], out: wp.array[wp.vec3]):
    """Index to world and back."""
    i = wp.tid()
    point = wp.vec3(float(at[i][0]), float(at[i][1]), float(at[i][2]))
    out[i] = wp.volume_world_to_index(volume, wp.volume_index_to_world(volume, point))


@pytest.mark.parametrize("case", CASES)
def test_warp_finds_the_same_values(case: str, tmp_path: Path) -> None:
    path, true = tmp_path / "a.nvdb", CASES[case]
    save_volume(path, true)
    found = wp.Volume.load_from_nvdb(io.BytesIO(path.read_bytes()), device="cpu")
    info = found.get_grid_info()
    assert info.name == true.name
    shape = np.array(true.values.shape[:3])
    points = np.random.default_rng(0).integers(-9, shape + 9, (5000, 3))
    inside = np.all((points >= 0) & (points < shape), axis=1)
    expected = np.empty((len(points), true.n_channels), np.float32)
    expected[:] = true.background
    expected[inside] = true.values.reshape(*shape, -1)[tuple(points[inside].T)]
    at = wp.array((points + true.first).astype(np.int32), dtype=wp.vec3i, device="cpu")
    out = wp.zeros(len(points), dtype=wp.vec3, device="cpu")
    kernel = lookup_vector if true.n_channels == 3 else lookup_float
    wp.launch(kernel, len(points), [found.id, at], [out], device="cpu")
    np.testing.assert_array_equal(out.numpy()[:, : true.n_channels], expected)
    wp.launch(and_back, len(points), [found.id, at], [out], device="cpu")
    # float32: the largest index is 4110, the condition of the transforms below 10
    np.testing.assert_allclose(out.numpy(), points + np.array(true.first), atol=2e-2)


def header(path: Path):
    """Return the records of a NanoVDB file's grid, tree and root, and where the tree begins."""
    data = np.fromfile(path, np.uint8)
    meta = data[16:192].view(nvdb_layout.META)[0]
    begin = 192 + int(meta["name_bytes"])
    grid = data[begin : begin + 672].view(nvdb_layout.GRID)[0]
    tree = data[begin + 672 :][:64].view(nvdb_layout.TREE)[0]
    layout = nvdb_layout.layout_of(3 if meta["type"] == 6 else 1).root
    at = begin + 672 + int(tree["offsets"][3])
    return meta, grid, tree, data[at : at + layout.itemsize].view(layout)[0], data[begin:]


@pytest.mark.parametrize("case", CASES)
def test_a_nanovdb_header_tells_the_truth(case: str, tmp_path: Path) -> None:
    true = CASES[case]
    save_volume(tmp_path / "a.nvdb", true)
    meta, grid, tree, root, data = header(tmp_path / "a.nvdb")
    assert len(data) == grid["grid_bytes"] == meta["grid_bytes"]
    assert tree["n_active"] == meta["n_active"] == true.n_active
    low, high = np.array(true.first), np.array(true.first) + true.values.shape[:3] - 1
    np.testing.assert_array_equal(root["box"], [low, high])
    np.testing.assert_array_equal(meta["box"], root["box"])
    ends = np.array([low, high + 1])
    corners = ends[np.indices((2, 2, 2)).reshape(3, -1).T, range(3)]
    world = corners @ true.to_world[:3, :3].T + true.to_world[:3, 3]
    # float64 sums of three products below 5000
    np.testing.assert_allclose(grid["world"], [world.min(axis=0), world.max(axis=0)], atol=1e-11)
    np.testing.assert_allclose(grid["matrix_f8"] @ grid["inverse_f8"], np.eye(3), atol=1e-12)
    values = true.values[mask_of(true)].reshape(true.n_active, -1)
    sizes = values[:, 0] if true.n_channels == 1 else np.sum(values * values, axis=1)
    np.testing.assert_array_equal(root["smallest"], values[sizes.argmin()])
    np.testing.assert_array_equal(root["largest"], values[sizes.argmax()])
    assert meta["grid_class"] == {"fog": 2, "level set": 1, "staggered": 3}[true.grid_class]


def test_a_name_is_found_by_its_key(tmp_path: Path) -> None:
    # As nanovdb_convert writes it.
    save_volume(tmp_path / "a.nvdb", CASES["fog"])
    assert header(tmp_path / "a.nvdb")[0]["name_key"] == NAME_KEY
    long = replace(CASES["octant"], name="ü" * 300)
    save_volume(tmp_path / "a.nvdb", long)
    assert load_volume(tmp_path / "a.nvdb").name == "ü" * 127


NAME_KEY = 9184452543000


@pytest.mark.parametrize("n_channels", [1, 3])
def test_written_layouts_are_those_that_are_read(n_channels: int) -> None:
    read, written = LAYOUTS[{1: 1, 3: 6}[n_channels]], nvdb_layout.layout_of(n_channels)
    assert written.root.itemsize == read.root_bytes
    assert written.root.fields["background"][1] == read.background_at
    assert written.root_entry.itemsize == read.root_entry_bytes
    assert written.root_entry.fields["value"][1] == read.root_value_at
    for node, side in ((written.upper, 5), (written.lower, 4)):
        assert node.itemsize == read.node_bytes(side)
        assert node.fields["entries"][1] == read.table_at(side)
    assert written.leaf.itemsize == read.leaf_bytes
    assert written.leaf.fields["values"][1] == read.leaf_at


def test_only_what_differs_is_a_leaf() -> None:
    inside = sparse_grid(CASES["level_set"], active_tiles=True)
    # The middle block of 128^3 voxels, and many of 8^3 around it.
    np.testing.assert_array_equal(inside.large.first, [[0, 0, 128]])
    assert len(inside.small.first) > 10_000
    for tiles in (inside.small, inside.large):
        assert np.all(tiles.values == -2.5)
        assert not tiles.active.any()
    # The shell's volume, in leaves: it is five voxels thick, and leaves stick out on both sides.
    assert len(inside.first) < 4 * np.pi * 180**2 * (5 + 2 * 8) / 512
    tiles, leaves = (sparse_grid(CASES["constant"], active_tiles=on) for on in (True, False))
    assert len(tiles.large.first) == 1
    assert tiles.n_active == leaves.n_active == CASES["constant"].n_active
    assert len(leaves.large.first) == len(leaves.small.first) == 0


def test_nothing_outside_of_a_fog_is_stored(tmp_path: Path) -> None:
    values = np.zeros((300, 300, 300))
    values[0, 0, 0] = values[-1, -1, -1] = 1
    save_volume(tmp_path / "a.vdb", volume(values, values > 0))
    assert (tmp_path / "a.vdb").stat().st_size < 60_000
    assert len(sparse_grid(volume(values, values > 0), active_tiles=True).first) == 2


def test_leaves_come_as_openvdb_expects_them(tmp_path: Path) -> None:
    """Sort upper nodes by signed x, y, z: OpenVDB does, before it reads the leaves' values."""
    from ngp_warp.primitives.volume.readers import openvdb, openvdb_tree

    save_volume(tmp_path / "a.vdb", CASES["fog"])
    data = (tmp_path / "a.vdb").read_bytes()
    (grid,) = openvdb._descriptors(openvdb_tree.Cursor(data))
    cursor = openvdb_tree.Cursor(data, grid.begin, grid.end)
    assert openvdb._header(cursor).compression == 3
    begin, kind = cursor.position, openvdb_tree.KINDS["Tree_float_5_4_3"]
    first = openvdb_tree.read_tree(cursor, kind, 3, False).first
    uppers = [tuple(u) for u in (first >> 12).tolist()]
    assert uppers == sorted(uppers)
    assert len(set(uppers)) == 8
    # Where the leaves' values begin, their masks are repeated.
    (block,) = struct.unpack("<q", data[grid.begin - 16 : grid.begin - 8])
    assert begin < block < grid.end
    assert data[block : block + 64] in data[begin:block]


MAPS = [
    (np.eye(4), "UniformScaleTranslateMap"),
    (np.diag([-0.3, -0.3, -0.3, 1]), "UniformScaleTranslateMap"),
    (SCALED, "ScaleTranslateMap"),
    (SHEARED, "AffineMap"),
    (np.diag([1.0, 1, 1, 1])[[1, 0, 2, 3]], "AffineMap"),
]


@pytest.mark.parametrize(("matrix", "kind"), MAPS)
def test_maps_of_openvdb(matrix: np.ndarray, kind: str, tmp_path: Path) -> None:
    matrix = matrix.copy()
    matrix[:3, 3] = (1, 2, -3)
    save_volume(tmp_path / "a.vdb", volume(np.ones((2, 3, 4)), to_world=matrix))
    data = (tmp_path / "a.vdb").read_bytes()
    begin = data.index(struct.pack("<I", len(kind)) + kind.encode()) + 4 + len(kind)
    if kind == "AffineMap":
        found = struct.unpack("<16d", data[begin : begin + 128])
        np.testing.assert_array_equal(np.reshape(found, (4, 4)).T, matrix)
        return
    found = np.reshape(struct.unpack("<18d", data[begin : begin + 144]), (6, 3))
    scale = np.diag(matrix)[:3]
    np.testing.assert_array_equal(
        found, [matrix[:3, 3], scale, np.abs(scale), 1 / scale, (1 / scale) ** 2, 0.5 / scale]
    )


def test_openvdb_metadata(tmp_path: Path) -> None:
    from ngp_warp.primitives.volume.readers import openvdb, openvdb_tree

    save_volume(tmp_path / "a.vdb", CASES["level_set"])
    data = (tmp_path / "a.vdb").read_bytes()
    (grid,) = openvdb._descriptors(openvdb_tree.Cursor(data))
    told = openvdb._header(openvdb_tree.Cursor(data, grid.begin, grid.end)).metadata
    true = CASES["level_set"]
    assert (told["class"], told["name"]) == ("level set", "surface")
    assert told["file_compression"] == "zip + active values"
    assert struct.unpack("<q", told["file_voxel_count"]) == (true.n_active,)
    assert struct.unpack("<3i", told["file_bbox_min"]) == true.first
    assert struct.unpack("<3i", told["file_bbox_max"]) == tuple(
        a + n - 1 for a, n in zip(true.first, true.values.shape, strict=True)
    )


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_equal_volumes_give_equal_files(suffix: str, tmp_path: Path) -> None:
    contents = []
    for name, case in (("a", "fog"), ("b", "fog"), ("c", "constant")):
        save_volume(tmp_path / f"{name}{suffix}", CASES[case])
        contents.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert contents[0] == contents[1] != contents[2]
    if suffix == ".vdb":
        assert contents[0][21:57] != contents[2][21:57]  # UUIDs
        assert contents[0][21:57].count(b"-") == 4


TOOLS = {".nvdb": "nanovdb_validate", ".vdb": "vdb_print"}


@pytest.mark.parametrize("suffix", SPARSE)
@pytest.mark.parametrize("case", CASES)
def test_tools_of_openvdb_read_them(suffix: str, case: str, tmp_path: Path) -> None:
    if shutil.which(TOOLS[suffix]) is None:
        pytest.skip(f"{TOOLS[suffix]} is not installed")
    save_volume(tmp_path / f"a{suffix}", CASES[case])
    command = [TOOLS[suffix], *(["-l"] if suffix == ".vdb" else []), tmp_path / f"a{suffix}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "rror" in done.stderr) == (0, False), done.stderr
    if suffix == ".vdb":
        assert f"Number of active voxels:       {CASES[case].n_active:,}\n" in done.stdout


@pytest.mark.parametrize("case", ["fog", "vectors"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_as_nibabel_reads_it(suffix: str, case: str, tmp_path: Path) -> None:
    path, true = tmp_path / f"a{suffix}", replace(CASES[case], unit="mm")
    assert save_volume(path, true)["bytes"] == path.stat().st_size
    image = nib.loadsave.load(path)
    np.testing.assert_array_equal(image.affine, shifted(true))
    data = np.asanyarray(image.dataobj)
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data.squeeze(), true.values)
    assert image.header.get_xyzt_units()[0] == "mm"
    found = load_volume(path)
    np.testing.assert_array_equal(found.values, true.values)
    np.testing.assert_array_equal(found.to_world, shifted(true))
    assert found.unit == "mm"
    if case == "vectors":
        assert (data.shape[3:], image.header.get_intent()[0]) == ((1, 3), "vector")


AFFINES = [
    (np.diag([0.5, -0.25, 2, 1]), 1, True),
    (SCALED, 2, True),
    (SHEARED, 2, False),
    (np.array([[0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1.0]]), 1, True),
]


@pytest.mark.parametrize(("matrix", "version", "rigid"), AFFINES)
def test_nifti_keeps_transforms_exactly(matrix, version: int, rigid: bool, tmp_path: Path) -> None:
    true = volume(np.ones((4, 5, 6)), to_world=matrix, first=(-2, 3, 40))
    save_volume(tmp_path / "a.nii", true)
    header = nib.loadsave.load(tmp_path / "a.nii").header
    assert header["sizeof_hdr"] == {1: 348, 2: 540}[version]
    np.testing.assert_array_equal(header.get_sform(), shifted(true))
    assert (header["qform_code"] > 0) == rigid
    if rigid:
        np.testing.assert_allclose(header.get_qform(), shifted(true), atol=1e-5)
    np.testing.assert_allclose(header["pixdim"][1:4], true.voxel_size, rtol=1e-6)


def test_numpy_as_numpy_reads_it(tmp_path: Path) -> None:
    true = replace(CASES["fog"], to_world=np.diag([0.5, 2, 3, 1.0]), unit="micron")
    save_volume(tmp_path / "a.npz", true)
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["density"], true.values)
        np.testing.assert_array_equal(arrays["active"], true.active)
        np.testing.assert_array_equal(arrays["voxel_size"], [0.5, 2, 3])
        np.testing.assert_array_equal(arrays["origin"], [0.5 * -17, 2 * -13, 3 * -3])
        assert str(arrays["unit"]) == load_volume(tmp_path / "a.npz").unit == "micron"
    save_volume(tmp_path / "b.npz", CASES["fog"])
    with np.load(tmp_path / "b.npz") as arrays:  # its axes are turned
        assert "origin" not in arrays
    save_volume(tmp_path / "c.npy", CASES["vectors"])
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), CASES["vectors"].values)
    told = json.loads((tmp_path / "c.npy.json").read_text())
    np.testing.assert_array_equal(told["to_world"], SCALED)
    assert (told["first"], told["background"]) == ([-10, -4100, 4090], [1, 2, 3])
    assert (told["axes"], told["grid_class"], told["unit"]) == ("xyz", "staggered", "")


@pytest.mark.parametrize("name", ["", "active", "to_world", "a/b"])
def test_names_that_name_no_array(name: str, tmp_path: Path) -> None:
    save_volume(tmp_path / "a.npz", replace(CASES["octant"], name=name))
    check_whole(load_volume(tmp_path / "a.npz"), replace(CASES["octant"], name="values"))


@pytest.mark.parametrize("n_channels", [2, 4])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".nii"])
def test_dense_files_hold_any_channels(suffix: str, n_channels: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 5, 6, n_channels), np.float32)
    save_volume(tmp_path / f"a{suffix}", volume(values))
    np.testing.assert_array_equal(load_volume(tmp_path / f"a{suffix}").values, values)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".nii", ".nii.gz"])
def test_integers_are_rounded_and_clipped(suffix: str, tmp_path: Path) -> None:
    values = np.array([-1e30, -3, 0.4, 0.5, 1.5, 2.5, 254.6, 256, 1e30], np.float32)[:, None, None]
    expected = {
        "uint8": [0, 0, 0, 0, 2, 2, 255, 255, 255],
        "int16": [-32768, -3, 0, 0, 2, 2, 255, 256, 32767],
        "int32": [-(2**31), -3, 0, 0, 2, 2, 255, 256, 2**31 - 1],
    }
    for dtype, true in expected.items():
        save_volume(tmp_path / f"a{suffix}", volume(values), dtype=dtype)
        found = load_volume(tmp_path / f"a{suffix}")
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.values[:, 0, 0], np.float32(true))
    save_volume(tmp_path / f"a{suffix}", volume(values), dtype="float64")
    np.testing.assert_array_equal(load_volume(tmp_path / f"a{suffix}").values, values)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    one = volume(np.ones((4, 5, 6)))
    with pytest.raises(ConfigError, match=r"must end in \.nvdb or \.vdb .* or \.nii\.gz"):
        save_volume(tmp_path / "a.tiff", one)
    with pytest.raises(ConfigError, match="must end in"):
        save_volume(tmp_path / "a.gz", one)
    for suffix in SPARSE:
        with pytest.raises(ConfigError, match=r"1 or 3 channels and there are 2; \.npy"):
            save_volume(tmp_path / f"a{suffix}", volume(np.ones((4, 5, 6, 2))))
        with pytest.raises(ConfigError, match=r"with uint8: .* is written in float32; \.npy"):
            save_volume(tmp_path / f"a{suffix}", one, dtype="uint8")
        with pytest.raises(DataError, match="none of its voxels is active"):
            save_volume(tmp_path / f"a{suffix}", replace(one, active=np.zeros((4, 5, 6), bool)))
    for name in ("a.npy", "a.npz", "a.nii"):
        with pytest.raises(ConfigError, match=r"dtype must be one of uint8, .* got 'complex64'"):
            save_volume(tmp_path / name, one, dtype="complex64")
    with pytest.raises(ConfigError, match="got 'float16'"):
        save_volume(tmp_path / "a.nii", one, dtype="float16")
    for suffix in VOLUME_SUFFIXES:
        with pytest.raises(ResourceError, match="does not exist"):
            save_volume(tmp_path / "none" / f"a{suffix}", one)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_a_full_disk_leaves_what_was(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(ResourceError, match=f"cannot write .*{suffix}: File too large"):
            save_volume(path, CASES["fog"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_nibabel_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nibabel.nifti1", None)
    with pytest.raises(ResourceError, match=r"pip install 'ngp-warp\[volume\]'"):
        save_volume(tmp_path / "a.nii", CASES["octant"])
    assert not list(tmp_path.iterdir())


BROKEN = {
    "to_world": [np.eye(3), np.ones((4, 4)), np.zeros((4, 4)), np.eye(4, dtype=int)],
    "first": [np.zeros(2, int), np.zeros(3)],
    "active": [np.ones((4, 5, 7), bool), np.ones((4, 5, 6))],
    "background": [np.zeros(2), np.array(["a"])],
    "grid_class": [np.zeros(1), np.array("x" * 100)],
    "unit": [np.array(["mm"]), np.array(3)],
}


@pytest.mark.parametrize("key", BROKEN)
def test_broken_companions_are_refused(key: str, tmp_path: Path) -> None:
    path, good = tmp_path / "a.npz", {"a": np.ones((4, 5, 6)), "to_world": np.eye(4)}
    np.savez(path, **good)
    assert load_volume(path).first == (0, 0, 0)
    for bad in BROKEN[key]:
        np.savez(path, **{**good, key: bad})
        with pytest.raises(DataError, match="cannot read"):
            load_volume(path)


def test_arrays_without_a_transform_are_still_volumes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", active=np.ones((4, 5, 6)))
    assert load_volume(tmp_path / "a.npz").name == "active"
    np.savez(tmp_path / "a.npz", active=np.ones((4, 5, 6)), background=np.ones((4, 5, 6)))
    with pytest.raises(DataError, match="several grids"):
        load_volume(tmp_path / "a.npz")
