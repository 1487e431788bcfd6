"""Arrays of a staged pass through a radiance field, allocated once at their full size."""

from typing import Any

import warp as wp

from ngp_warp import launch
from ngp_warp.kernels import composite as kernels
from ngp_warp.kernels import packed
from ngp_warp.radiance.batch import RayBatch
from ngp_warp.radiance.marching import Samples
from ngp_warp.radiance.settings import N_DIRECTION, N_GEOMETRY, RadianceSettings

_RENDER_SAMPLES_CPU, _RENDER_SAMPLES_CUDA = 2**18, (2**20, 2**24)
_RENDER_SHARE = 0.25
"""Share of a CUDA device's free memory that a pass of rendering may take."""


def bytes_of_sample(s: RadianceSettings, n_features: int) -> int:
    """Return the bytes that ``Work`` takes for a sample, marched and kept."""
    marched = 7 + n_features + N_GEOMETRY
    kept = 6 + n_features + N_GEOMETRY + N_DIRECTION + s.n_latent_dims + 3
    return 4 * (marched + kept)


def render_samples(s: RadianceSettings, n_features: int, device: str) -> int:
    """Return the samples of a pass of rendering that suit a device and its free memory."""
    if device == "cpu":
        return _RENDER_SAMPLES_CPU
    least, most = _RENDER_SAMPLES_CUDA
    fits = int(_RENDER_SHARE * launch.free_memory(device)) // bytes_of_sample(s, n_features)
    return max(least, min(fits, most))


class Work:
    """Arrays of a pass, for ``capacity`` samples."""

    def __init__(self, s: RadianceSettings, n_features: int, batch: RayBatch, capacity: int):
        def floats(n: int) -> wp.array:
            return wp.zeros(n, dtype=wp.float32, device=batch.device)

        self.samples = Samples(batch.capacity, capacity, batch.device)
        self.n_color_rows = N_GEOMETRY + N_DIRECTION + s.n_latent_dims
        self.harmonics = floats(batch.capacity * N_DIRECTION)
        self.rgb = floats(capacity * 3)
        self.packed: Any = packed.Packed()
        for name in ("ray", "n", "end", "total", "positions", "distance", "length"):
            setattr(self.packed, name, getattr(self.samples, name))
        self.packed.thickness = floats(capacity)
        self.packed.features = floats(capacity * n_features)
        self.packed.geometry = floats(capacity * N_GEOMETRY)
        self.kept: Any = packed.Kept()
        for name in ("n", "end"):
            array = wp.zeros(batch.capacity, dtype=wp.int32, device=batch.device)
            setattr(self.kept, name, array)
        for name in ("distance", "length", "thickness"):
            setattr(self.kept, name, floats(capacity))
        self.kept.positions = floats(capacity * 3)
        self.kept.features = floats(capacity * n_features)
        self.kept.color_input = floats(capacity * self.n_color_rows)
        self.rays: Any = kernels.Rays()
        names = ("count", "weight", "target", "background", "depth_target", "exposure", "n_samples")
        for name in names:
            setattr(self.rays, name, getattr(batch, name))
        self.rays.span = self.samples.span
        self.out: Any = kernels.Composited()
        for name in ("color", "opacity", "depth", "loss", "d_background", "d_exposure"):
            setattr(self.out, name, getattr(batch, name))


class Gradients:
    """Gradients of a step, by what they are of; weights and transmittances of the samples."""

    def __init__(self, s: RadianceSettings, n_features: int, work: Work):
        def floats(n: int) -> wp.array:
            return wp.zeros(n, dtype=wp.float32, device=work.samples.device)

        n, n_rays = work.samples.capacity, work.samples.n_rays
        self.weights, self.behind = floats(n), floats(n)
        self.rgb, self.raw = floats(n * 3), floats(n)
        self.color_input = floats(n * work.n_color_rows)
        self.geometry = floats(n * N_GEOMETRY)
        self.features = floats(n * n_features)
        self.harmonics = floats(n_rays * N_DIRECTION)
        self.latents = floats(n_rays * s.n_latent_dims)
