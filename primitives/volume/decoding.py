"""From a fitted field back to a grid of values."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ngp_warp.primitive import Progress, Report
from ngp_warp.primitives.volume.frame import Frame
from ngp_warp.primitives.volume.readers.source import check_memory

_POINTS_AT_ONCE = 1 << 20


def values_at_voxels(
    evaluate: Callable[[np.ndarray], Any],
    frame: Frame,
    n_channels: int,
    report: Report,
    stage: str = "write",
) -> np.ndarray:
    """Return a field's values at the middles of all voxels of a frame.

    Args:
        evaluate: float64 points [n, 3] of the unit cube -> values [n, n_channels].
        frame: of the volume.
        n_channels: 1: a scalar.
        report: told of progress.
        stage: of progress.

    Returns:
        float32 [x, y, z], of several channels [x, y, z, channel].

    Raises:
        ResourceError: the values do not fit into memory.
    """
    check_memory(frame.shape, 4 * n_channels)
    values = np.empty((*frame.shape, n_channels), np.float32)
    n_planes, *plane = frame.shape
    step = max(_POINTS_AT_ONCE // math.prod(plane), 1)
    # of one part, whose first plane is 0
    part = np.argwhere(np.ones((min(step, n_planes), *plane), bool))
    for begin in range(0, n_planes, step):
        count = min(step, n_planes - begin)
        voxels = part[: count * math.prod(plane)] + np.array([begin, 0, 0])
        found = np.asarray(evaluate(frame.unit_from_voxel(voxels)))
        values[begin : begin + count] = found.reshape(count, *plane, n_channels)
        report(Progress(stage=stage, step=begin + count, total=n_planes))
    return values[..., 0] if n_channels == 1 else values
