"""What is seen along rays, for any number of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ShapeError
from ngp_warp.radiance.batch import RayBatch, make_batch
from ngp_warp.radiance.marching import Stages
from ngp_warp.radiance.settings import RadianceSettings
from ngp_warp.radiance.vanilla_network import VanillaSettings

CAPACITY = 2**15
"""Rays of one pass, unless another number is given."""
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
        capacity: rays of a pass.
    """

    def __init__(
        self,
        settings: RadianceSettings | VanillaSettings,
        record: Callable[[RayBatch], Stages],
        device: str,
        capacity: int = CAPACITY,
    ):
        self.settings = settings
        self.batch = make_batch(settings, capacity, device)
        self.batch.jitter.fill_(0.5)
        self._stages = record(self.batch)

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
            done = self._run(origins[part], directions[part], behind[part])
            part = slice(first, first + done)
            color[part] = self.batch.color.numpy()[: 3 * done].reshape(done, 3)
            opacity[part] = self.batch.opacity.numpy()[:done]
            depth[part] = self.batch.depth.numpy()[:done]
            n_samples[part] = self.batch.n_samples.numpy()[:done]
            first += done
        depth = expected_depth(depth, opacity, begin)
        return Rendered(color=color, opacity=opacity, depth=depth, n_samples=n_samples)

    def _run(self, origins: np.ndarray, directions: np.ndarray, behind: np.ndarray) -> int:
        """Render rays and return how many, from the first on, had room."""
        b, n = self.batch, len(origins)
        for target, source in (
            (b.origin, origins),
            (b.direction, directions),
            (b.background, behind),
        ):
            _put(target, np.ascontiguousarray(source, np.float32).reshape(-1))
        b.count.fill_(n)
        for stage in self._stages:
            launch.run_all(stage)
        given_up = np.flatnonzero(b.n_samples.numpy()[:n] < 0)
        return int(given_up[0]) if len(given_up) else n


def _put(target: wp.array, values: np.ndarray) -> None:
    """Copy to an array's beginning."""
    if str(target.device) == "cpu":
        target.numpy()[: values.size] = values
    else:
        wp.copy(target, wp.array(values, dtype=wp.float32, device="cpu"), count=values.size)
