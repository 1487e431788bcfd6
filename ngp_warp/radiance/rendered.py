"""What is seen along rays, for any number of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import warp as wp

from ngp_warp import launch, loading
from ngp_warp.errors import ShapeError
from ngp_warp.radiance.batch import RayBatch, make_batch
from ngp_warp.radiance.marching import Stages
from ngp_warp.radiance.settings import RadianceSettings
from ngp_warp.radiance.vanilla_network import VanillaSettings
from ngp_warp.recording import recorded_step

CAPACITY = {"cpu": 2**15, "cuda": 2**20}
"""Rays of one pass, unless another number is given: on CUDA a frame, as each pass is waited for."""
# Below this opacity a depth would be noise over noise.
_SEEN = 1e-3


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What ``RadianceField.render_rays`` returns."""

    color: np.ndarray
    """float32 [n, 3], over the background."""
    opacity: np.ndarray
    """float32 [n]."""
    depth: np.ndarray
    """float32 [n]: expected distance in sides of the box; infinite where nothing is hit."""
    n_samples: np.ndarray
    """int32 [n]: samples that reached the density network."""


def expected_depth(depth: np.ndarray, opacity: np.ndarray, begin: float = 0.0) -> np.ndarray:
    """Return the sums of weight times distance over the opacity, float32; infinite where it is 0.

    Args:
        depth: [n], sums of weight times distance.
        opacity: [n].
        begin: distance at which the rays began.
    """
    seen = opacity > _SEEN
    found = np.where(seen, depth / np.where(seen, opacity, 1) + begin, np.inf)
    return found.astype(np.float32)


class RayRenderer:
    """Renders rays pass by pass; memory does not grow with their number.

    Args:
        settings: of the field.
        record: records a pass: colour, opacity, depth and number of samples of a batch; rays
            with -1 samples are rendered again.
        device: "cpu" or a CUDA device.
        capacity: rays of a pass; None: as many as suit the device.
        staging: copy through page-locked memory, all at once; None: on CUDA.
    """

    def __init__(
        self,
        settings: RadianceSettings | VanillaSettings,
        record: Callable[[RayBatch], Stages],
        device: str,
        capacity: int | None = None,
        staging: bool | None = None,
    ):
        self.settings = settings
        capacity = capacity or rays_at_once(device)
        self.batch = make_batch(settings, capacity, device)
        self.batch.jitter.fill_(0.5)
        with loading.together(launch.num_threads()):
            stages = record(self.batch)
        self._pass = recorded_step(stages, device)
        on_cuda = device != "cpu"
        self._copies: _Staging | _Direct = _Direct(self.batch)
        if on_cuda if staging is None else staging:
            self._copies = _Staging(self.batch, pinned=on_cuda)

    def render(
        self,
        origins: np.ndarray,
        directions: np.ndarray,
        background: tuple[float, float, float] | np.ndarray | None,
        latent: int | None,
        near: float,
    ) -> Rendered:
        """See ``RadianceField.render_rays``."""
        n = len(origins)
        for name, array in (("origins", origins), ("directions", directions)):
            if array.shape != (n, 3):
                raise ShapeError(f"{name} must have shape [{n}, 3], got {list(array.shape)}")
        behind = np.zeros(3, np.float32) if background is None else np.asarray(background)
        behind = np.broadcast_to(behind.astype(np.float32), (n, 3))
        # the lattice begins at the settings' near distance: the rest is gone before
        begin = max(near - self.settings.near, 0.0)
        if begin:
            origins = origins + np.float32(begin) * directions
        self.batch.view.fill_(-1 if latent is None else latent)
        color, opacity = np.zeros((n, 3), np.float32), np.zeros(n, np.float32)
        depth, n_samples = np.zeros(n, np.float32), np.zeros(n, np.int32)
        first = 0
        while first < n:
            part = slice(first, min(first + self.batch.capacity, n))
            found = self._run(origins[part], directions[part], behind[part])
            done = _with_room(found["n_samples"])
            part = slice(first, first + done)
            color[part] = found["color"][: 3 * done].reshape(done, 3)
            opacity[part] = found["opacity"][:done]
            depth[part] = found["depth"][:done]
            n_samples[part] = found["n_samples"][:done]
            first += done
        depth = expected_depth(depth, opacity, begin)
        return Rendered(color=color, opacity=opacity, depth=depth, n_samples=n_samples)

    def _run(
        self, origins: np.ndarray, directions: np.ndarray, behind: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Render rays and return what the batch says of them, until the next run."""
        n = len(origins)
        given = {"origin": origins, "direction": directions, "background": behind}
        for name, values in given.items():
            self._copies.put(name, np.ascontiguousarray(values, np.float32).reshape(-1))
        self.batch.count.fill_(n)
        self._pass()
        return self._copies.get(n)


def rays_at_once(device: str) -> int:
    """Return the rays of a pass that suit a device."""
    return CAPACITY[device.partition(":")[0]]


def _with_room(n_samples: np.ndarray) -> int:
    """Return how many rays, from the first on, had room."""
    given_up = np.flatnonzero(n_samples < 0)
    return int(given_up[0]) if len(given_up) else len(n_samples)


_INPUTS, _OUTPUTS = ("origin", "direction", "background"), {
    "color": 3, "opacity": 1, "depth": 1, "n_samples": 1,
}  # fmt: skip


class _Direct:
    """A CPU's arrays as they are."""

    def __init__(self, batch: RayBatch):
        self._batch = batch

    def put(self, name: str, values: np.ndarray) -> None:
        getattr(self._batch, name).numpy()[: values.size] = values

    def get(self, n: int) -> dict[str, np.ndarray]:
        return {k: getattr(self._batch, k).numpy()[: n * width] for k, width in _OUTPUTS.items()}


class _Staging:
    """Copies of a batch's arrays in memory that the device reads and writes by itself.

    Copies are queued like launches; ``get`` waits, once a pass.
    """

    def __init__(self, batch: RayBatch, *, pinned: bool):
        self._batch = batch
        self._host = {
            name: wp.empty(
                getattr(batch, name).size,
                dtype=getattr(batch, name).dtype,
                device="cpu",
                pinned=pinned,
            )
            for name in (*_INPUTS, *_OUTPUTS)
        }

    def put(self, name: str, values: np.ndarray) -> None:
        if not values.size:
            return
        self._host[name].numpy()[: values.size] = values
        wp.copy(getattr(self._batch, name), self._host[name], count=values.size)

    def get(self, n: int) -> dict[str, np.ndarray]:
        for name, width in _OUTPUTS.items():
            wp.copy(self._host[name], getattr(self._batch, name), count=n * width)
        wp.synchronize_device(self._batch.device)
        return {k: self._host[k].numpy()[: n * width] for k, width in _OUTPUTS.items()}
