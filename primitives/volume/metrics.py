"""How close decoded values are to a volume's."""

import math
from typing import Any

import numpy as np

from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.readers.source import CHUNK_BYTES
from ngp_warp.primitives.volume.samples import occupied
from ngp_warp.primitives.volume.transfer import Transfer, is_integer, value_dtype


def measure(decoded: np.ndarray, volume: Volume) -> dict[str, Any]:
    """Return PSNR and mean absolute errors over all voxels, and over occupied and empty ones.

    Occupied are the active voxels that do not hold the background's value (``samples.occupied``);
    of a vector all components count. PSNR's peak is the volume's range, its largest less its
    smallest value; errors are in the volume's units.

    Args:
        decoded: float32, as ``volume.values``.
        volume: the original.

    Returns:
        psnr, psnr_of, psnr_occupied, mae_occupied, mae_empty, max_error, occupied (share of the
        voxels); null where there are no such voxels.
    """
    mask, value_range = occupied(volume), Transfer.of(volume).range
    sums = {True: np.zeros(3), False: np.zeros(3)}
    largest = 0.0
    step = max(1, CHUNK_BYTES // max(volume.values[0].nbytes, 1))
    for x in range(0, len(decoded), step):
        part = slice(x, x + step)
        error = np.abs(decoded[part].astype(np.float64) - volume.values[part])
        largest = max(largest, float(error.max()))
        for kind in (True, False):
            chosen = error[mask[part] == kind]
            sums[kind] += chosen.size, chosen.sum(), np.square(chosen).sum()
    everywhere = sums[True] + sums[False]

    def psnr(total: np.ndarray) -> float | None:
        if not total[0]:
            return None
        return round(-10 * math.log10(max(total[2] / total[0] / value_range**2, 1e-12)), 3)

    def mae(total: np.ndarray) -> float | None:
        return float(total[1] / total[0]) if total[0] else None

    kind = "whole values" if is_integer(value_dtype(volume)) else "values"
    return {
        "psnr": psnr(everywhere),
        "psnr_of": f"all voxels' {kind}, peak {value_range:g} (largest less smallest)",
        "psnr_occupied": psnr(sums[True]),
        "mae_occupied": mae(sums[True]),
        "mae_empty": mae(sums[False]),
        "max_error": largest,
        "occupied": round(float(mask.mean()), 5),
    }
