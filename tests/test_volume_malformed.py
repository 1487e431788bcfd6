"""Every file is a volume of finite values, or refused in one line that names it."""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import volume_samples as samples
import warp as wp

from ngp_warp import memory
from ngp_warp.errors import ConfigError, DataError, NgpError, ResourceError
from ngp_warp.primitives.volume.data import RawLayout, list_grids, load_volume

FOLDER = Path(__file__).parent / "volumes"
ASSETS = Path(wp.__file__).parent / "tests" / "assets"
N_BROKEN = 150
N_CUTS = 40


def refusal(path: Path, kind: type[NgpError] = DataError, **choice) -> str:
    """Return the message with which a file is refused; it must name it, in one line."""
    with pytest.raises(kind) as caught:
        load_volume(path, **choice)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def box(dtype="f4", shape=(6, 7, 8)) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 100, shape).astype(dtype)


def tiff(**more) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, box(), photometric="minisblack", **more)
    return file.getvalue()


def archive(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def all_files() -> dict[str, bytes]:
    """Return a small file of each kind."""
    rng = np.random.default_rng(0)
    leaves = {0: samples.leaf(rng), 77: samples.leaf(rng)}
    vdb = {c: samples.vdb(samples.Grid(leaves=leaves, form=0, compression=c)) for c in (0, 3, 6)}
    nii = nib.Nifti1Image(box("i2"), np.diag([1, 2, 3, 1])).to_bytes()
    npy = io.BytesIO()
    np.save(npy, box())
    quantized = (FOLDER / "quantized.nvdb").read_bytes()
    return {
        "vdb": vdb[0],
        "vdb-zip": vdb[3],
        "vdb-blosc": vdb[6],
        "nvdb": (ASSETS / "torus.nvdb").read_bytes(),
        "nvdb-zip": (FOLDER / "zip.nvdb").read_bytes(),
        "nvdb-blosc": (FOLDER / "blosc.nvdb").read_bytes(),
        "nvdb-quantized": quantized,
        "npy": npy.getvalue(),
        "npz": archive(a=box()),
        "nii": nii,
        "nii.gz": gzip.compress(nii),
        "tif": tiff(),
        "tif-zip": tiff(compression="zlib"),
        "tif-bare": tiff(metadata=None),
        "tif-imagej": tiff_imagej(),
    }


def tiff_imagej() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, box(), imagej=True, metadata={"axes": "ZYX"})
    return file.getvalue()


FILES = all_files()


def load_first(path: Path):
    """Load the first grid that a file lists."""
    return load_volume(path, grid=list_grids(path)[0].name)


def is_refused(path: Path) -> bool:
    """Tell whether the file is refused as it should be, or read as a finite volume."""
    try:
        volume = load_first(path)
    except NgpError as error:
        message = str(error)
        assert str(path) in message
        assert "\n" not in message
        return True
    assert np.isfinite(volume.values).all()
    return False


