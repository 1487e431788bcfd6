"""Questions to a fitted volume in its own world."""

from typing import Any

import numpy as np

from ngp_warp.field import check_points
from ngp_warp.primitives.volume.subject import Subject


def values_at(subject: Subject, voxels: np.ndarray) -> np.ndarray:
    """Return values, float32 [n, channels], at voxels [n, 3] counted from the box's first.

    Of radiance mode radiance (linear RGB) and density. Places beyond the outermost middles have
    the value of the nearest one.
    """
    about, field = subject.about, subject.field
    voxels = np.clip(voxels, 0, np.array(about.frame.shape) - 1)
    if subject.has_radiance:
        values = field.query(field.frame.unit_from_voxel(voxels))
        values[:, :3] = np.maximum(values[:, :3], 0)
        # as ``densities`` has them
        values[:, 3] = np.clip(values[:, 3] / field.density_gain, 0, field.bounds(voxels))
        return values
    values = about.transfer.inverse(field.query(about.frame.unit_from_voxel(voxels)))
    return np.clip(values, np.float32(about.transfer.low), np.float32(about.transfer.high))


def query(run: Any, points: np.ndarray, gradient: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return values and, where asked for, their Jacobians, in the volume's units and world.

    Outside of the voxels is the background (of radiance mode 0). Where a point lies beyond the
    middles of the outermost voxels, or a value at an end of the volume's range, nothing changes.

    Args:
        run: of a volume.
        points: real [n, 3], in the world.
        gradient: whether Jacobians are wanted.

    Returns:
        float32 [n, channels], in radiance mode [n, 4] (scattered radiance in linear RGB, density);
        and float32 [n, channels, 3], for one unit of the world, or None.

    Raises:
        ShapeError: another shape, or values that are no finite numbers.
    """
    check_points(points)
    subject = Subject.of(run)
    about = subject.about
    frame = about.frame
    voxels = frame.voxel_from_world(points)
    inside = frame.contains(voxels)
    n_values = 4 if subject.has_radiance else about.n_channels
    outside = [0.0] * 4 if subject.has_radiance else about.background
    values = np.tile(np.array(outside, np.float32), (len(points), 1))
    values[inside] = values_at(subject, voxels[inside])
    if not gradient:
        return values, None
    jacobian = np.zeros((len(points), n_values, 3), np.float32)
    if inside.any():
        jacobian[inside] = _jacobian(subject, voxels[inside], values[inside])
    return values, jacobian


def _jacobian(subject: Subject, voxels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return d values / d world, float32 [n, channels, 3], where values change."""
    about, field = subject.about, subject.field
    frame = field.frame if subject.has_radiance else about.frame
    last = np.array(about.frame.shape) - 1
    raw, jacobian = field.value_and_gradient(frame.unit_from_voxel(np.clip(voxels, 0, last)))
    if subject.has_radiance:
        scale = np.array([1.0, 1.0, 1.0, 1 / field.density_gain])
        # divided as densities are: a product would differ in the last bit, and seem clipped
        clipped = values != np.column_stack([raw[:, :3], raw[:, 3] / field.density_gain])
    else:
        scale = np.full(about.n_channels, about.transfer.range)
        clipped = np.abs(values - about.transfer.inverse(raw)) > 0
    # unit = (voxel + ...) / side, voxel = inverse(to_world) world + ...
    inverse = np.linalg.inv(frame.to_world)[:3, :3] / frame.side
    moved = ((voxels < 0) | (voxels > last))[:, None, :]
    jacobian = np.where(moved, 0.0, jacobian) @ inverse * scale[:, None]
    return np.where(clipped[..., None], 0.0, jacobian).astype(np.float32)
