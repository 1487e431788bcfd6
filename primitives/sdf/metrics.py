"""How good a fitted field is, against the mesh it was fitted to.

The truth comes from Open3D's ray casting (raycasting.py): it shares no code and no sample with what
the field was trained on. What it cannot tell, it does not: such a figure is None, and ``not_told``
says why.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.sdf.raycasting import Raycasting

BAND = 0.01
"""Half the width of the narrow band, in unit space: one hundredth of the cube."""
N_BOX = 2**20
N_BAND = 2**17
N_SURFACE = 2**17
_CHUNK = 2**18

# Cells of the grid that finds the band: 16, 32 and 64 to a side. A finer one would take more
# distances than it saves.
_COARSEST = 16
_HALVINGS = 2

FieldValues = Callable[[np.ndarray], np.ndarray]
Mesh = tuple[np.ndarray, np.ndarray]


class Units(Protocol):
    """What is needed of the mesh's frame."""

    def distance_from_unit(self, distance: Any) -> Any:
        """Return a distance of unit space in the input's units."""
        ...


@dataclass(frozen=True)
class _Overlap:
    """Both inside over either inside, and its standard error (of a share of independent points)."""

    both: int
    either: int

    @property
    def iou(self) -> float | None:
        return self.both / self.either if self.either else None

    @property
    def standard_error(self) -> float | None:
        iou = self.iou
        return None if iou is None else (iou * (1 - iou) / self.either) ** 0.5


class _Work:
    """Progress over all points, whatever they are used for; also the samples' generator."""

    def __init__(self, seed: int, total: int, progress: Report):
        # A stream of its own: training draws from the bare seed.
        self.rng = np.random.default_rng([seed, 0x6D657472])
        self.total = total
        self.done = 0
        self.progress = progress

    def step(self, n: int) -> None:
        self.done = min(self.done + n, self.total)
        self.progress(Progress(stage="evaluate", step=self.done, total=self.total))


def measure(
    field_values: FieldValues,
    result: Mesh,
    original: Mesh,
    frame: Units,
    *,
    seed: int = 0,
    progress: Report = report_nothing,
) -> dict[str, Any]:
    """Compare a field, and the mesh extracted from it, with the original mesh.

    Definitions, all in float64 sums:

    - ``iou``: points uniform over the unit box that both sides have inside, over those that either
      has inside. A value that is not finite is wrong whatever the truth.
    - ``iou_narrow_band``: the same over points uniform in the band, which is all points within
      ``BAND`` of the original's surface.
    - ``mean_abs_distance``: mean of |field - true signed distance| over the band; where the
      original has no inside, of ||field| - true distance|, which can only be smaller.
    - ``chamfer``: points uniform by area on one surface, mean distance to the other, as it is and
      not squared; ``mean`` is the mean of both directions. ``..._relative`` is divided by the
      diagonal of the original's bounding box, all others are in the input's units.
    - ``normal_consistency``: at the same points, |n . n'| of the face's normal and that of the
      nearest face of the other surface, the mean of both directions; ``..._signed`` without the
      absolute value.

    Args:
        field_values: float32 [n, 3] in the unit cube -> signed distance float32 [n] in unit space,
            negative inside.
        result: vertices float [n, 3] in unit space and faces integer [m, 3] of the extracted mesh;
            it may have none.
        original: the same of the mesh that was fitted, equal vertices merged.
        frame: turns distances of unit space into the input's units.
        seed: of the points; the same points for the same seed, on any machine.
        progress: told how far it has come.

    Returns:
        Plain values that JSON holds; None for what cannot be told.
    """
    work = _Work(seed, N_BOX + N_BAND + 2 * N_SURFACE, progress)
    truth = Raycasting(*original)
    not_told: dict[str, str] = {}
    values = {
        **_in_the_box(field_values, truth, work, not_told),
        **_in_the_band(field_values, truth, frame, work, not_told),
        **_between_surfaces(result, truth, frame, work, not_told),
    }
    inside = truth.inside_method
    return {
        **values,
        "truth": {
            "inside": f"Open3D ray casting, {inside}" if inside else None,
            "distance": "Open3D closest point" + ("" if inside else ", without a sign"),
        },
        "not_told": not_told,
    }


def _in_the_box(
    field_values: FieldValues, truth: Raycasting, work: _Work, not_told: dict[str, str]
) -> dict[str, Any]:
    names = ("iou", "iou_standard_error")
    if truth.inside_method is None:
        not_told["iou"] = truth.reason
        work.step(N_BOX)
        return {**dict.fromkeys(names), "iou_samples": 0}
    both = either = 0
    for start in range(0, N_BOX, _CHUNK):
        points = work.rng.random((min(_CHUNK, N_BOX - start), 3), dtype=np.float32)
        counted = _overlap(field_values(points), truth.inside(points))
        both, either = both + counted.both, either + counted.either
        work.step(len(points))
    overlap = _Overlap(both, either)
    if overlap.iou is None:
        not_told["iou"] = f"none of {N_BOX} points is inside the original or the result"
    return {
        **dict(zip(names, (overlap.iou, overlap.standard_error), strict=True)),
        "iou_samples": N_BOX,
    }