@pytest.mark.parametrize("kind", FILES)
def test_the_samples_are_whole(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(FILES[kind])
    assert np.isfinite(load_first(tmp_path / "a").values).all()


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_short_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    path, data = tmp_path / "cut", FILES[kind]
    cuts = {*np.linspace(1, len(data) - 1, N_CUTS).astype(int).tolist(), len(data) - 2, 16, 100}
    if kind == "nvdb-quantized":  # four files, one behind the other: a cut between them is none
        assert not cuts & {i for i in range(len(data)) if data.startswith(b"NanoVDB0", i)}
    for n in sorted(cuts):
        path.write_bytes(data[:n])
        if kind in ("tif", "tif-bare", "tif-imagej") and n > len(data) - 17:
            # What is missing is the last page's resolution, which is not used.
            np.testing.assert_array_equal(load_first(path).values, box().transpose(2, 1, 0))
        else:
            assert is_refused(path)


EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a copy with 1 to 4 changes, every second one among the first bytes."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(min(700, len(out)) if rng.integers(2) else len(out)))
        what = rng.integers(5)
        if what == 0:
            out[at] ^= 1 << rng.integers(8)
        elif what <= 2:
            size = (1, 2, 4, 8)[rng.integers(4)]
            field = EXTREMES[rng.integers(len(EXTREMES))] & ((1 << 8 * size) - 1)
            out[at : at + size] = field.to_bytes(size, ("little", "big")[rng.integers(2)])
        elif what == 3:
            out[at:at] = rng.bytes(rng.integers(1, 9))
        else:
            del out[at : at + rng.integers(1, 9)]
    return bytes(out)


@pytest.mark.parametrize("kind", FILES)
def test_broken_files_are_refused_or_read(kind, tmp_path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 28)
    rng, refused = np.random.default_rng(0), 0
    for i in range(N_BROKEN):
        path = tmp_path / f"{i}"
        path.write_bytes(mutated(FILES[kind], rng))
        refused += is_refused(path)
        path.unlink()
    assert refused > N_BROKEN // 20  # the mutations do break files
    assert capfd.readouterr() == ("", "")


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.vdb")
    assert "folder" in refusal(tmp_path)
    (tmp_path / "empty.nvdb").write_bytes(b"")
    assert "empty" in refusal(tmp_path / "empty.nvdb")


@pytest.mark.parametrize("data", [b"Dear reader,\n" * 40, bytes(400), gzip.compress(b"x" * 500)])
def test_what_is_no_volume(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(data)
    assert "format" in refusal(tmp_path / "a.nii") or "neither" in refusal(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 4, 5)), "every value is 0"),
        (np.ones((3, 0, 5)), "no voxels"),
        (np.ones((3, 4)), r"shape is \[3, 4\]"),
        (np.ones((3, 4, 5, 6)), r"shape is \[3, 4, 5, 6\]"),
        (np.ones((3, 4, 5), np.complex64), "complex"),
        (np.full((2, 2, 2), {1}, object), "never unpickled"),
        (np.ones((2, 2, 2), "M8[s]"), "no numbers"),
        (np.full((2, 2, 2), "x"), "no numbers"),
        (np.ones((2, 2, 2), [("a", "f4")]), "a structure"),
        (np.full((2, 2, 2), np.nan), "none of its voxels is active and finite"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_that_are_no_volume(array, reason: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    np.save(path, array) if suffix == "npy" else np.savez(path, array)
    with pytest.raises(DataError, match=reason):
        load_volume(path)
    refusal(path)


def test_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(archive(a=box(), b=box()))
    assert (
        "several grids, choose one by its name (--grid NAME): a (float32), b (float32)"
        in refusal(path)
    )
    path.write_bytes(archive(a=np.ones(3), b=np.ones(4)))
    assert "none of its grids can be read" in refusal(path)
    with zipfile.ZipFile(path, "w") as empty:
        empty.writestr("letter.txt", "Dear reader")
    assert "no grid" in refusal(path)
    data = bytearray(archive(a=box()))
    data[len(data) // 2] ^= 1  # what a sum is for
    path.write_bytes(data)
    refusal(path)


def test_the_size_of_raw_files(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(range(1, 61)))
    assert load_volume(path, raw=RawLayout(shape=(3, 4, 5))).values[2, 1, 0] == 6
    wrong = refusal(path, raw=RawLayout(shape=(3, 4, 6)))
    assert "it has 60 bytes, and 3 x 4 x 6 values of uint8 are 72" in wrong
    assert "120" in refusal(path, raw=RawLayout(shape=(3, 4, 5), dtype="int16"))
    assert "--shape" in refusal(path)


@pytest.mark.parametrize(
    "layout",
    [
        {"shape": (0, 4, 5)},
        {"shape": (4, 5)},
        {"shape": (3, 4, 5), "dtype": "complex64"},
        {"shape": (3, 4, 5), "n_channels": 9},
    ],
)
def test_raw_layouts_that_are_none(layout: dict) -> None:
    with pytest.raises(ConfigError):
        RawLayout(**layout)


def write_sample(path: Path, grid: samples.Grid, **more) -> Path:
    path.write_bytes(samples.vdb(grid, **more))
    return path


def test_grids_of_openvdb_that_are_not_read(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "a.vdb"
    full = samples.Grid(leaves={0: samples.leaf(rng)}, form=0)
    assert "empty" in refusal(write_sample(path, samples.Grid()))
    none = (np.ones((512, 1)), np.zeros(512, bool))
    assert "empty" in refusal(write_sample(path, samples.Grid(leaves={0: none})))
    zeros = (np.zeros((512, 1)), np.ones(512, bool))
    assert "every value is 0" in refusal(write_sample(path, samples.Grid(leaves={0: zeros})))
    points = write_sample(path, full, tree_type="Tree_ptdataidx32_5_4_3")
    assert "point grid" in refusal(points)
    assert list_grids(points)[0].dtype == "points"
    assert "Tree_string_5_4_3" in refusal(write_sample(path, full, tree_type="Tree_string_5_4_3"))
    assert "version 210" in refusal(write_sample(path, full, version=210))
    assert "stream" in refusal(write_sample(path, full, offsets=False))
    frustum = samples.Grid(leaves=full.leaves, form=0, map=("NonlinearFrustumMap", bytes(200)))
    assert "NonlinearFrustumMap" in refusal(write_sample(path, frustum))
    flat = struct.pack("<16d", *np.diag([1.0, 1, 0, 1]).ravel())
    flat = samples.Grid(leaves=full.leaves, form=0, map=("AffineMap", flat))
    assert "singular" in refusal(write_sample(path, flat))


def test_grids_of_nanovdb_that_are_not_read(tmp_path: Path) -> None:
    assert "on-index grid: it has no values" in refusal(
        ASSETS / "test_index_grid.nvdb", grid="grid-0"
    )
    path, data = tmp_path / "a.nvdb", FILES["nvdb"]
    cases = [(36, 5, "point grid"), (32, 12, "rgba8"), (32, 99, "type 99")]
    for offset, number, reason in cases:
        changed = bytearray(data)
        struct.pack_into("<I", changed, 16 + offset, number)
        path.write_bytes(changed)
        assert reason in refusal(path)
    for offset, number, reason in [(14, 7, "codec"), (10, 29 << 5, "version 29")]:
        changed = bytearray(data)
        struct.pack_into("<H", changed, offset, number)
        path.write_bytes(changed)
        assert reason in refusal(path)


def test_a_box_that_does_not_fit(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.vdb"
    tiles = (((-4096, 0, 0), (1,), True), ((8192, 4096, 0), (1,), True))
    write_sample(path, samples.Grid(root_tiles=tiles))
    assert "16384 x 8192 x 4096 voxels needs 2.7 TB" in refusal(path, ResourceError)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    for kind, data in FILES.items():
        (tmp_path / kind).write_bytes(data)
        with pytest.raises(ResourceError, match="available"):
            load_first(tmp_path / kind)


def test_nifti_that_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(box("c8"), np.eye(4)), path)
    assert "complex" in refusal(path)
    nib.save(nib.Nifti1Image(box("u1", (3, 4)), np.eye(4)), path)
    assert "no volume" in refusal(path)
    nib.save(nib.Nifti1Image(box("u1", (3, 4, 5, 30)), np.eye(4)), path)
    assert "and 18 more" in refusal(path)
    nib.save(nib.Nifti1Pair(box("u1"), np.eye(4)), tmp_path / "b.hdr")
    assert "another file (.img)" in refusal(tmp_path / "b.hdr")


def test_tiffs_that_are_no_stack(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, box("u1", (5, 6)), photometric="minisblack")
    assert "no stack" in refusal(path)
    tifffile.imwrite(path, box("u1", (2, 3, 5, 6)), imagej=True, metadata={"axes": "TZYX"})
    assert "a volume" in refusal(path) or "no stack" in refusal(path)
    tifffile.imwrite(path, box("c8"), photometric="minisblack")
    assert "complex" in refusal(path)


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "nibabel.nifti1", None)
    (tmp_path / "a.nii").write_bytes(FILES["nii"])
    assert "ngp-warp[volume]" in refusal(tmp_path / "a.nii", ResourceError)
