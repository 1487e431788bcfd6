"""Volumes are read as an independent reading has them: values, active voxels, transform."""

import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import volume_samples as samples
import warp as wp
from volume_lookups import lookup_float, lookup_vector

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.data import RawLayout, Volume, list_grids, load_volume
from ngp_warp.primitives.volume.readers.nanovdb_tree import LAYOUTS
from ngp_warp.surfaces.nvdb import write_fog
from ngp_warp.surfaces.volume_files import Placement

FOLDER = Path(__file__).parent / "volumes"
WARP = Path(wp.__file__).parent
NVDB = {
    "rocks": WARP / "examples" / "assets" / "rocks.nvdb",
    **{n: WARP / "tests" / "assets" / f"{n}.nvdb" for n in ("torus", "test_grid")},
    **{n: WARP / "tests" / "assets" / f"test_{n}_grid.nvdb" for n in ("int32", "vec")},
}
TRUTH = np.load(FOLDER / "openvdb.npz")


def is_active(volume: Volume, points: np.ndarray) -> np.ndarray:
    """Tell whether the voxels of indices [n, 3] are active."""
    at = points - np.array(volume.first)
    inside = np.all((at >= 0) & (at < volume.values.shape[:3]), axis=1)
    found = np.zeros(len(points), bool)
    mask = np.ones(volume.values.shape[:3], bool) if volume.active is None else volume.active
    found[inside] = mask[tuple(at[inside].T)]
    return found


