"""Rays through the unit cube, and their kernels run over them, for the tests."""

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.kernels import hierarchical
from ngp_warp.kernels import hierarchical_composite as composite
from tests.reference.mlp import from_blocks, to_blocks

SEED, STEP = 5, 3


def rays(n, seed=0):
    """Origins about the cube and unit directions to points of it; the last two rays miss it."""
    rng = np.random.default_rng(seed)
    origin = rng.uniform(-1, 2, (n, 3))
    direction = rng.uniform(0.1, 0.9, (n, 3)) - origin
    origin[-2:], direction[-2:] = [2.0, 2.0, 2.0], [1.0, 0.5, 0.2]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return origin.astype(np.float32), direction.astype(np.float32)


class Case:
    """n rays on a device; arrays start as NaN, so that what is not written is seen."""

    def __init__(self, device, n=37, n_samples=8, n_new=12, seed=0, count=None):
        self.device, self.n, self.n_samples, self.n_new = device, n, n_samples, n_new
        self.origin, self.direction = rays(n, seed)
        self.jitter = np.random.default_rng(seed + 1).random(n).astype(np.float32)
        self.count = self.array(np.array([n if count is None else count]), wp.int32)
        self.step = self.array(np.array([STEP]), wp.int64)

    def array(self, values, dtype=wp.float32):
        return wp.array(np.asarray(values).ravel(), dtype=dtype, device=self.device)

    def nan(self, size):
        return wp.full(size, np.nan, dtype=wp.float32, device=self.device)

    def blocked(self, values):
        return self.array(to_blocks(values.reshape(-1, values.shape[-1]).astype(np.float32)))

    def run(self, kernel, n_items, *args):
        launch.launch(kernel, n_items, args, self.device)

    def strata(self, random, first=0, near=0.0, n=None):
        """Return (segments [n, 2], t [n, n_samples]) of the n rays from ``first`` on."""
        n = self.n if n is None else n
        segment, t = self.nan(n * 2), self.nan(n * self.n_samples)
        rays = self.array(self.origin), self.array(self.direction), self.array(self.jitter)
        self.run(
            hierarchical.stratified_samples, n, first, self.count, *rays, near, self.n_samples,
            int(random), SEED, self.step, segment, t,
        )  # fmt: skip
        return segment.numpy().reshape(n, 2), t.numpy().reshape(n, -1)

    def resample(self, segment, t, weights, random, first=0):
        """Return merged samples [n, n_samples + n_new]."""
        n = len(t)
        merged = self.nan(n * (self.n_samples + self.n_new))
        self.run(
            hierarchical.resample, n, first, self.count, self.array(self.jitter),
            self.array(segment), self.array(t), self.array(weights), self.n_samples, self.n_new,
            int(random), SEED, self.step, merged,
        )  # fmt: skip
        return merged.numpy().reshape(n, -1)

    def positions(self, t):
        x = self.nan(-(-t.size // 32) * 96)
        rays = self.array(self.origin), self.array(self.direction)
        kernel = hierarchical.sample_positions
        self.run(kernel, t.size, 0, self.count, *rays, self.array(t), t.shape[1], x)
        return from_blocks(x.numpy().reshape(-1, 3, 32), t.size).reshape(*t.shape, 3)

    def composite(self, segment, t, raw, rgb, background, scale=1.0, activation="relu"):
        """Return (colour, opacity, depth, weights, T after each sample); raw: row 0 of two."""
        n, s = t.shape
        rows = self.blocked(np.stack([raw, np.full_like(raw, 1e9)], axis=-1))
        outs = [self.nan(n * s), self.nan(n * s), self.nan(n * 3), self.nan(n), self.nan(n)]
        counts = wp.zeros(n, dtype=wp.int32, device=self.device)
        self.run(
            composite.composite_kernel(activation), n, 0, self.count, self.array(segment),
            self.array(t), s, rows, 2, self.blocked(rgb), scale, self.array(background), 20,
            *outs, counts,
        )  # fmt: skip
        weights, after, color, opacity, depth = (a.numpy().reshape(n, -1) for a in outs)
        return color, opacity[:, 0], depth[:, 0], weights, after

    def gradient(
        self, segment, t, raw, rgb, background, target, weight, scale=1.0, activation="relu"
    ):
        """Return (loss [n, 2], d_raw [n, s], d_rgb [n, s, 3]) of the composite."""
        n, s = t.shape
        color, _, _, w, after = self.composite(segment, t, raw, rgb, background, scale, activation)
        rows = self.blocked(np.stack([raw, np.full_like(raw, 1e9)], axis=-1))
        blocks = -(-n * s // 32)
        loss, d_raw, d_rgb = self.nan(n * 2), self.nan(blocks * 64), self.nan(blocks * 96)
        self.run(
            composite.composite_gradient_kernel(activation), n, 0, self.count,
            self.array(segment), self.array(t), s, rows, 2, self.blocked(rgb), scale,
            self.array(background), self.array(w), self.array(after), self.array(color),
            self.array(target), self.array(weight), 0, loss, d_raw, d_rgb,
        )  # fmt: skip
        d_raw = from_blocks(d_raw.numpy().reshape(-1, 2, 32), n * s)[:, 0].reshape(n, s)
        d_rgb = from_blocks(d_rgb.numpy().reshape(-1, 3, 32), n * s).reshape(n, s, 3)
        return loss.numpy().reshape(n, 2), d_raw, d_rgb
