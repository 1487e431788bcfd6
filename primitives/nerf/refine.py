"""Refinement of poses, lenses and exposures by the gradients of the rays.

What is trained changes the rays themselves: ``stages_before`` writes the poses, lenses and
exposures from which the next batch is drawn, ``stages_after`` sums the gradients of the batch by
view and makes a step. Equations: kernels/refine.py.
"""

from dataclasses import dataclass, replace

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import OptimizerConfig, check_range
from ngp_warp.errors import ConfigError
from ngp_warp.kernels import lens as lens_kernels
from ngp_warp.optimizer import Adam, Parameters, make_weights
from ngp_warp.primitives.nerf.kernels import refine as kernels
from ngp_warp.primitives.nerf.views import ViewArrays
from ngp_warp.radiance.batch import RayBatch
from ngp_warp.rays.lenses import Lens

_CHUNKS_CPU, _CHUNKS_CUDA = 32, 256


@dataclass(frozen=True, kw_only=True)
class RefineSettings:
    """What is refined, and how fast: a step of Adam moves a value by about its rate."""

    poses: bool = False
    """Rotation and translation of every view."""
    focal: bool = False
    """Focal lengths and principal point."""
    distortion: bool = False
    """k1, k2, p1, p2 (fisheye: k1 to k4), and the other coefficients that the lens has."""
    exposure: bool = False
    """Doublings of red, green and blue of every view; their mean over the views stays 0."""
    shared_lenses: bool = True
    """Views with equal lenses share the refined one."""
    pose_rate: float = 1e-3
    """Radians, and sides of the inner cube."""
    lens_rate: float = 3e-4
    """Shares of the focal length, and of the coefficients' own units."""
    exposure_rate: float = 5e-3
    """Doublings."""
    decay_start: float = 0.25
    """Share of the run's steps after which the rates decay."""
    final_rate: float = 0.01
    """Rates at the last step, as a share of the first."""

    def __post_init__(self):
        for name in ("pose_rate", "lens_rate", "exposure_rate"):
            check_range(name, getattr(self, name), 0.0)
        check_range("decay_start", self.decay_start, 0.0, 1.0)
        check_range("final_rate", self.final_rate, 0.0, 1.0)

    @property
    def lenses(self) -> bool:
        """Whether any value of the lenses is refined."""
        return self.focal or self.distortion

    @property
    def any(self) -> bool:
        """Whether anything is refined."""
        return self.poses or self.lenses or self.exposure

    def optimizer(self, rate: float) -> OptimizerConfig:
        """Return Adam's settings at a rate."""
        return OptimizerConfig(
            learning_rate=rate,
            l2_regularization=0.0,
            decay_start=self.decay_start,
            final_learning_rate=self.final_rate,
        )


