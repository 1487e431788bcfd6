"""One writer a format, chosen by the file's name: the mirror of the readers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ngp_warp.errors import ConfigError, DataError
from ngp_warp.files import check_output
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.writers.nifti import write_nifti
from ngp_warp.primitives.volume.writers.npy import write_npy, write_npz
from ngp_warp.primitives.volume.writers.openvdb import write_openvdb
from ngp_warp.primitives.volume.writers.sparse import sparse_grid
from ngp_warp.surfaces.nvdb_tree import write_grid

__all__ = ["VOLUME_SUFFIXES", "save_volume"]

_SPARSE = (".nvdb", ".vdb")
_DENSE: dict[str, Callable[[Path, Volume, str], int]] = {
    ".npy": write_npy,
    ".npz": write_npz,
    ".nii": write_nifti,
    ".nii.gz": write_nifti,
}
VOLUME_SUFFIXES = (*_SPARSE, *_DENSE)
_SPARSE_CHANNELS = (1, 3)


def save_volume(path: str | Path, volume: Volume, *, dtype: str | None = None) -> dict[str, Any]:
    """Write a volume; equal ones give equal files.

    ============= =============================================================================
    .nvdb, .vdb   sparse: scalars and 3-vectors, active voxels, background, class, name and the
                  transform as it is. What lies outside of the active voxels' box is lost where
                  it is the background
    .npz          all of it but the name, should that be no name for an array
    .npy          the values; the rest in a .json beside
    .nii, .nii.gz values, transform and unit; inactive voxels keep their values. NIfTI-1 where
                  32 bits hold the transform exactly, else NIfTI-2
    ============= =============================================================================

    Args:
        path: its end says the format.
        volume: values must be finite.
        dtype: of the values in .npy, .npz and .nii: "uint8", "int16", "float32", ...; they are
            clipped to its range, and rounded to integers. None: "float32", as all others have it.

    Returns:
        ``bytes`` of the file and ``n_voxels`` that are active.

    Raises:
        ConfigError: another extension, or one that cannot hold the channels or the dtype.
        DataError: a sparse file of no active voxel.
        ResourceError: the folder is missing or cannot be written, the disk is full, there is too
            little memory, or a package is missing.
    """
    path = Path(path)
    ends = [suffix for suffix in VOLUME_SUFFIXES if path.name.lower().endswith(suffix)]
    if not ends:
        raise ConfigError(
            f"cannot write {path}: the name must end in {' or '.join(VOLUME_SUFFIXES)}"
        )
    check_output(path, [path.suffix.lower()])
    if ends[0] in _DENSE:
        n_bytes = _DENSE[ends[0]](path, volume, dtype or "float32")
        return {"bytes": n_bytes, "n_voxels": volume.n_active}
    if dtype not in (None, "float32"):
        raise ConfigError(
            f"cannot write {path} with {dtype}: {ends[0]} is written in float32; "
            f"{', '.join(_DENSE)} hold {dtype}"
        )
    if volume.n_channels not in _SPARSE_CHANNELS:
        raise ConfigError(
            f"cannot write {path}: {ends[0]} holds 1 or 3 channels and there are "
            f"{volume.n_channels}; {', '.join(_DENSE)} hold them"
        )
    if volume.n_active == 0:
        raise DataError(f"cannot write {path}: none of its voxels is active")
    # Programs for NanoVDB walk over leaves; OpenVDB's know active tiles.
    grid = sparse_grid(volume, active_tiles=ends[0] == ".vdb")
    return (write_openvdb if ends[0] == ".vdb" else write_grid)(path, grid)
