"""NIfTI-1 and NIfTI-2 in one file, plain or within gzip; nibabel writes the header."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import ResourceError
from ngp_warp.files import atomic_path
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.writers.dtypes import FLOATS, INTEGERS, converted, known_dtype

_KNOWN = (*INTEGERS, *FLOATS)
_UNITS = ("meter", "mm", "micron")
_LONGEST = 32767
"""Side that NIfTI-1 can tell."""
_DESCRIPTION_BYTES = 79
# Volumes are mostly zeros or noise: higher levels take three times as long for a few percent.
_ZIP_LEVEL = 3
# Of a quaternion of float32, beside the largest number of the transform.
_ROUNDING = 1e-6


def write_nifti(path: Path, volume: Volume, dtype: str) -> int:
    """Write values and transform: as sform, and as qform where no axis is sheared.

    The index of the first value is 0 in the file, so that the transform is that of the volume
    after a shift by ``first``. Vectors lie along the fifth axis.

    Args:
        path: ends in .nii or .nii.gz.
        volume: what is written; its class, background and mask have no place here.
        dtype: "uint8", "int16", "float32", ... (``_KNOWN``).

    Returns:
        The size of the file in bytes.

    Raises:
        ConfigError: another dtype.
        ResourceError: nibabel is missing, the folder is missing or cannot be written, or the disk
            is full.
    """
    stored = known_dtype(dtype, _KNOWN)
    image = _image(path, volume, stored)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # No name and no time within: equal volumes give equal files.
            with gzip.GzipFile("", "wb", _ZIP_LEVEL, file, mtime=0) as zipped:
                image.to_stream(zipped)
        else:
            image.to_stream(file)
        file.flush()
        return temporary.stat().st_size


def _image(path: Path, volume: Volume, dtype: np.dtype) -> Any:
    try:
        from nibabel.nifti1 import Nifti1Image
        from nibabel.nifti2 import Nifti2Image
    except ImportError as error:
        raise ResourceError(
            f"cannot write {path} without the package {error.name}: pip install 'ngp-warp[volume]'"
        ) from error
    affine = volume.to_world.copy()
    affine[:3, 3] += affine[:3, :3] @ volume.first
    values = converted(volume.values, dtype)
    if volume.n_channels > 1:
        values = values[:, :, :, None]
    with np.errstate(over="ignore"):
        is_exact = np.all(affine.astype(np.float32) == affine)
    kind = Nifti1Image if is_exact and max(values.shape) <= _LONGEST else Nifti2Image
    image = kind(values, affine, dtype=dtype)
    header = image.header
    header.set_xyzt_units(volume.unit if volume.unit in _UNITS else "unknown")
    header["descrip"] = volume.name.encode()[:_DESCRIPTION_BYTES]
    if volume.n_channels > 1:
        header.set_intent("vector")
    header.set_qform(affine, code="aligned")
    found = np.asarray(header.get_qform())
    if not np.allclose(found, affine, rtol=0, atol=_ROUNDING * np.abs(affine).max()):
        header["qform_code"] = 0
    return image
