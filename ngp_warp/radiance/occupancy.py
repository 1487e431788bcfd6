"""The occupancy grid: where a radiance field is dense enough to be looked at.

Kernels: ngp_warp/kernels/occupancy.py. Twin: tests/reference/occupancy.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import distributed, exchange, launch
from ngp_warp.errors import ShapeError
from ngp_warp.kernels import occupancy as kernels
from ngp_warp.kernels.lanes import lane_items
from ngp_warp.launch import Launch, Stages, check_size
from ngp_warp.radiance.settings import CELLS, RadianceSettings

Evaluate = Callable[[wp.array, wp.array, wp.array], Stages]
"""evaluate(points, density, count): stages that fill ``density``, float32 [n], per side of the
inner cube, at ``points``, blocked [n / 32, 3, 32], box coordinates; only the first ``count`` (int32
[1], on the device) matter, which change with the step; the padding's points lie in the box."""

COARSE = CELLS // 8
# Mueller et al. 2022 have 0.95, which must carry surfaces over many updates whose points miss them;
# here training marks those, and empty cells can go soon.
_DECAY, _DECAY_STEPS = 0.6, 16
_CASCADES_PER_SLICE = 2  # bounds the work of a step: 128^2 points a cascade, unless unseen


class OccupancyGrid:
    """Cells of 128^3 a cascade; a cell's value is the optical thickness of the shortest step.

    A step updates one slice of the cells (two in the first 256 steps): at a random point of each
    cell, value = max(decay * value, thickness there). The cell is occupied where that exceeds
    ``threshold``. A slice holds the cells of one x in one or two cascades.

    A random point misses a thin surface most of the time. So training marks the cells in which a
    sample has met one (``met``), and their values do not decay: empty cells can then go soon
    without taking surfaces along.

    Args:
        settings: box, cascades and steps.
        device: "cpu" or a CUDA device.
        visible: bool [n_cascades, 128, 128, 128], indexed [cascade, z, y, x]: cells that a camera
            sees; the others hold -1 and are never occupied. None: all are seen.
        seed: of the random points.

    Attributes:
        values: float32 [n_cascades * 128^3], cell x + 128 y + 128^2 z + 128^3 cascade.
        bits: uint8, n_cascades * 128^3 / 8 bytes (bit i of byte j: cell 8 j + i), then
            n_cascades * 16^3 coarse bytes, 1 where any of the 8^3 cells is occupied (x / 8 +
            16 (y / 8) + 256 (z / 8) + 16^3 cascade). All are occupied until ``fill``.
        threshold: float32 [1].
        met: uint8 [n_cascades * 128^3]: 1 where training has kept a sample in which the shortest
            step would be thicker than MAX_THRESHOLD, since the cell's last update.
        slice_sums: float32 [n_slices]: sums of the used cells' values.

    Raises:
        ShapeError: ``visible`` of another shape.
    """

    def __init__(
        self,
        settings: RadianceSettings,
        device: str,
        visible: np.ndarray | None = None,
        seed: int = 0,
    ):
        self.settings, self.device, self.seed = settings, device, seed
        self.n_cascades = settings.n_cascades
        shape = (self.n_cascades, CELLS, CELLS, CELLS)
        if visible is not None and visible.shape != shape:
            raise ShapeError(f"visible must have shape {list(shape)}, got {list(visible.shape)}")
        used = np.ones(shape, bool) if visible is None else visible.astype(bool)
        cells, first, planes = _slices(used)
        self.n_slices = len(planes)
        self.n_used = len(cells)
        pairs = first[2::2] - first[:-2:2]
        self.capacity = max(-(-int(pairs.max()) // 32) * 32, 32)
        """Most points of an update, a multiple of 32."""
        self._cells = wp.array(cells if len(cells) else [0], dtype=int, device=device)
        self._first = wp.array(first, dtype=int, device=device)
        self._planes = wp.array(planes, dtype=int, device=device)
        self._empty = np.where(used, 0.0, -1.0).astype(np.float32).reshape(-1)
        self.values = wp.array(self._empty, dtype=float, device=device)
        self.met = wp.zeros(self.values.size, dtype=wp.uint8, device=device)
        self.slice_sums = wp.zeros(self.n_slices, dtype=float, device=device)
        self.threshold = wp.zeros(1, dtype=float, device=device)
        self.bits = wp.array(_all_bits(used), dtype=wp.uint8, device=device)
        self.points = wp.zeros(self.capacity * 3, dtype=float, device=device)
        self.density = wp.zeros(self.capacity, dtype=float, device=device)
        self.count = wp.zeros(1, dtype=int, device=device)
        self._plan = wp.zeros(3, dtype=int, device=device)
        self._n_chunks = kernels.CHUNKS if device == "cpu" else kernels.CHUNKS_CUDA
        self._partial_sums = wp.zeros(2 * self._n_chunks, dtype=float, device=device)

    @property
    def thickness(self) -> float:
        """Optical thickness of the shortest step where the density is 1."""
        return self.settings.min_step * self.settings.aabb_scale

    def update_stages(self, step: wp.array, evaluate: Evaluate) -> Stages:
        """Record the update of this step's slice.

        Args:
            step: int64 [1] on the device, from 1; read at each run.
            evaluate: see ``Evaluate``; called once, with ``points``, ``density`` and ``count``.
        """
        check_size("step", step, 1, self.device)
        return self._update_stages(step, self.seed, evaluate, self._unite_stages())

    def fill(self, evaluate: Evaluate) -> None:
        """Evaluate all cells once, forgetting what they held."""
        self.values.assign(self._empty)
        self.slice_sums.zero_()
        step = wp.zeros(1, dtype=wp.int64, device=self.device)
        # another seed: the first steps would repeat its points
        stages = self._update_stages(step, self.seed ^ 0x5F111, evaluate)
        for k in range(self.n_slices // 2):
            step.fill_(k + 1)
            launch.run_stages(stages)
        self._all_bits()

    def set_values(self, values: np.ndarray) -> None:
        """Set all cells at once, from another program's grid.

        Args:
            values: float32 [n_cascades, 128, 128, 128], indexed [cascade, z, y, x], optical
                thickness of the shortest step; below 0: never occupied.

        Raises:
            ShapeError: another shape.
        """
        shape = (self.n_cascades, CELLS, CELLS, CELLS)
        if values.shape != shape:
            raise ShapeError(f"values must have shape {list(shape)}, got {list(values.shape)}")
        used = self._empty >= 0
        flat = np.where(used, values.reshape(-1), -1.0).astype(np.float32)
        self.values.assign(flat)
        cells: Any = self._cells.numpy()
        first: Any = self._first.numpy()
        thick = np.maximum(flat[cells], 0)
        sums = np.concatenate([[0.0], np.cumsum(thick, dtype=np.float64)])
        slices = sums[first[1:]] - sums[first[:-1]]
        self.slice_sums.assign(slices.astype(np.float32))
        mean = float(slices.sum()) / max(self.n_used, 1)
        self.threshold.fill_(min(kernels.MAX_THRESHOLD, kernels.MEAN_SHARE * mean))
        self._all_bits()

    def _update_stages(
        self, step: wp.array, seed: int, evaluate: Evaluate, united: Stages | None = None
    ) -> Stages:
        early = _DECAY ** (self.n_slices / 2 / _DECAY_STEPS)
        plan, first, cells = self._plan, self._first, self._cells
        stages = [
            self._record(kernels.plan_kernel, 1, [step, self.n_slices, first, plan, self.count]),
            self._record(
                kernels.draw_kernel,
                self.capacity,
                [seed, step, plan, self.count, cells, self.n_cascades, self.points],
            ),
            *evaluate(self.points, self.density, self.count),
        ]
        stages += united or []
        args = [plan, first, cells, self.density, self.thickness, early, early**2]
        args += [self._n_chunks, self.met, self.values, self._partial_sums]
        n_items = lane_items(2 * self._n_chunks, self.device)
        stages.append(self._record(kernels.store_kernel, n_items, args))
        stages.append(self._threshold_stage())
        args = [plan, self.count, cells, self.values, self.threshold, self.bits]
        stages.append(self._record(kernels.bits_kernel, self.capacity, args))
        n_coarse = lane_items(2 * self.n_cascades * COARSE**2, self.device)
        args = [plan, self._planes, self.n_cascades, self.bits]
        stages.append(self._record(kernels.coarse_kernel, n_coarse, args))
        return stages

    def _unite_stages(self) -> Stages:
        """Record: what any process has met in the cells to be updated, all have.

        So their grids stay the same; they exchange a slice a step, not all marks.
        """
        group = distributed.current()
        if group.size == 1:
            return []
        group.marks.append(self.met)
        marks = wp.zeros(self.capacity, dtype=wp.uint8, device=self.device)
        args = [self._plan, self.count, self._cells]
        pick = self._record(kernels.pick_marks_kernel, self.capacity, [*args, self.met, marks])
        put = self._record(kernels.put_marks_kernel, self.capacity, [*args, marks, self.met])
        return [pick, *exchange.unite_marks(marks, self.device), put]

    def _threshold_stage(self) -> list[Launch]:
        args = [self._plan, self._partial_sums, self._n_chunks, self.n_slices, float(self.n_used)]
        args += [self.slice_sums, self.threshold]
        return self._record(kernels.threshold_kernel, lane_items(1, self.device), args)

    def _record(self, kernel: Any, n_items: int, args: Sequence[Any]) -> list[Launch]:
        return [launch.record(kernel, n_items, args, self.device)]

    def _all_bits(self) -> None:
        n_bytes = self.values.size // 8
        args = [self.values, self.threshold, self.bits]
        launch.launch(kernels.all_bits_kernel, n_bytes, args, self.device)
        args = [self.n_cascades, self.bits]
        n_coarse = lane_items(self.n_cascades * COARSE**3, self.device)
        launch.launch(kernels.all_coarse_kernel, n_coarse, args, self.device)

    def occupied(self) -> np.ndarray:
        """Return bool [n_cascades, 128, 128, 128], indexed [cascade, z, y, x]."""
        fine: Any = self.bits.numpy()[: self.values.size // 8]
        cells = np.unpackbits(fine, bitorder="little").astype(bool)
        return cells.reshape(self.n_cascades, CELLS, CELLS, CELLS)

    def state(self) -> dict[str, wp.array]:
        """Return what a checkpoint holds, by name; unseen cells hold -1."""
        return {
            "values": self.values,
            "bits": self.bits,
            "slice_sums": self.slice_sums,
            "met": self.met,
        }

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Copy a checkpoint's arrays in.

        Raises:
            ShapeError: an array of another size: the grid is of other settings.
        """
        for name, array in self.state().items():
            if arrays[name].size != array.size:
                raise ShapeError(
                    f"occupancy {name} must have {array.size} values, got {arrays[name].size}"
                )
            array.assign(arrays[name].reshape(-1))


def _slices(used: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the used cells slice by slice, where each slice begins, and each slice's x.

    Slices come in bit-reversed order of x: successive ones are spread over the box, and each pair
    of an early step is 64 cells apart.
    """
    n_cascades = len(used)
    n_groups = -(-n_cascades // _CASCADES_PER_SLICE)
    order = [int(f"{k:07b}"[::-1], 2) for k in range(CELLS)]
    parts, planes = [], []
    for group in range(n_groups):
        for x in order:
            found = [
                np.flatnonzero(used[c, :, :, x].reshape(-1)) * CELLS + x + c * CELLS**3
                for c in range(group, n_cascades, n_groups)
            ]
            parts.append(np.concatenate(found))
            planes.append(x)
    first = np.concatenate([[0], np.cumsum([len(p) for p in parts])])
    return (
        np.concatenate(parts).astype(np.int32),
        first.astype(np.int32),
        np.array(planes, np.int32),
    )


def _all_bits(used: np.ndarray) -> np.ndarray:
    """Return the bits and coarse bytes of a grid whose used cells are all occupied."""
    n = len(used)
    fine = np.packbits(used.reshape(-1), bitorder="little")
    coarse = used.reshape(n, COARSE, 8, COARSE, 8, COARSE, 8).any(axis=(2, 4, 6))
    return np.concatenate([fine, coarse.reshape(-1).astype(np.uint8)])
