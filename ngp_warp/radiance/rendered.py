"""What is seen along rays, for any number of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ngp_warp import launch, loading
from ngp_warp.errors import ShapeError
from ngp_warp.kernels.view_rays import SEEN
from ngp_warp.launch import Stages
from ngp_warp.radiance.batch import RayBatch, make_batch
from ngp_warp.radiance.settings import RadianceSettings
from ngp_warp.radiance.transfers import Transfers, make_transfers, with_room
from ngp_warp.radiance.vanilla_network import VanillaSettings
from ngp_warp.radiance.viewed import Surroundings, ViewRenderer
from ngp_warp.recording import recorded_step

CAPACITY = {"cpu": 2**15, "cuda": 2**20}
"""Rays of one pass, unless another number is given: on CUDA a frame, as each pass is waited for."""
_INPUTS, _OUTPUTS = ("origin", "direction", "background"), {
    "color": 3, "opacity": 1, "depth": 1, "n_samples": 1,
}  # fmt: skip


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
    seen = opacity > SEEN
    found = np.where(seen, depth / np.where(seen, opacity, 1) + begin, np.inf)
    return found.astype(np.float32)


class RayRenderer:
    """Renders rays and views pass by pass; memory does not grow with their number.

    Args:
        settings: of the field.
        record: records a pass: colour, opacity, depth and number of samples of a batch; rays
            with -1 samples are rendered again.
        device: "cpu" or a CUDA device.
        capacity: rays of a pass; None: as many as suit the device.
        staging: see ``make_transfers``.
    """

    def __init__(
        self,
        settings: RadianceSettings | VanillaSettings,
        record: Callable[[RayBatch], Stages],
        device: str,
        capacity: int | None = None,
        staging: bool = False,
    ):
        self.settings = settings
        capacity = capacity or rays_at_once(device)
        self.batch = make_batch(settings, capacity, device)
        self.batch.jitter.fill_(0.5)
        with loading.together(launch.num_threads()):
            self._stages = record(self.batch)
        self._staging = staging
        self._views: dict[Surroundings | None, ViewRenderer] = {}

    @cached_property
    def _pass(self) -> Callable[[], None]:
        return recorded_step(self._stages, self.batch.device)

    @cached_property
    def _transfers(self) -> Transfers:
        arrays = {name: getattr(self.batch, name) for name in (*_INPUTS, *_OUTPUTS)}
        return make_transfers(arrays, self.batch.device, self._staging)

    def views(self, surroundings: Surroundings | None = None) -> ViewRenderer:
        """Return what renders views, before surroundings if there are any."""
        if surroundings not in self._views:
            args = self.batch, self._stages, surroundings, self._staging
            self._views[surroundings] = ViewRenderer(*args, record=recorded_step)
        return self._views[surroundings]

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
        self.batch.weight.fill_(1.0)  # views set it
        color, opacity = np.zeros((n, 3), np.float32), np.zeros(n, np.float32)
        depth, n_samples = np.zeros(n, np.float32), np.zeros(n, np.int32)
        first = 0
        while first < n:
            part = slice(first, min(first + self.batch.capacity, n))
            found = self._run(origins[part], directions[part], behind[part])
            done = with_room(found["n_samples"])
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
            self._transfers.put(name, np.ascontiguousarray(values, np.float32).reshape(-1))
        self.batch.count.fill_(n)
        self._pass()
        return self._transfers.get({name: n * width for name, width in _OUTPUTS.items()})


def rays_at_once(device: str) -> int:
    """Return the rays of a pass that suit a device."""
    return CAPACITY[device.partition(":")[0]]
