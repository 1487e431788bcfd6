"""Between torch's [n, n_rows] and blocks [n_blocks, n_rows, 32], differentiable any often.

A transposition, whose adjoint is the other way. Twin: tests/reference/layout.py.
"""

from typing import Any

import torch
import torch.nn.functional as F

from ngp_warp.kernels import layout as kernels
from ngp_warp.launch import record
from ngp_warp.torch.memory import BLOCK, allocate, flat, run


def to_blocked(points: torch.Tensor) -> torch.Tensor:
    """Return float32 points [n, n_rows] as contiguous [n_blocks, n_rows, 32], padded with zeros."""
    n, n_rows = points.shape
    if _is_for_torch(points, n_rows):
        points = F.pad(points, (0, 0, 0, -n % BLOCK)) if n % BLOCK else points
        return points.reshape(-1, BLOCK, n_rows).transpose(1, 2).contiguous()
    blocked: Any = _ToBlocked.apply(points)
    return blocked


def from_blocked(blocked: torch.Tensor, n: int) -> torch.Tensor:
    """Return the first n points of [n_blocks, n_rows, 32] as contiguous [n, n_rows]."""
    n_rows = blocked.shape[1]
    if _is_for_torch(blocked, n_rows):
        # of one block, reshape() is a view with the block's strides
        return blocked.transpose(1, 2).reshape(-1, n_rows)[:n].contiguous()
    points: Any = _FromBlocked.apply(blocked, n)
    return points


def _is_for_torch(tensor: torch.Tensor, n_rows: int) -> bool:
    """Return whether torch does it: on CUDA, and where nothing moves.

    On a CPU it needs five times as long, and its threads take turns with Warp's.
    """
    return tensor.device.type != "cpu" or n_rows == 1


class _ToBlocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: torch.Tensor) -> torch.Tensor:
        n, n_rows = points.shape
        ctx.n = n
        blocked = allocate((-(-n // BLOCK), n_rows, BLOCK), "cpu")
        _turn(points.contiguous(), blocked, to_blocked=True)
        return blocked

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return from_blocked(gradients[0], ctx.n)


class _FromBlocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, blocked: torch.Tensor, n: int) -> torch.Tensor:
        points = allocate((n, blocked.shape[1]), "cpu")
        _turn(points, blocked.contiguous(), to_blocked=False)
        return points

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return to_blocked(gradients[0]), None


def _turn(points: torch.Tensor, blocked: torch.Tensor, *, to_blocked: bool) -> None:
    n, n_rows = points.shape
    kernel = kernels.turn_kernel(to_blocked=to_blocked)

    def stages() -> Any:
        args = [n, n_rows, flat(points), flat(blocked)]
        return [[record(kernel, len(blocked), args, "cpu")]]

    if n:
        run(stages, points.device)
