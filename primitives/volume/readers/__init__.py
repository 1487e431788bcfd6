"""One reader a format, chosen by a file's first bytes; raw files by their given layout."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.readers.nanovdb import read_nanovdb
from ngp_warp.primitives.volume.readers.nifti import is_nifti, read_nifti
from ngp_warp.primitives.volume.readers.npy import read_npy, read_npz
from ngp_warp.primitives.volume.readers.openvdb import read_openvdb
from ngp_warp.primitives.volume.readers.raw import RawLayout, read_raw
from ngp_warp.primitives.volume.readers.source import Stored
from ngp_warp.primitives.volume.readers.tiff import read_tiff

_HEAD_BYTES = 352
_READERS: dict[str, Callable[[Path], list[Stored]]] = {
    "nvdb": read_nanovdb,
    "vdb": read_openvdb,
    "npy": read_npy,
    "npz": read_npz,
    "nii": read_nifti,
    "tiff": read_tiff,
}
_MAGIC = {
    b"NanoVDB": "nvdb",
    b" BDV\0\0\0\0": "vdb",
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "npz",
    b"PK\x05\x06": "npz",
    b"\x1f\x8b": "nii",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
}


def open_volume(path: Path, raw: RawLayout | None) -> tuple[str, list[Stored]]:
    """Read a volume file's headers.

    Args:
        path: the file.
        raw: of a raw file; None: it is of a format that says of itself what it holds.

    Returns:
        The format and its grids, at least one.

    Raises:
        DataError: the file is missing, a folder, empty, of no known format, broken, cut short, or
            holds no grid.
        ResourceError: a package is missing.
    """
    if path.is_dir():
        raise DataError("it is a folder, not a volume file")
    if not path.exists():
        raise DataError("there is no such file")
    if not path.is_file():
        raise DataError("it is not a regular file")
    if path.stat().st_size == 0:
        raise DataError("it is empty")
    if raw is not None:
        return "raw", read_raw(path, raw)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    name = sniff(head)
    if name is None:
        raise DataError(
            "it is of no format that is read (NanoVDB, OpenVDB, NumPy, NIfTI, TIFF); a raw file "
            "needs its shape and dtype: --shape X,Y,Z --dtype uint8"
        )
    grids = _READERS[name](path)
    if not grids:
        raise DataError("it holds no grid")
    return name, _distinct(grids)


def _distinct(grids: list[Stored]) -> list[Stored]:
    """Number the grids that share a name."""
    n_of = Counter(stored.info.name for stored in grids)
    seen: Counter[str] = Counter()
    found = []
    for stored in grids:
        info, name = stored.info, stored.info.name
        if n_of[name] > 1:
            info = replace(info, name=f"{name}[{seen[name]}]")
            seen[name] += 1
        found.append(replace(stored, info=info))
    return found


def sniff(head: bytes) -> str | None:
    """Return the format that begins with these bytes (352 or all), or None."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    return "nii" if is_nifti(head) else None
