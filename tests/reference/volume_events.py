"""Float64 twin of primitives/volume/kernels/events.py: one ray from event to event.

Where the kernels walk from block to block, this cuts the ray at every plane between blocks, adds up
the majorant's optical depth to the cuts, and looks the events up in those sums.
"""

from dataclasses import dataclass, field

import numpy as np

from tests.reference.samplers import WORD, mix, random_bits, unit

FAINT = 0.1


def numbers(seed, sample, i):
    """Return the function n -> the n-th random number of the stream of a path."""
    key = random_bits(seed, sample, i, 0)

    def draw(n):
        # random_bits with a key in place of a seed and a step
        return unit(mix(mix(n * 4 + key & WORD) ^ key))

    return draw


def crossings(majorants, size, origin, direction):
    """Where a ray crosses planes between blocks, and the majorants between: [m + 1], [m].

    Args:
        majorants: [x, y, z] of the blocks.
        size: grid units along a block's side.
        origin: [3], grid coordinates.
        direction: [3], grid units per world unit.

    Returns:
        Distances from the origin; none where the ray misses the grid.
    """
    upper = np.array(majorants.shape) * size
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.sort(np.stack([-origin, upper - origin]) / direction, axis=0)
    near, far = max(ends[0].max(), 0.0), ends[1].min()
    if near > far:
        return np.zeros(0), np.zeros(0)
    cuts = [np.array([near, far])]
    for a in range(3):
        planes = (np.arange(majorants.shape[a] + 1) * size - origin[a]) / direction[a]
        cuts.append(planes[(planes > near) & (planes < far)])
    t = np.sort(np.concatenate(cuts))
    middles = origin + (t[1:] + t[:-1])[:, None] / 2 * direction
    blocks = np.clip((middles / size).astype(int), 0, np.array(majorants.shape) - 1)
    return t, majorants[tuple(blocks.T)].astype(np.float64)


@dataclass
class Path:
    """What became of a ray."""

    positions: list = field(default_factory=list)
    """[3] each: possible collisions, grid coordinates."""
    majorants: list = field(default_factory=list)
    light: np.ndarray = field(default_factory=lambda: np.zeros(3))
    left: float = 1.0


def follow(cloud, origin, direction, draw, look, n_events):
    """Follow a ray, event by event.

    Args:
        cloud: (majorants, size, extinction of density 1).
        origin: [3], grid coordinates.
        direction: [3], grid units per world unit.
        draw: n -> random number; 0 and 1 chose the ray.
        look: position -> (radiance [3], density).
        n_events: after so many, and where the ray leaves, a faint ray goes on or ends.
    """
    majorants, size, scale = cloud
    path = Path()
    t, bounds = crossings(majorants, size, origin, direction)
    if not len(t):
        return path
    depths = np.concatenate([[0.0], np.cumsum(bounds * np.diff(t)) * scale])
    n, depth, is_on = 3, -np.log(1 - draw(2)), True
    while is_on:
        for _ in range(n_events):
            is_on = depth < depths[-1]
            if not is_on:
                break
            k = np.searchsorted(depths, depth, side="right") - 1
            at = t[k] + (depth - depths[k]) / (bounds[k] * scale)
            path.positions.append(origin + at * direction)
            path.majorants.append(bounds[k])
            radiance, density = look(path.positions[-1])
            alpha = np.clip(density / bounds[k], 0, 1)
            path.light = path.light + path.left * alpha * np.maximum(radiance, 0)
            path.left *= 1 - alpha
            depth += -np.log(1 - draw(n))
            n += 1
        if path.left < FAINT:
            path.left = FAINT if draw(n) * FAINT < path.left else 0.0
            n += 1
        is_on = is_on and path.left > 0
    return path
