"""Losses between predictions and targets, with their gradients.

With d = p - t of a prediction p and its target t (a denominator's p is held constant, as Mueller et
al. 2022 do):

=============  ==================================================
``l2``         d^2
``l1``         |d|
``relative_l2``  d^2 / (p^2 + 0.01)
``mape``       |d| / (|t| + 0.01)
``smape``      |d| / ((|p| + |t|) / 2 + 0.01)
``huber``      5 d^2 where |d| < 0.1, else |d| - 0.05
``log_l1``     log(1 + |d|)
=============  ==================================================
"""

import math

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import Loss
from ngp_warp.errors import ConfigError
from ngp_warp.kernels.loss import LOSSES, loss_kernel

_BLOCK = 32


def loss_and_gradient(
    prediction: wp.array,
    target: wp.array,
    n_points: int,
    n_outputs: int,
    loss: Loss,
    *,
    d_prediction: wp.array,
    sums: wp.array,
    device: str,
    first_block: int = 0,
    n_blocks: int | None = None,
) -> launch.Launch:
    """Record the mean of a loss over points and outputs, and its gradient.

    The formulas stand at the head of this module.

    Args:
        prediction: blocked, flat float32 [total_blocks * n_outputs * 32].
        target: the same.
        n_points: points that count; the last block's others are padding.
        n_outputs: values of a point.
        loss: "l2", "l1", "relative_l2", "mape", "smape", "huber" or "log_l1".
        d_prediction: out, like prediction: the gradient of the mean; zero in the padding.
        sums: out, flat float32 [total_blocks * 2]: each block's sums of the loss and of the squared
            error, not divided by anything.
        device: "cpu" or a CUDA device.
        first_block: first block to work on.
        n_blocks: number of blocks to work on; None: all from first_block on.

    Raises:
        ConfigError: an unknown loss.
        ShapeError: arrays that do not fit each other.
    """
    if loss not in LOSSES:
        raise ConfigError(f"loss must be one of {', '.join(LOSSES)}, got {loss}")
    total = prediction.size // (n_outputs * _BLOCK)
    n_blocks = total - first_block if n_blocks is None else n_blocks
    for name, array, size in (
        ("prediction", prediction, total * n_outputs * _BLOCK),
        ("target", target, total * n_outputs * _BLOCK),
        ("d_prediction", d_prediction, total * n_outputs * _BLOCK),
        ("sums", sums, total * 2),
    ):
        launch.check_size(name, array, size, device)
    n_items = n_blocks if device == "cpu" else n_blocks * _BLOCK
    scale = 1.0 / (n_points * n_outputs)
    args = [prediction, target, n_points, n_outputs, scale, first_block, d_prediction, sums]
    return launch.record(loss_kernel(loss), n_items, args, device)


def batch_psnr(sums: wp.array, n_values: int) -> float:
    """Return the PSNR in dB, peak 1, of a batch whose step has filled ``sums``.

    Args:
        sums: flat float32 pairs of the loss and the squared error, not divided by anything.
        n_values: points times outputs.
    """
    squares = float(sums.numpy().reshape(-1, 2)[:, 1].sum(dtype=np.float64))
    return -10.0 * math.log10(max(squares / n_values, 1e-12))