def values_at(volume: Volume, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of those indices that lie in the box, and which these are."""
    at = points - np.array(volume.first)
    inside = np.all((at >= 0) & (at < volume.values.shape[:3]), axis=1)
    return volume.values[tuple(at[inside].T)], inside


def world(volume: Volume, points: np.ndarray) -> np.ndarray:
    return points @ volume.to_world[:3, :3].T + volume.to_world[:3, 3]


def check_against_openvdb(volume: Volume, name: str) -> None:
    """Compare with what OpenVDB's accessor said at random points."""
    true = {key: TRUTH[f"{name}/{key}"] for key in ("box", "points", "values", "active")}
    low, high = true["box"]
    assert volume.first == tuple(low)
    assert volume.values.shape[:3] == tuple(high - low + 1)
    assert volume.n_active == TRUTH[f"{name}/n_active"]
    found, inside = values_at(volume, true["points"])
    np.testing.assert_array_equal(found, true["values"][inside])
    np.testing.assert_array_equal(is_active(volume, true["points"]), true["active"])
    # float64 sums of three products below 100
    expected = TRUTH[f"{name}/world"]
    np.testing.assert_allclose(world(volume, TRUTH[f"{name}/corners"]), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["density", "half", "surface", "velocity", "inside"])
@pytest.mark.parametrize("file", ["openvdb.vdb", "zip.nvdb", "blosc.nvdb"])
def test_what_openvdb_wrote(file: str, name: str) -> None:
    chosen = "density[0]" if name == "density" else name
    volume = load_volume(FOLDER / file, grid=chosen)
    check_against_openvdb(volume, name)
    assert volume.grid_class == {"density": "fog", "half": "fog", "surface": "level set"}.get(
        name, "unknown"
    )


def test_the_comparison_notices_a_shift() -> None:
    volume = load_volume(FOLDER / "openvdb.vdb", grid="surface")
    volume.values[:] = np.roll(volume.values, 1, axis=2)
    with pytest.raises(AssertionError):
        check_against_openvdb(volume, "surface")


def test_active_tiles_are_data() -> None:
    volume = load_volume(FOLDER / "openvdb.vdb", grid="density[1]")
    x, y, z = (-first for first in volume.first)
    assert np.all(volume.values[x + 128 :, y : y + 128, z : z + 128] == 0.5)
    assert np.all(volume.values[x + 16 : x + 24, y : y + 8, z : z + 8] == 0.75)
    assert volume.active is not None
    assert volume.active[x + 128 :].all()
    # The inactive tile of another value than the background keeps it.
    assert np.all(volume.values[x + 64 : x + 72, y : y + 8, z : z + 8] == 0.25)
    assert not volume.active[x + 64 : x + 72].any()


def test_a_sheared_transform_is_kept_as_it_is() -> None:
    expected = [[0.1, 0, 0, 1], [0.02, 0.2, 0.05, 2], [0, 0, 0.3, 3], [0, 0, 0, 1]]
    for file in ("openvdb.vdb", "zip.nvdb"):
        volume = load_volume(FOLDER / file, grid="half")
        np.testing.assert_array_equal(volume.to_world, expected)
        # lengths of the columns
        np.testing.assert_allclose(volume.voxel_size, [0.0104**0.5, 0.2, 0.0925**0.5])


@pytest.mark.parametrize(("number", "bits"), [(0, 4), (1, 8), (2, 16), (3, None)])
def test_quantized_values_are_near_the_true_ones(number: int, bits: int | None) -> None:
    volume = load_volume(FOLDER / "quantized.nvdb", grid=f"density[{number}]")
    true = load_volume(FOLDER / "openvdb.vdb", grid="half")
    np.testing.assert_array_equal(volume.active, true.active)
    exact = load_volume(FOLDER / "zip.nvdb", grid="density[0]")
    # Half a step of values 0..1, and float32's rounding; the unnamed one chose its bits for 1/512.
    step = 1 / (2**bits - 1) if bits else 1 / 256
    assert np.abs(volume.values - exact.values).max() <= step / 2 + 1e-6
    assert volume.dtype == ("fpn" if bits is None else f"fp{bits}")


@wp.kernel
def lookup_int(volume: wp.uint64, at: wp.array[wp.vec3i], out: wp.array[wp.vec3]):
    """Integer lookups."""
    i = wp.tid()
    value = float(wp.volume_lookup_i(volume, at[i][0], at[i][1], at[i][2]))
    out[i] = wp.vec3(value, value, value)


@wp.kernel
def to_world(volume: wp.uint64, at: wp.array[wp.vec3i], out: wp.array[wp.vec3]):
    """Where voxels lie."""
    i = wp.tid()
    point = wp.vec3(float(at[i][0]), float(at[i][1]), float(at[i][2]))
    out[i] = wp.volume_index_to_world(volume, point)


@pytest.mark.parametrize("name", NVDB)
def test_nanovdb_as_warp_reads_it(name: str) -> None:
    volume = load_volume(NVDB[name])
    with NVDB[name].open("rb") as file:
        warps = wp.Volume.load_from_nvdb(file, device="cpu")
    rng = np.random.default_rng(0)
    points = rng.integers(0, volume.values.shape[:3], (4000, 3)) + np.array(volume.first)
    at = wp.array(points.astype(np.int32), dtype=wp.vec3i, device="cpu")
    kernel = {"int32": lookup_int, "vec3f": lookup_vector}.get(volume.dtype, lookup_float)
    found, _ = values_at(volume, points)
    for launched, expected in ((kernel, found), (to_world, world(volume, points))):
        out = wp.zeros(len(points), dtype=wp.vec3, device="cpu")
        wp.launch(launched, len(points), [warps.id, at], [out], device="cpu")
        columns = expected.reshape(len(points), -1)
        # values are equal; Warp's transform has float32's relative rounding
        tolerance = 1e-5 if launched is to_world else 0.0
        np.testing.assert_allclose(
            out.numpy(), np.broadcast_to(columns, (len(points), 3)), atol=tolerance, rtol=0
        )


def test_a_fog_that_this_package_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tiles = np.array([[-1, 0, 2], [0, 0, 0], [40, -3, 1]], np.int32)
    values = rng.random((3, 512), np.float32) * (rng.random((3, 512)) < 0.5)
    write_fog(tmp_path / "fog.nvdb", tiles, values, Placement((1, 2, 3), 0.25, 1.0), "density")
    volume = load_volume(tmp_path / "fog.nvdb")
    assert (volume.name, volume.grid_class) == ("density", "fog")
    np.testing.assert_array_equal(volume.to_world, [[0.25, 0, 0, 1], [0, 0.25, 0, 2],
                                                    [0, 0, 0.25, 3], [0, 0, 0, 1]])  # fmt: skip
    local = np.stack(np.unravel_index(np.arange(512), (8, 8, 8)), axis=1)
    points = (8 * tiles[:, None] + local).reshape(-1, 3)
    found, inside = values_at(volume, points)
    np.testing.assert_array_equal(found, values.ravel()[inside])
    np.testing.assert_array_equal(is_active(volume, points), values.ravel() > 0)
    assert volume.n_active == np.count_nonzero(values)


def test_a_bare_grid_is_read_as_in_its_file(tmp_path: Path) -> None:
    with NVDB["torus"].open("rb") as file:
        warps = wp.Volume.load_from_nvdb(file, device="cpu")
    (tmp_path / "bare.nvdb").write_bytes(warps.array().numpy().tobytes())
    volume, expected = load_volume(tmp_path / "bare.nvdb"), load_volume(NVDB["torus"])
    np.testing.assert_array_equal(volume.values, expected.values)
    assert (volume.name, volume.grid_class) == ("surface", "level set")


# Rows of PNanoVDB.h of NanoVDB 32.4: root's background and size, its entry's value and size, a
# node's entry, the two tables and node sizes, a leaf's values and size.
LAYOUT_ROWS = {
    1: (28, 64, 20, 32, 8, 8256, 270400, 1088, 33856, 96, 2144),
    2: (32, 96, 24, 32, 8, 8256, 270400, 1088, 33856, 128, 4224),
    3: (28, 64, 20, 32, 8, 8256, 270400, 1088, 33856, 96, 1120),
    4: (28, 64, 20, 32, 8, 8256, 270400, 1088, 33856, 96, 2144),
    5: (32, 96, 24, 32, 8, 8256, 270400, 1088, 33856, 128, 4224),
    6: (28, 96, 20, 32, 16, 8256, 532544, 1088, 66624, 128, 6272),
    7: (32, 128, 24, 64, 24, 8288, 794720, 1120, 99424, 160, 12448),
    10: (28, 64, 20, 32, 8, 8256, 270400, 1088, 33856, 96, 2144),
    13: (28, 64, 20, 32, 8, 8256, 270400, 1088, 33856, 96, 352),
    14: (28, 64, 20, 32, 8, 8256, 270400, 1088, 33856, 96, 608),
    15: (28, 64, 20, 32, 8, 8256, 270400, 1088, 33856, 96, 1120),
    17: (28, 96, 20, 64, 16, 8288, 532576, 1120, 66656, 128, 8320),
    18: (32, 160, 24, 64, 32, 8320, 1056896, 1152, 132224, 160, 16544),
}


@pytest.mark.parametrize("number", LAYOUT_ROWS)
def test_layouts_are_those_of_nanovdb(number: int) -> None:
    it = LAYOUTS[number]
    found = (it.background_at, it.root_bytes, it.root_value_at, it.root_entry_bytes)
    found += (it.entry_bytes, it.table_at(5), it.node_bytes(5), it.table_at(4), it.node_bytes(4))
    assert (*found, it.leaf_at, it.leaf_bytes) == LAYOUT_ROWS[number]


def check_sample(path: Path, grid: samples.Grid, **more) -> Volume:
    """Write a made grid, read it, and compare all its values."""
    path.write_bytes(samples.vdb(grid, **more))
    volume = load_volume(path)
    values, active = samples.dense(grid)
    box = tuple(slice(a, a + n) for a, n in zip(volume.first, volume.values.shape[:3], strict=True))
    found = volume.values if volume.n_channels > 1 else volume.values[..., None]
    np.testing.assert_array_equal(found, values[box])
    mask = np.ones(found.shape[:3], bool) if volume.active is None else volume.active
    np.testing.assert_array_equal(mask, active[box])
    assert volume.n_active == np.count_nonzero(active)
    return volume


@pytest.mark.parametrize("kind", samples.TYPES)
@pytest.mark.parametrize("compression", [0, 1, 2, 3, 4, 6])
def test_types_and_compressions_of_openvdb(kind: str, compression: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    channels = 3 if kind.startswith("vec") else 1
    grid = samples.Grid(
        type=kind,
        background=(0,) * channels,
        leaves={n: samples.leaf(rng, channels, kind) for n in (5, 300)},
        tiles={} if kind == "mask" else {7: ((1,) * channels, True)},
        compression=compression,
        form=0,
    )
    volume = check_sample(tmp_path / "a.vdb", grid)
    assert volume.n_channels == channels


FORMS = [
    (0, (3,)),
    (1, (-3,)),
    (2, (5,)),
    (3, (-3, 3)),
    (4, (5, 3)),
    (5, (5, 7)),
    (None, (1, 2, 4)),
]


@pytest.mark.parametrize(("form", "inactive"), FORMS)
def test_forms_of_inactive_values(form: int | None, inactive: tuple, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    leaves = {0: samples.leaf(rng, inactive=inactive)}
    check_sample(tmp_path / "a.vdb", samples.Grid(background=(3,), leaves=leaves, form=form))


def test_shared_trees_and_older_versions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grid = samples.Grid(leaves={0: samples.leaf(rng)}, form=0)
    check_sample(tmp_path / "old.vdb", grid, version=222)
    other = samples.Grid(name="other", map=("TranslationMap", np.arange(3.0).tobytes()))
    path = tmp_path / "shared.vdb"
    path.write_bytes(samples.vdb(grid, other, parents=("", "density")))
    first, second = (load_volume(path, grid=name) for name in ("density", "other"))
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(second.to_world[:3, 3], [0, 1, 2])


def random_box(dtype, shape=(5, 6, 7)) -> np.ndarray:
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 100, shape).astype(dtype)


NUMBERS = ["u1", "i1", "<u2", ">i2", "<i4", ">u4", "<i8", "<f2", ">f4", "<f8", "?"]


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy(dtype: str, order: str, tmp_path: Path) -> None:
    values = np.asarray(random_box(dtype), order=order)
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "a.npz", only=values)
    for path, name in ((tmp_path / "a.npy", "a"), (tmp_path / "a.npz", "only")):
        volume = load_volume(path)
        np.testing.assert_array_equal(volume.values, values.astype(np.float32))
        assert (volume.name, volume.first, volume.active) == (name, (0, 0, 0), None)
        assert volume.dtype == np.dtype(dtype).name
        assert volume.values.flags.c_contiguous
        np.testing.assert_array_equal(volume.to_world, np.eye(4))


def test_vectors_of_numpy_keep_their_channels(tmp_path: Path) -> None:
    for channels in (1, 2, 4):
        values = random_box(np.float32, (3, 4, 5, channels))
        np.save(tmp_path / "a.npy", values)
        volume = load_volume(tmp_path / "a.npy")
        assert volume.n_channels == channels
        np.testing.assert_array_equal(volume.values.reshape(values.shape), values)


def test_origin_and_voxel_size_beside_an_array(tmp_path: Path) -> None:
    values = random_box(np.float32)
    np.savez(tmp_path / "a.npz", distance=values, origin=np.array([1.0, 2, 3]), voxel_size=0.5)
    volume = load_volume(tmp_path / "a.npz")
    assert volume.name == "distance"
    np.testing.assert_array_equal(world(volume, np.array([[2, 0, 4]])), [[2, 2, 5]])


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8", ">i2", ">f4"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_as_nibabel_reads_it(dtype: str, name: str, tmp_path: Path) -> None:
    affine = np.array([[-2, 0.1, 0, 90], [0, 2.5, 0, -126], [0, 0.2, 3, -72], [0, 0, 0, 1]])
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    image = nib.Nifti1Image(random_box(dtype), affine, header, dtype=np.dtype(dtype))
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / name)
    volume, expected = load_volume(tmp_path / name), nib.loadsave.load(tmp_path / name)
    np.testing.assert_array_equal(volume.values, expected.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(volume.to_world, expected.affine)
    assert (volume.unit, volume.name) == ("mm", "a")


def test_times_channels_and_colors_of_nifti(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    times = random_box("i2", (4, 5, 6, 3))
    nib.save(nib.Nifti1Image(times, np.eye(4)), path)
    assert [grid.name for grid in list_grids(path)] == ["a[0]", "a[1]", "a[2]"]
    np.testing.assert_array_equal(load_volume(path, grid="a[1]").values, times[..., 1])
    vectors = random_box("f4", (4, 5, 6, 1, 3))
    nib.save(nib.Nifti2Image(vectors, np.eye(4)), path)
    np.testing.assert_array_equal(load_volume(path).values, vectors[:, :, :, 0])
    colors = random_box("u1", (4, 5, 6, 3))
    rgb = np.dtype([(c, "u1") for c in "RGB"])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(colors).view(rgb)[..., 0], np.eye(4)), path)
    np.testing.assert_array_equal(load_volume(path).values, colors)


