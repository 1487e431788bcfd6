"""Rays to the zero level of a signed distance field: on every core of a CPU, or on CUDA.

Twin: tests/reference/sphere_trace.py. Not differentiable.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ShapeError
from ngp_warp.field import Field, as_numpy
from ngp_warp.kernels import sphere_trace as kernels
from ngp_warp.rays.active import ActiveRays

RELAXATION = 0.95
"""Step as a share of the distance: a learned one may be too long."""
EPSILON = 3e-4
"""Shortest step, in sides of the unit cube: nearer than this the march looks for the change of
sign, so a ray cannot creep."""
TOLERANCE = 1e-5
"""Distance of a hit from the zero level at which the bracket is narrowed no further."""
MAX_STEPS = 512
"""Evaluations of a march; a ray that has not met the surface by then grazes it, and misses."""
MAX_REFINEMENTS = 8
"""Evaluations of a bracket; 2 or 3 are the rule."""

# Slots of a pass: their features (32 rows, 2 MB) lie in the second-level caches of a few CPU cores
# (measured: 2^14 best, 2^15 a tenth slower); a GPU wants many.
_CPU_SLOTS, _CUDA_SLOTS = 2**14, 2**18
# Between two looks at which rays have ended. A fifth more evaluations are of ended rays than with
# 4, but looking costs more (measured: 12.4 s a picture, and 13.3 s with 4).
_STEPS_PER_PASS = 8
_CPU_RAYS, _CUDA_RAYS = 2**18, 2**20


@dataclass(frozen=True)
class Trace:
    """Where rays went; NumPy arrays of one value a ray."""

    t: np.ndarray
    """float32 [n]: distance from the ray's origin to the hit; infinite where there is none."""
    hit: np.ndarray
    """bool [n]."""
    clearance: np.ndarray
    """float32 [n]: least distance to the surface as a share of the way to there, the tangent of
    the angle by which the ray misses; 0 at a hit. 1e6 where the ray misses the box."""


class SphereTracer:
    """Traces rays through one field again and again, with launches that are recorded once.

    Args:
        field: 3D, one output: the signed distance, negative inside, in sides of the unit cube.
        relaxation: step as a share of the distance, in (0, 1].
        epsilon: shortest step.
        max_steps: evaluations after which a ray misses.

    Raises:
        ShapeError: a field that is no function of three coordinates to one value.
    """

    def __init__(
        self,
        field: Field,
        *,
        relaxation: float = RELAXATION,
        epsilon: float = EPSILON,
        max_steps: int = MAX_STEPS,
    ):
        if (field.n_dims, field.n_outputs) != (3, 1):
            raise ShapeError(
                "a field to be sphere traced maps 3 coordinates to 1 value, got "
                f"{field.n_dims} to {field.n_outputs}"
            )
        self.field, self.device = field, field.device
        self._step = (relaxation, epsilon, TOLERANCE, max_steps, MAX_REFINEMENTS)
        on_cpu = field.device == "cpu"
        self.capacity = _CPU_RAYS if on_cpu else _CUDA_RAYS
        self._state = _make_state(self.capacity, field.device)
        slots = _CPU_SLOTS if on_cpu else _CUDA_SLOTS
        self._rays = ActiveRays(self._state.status, slots, field.device)
        self._passes: dict[int, _Pass] = {}

    def trace(self, rays_o: Any, rays_d: Any, *, margin: float = 0.0) -> Trace:
        """Follow rays to the first change of the field's sign.

        A ray that begins inside goes on to where it leaves.

        Args:
            rays_o: origins, [n, 3], NumPy or torch, in the unit cube's coordinates, anywhere.
            rays_d: unit directions [n, 3].
            margin: rays are clipped to the unit cube grown by this on every side. Outside the cube
                the distance is bounded from what it is on its face, so that a margin costs a few
                steps and gives the clearance of rays that pass beside the cube.

        Raises:
            ShapeError: other shapes, values that are not finite, directions of another length.
        """
        rays_o, rays_d = check_rays(rays_o, rays_d)
        n = len(rays_o)
        t, clearance = np.empty(n, np.float32), np.empty(n, np.float32)
        hit = np.empty(n, bool)
        for begin in range(0, n, self.capacity):
            part = slice(begin, begin + self.capacity)
            count = len(rays_o[part])
            self._trace(rays_o[part], rays_d[part], margin)
            hit[part] = self._state.status.numpy()[:count] == kernels.HIT
            t[part] = np.where(hit[part], self._state.t.numpy()[:count], np.inf)
            least = self._state.clearance.numpy()[:count]
            clearance[part] = np.where(hit[part], np.float32(0), least)
        return Trace(t, hit, clearance)

    def _trace(self, rays_o: np.ndarray, rays_d: np.ndarray, margin: float) -> None:
        """Bring up to ``capacity`` rays to their ends, in the state's arrays."""
        n = len(rays_o)
        wp.copy(self._state.origin, wp.array(rays_o, dtype=wp.vec3, device=self.device), count=n)
        wp.copy(self._state.direction, wp.array(rays_d, dtype=wp.vec3, device=self.device), count=n)
        launch.launch(kernels.start_kernel, n, [margin, self._state], self.device)
        self._rays.run(n, lambda slots: self._pass(slots).run())

    def _pass(self, slots: int) -> "_Pass":
        if slots not in self._passes:
            self._passes[slots] = self._record(slots)
        return self._passes[slots]

    def _record(self, slots: int) -> "_Pass":
        x, y = self.field.zeros(slots, 3), self.field.zeros(slots, 1)
        taken = [self._rays.span, self._rays.active]
        load = launch.record(kernels.load_kernel, slots, [*taken, self._state, x], self.device)
        args = [*taken, y, *self._step, self._state, x]
        advance = launch.record(kernels.advance_kernel, slots, args, self.device)
        return _Pass(load, [*self.field.evaluation_stages(x, y), [advance]])