def _in_the_band(
    field_values: FieldValues,
    truth: Raycasting,
    frame: Units,
    work: _Work,
    not_told: dict[str, str],
) -> dict[str, Any]:
    points, distance = band_points(truth, N_BAND, work.rng)
    values = np.asarray(field_values(points), np.float64)
    overlap = _Overlap(0, 0)
    if truth.inside_method is None:
        not_told["iou_narrow_band"] = truth.reason
        error = np.abs(np.abs(values) - distance)
    else:
        inside = truth.inside(points)
        overlap = _overlap(values, inside)
        error = np.abs(values - np.where(inside, -distance, distance))
        if overlap.iou is None:
            not_told["iou_narrow_band"] = f"none of {len(points)} points is inside"
    work.step(N_BAND)
    n_bad = int(np.count_nonzero(~np.isfinite(values)))
    mean = None if n_bad else float(np.mean(error))
    if n_bad:
        not_told["mean_abs_distance"] = f"{n_bad} of {len(points)} values are not finite"
    return {
        "iou_narrow_band": overlap.iou,
        "iou_narrow_band_standard_error": overlap.standard_error,
        "mean_abs_distance": {
            "normalised": mean,
            "input_units": None if mean is None else float(frame.distance_from_unit(mean)),
        },
        "band": {
            "half_width_normalised": BAND,
            "half_width_input_units": float(frame.distance_from_unit(BAND)),
            "samples": len(points),
        },
    }


def _overlap(values: np.ndarray, inside: np.ndarray) -> _Overlap:
    """Count a chunk; a value that is not finite is taken as the opposite of the truth."""
    fitted = np.where(np.isfinite(values), values < 0, ~inside)
    return _Overlap(int(np.sum(fitted & inside)), int(np.sum(fitted | inside)))


def band_points(
    truth: Raycasting, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return points float32 [n, 3] uniform in the band within the unit cube, and their distances.

    Cells that the band cannot reach are left out first, then points by their distance.
    """
    side = 1.0 / _COARSEST
    axis = np.arange(_COARSEST)
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    children = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3)
    for halving in range(_HALVINGS + 1):
        if halving:
            side /= 2
            cells = (cells[:, None, :] * 2 + children).reshape(-1, 3)
        reach = BAND + side * 3**0.5 / 2
        # 1e-5: float32 centres and distances
        cells = cells[truth.distance((cells + 0.5) * side) <= reach + 1e-5]
    points, distances, found = [], [], 0
    while found < n:
        drawn = cells[rng.integers(len(cells), size=n)]
        drawn = ((drawn + rng.random(drawn.shape)) * side).astype(np.float32)
        distance = truth.distance(drawn)
        near = distance <= BAND
        points.append(drawn[near])
        distances.append(distance[near])
        found += int(np.count_nonzero(near))
    return np.concatenate(points)[:n], np.concatenate(distances)[:n]


def _between_surfaces(
    result: Mesh, truth: Raycasting, frame: Units, work: _Work, not_told: dict[str, str]
) -> dict[str, Any]:
    names = ("result_to_original", "original_to_result", "mean")
    chamfer: dict[str, Any] = dict.fromkeys((*names, *(f"{name}_relative" for name in names)))
    corners = truth.vertices[truth.faces.ravel()].astype(np.float64)
    diagonal = float(np.linalg.norm(np.ptp(corners, axis=0)))
    chamfer["diagonal"] = float(frame.distance_from_unit(diagonal))
    fitted = Raycasting(*result, distance_only=True)
    if len(fitted.faces) == 0:
        not_told["chamfer"] = not_told["normal_consistency"] = "the result has no surface"
        work.step(2 * N_SURFACE)
        return {
            "chamfer": chamfer,
            "normal_consistency": None,
            "normal_consistency_signed": None,
        }
    means, dots = [], []
    for one, other in ((fitted, truth), (truth, fitted)):
        points, face = one.sample(N_SURFACE, work.rng)
        distance, nearest = other.closest(points)
        means.append(float(np.mean(distance, dtype=np.float64)))
        dots.append(np.sum(one.normals[face] * other.normals[nearest], axis=1))
        work.step(N_SURFACE)
    for name, mean in zip(names, (*means, sum(means) / 2), strict=True):
        chamfer[name] = float(frame.distance_from_unit(mean))
        chamfer[f"{name}_relative"] = mean / diagonal
    return {
        "chamfer": chamfer,
        "normal_consistency": float(np.mean(np.abs(dots))),
        "normal_consistency_signed": float(np.mean(dots)),
    }