TIFFS = {
    "plain": {"photometric": "minisblack"},
    "big": {"photometric": "minisblack", "bigtiff": True, "byteorder": ">"},
    "zip": {"photometric": "minisblack", "compression": "zlib"},
    "tiles": {"photometric": "minisblack", "compression": "zlib", "tile": (16, 16)},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 2.0, "unit": "um"}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}, "photometric": "minisblack"},
    "bare": {"photometric": "minisblack", "metadata": None},
}


@pytest.mark.parametrize("kind", TIFFS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_tiff_stacks(kind: str, dtype: str, tmp_path: Path) -> None:
    values = random_box(dtype, (5, 20, 18))
    tifffile.imwrite(tmp_path / "a.tif", values.transpose(2, 1, 0), resolution=(4, 4),
                     **TIFFS[kind])  # fmt: skip
    volume = load_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.values, values)
    expected = (0.25, 0.25, 2.0) if kind == "imagej" else (1, 1, 1)
    assert volume.voxel_size == expected
    assert volume.unit == ("micron" if kind == "imagej" else "")


def test_colors_of_tiff_are_channels(tmp_path: Path) -> None:
    values = random_box("u1", (5, 6, 7, 3))
    tifffile.imwrite(tmp_path / "a.tif", values.transpose(2, 1, 0, 3), photometric="rgb")
    np.testing.assert_array_equal(load_volume(tmp_path / "a.tif").values, values)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_raw_has_x_fastest(dtype, big_endian: bool, tmp_path: Path) -> None:
    values = random_box(dtype, (3, 4, 5, 2))
    order = ">" if big_endian else "<"
    stored = values.transpose(2, 1, 0, 3).astype(np.dtype(dtype).newbyteorder(order))
    (tmp_path / "a.raw").write_bytes(stored.tobytes())
    layout = RawLayout(shape=(3, 4, 5), dtype=dtype, n_channels=2, big_endian=big_endian)
    volume = load_volume(tmp_path / "a.raw", raw=layout)
    np.testing.assert_array_equal(volume.values, values.astype(np.float32))


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    values = random_box("f4")
    with (tmp_path / "a.nvdb").open("wb") as file:
        np.save(file, values)
    assert load_volume(tmp_path / "a.nvdb").format == "npy"


