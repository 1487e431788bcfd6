"""A known radiance field: coloured Gaussian blobs that glow and hide nothing.

The integral along a ray is closed: sqrt(2 pi) s exp(-rho^2 / (2 s^2)) with rho the distance of the
ray from the blob's centre. Everything in float64.
"""

import numpy as np


class Blobs:
    def __init__(self, rng, n=20, centre=(0.5, 0.4, 0.6), spread=0.12, size=0.02):
        self.centres = np.asarray(centre) + rng.uniform(-spread, spread, (n, 3))
        self.sizes = size * rng.uniform(1, 2.5, n)
        self.colors = rng.uniform(0.2, 1.0, (n, 3))

    def _parts(self, origins, directions):
        arm = self.centres - origins[:, None]
        along = (arm * directions[:, None]).sum(-1)
        offset = arm - along[..., None] * directions[:, None]
        glow = np.exp(-(offset**2).sum(-1) / (2 * self.sizes**2))
        return along, offset, glow

    def color(self, origins, directions):
        """Colours [n, 3] of rays with unit directions."""
        return self._parts(origins, directions)[2] @ self.colors

    def gradient(self, origins, directions, d_color):
        """Gradients of sum(d_color . color) by origins and by directions (as free vectors)."""
        along, offset, glow = self._parts(origins, directions)
        # d(-rho^2 / 2 s^2) = offset . d(origin) / s^2 + along offset . d(direction) / s^2
        share = (glow * (d_color @ self.colors.T) / self.sizes**2)[..., None] * offset
        return share.sum(1), (along[..., None] * share).sum(1)
