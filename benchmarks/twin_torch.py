"""The same training step in plain PyTorch, as it is usually written.

Hash grid by indexing and autograd, torch.nn.Linear, torch.optim.Adam with its fused kernel. The
law: with the same parameters and the same batch it has the loss and the gradients of
``ngp_warp.field.Field`` (tests/test_benchmarks.py, and before each timing).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.training_step import TrainingStep
from ngp_warp.encodings.grid import GridLevel, level_strides
from ngp_warp.field import Field
from ngp_warp.kernels import grid as kinds

PRIMES = (1, 2654435761, 805459861)
LOSS_RTOL = 1e-5
# Of a level's or layer's gradient in the Euclidean norm. Positions are rounded otherwise without
# fused multiply-adds; among 2^18 points some unit then lies on the other side of ReLU's kink, and a
# point's whole share of the gradient changes. Batches of 2^10 agree to 1e-5.
GRADIENT_RTOL = 1e-2


class Level(nn.Module):
    """One resolution of the grid: a table of its vertices."""

    corners: torch.Tensor
    factors: torch.Tensor

    def __init__(self, level: GridLevel, n_dims: int, values: np.ndarray):
        super().__init__()
        self.level = level
        self.table = nn.Parameter(torch.from_numpy(values.copy()))
        steps = [[(c >> d) & 1 for d in range(n_dims)] for c in range(2**n_dims)]
        factors = PRIMES[:n_dims] if level.mode == kinds.HASH else level_strides(level, n_dims)
        self.register_buffer("corners", torch.tensor(steps))
        self.register_buffer("factors", torch.tensor(factors))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features [n, F] of positions [n, d] in the unit cube."""
        position = x * self.level.scale + 0.5
        cell = position.floor()
        fraction = (position - cell).unsqueeze(1)
        terms = (cell.long().unsqueeze(1) + self.corners) * self.factors  # [n, 2^d, d]
        if self.level.mode == kinds.HASH:
            index = terms[..., 0]
            for d in range(1, terms.shape[-1]):
                index = index ^ terms[..., d]
            index = index & (self.level.size - 1)
        else:
            index = terms.sum(-1) % self.level.size
        weight = torch.where(self.corners.bool(), fraction, 1 - fraction).prod(-1, keepdim=True)
        # index_select's gradient is five times faster than that of table[index] and nn.Embedding
        rows = self.table.index_select(0, index.reshape(-1)).view(*index.shape, -1)
        return (rows * weight).sum(1)


class TorchField(nn.Module):
    """A hash grid and a network with the parameters of a field."""

    def __init__(self, field: Field):
        super().__init__()
        encoding = field.encoding
        table = field.table.value.numpy().reshape(encoding.n_entries, encoding.n_features)
        self.levels = [
            Level(v, field.n_dims, table[v.offset : v.offset + v.size]) for v in encoding.levels
        ]
        config = field.network.config
        widths = [encoding.n_outputs] + [config.n_neurons] * config.n_hidden_layers
        weights = torch.from_numpy(field.weights.value.numpy().copy())
        self.layers: list[nn.Linear] = []
        for k, j in zip(widths, [*widths[1:], field.n_outputs], strict=True):
            self.layers.append(nn.Linear(k, j, bias=False))
            self.layers[-1].weight = nn.Parameter(weights[: j * k].reshape(j, k).clone())
            weights = weights[j * k :]
        self.modules_of_both = nn.ModuleList([*self.levels, *self.layers])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return values [n, n_outputs] of positions [n, d] in the unit cube."""
        h = torch.cat([level(x) for level in self.levels], dim=-1)
        for layer in self.layers[:-1]:
            h = F.relu(layer(h))
        return self.layers[-1](h)


def make_optimizer(field: TorchField) -> torch.optim.Optimizer:
    """Return dense Adam with the settings of ``OptimizerConfig``."""
    groups = [
        {"params": [layer.weight for layer in field.layers], "weight_decay": 1e-6},
        {"params": [level.table for level in field.levels]},
    ]
    return torch.optim.Adam(groups, lr=1e-2, betas=(0.9, 0.99), eps=1e-15, fused=True)


def torch_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Callable[[], tuple]
) -> Callable[[], None]:
    """Return one training step: batch, forward pass, loss, backward pass, Adam."""

    def step() -> None:
        x, target = batch()
        optimizer.zero_grad(set_to_none=True)
        F.mse_loss(model(x), target).backward()
        optimizer.step()

    return step


def photo_batch(photo: np.ndarray, n_points: int) -> Callable[[], tuple]:
    """Return the drawing of a batch: pixel centres in the unit square, colours from 0 to 1."""
    pixels = torch.from_numpy(photo.copy())
    height, width, n_channels = pixels.shape
    pixels = pixels.reshape(-1, n_channels)
    size = torch.tensor([width, height])

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        index = torch.randint(height * width, (n_points,))
        column_row = torch.stack([index % width, index // width], dim=-1)
        return (column_row + 0.5) / size, pixels[index].float() / 255

    return batch


def fixed_batch(step: TrainingStep) -> Callable[[], tuple]:
    """Return the drawing of uniform points, with the targets that ``step`` holds."""
    _, target = points_and_targets(step)
    return lambda: (torch.rand(step.size.n_points, step.size.n_dims), target)


def points_and_targets(step: TrainingStep) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the step's batch, point after point: positions [n, d] and targets [n, n_outputs]."""

    def rows(blocked: np.ndarray, n_rows: int) -> torch.Tensor:
        points = blocked.reshape(-1, n_rows, 32).transpose(0, 2, 1).reshape(-1, n_rows)
        return torch.from_numpy(np.ascontiguousarray(points))

    size = step.size
    return rows(step.x.numpy(), size.n_dims), rows(step.target.numpy(), size.n_outputs)


def differences(step: TrainingStep) -> dict[str, float]:
    """Return how far the twin's loss and gradients are from the field's, for the step's batch.

    Returns:
        Relative differences of the loss, and of the gradients of the weights and the table: the
        Euclidean norm of the worst layer or level.
    """
    loss, weights, table = step.loss_and_gradients()
    twin = TorchField(step.field)
    x, target = points_and_targets(step)
    twin_loss = F.mse_loss(twin(x), target)
    twin_loss.backward()
    return {
        "loss": abs(loss - twin_loss.item()) / abs(twin_loss.item()),
        "weights": _worst(weights, [layer.weight for layer in twin.layers]),
        "table": _worst(table, [level.table for level in twin.levels]),
    }


def check_same(step: TrainingStep) -> dict[str, float]:
    """Return the differences, which must be within LOSS_RTOL and GRADIENT_RTOL.

    Raises:
        AssertionError: one is not.
    """
    found = differences(step)
    allowed = {"loss": LOSS_RTOL, "weights": GRADIENT_RTOL, "table": GRADIENT_RTOL}
    if any(not found[name] <= allowed[name] for name in allowed):
        raise AssertionError(f"the PyTorch twin differs by {found}, allowed are {allowed}")
    return found


def _worst(ours: np.ndarray, parts: list[torch.Tensor]) -> float:
    """Return the largest relative difference of the parts' gradients, which fill ``ours``."""
    worst, begin = 0.0, 0
    for part in parts:
        assert part.grad is not None
        theirs = part.grad.numpy().reshape(-1).astype(np.float64)
        difference = ours[begin : begin + theirs.size] - theirs
        begin += theirs.size
        worst = max(worst, float(np.linalg.norm(difference) / np.linalg.norm(theirs)))
    if begin != ours.size:
        raise AssertionError(f"the twin has {begin} parameters, the field {ours.size}")
    return worst