def test_what_is_not_finite_is_counted_and_inactive(tmp_path: Path) -> None:
    values = random_box(np.float64) ** 2 + 1
    values[1, 2, 3] = values[4, 0, 0] = np.nan
    values[0, 5, 6], values[2, 2, 2] = -np.inf, 1e300
    values[3, 3, 3] = values[3, 3, 4] = -1
    np.save(tmp_path / "a.npy", values)
    volume = load_volume(tmp_path / "a.npy")
    assert (volume.nan.count, volume.nan.first) == (2, (1, 2, 3))
    assert (volume.infinite.count, volume.infinite.first) == (2, (0, 5, 6))
    assert (volume.negative.count, volume.negative.first) == (2, (3, 3, 3))
    bad = np.isnan(values) | (np.abs(values) > 1e38)
    np.testing.assert_array_equal(volume.active, ~bad)
    assert np.all(volume.values[bad] == 0)
    assert [remark.split(";")[0] for remark in volume.remarks()] == [
        "2 voxels are NaN and taken as inactive",
        "2 voxels are infinite and taken as inactive",
        "2 voxels are negative and kept",
    ]


def test_places_are_told_in_the_files_own_index(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values, active = samples.leaf(rng, share=1.0)
    values[8 * 8 * 2 + 8 * 3 + 4] = np.nan
    grid = samples.Grid(leaves={16**2 + 16 * 2 + 3: (values, active)}, form=0)
    (tmp_path / "a.vdb").write_bytes(samples.vdb(grid))
    volume = load_volume(tmp_path / "a.vdb")
    assert volume.first == (8, 16, 24)
    assert volume.nan.first == (8 + 2, 16 + 3, 24 + 4)


def test_several_grids_are_listed_and_chosen(tmp_path: Path) -> None:
    path = FOLDER / "openvdb.vdb"
    names = ["density[0]", "half", "surface", "velocity", "inside", "density[1]"]
    assert [grid.name for grid in list_grids(path)] == names
    with pytest.raises(DataError, match="several grids") as caught:
        load_volume(path)
    assert all(name in str(caught.value) for name in names)
    with pytest.raises(DataError, match="no grid 'smoke'; it has density"):
        load_volume(path, grid="smoke")
    one = tmp_path / "a.npz"
    np.savez(one, a=random_box("f4"), b=np.zeros(3))
    assert load_volume(one).name == "a"  # b is no volume, and is listed as such
    assert [bool(grid.unread) for grid in list_grids(one)] == [False, True]


def test_an_archive_that_is_stored_and_one_that_is_deflated(tmp_path: Path) -> None:
    values = random_box("f4")
    np.savez(tmp_path / "a.npz", a=values)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
    np.testing.assert_array_equal(load_volume(tmp_path / "a.npz").values, values)
