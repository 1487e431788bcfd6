"""NumPy's arrays: .npy and .npz; nothing is unpickled."""

import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, cast, get_args

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.grid import GridClass, GridInfo
from ngp_warp.primitives.volume.readers.source import (
    Box,
    Stored,
    check_memory,
    dense_shape,
    to_float32,
    unread_dtype,
)

_PLACEMENT = ("origin", "voxel_size")
"""Arrays beside a volume in the files that ``surfaces.volume_files`` writes."""
_DESCRIPTION = ("first", "active", "background", "grid_class", "unit")
"""Arrays that belong to a volume where there is ``to_world``, as ``writers/npy.py`` has them."""
_TRANSFORM = "to_world"
COMPANIONS = (*_PLACEMENT, _TRANSFORM, *_DESCRIPTION)
_MOST_BYTES = 256
"""Of an item of these; 64 letters."""


def read_npy(path: Path) -> list[Stored]:
    """Read an array's header.

    Raises:
        DataError: a broken header, or a file shorter than its array.
    """
    with path.open("rb") as file:
        shape, _, dtype = _header(file)
        begin = file.tell()
    info = _info(path.stem, shape, dtype)
    size, needed = path.stat().st_size, begin + _n_bytes(shape, dtype)
    if size < needed and not dtype.hasobject:
        raise DataError(f"it is cut short: it has {size} of {needed} bytes")
    return [Stored(info, partial(_read_npy, path, shape))]


def read_npz(path: Path) -> list[Stored]:
    """Read the headers of the arrays in an archive.

    Raises:
        DataError: a broken archive or header.
    """
    found = []
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        is_described = f"{_TRANSFORM}.npy" in names and len(names) > 1
        companions = COMPANIONS if is_described else _PLACEMENT
        grid_class = _grid_class(archive, names) if is_described else "unknown"
        for name in names:
            key = name.removesuffix(".npy")
            with archive.open(name) as file:
                shape, _, dtype = _header(file)
                needed = file.tell() + _n_bytes(shape, dtype)
            size = archive.getinfo(name).file_size
            if size < needed and not dtype.hasobject:
                raise DataError(f"its array {key!r} is cut short: it has {size} of {needed} bytes")
            if key not in companions or len(names) == 1:
                info = replace(_info(key, shape, dtype), grid_class=grid_class)
                found.append(Stored(info, partial(_read_npz, path, name, shape, names)))
    return found


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, Fortran order and dtype."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise DataError(f"it is of an NPY version that is not read: {version}")
    shape, fortran, dtype = readers[version](file)
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise DataError(f"it is broken: its shape is {shape}")
    return shape, fortran, dtype


def _n_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    size = dtype.itemsize
    for n in shape:
        size *= n
    return size


def _info(name: str, shape: tuple[int, ...], dtype: np.dtype) -> GridInfo:
    dense, wrong = dense_shape(shape)
    channels = dense[3] if len(dense) == 4 and not wrong else 1
    stored = "object" if dtype.hasobject else "structure" if dtype.names else dtype.name
    return GridInfo(name, stored, channels, unread=unread_dtype(dtype) or wrong)


def _read_npy(path: Path, shape: tuple[int, ...]) -> Box:
    shape, _ = dense_shape(shape)
    check_memory(shape, _item_bytes(shape))
    array = np.lib.format.open_memmap(path, mode="r")
    return Box(to_float32(array.reshape(shape)))


def _item_bytes(shape: tuple[int, ...]) -> int:
    return 4 * (shape[3] if len(shape) == 4 else 1) + 1


def _read_npz(path: Path, name: str, shape: tuple[int, ...], names: list[str]) -> Box:
    with zipfile.ZipFile(path) as archive:
        dense, _ = dense_shape(shape)
        size = archive.getinfo(name).file_size
        check_memory(dense, _item_bytes(dense), size)
        values = to_float32(_member(archive, name).reshape(dense))
        if f"{_TRANSFORM}.npy" in names and len(names) > 1:
            return _described(archive, names, values)
        to_world = np.eye(4)
        if {f"{companion}.npy" for companion in _PLACEMENT} <= set(names):
            origin, voxel_size = (
                _member(archive, f"{companion}.npy", most=3) for companion in _PLACEMENT
            )
            if not (np.all(np.isfinite(origin)) and np.all(voxel_size > 0)):
                raise DataError("its origin is not finite or its voxel_size not positive")
            to_world[:3, :3] *= voxel_size
            to_world[:3, 3] = origin
    return Box(values, to_world=to_world)


def _described(archive: zipfile.ZipFile, names: list[str], values: np.ndarray) -> Box:
    """Read what ``writers/npy.py`` writes beside the values; all but the transform may be missing.

    Raises:
        DataError: a companion of another shape or dtype.
    """
    n_channels = values.shape[3] if values.ndim == 4 else 1
    read = partial(_companion, archive, names)
    to_world = read(_TRANSFORM, "f", (4, 4))
    if to_world is None or np.any(to_world[3] != (0, 0, 0, 1)):
        raise DataError(f"its {_TRANSFORM} is no affine map: the last row is not 0, 0, 0, 1")
    first, active = read("first", "iu", (3,)), read("active", "b", values.shape[:3])
    background, unit = read("background", "f", (n_channels,)), read("unit", "U", ())
    x, y, z = (0, 0, 0) if first is None else first.tolist()
    return Box(
        values,
        first=(x, y, z),
        active=None if active is None or active.all() else active,
        background=() if background is None else tuple(background.tolist()),
        to_world=to_world.astype(np.float64),
        unit="" if unit is None else str(unit),
    )


def _grid_class(archive: zipfile.ZipFile, names: list[str]) -> GridClass:
    stored = str(_companion(archive, names, "grid_class", "U", ()))
    return next((known for known in get_args(GridClass) if known == stored), "unknown")


def _companion(
    archive: zipfile.ZipFile, names: list[str], key: str, kinds: str, shape: tuple[int, ...]
) -> np.ndarray | None:
    """Read an array beside a volume, or None where there is none.

    Raises:
        DataError: it is of another shape or kind of dtype.
    """
    if f"{key}.npy" not in names:
        return None
    with archive.open(f"{key}.npy") as file:
        found, _, dtype = _header(file)
    if found != shape or dtype.kind not in kinds or dtype.itemsize > _MOST_BYTES:
        raise DataError(f"its {key} is {dtype.name} {list(found)}, not {list(shape)}")
    return _member(archive, f"{key}.npy")


def _member(archive: zipfile.ZipFile, name: str, most: int | None = None) -> np.ndarray:
    """Read one array to its end, where the archive checks its sum.

    Args:
        archive: the file.
        name: the member's.
        most: float numbers it may have at most; None: no matter.
    """
    with archive.open(name) as file:
        if most is not None:
            shape, _, dtype = _header(file)
            if dtype.kind != "f" or _n_bytes(shape, dtype) > most * dtype.itemsize:
                raise DataError(f"its {name.removesuffix('.npy')} is not {most} numbers")
            file.seek(0)
        array = np.lib.format.read_array(cast("IO[bytes]", file), allow_pickle=False)
        if file.read(1):
            raise DataError(f"its array {name.removesuffix('.npy')!r} is followed by other bytes")
        return array
