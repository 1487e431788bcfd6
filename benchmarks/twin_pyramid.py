"""A pyramid of dense grids by torch's grid_sample, a network and Adam: ten lines of PyTorch.

Not the same function as a hash grid: where the grid hashes, the pyramid ends at a coarser
resolution. At a few megapixels it is the peer to beat.
"""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.training_step import FINEST_RESOLUTION

MAX_VERTICES = 2**22
"""Of the finest level: 2048^2 or 161^3; a dense level of 2048^3 would take 69 GB."""


class Pyramid(nn.Module):
    """L dense grids of F features, resolutions in geometric progression, and a ReLU network.

    Args:
        n_dims: 2 or 3.
        n_outputs: values of a point.
        finest_resolution: of the finest level, at most what MAX_VERTICES allows; None: the
            default of the comparison.
    """

    def __init__(self, n_dims: int, n_outputs: int, finest_resolution: int | None = None):
        super().__init__()
        self.n_dims = n_dims
        most = int(MAX_VERTICES ** (1 / n_dims) + 1e-9)
        finest = min(finest_resolution or FINEST_RESOLUTION[n_dims], most)
        sizes = [round(16 * (finest / 16) ** (level / 15)) for level in range(16)]
        grids = [torch.empty(1, 2, *[size] * n_dims).uniform_(-1e-4, 1e-4) for size in sizes]
        self.grids = nn.ParameterList(grids)
        self.network = nn.Sequential(
            nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, n_outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return values [n, n_outputs] of positions [n, d] in the unit cube."""
        places = (2 * x - 1).view(1, *[1] * (self.n_dims - 1), len(x), self.n_dims)
        features = [
            F.grid_sample(grid, places, align_corners=True).view(2, len(x)) for grid in self.grids
        ]
        return self.network(torch.cat(features).T)


def make_optimizer(model: Pyramid) -> torch.optim.Optimizer:
    """Return Adam as the hash grid's."""
    return torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-15, fused=True)