@dataclass
class _Pass:
    """Some steps of the rays in a number of slots."""

    load: launch.Launch
    step: list[list[launch.Launch]]

    def run(self) -> None:
        self.load.run()
        for _ in range(_STEPS_PER_PASS):
            launch.run_stages(self.step)


def sphere_trace(field: Field, rays_o: Any, rays_d: Any, *, margin: float = 0.0) -> tuple[Any, Any]:
    """Follow rays to the zero level of a signed distance field, once.

    Steps are 0.95 of the distance, and at least 3e-4; the change of sign that ends the march is
    narrowed to a distance of 1e-5, so that hits lie on the zero level. For many calls keep a
    ``SphereTracer``.

    Args:
        field: 3D, one output: the signed distance, negative inside, in sides of the unit cube.
        rays_o: origins, NumPy or torch [n, 3], in the unit cube's coordinates, anywhere.
        rays_d: unit directions [n, 3].
        margin: see ``SphereTracer.trace``.

    Returns:
        t, float32 [n]: distances from the origins, infinite where nothing is hit; and hit, bool
        [n]. Of the kind of ``rays_o``.

    Raises:
        ShapeError: other shapes, values that are not finite, directions of another length.
    """
    _, back = as_numpy(rays_o)
    trace = SphereTracer(field).trace(rays_o, rays_d, margin=margin)
    return back(trace.t), back(trace.hit)


def check_rays(rays_o: Any, rays_d: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return rays as float32 [n, 3].

    Raises:
        ShapeError: other shapes, values that are not finite, directions of another length than 1.
    """
    rays = []
    for name, values in (("rays_o", rays_o), ("rays_d", rays_d)):
        array, _ = as_numpy(values)
        if array.ndim != 2 or array.shape[1] != 3:
            raise ShapeError(f"{name} must have shape [n, 3], got {list(array.shape)}")
        if array.dtype.kind not in "fiu" or not np.all(np.isfinite(array)):
            raise ShapeError(f"{name} must be finite real numbers")
        rays.append(np.ascontiguousarray(array, dtype=np.float32))
    if len(rays[0]) != len(rays[1]):
        raise ShapeError(
            f"rays_o and rays_d must have the same length, got {len(rays[0])} and {len(rays[1])}"
        )
    length = np.linalg.norm(rays[1], axis=1)
    # float32 unit vectors, also half-precision ones
    if len(length) and np.abs(length - 1).max() > 1e-3:
        worst = length[np.argmax(np.abs(length - 1))]
        raise ShapeError(f"rays_d must be unit vectors, got one of length {worst:g}")
    return rays[0], rays[1]


def _make_state(n: int, device: str) -> Any:
    state = kernels.RayState()
    for name in ("origin", "direction"):
        setattr(state, name, wp.zeros(n, dtype=wp.vec3, device=device))
    for name in ("t_end", "t", "near_t", "near_d", "far_t", "far_d", "side", "clearance"):
        setattr(state, name, wp.zeros(n, dtype=float, device=device))
    for name in ("count", "status"):
        setattr(state, name, wp.zeros(n, dtype=int, device=device))
    return state
