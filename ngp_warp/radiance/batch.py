"""A batch of rays: what a training step is given, and what it says of each ray."""

from dataclasses import dataclass
from typing import Protocol

import warp as wp


class BatchSettings(Protocol):
    """What decides which optional arrays a batch has; every radiance field's settings do."""

    @property
    def ray_gradients(self) -> bool:
        """Training fills the gradients of origins and directions."""
        ...

    @property
    def background_gradients(self) -> bool:
        """Training fills the gradients of the backgrounds."""
        ...

    @property
    def exposure(self) -> bool:
        """Colours are exposed before they are compared."""
        ...


@dataclass
class RayBatch:
    """Flat arrays of ``capacity`` rays on one device; ray r has r * 3, r * 3 + 1, r * 3 + 2.

    Coordinates and distances are those of the box, the unit cube.
    """

    capacity: int
    device: str
    # in
    count: wp.array
    """int32 [1]: rays that count; the others are not looked at."""
    origin: wp.array
    """float32 [capacity * 3]: may lie outside the box."""
    direction: wp.array
    """float32 [capacity * 3]: unit vectors."""
    jitter: wp.array
    """float32 [capacity], in [0, 1): place of the first sample in its step."""
    view: wp.array
    """int32 [capacity]: whose latent vector and exposure; -1: none (zeros)."""
    weight: wp.array
    """float32 [capacity]: of the colour's loss; 0: the ray is ignored and not marched."""
    target: wp.array
    """float32 [capacity * 3]: true colours, over the background."""
    background: wp.array
    """float32 [capacity * 3]."""
    depth_target: wp.array
    """float32 [capacity]: true distance along the ray; 0: not known."""
    exposure: wp.array
    """float32 [capacity * 3]: doublings of the light; read with ``settings.exposure``."""
    # out
    color: wp.array
    """float32 [capacity * 3]: composited over the background, exposed."""
    opacity: wp.array
    """float32 [capacity]: 1 - transmittance."""
    depth: wp.array
    """float32 [capacity]: sum of weight times distance (not divided by the opacity)."""
    n_samples: wp.array
    """int32 [capacity]: samples that reached the density network."""
    loss: wp.array
    """float32 [capacity * 2]: the ray's loss (all terms, not divided by the number of rays) and
    squared error of its colour (summed over the channels)."""
    d_origin: wp.array
    """float32 [capacity * 3]: filled with ``settings.ray_gradients``, else empty."""
    d_direction: wp.array
    """float32 [capacity * 3]: the same; the direction is taken as free, not as a unit vector."""
    d_background: wp.array
    """float32 [capacity * 3]: filled with ``settings.background_gradients``, else empty."""
    d_exposure: wp.array
    """float32 [capacity * 3]: filled with ``settings.exposure``, else empty."""


def make_batch(settings: BatchSettings, capacity: int, device: str) -> RayBatch:
    """Return a batch of zeros, all of whose rays count, with weight 1."""

    def floats(n: int) -> wp.array:
        return wp.zeros(n, dtype=wp.float32, device=device)

    def ints(n: int) -> wp.array:
        return wp.zeros(n, dtype=wp.int32, device=device)

    rays = capacity * 3 if settings.ray_gradients else 0
    batch = RayBatch(
        capacity=capacity,
        device=device,
        count=ints(1),
        origin=floats(capacity * 3),
        direction=floats(capacity * 3),
        jitter=floats(capacity),
        view=ints(capacity),
        weight=floats(capacity),
        target=floats(capacity * 3),
        background=floats(capacity * 3),
        depth_target=floats(capacity),
        exposure=floats(capacity * 3 if settings.exposure else 0),
        color=floats(capacity * 3),
        opacity=floats(capacity),
        depth=floats(capacity),
        n_samples=ints(capacity),
        loss=floats(capacity * 2),
        d_origin=floats(rays),
        d_direction=floats(rays),
        d_background=floats(capacity * 3 if settings.background_gradients else 0),
        d_exposure=floats(capacity * 3 if settings.exposure else 0),
    )
    batch.count.fill_(capacity)
    batch.view.fill_(-1)
    batch.weight.fill_(1.0)
    return batch
