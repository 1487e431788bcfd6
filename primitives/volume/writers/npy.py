"""NumPy's arrays: .npy with its description beside it, and .npz."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.files import atomic_path, check_free_space
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.readers.npy import COMPANIONS
from ngp_warp.primitives.volume.writers.dtypes import FLOATS, INTEGERS, converted, known_dtype

_KNOWN = (*INTEGERS, "float16", *FLOATS)
_UNNAMED = "values"


def write_npy(path: Path, volume: Volume, dtype: str) -> int:
    """Write the values [x, y, z] or [x, y, z, channel], and a .json with what else there is.

    The .json is for people and programs: ``to_world`` (index to world, row by row), ``first``
    (index of the first value), ``background``, ``grid_class``, ``unit`` and ``name``. It
    takes its place first: where the values are, their place is known.

    Args:
        path: ends in .npy.
        volume: what is written.
        dtype: an integer or float type's name.

    Returns:
        The size of the .npy in bytes.

    Raises:
        ConfigError: another dtype.
        ResourceError: the folder is missing or cannot be written, or the disk is full.
    """
    values = np.ascontiguousarray(converted(volume.values, known_dtype(dtype, _KNOWN)))
    with atomic_path(path) as temporary:
        check_free_space(path.parent, values.nbytes, f"writing {path}", "choose another folder")
        with temporary.open("wb") as file:
            header = np.lib.format.header_data_from_array_1_0(values)
            np.lib.format.write_array_header_1_0(file, header)
            # NumPy's own way to write does not say that the disk is full.
            file.write(values.data)
        with atomic_path(path.with_name(f"{path.name}.json")) as beside:
            beside.write_text(json.dumps(_description(volume), indent=2) + "\n", encoding="utf-8")
        return temporary.stat().st_size


def _description(volume: Volume) -> dict[str, Any]:
    return {
        "name": volume.name,
        "axes": "xyz",
        "to_world": volume.to_world.tolist(),
        "first": list(volume.first),
        "background": list(volume.background),
        "grid_class": volume.grid_class,
        "unit": volume.unit,
    }


def write_npz(path: Path, volume: Volume, dtype: str) -> int:
    """Write values and all that belongs to them, as arrays.

    The values lie under the volume's name where that can name an array, else under "values";
    beside them ``to_world`` float64 [4, 4], index to world; ``first`` int64 [3], the index of the
    first value; ``background`` float64 [channels]; ``grid_class`` and ``unit``; where some voxels
    are inactive, ``active`` bool [x, y, z]. Where axes are not turned there are also ``origin``
    and ``voxel_size`` float64 [3]: value [i, j, k] lies at origin + voxel_size * (i, j, k). Only
    ``active`` is compressed: values can be mapped into memory, and floats hardly shrink.

    Arguments, return value and errors as ``write_npy``.
    """
    values = converted(volume.values, known_dtype(dtype, _KNOWN))
    arrays = {_key(volume.name): values, **_companions(volume)}
    with atomic_path(path) as temporary:
        check_free_space(path.parent, values.nbytes, f"writing {path}", "choose another folder")
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                # The time of 1980: equal volumes give equal files.
                member = zipfile.ZipInfo(f"{name}.npy")
                if name == "active":
                    member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asarray(array, order="C"))
        return temporary.stat().st_size


def _key(name: str) -> str:
    """Return under what name the values are stored."""
    plain = name.isprintable() and not any(c in name for c in '/\\:*?"<>|')
    return name if name and plain and name not in COMPANIONS else _UNNAMED


def _companions(volume: Volume) -> dict[str, np.ndarray]:
    found = {
        "to_world": volume.to_world,
        "first": np.array(volume.first, np.int64),
        "background": np.array(volume.background, np.float64),
        "grid_class": np.array(volume.grid_class),
        "unit": np.array(volume.unit),
    }
    if volume.active is not None:
        found["active"] = volume.active
    size = np.diag(volume.to_world)[:3]
    if np.all(volume.to_world[:3, :3] == np.diag(size)) and np.all(size > 0):
        found["origin"] = volume.to_world[:3, 3] + size * volume.first
        found["voxel_size"] = size
    return found