class Refinement:
    """Trained poses, lenses and exposures of training views.

    Args:
        views: their ``poses``, ``lenses`` and ``exposures`` are written by ``stages_before``.
        batch: of the training, with the gradients that the settings need
            (``RadianceSettings.ray_gradients``, ``exposure``).
        settings: what is refined.
        leader: the field's optimizer, whose step and number of steps count here too.
        unit: of a translation, in sides of the box: the side of the inner cube, 1 / aabb_scale.
        pivot: the point about which cameras turn, in the box; best near what they look at.

    Raises:
        ConfigError: nothing is to be refined.
        ShapeError: the batch lacks the gradients.
    """

    stages_before: list[list[launch.Launch]]
    """Write poses, lenses and exposures; before the batch is drawn."""
    stages_after: list[list[launch.Launch]]
    """Gradients and Adam; after the batch's gradients, and after the leader's ``advance``."""

    def __init__(
        self,
        views: ViewArrays,
        batch: RayBatch,
        settings: RefineSettings,
        leader: Adam,
        *,
        unit: float = 1.0,
        pivot: tuple[float, float, float] = (0.5, 0.5, 0.5),
    ):
        if not settings.any:
            raise ConfigError("nothing to refine: choose poses, focal, distortion or exposure")
        self.views, self.settings, self.unit = views, settings, float(unit)
        self.pivot = np.array(pivot, np.float64)
        self.device, n = views.device, len(views)
        rays = batch.capacity * 3 if settings.poses or settings.lenses else batch.d_origin.size
        launch.check_size("the batch's d_origin", batch.d_origin, rays, self.device)
        launch.check_size("the batch's d_direction", batch.d_direction, rays, self.device)
        if settings.exposure:
            size = batch.capacity * 3
            launch.check_size("the batch's d_exposure", batch.d_exposure, size, self.device)
        self._first_poses = wp.clone(views.poses)
        self._first_lenses = wp.clone(views.lenses)
        self._group_lenses()
        self._parameters: dict[str, Parameters] = {}
        self._optimizers: dict[str, Adam] = {}
        for name, used, rate, size in (
            ("poses", settings.poses, settings.pose_rate, n * kernels.N_POSE),
            ("lenses", settings.lenses, settings.lens_rate, self._trained.size),
            ("exposures", settings.exposure, settings.exposure_rate, n * 3),
        ):
            if used:
                config = settings.optimizer(rate)
                self._parameters[name] = make_weights(np.zeros(size), config, self.device)
                values = [self._parameters[name]]
                self._optimizers[name] = Adam(config, values, self.device, leader=leader)
        self._total = wp.zeros(n * kernels.N_SUMS, dtype=wp.float32, device=self.device)
        self.stages_before = [self._before()]
        self.stages_after = self._after(batch)

    def parameters(self) -> dict[str, Parameters]:
        """Return what is trained: those of "poses", "lenses", "exposures" that are."""
        return dict(self._parameters)

    def refresh(self) -> None:
        """Write poses, lenses and exposures from the parameters, as after loading them."""
        launch.run_stages(self.stages_before)

    def refined_poses(self) -> np.ndarray:
        """Return the poses, camera to scene, float64 [n_views, 3, 4]."""
        poses = np.stack([np.array(view.pose, np.float64)[:3] for view in self.views.views])
        if "poses" not in self._parameters:
            return poses
        values = self._values("poses").reshape(-1, kernels.N_POSE)
        frame = self.views.frame
        pivot = (self.pivot - np.asarray(frame.offset, np.float64)) / frame.scale
        turns = rotations(values[:, :3])
        poses[:, :, :3] = turns @ poses[:, :, :3]
        arms = (turns @ (poses[:, :, 3] - pivot)[:, :, None])[:, :, 0]
        poses[:, :, 3] = pivot + arms + values[:, 3:] * (self.unit / frame.scale)
        return poses

    def refined_lenses(self) -> tuple[Lens, ...]:
        """Return the lens of each view, in pixels of the photos as the scene describes them."""
        return tuple(self._refined(v) for v in range(len(self.views)))

    def refined_lens(self, lens: Lens) -> Lens:
        """Return what became of a lens that training views share; others as they are."""
        lenses = [view.lens for view in self.views.views]
        if lens not in lenses or not self.settings.shared_lenses:
            return lens
        return self._refined(lenses.index(lens))

    def exposures(self) -> np.ndarray:
        """Return doublings of red, green and blue, float64 [n_views, 3], of mean 0."""
        if "exposures" not in self._parameters:
            return np.zeros((len(self.views), 3))
        values = self._values("exposures").reshape(-1, 3)
        return values - values.mean(axis=0)

    def _values(self, name: str) -> np.ndarray:
        return self._parameters[name].value.numpy().astype(np.float64)

    def _refined(self, view: int) -> Lens:
        lens = self.views.views[view].lens
        if "lenses" not in self._parameters:
            return lens
        p = self._values("lenses").reshape(-1, kernels.N_PARAMETERS)[self._group_of[view]]
        names = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
        coefficients = dict(zip(names, p[lens_kernels.K1 :] + lens.coefficients, strict=True))
        return replace(
            lens,
            fx=lens.fx * float(np.exp(p[0] + p[1] / 2)),
            fy=lens.fy * float(np.exp(p[0] - p[1] / 2)),
            cx=lens.cx + lens.fx * float(p[2]),
            cy=lens.cy + lens.fy * float(p[3]),
            **{name: float(value) for name, value in coefficients.items()},
        )

    def _group_lenses(self) -> None:
        """Number the lenses that are refined, and say which of their values are."""
        keys: list[object] = [
            (view.lens, lens) if self.settings.shared_lenses else index
            for index, (view, lens) in enumerate(
                zip(self.views.views, self.views.lenses_in_memory, strict=True)
            )
        ]
        numbers: dict[object, int] = {}
        self._group_of = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
        order = np.argsort(self._group_of, kind="stable")
        offsets = np.searchsorted(self._group_of[order], np.arange(len(numbers) + 1))
        trained = np.zeros((len(numbers), kernels.N_PARAMETERS))
        for group, row in enumerate(trained):
            row[:] = self._trained_values(self.views.lenses_in_memory[order[offsets[group]]])
        self._group_views = wp.array(order, dtype=wp.int32, device=self.device)
        self._group_offsets = wp.array(offsets, dtype=wp.int32, device=self.device)
        self._trained = wp.array(trained.ravel(), dtype=wp.float32, device=self.device)

    def _trained_values(self, lens: Lens) -> np.ndarray:
        trained = np.zeros(kernels.N_PARAMETERS)
        if self.settings.focal:
            # square pixels stay square
            trained[:4] = 1, abs(lens.fx / lens.fy - 1) > 1e-6, 1, 1
        if self.settings.distortion:
            usual = (1, 1, 1, 1, 0, 0, 0, 0) if lens.fisheye else (1, 1, 0, 0, 0, 0, 1, 1)
            trained[4:] = np.logical_or(usual, lens.coefficients)
        return trained

    def _before(self) -> list[launch.Launch]:
        n, launches = len(self.views), []
        if p := self._parameters.get("poses"):
            args = [p.value, self.unit, wp.vec3(*self.pivot), self._first_poses, self.views.poses]
            launches.append(launch.record(kernels.pose_kernel, n, args, self.device))
        if p := self._parameters.get("lenses"):
            args = [p.value, self._first_lenses, self._group_offsets, self._group_views]
            args += [int(self.settings.distortion), self.views.lenses]
            n_groups = self._trained.size // kernels.N_PARAMETERS
            launches.append(launch.record(kernels.lens_kernel, n_groups, args, self.device))
        if p := self._parameters.get("exposures"):
            args = [p.value, n, 3, 0, self.views.exposures]
            launches.append(launch.record(kernels.centre_kernel, 3, args, self.device))
        return launches

    def _after(self, batch: RayBatch) -> list[list[launch.Launch]]:
        n, s, device = len(self.views), self.settings, self.device
        n_chunks = _CHUNKS_CPU if device == "cpu" else _CHUNKS_CUDA
        n_sums = n * kernels.N_SUMS
        partial = wp.zeros(n_chunks * n_sums, dtype=wp.float32, device=device)
        args = [batch.view, batch.weight, batch.direction, batch.d_origin, batch.d_direction]
        args += [batch.d_exposure, self.views.poses, self.views.lenses, batch.count, n_chunks, n]
        kernel = kernels.sum_kernel(s.poses, s.lenses, s.exposure)
        sums = launch.record(kernel, n_chunks, [*args, partial], device, block_dim=32)
        args = [partial, n_chunks, n_sums, self._total]
        total = launch.record(kernels.total_kernel, n_sums, args, device)
        schedules = [adam.advance() for adam in self._optimizers.values()]
        updates = [adam.update() for adam in self._optimizers.values()]
        # the last stages side by side: no average is kept, no table is trained
        before = [stage for stages in updates for stage in stages[:-1]]
        steps = [update for stages in updates for update in stages[-1]]
        return [[sums, *schedules], [total], self._gradients(), *before, steps]

    def _gradients(self) -> list[launch.Launch]:
        n, launches = len(self.views), []
        if p := self._parameters.get("poses"):
            args = [self._total, p.value, self.unit, wp.vec3(*self.pivot)]
            args += [self._first_poses, p.gradient]
            launches.append(launch.record(kernels.pose_gradient_kernel, n, args, self.device))
        if p := self._parameters.get("lenses"):
            args = [self._total, self._first_lenses, self.views.lenses, self._group_offsets]
            args += [self._group_views, self._trained, p.gradient]
            n_groups = self._trained.size // kernels.N_PARAMETERS
            kernel = kernels.lens_gradient_kernel
            launches.append(launch.record(kernel, n_groups, args, self.device))
        if p := self._parameters.get("exposures"):
            args = [self._total, n, kernels.N_SUMS, kernels.EXPOSURE, p.gradient]
            launches.append(launch.record(kernels.centre_kernel, 3, args, self.device))
        return launches


def rotations(vectors: np.ndarray) -> np.ndarray:
    """Return the rotations exp(w), float64 [n, 3, 3], of rotation vectors [n, 3] in radians."""
    w = np.asarray(vectors, np.float64)
    angle = np.linalg.norm(w, axis=1)[:, None, None]
    cross = np.zeros((len(w), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -w[:, 2], w[:, 1], -w[:, 0]
    cross -= cross.transpose(0, 2, 1)
    # sinc is 1 at 0: sin(a) / a, and (1 - cos(a)) / a^2 by the half angle
    first, second = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + first * cross + second * cross @ cross
