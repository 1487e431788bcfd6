"""Training passes of networks for a loss on the value and on its gradient's length."""

from dataclasses import dataclass
from typing import Protocol

import warp as wp

from ngp_warp import launch
from ngp_warp.config import Loss, NetworkConfig
from ngp_warp.errors import ConfigError
from ngp_warp.kernels import mlp_eikonal as kernels
from ngp_warp.kernels.mlp import BLOCK
from ngp_warp.networks.mlp import FusedMLP
from ngp_warp.networks.network import Network


@dataclass(frozen=True, kw_only=True)
class EikonalArrays:
    """Per-point arrays of a pass: blocked, flat float32, rows a point in brackets."""

    features: wp.array
    """In [n_in]: the network's input y."""
    jacobian: wp.array
    """In [n_dims * n_in]: dy/dx, row d * n_in + feature."""
    target: wp.array
    """In [1]."""
    d_features: wp.array
    """Out [n_in]: gradient of loss and term in y, with the Jacobian held."""
    slope: wp.array
    """Out [n_in]: q = df/dy."""
    v: wp.array
    """Out [n_dims]: gradient of the term in J^T q, so that its gradient in J is v q^T."""


class EikonalNetwork(Protocol):
    """A network's training pass with the eikonal term (Gropp et al. 2020)."""

    def train_eikonal(
        self,
        w: wp.array,
        arrays: EikonalArrays,
        n_points: int,
        loss: Loss,
        weight: float,
        dw: wp.array,
    ) -> tuple[list[launch.Launch], wp.array, wp.array]:
        """Record the gradients of mean loss(f, target) + weight * mean (|J^T df/dy| - 1)^2.

        The last launch leaves ``arrays`` alone, so that it may run beside what reads them.

        Args:
            w: weights, laid out as the network's.
            arrays: inputs and outputs.
            n_points: points that count; the others' d_features and v are zero.
            loss: of the value.
            weight: of the term.
            dw: out, gradient of the weights.

        Returns:
            The launches; the array [n, 2] that they fill with sums of the loss and of the squared
            error; and an array of sums of the squared residuals (|g| - 1)^2.
        """
        ...


def make_eikonal_network(network: Network, n_dims: int, device: str) -> EikonalNetwork:
    """Return the pass of a network: fused on a CPU where the network is, else layer by layer.

    The weights' layout is the network's. On CUDA the pass is in float32.

    Raises:
        ConfigError: a network with several outputs.
    """
    if network.n_out != 1:
        raise ConfigError(
            f"the eikonal term needs a field with 1 output, this one has {network.n_out}"
        )
    if isinstance(network, FusedMLP):
        return FusedEikonal(network.config, network.n_in, n_dims)
    from ngp_warp.networks.eikonal_unfused import UnfusedEikonal

    return UnfusedEikonal(network.config, network.n_in, n_dims, device)


def check_arrays(arrays: EikonalArrays, n_blocks: int, n_in: int, n_dims: int, device: str) -> None:
    """Raise ShapeError unless the arrays fit each other."""
    rows = {"features": n_in, "jacobian": n_dims * n_in, "target": 1}
    rows |= {"d_features": n_in, "slope": n_in, "v": n_dims}
    for name, n_rows in rows.items():
        launch.check_size(name, getattr(arrays, name), n_blocks * n_rows * BLOCK, device)


class FusedEikonal(FusedMLP):
    """All in one kernel, on a CPU (kernels/mlp_eikonal.py); implements ``EikonalNetwork``.

    Args:
        config: the network's settings.
        n_in: inputs.
        n_dims: axes of the Jacobian.
    """

    def __init__(self, config: NetworkConfig, n_in: int, n_dims: int):
        super().__init__(config, n_in, 1, "cpu")
        self.n_dims = n_dims

    def train_eikonal(
        self,
        w: wp.array,
        arrays: EikonalArrays,
        n_points: int,
        loss: Loss,
        weight: float,
        dw: wp.array,
    ) -> tuple[list[launch.Launch], wp.array, wp.array]:
        """See ``EikonalNetwork.train_eikonal``."""
        a = arrays
        n_blocks, per_chunk, n_chunks = self._chunks(w, a.features)
        check_arrays(a, n_blocks, self.n_in, self.n_dims, self.device)
        launch.check_size("dw", dw, self.n_params, self.device)
        kernel = kernels.train_kernel(self.shape, self.n_dims, loss)
        losses = wp.zeros(n_chunks * 2, dtype=float, device=self.device)
        residuals = wp.zeros(n_chunks, dtype=float, device=self.device)
        scales = [1.0 / n_points, 2.0 * weight / n_points]

        def first(partials: wp.array) -> launch.Launch:
            args = [w, a.features, a.jacobian, a.target, n_points, *scales, n_blocks, per_chunk]
            args += [a.d_features, a.slope, a.v, partials, losses, residuals]
            return launch.record(kernel, n_chunks, args, self.device)

        return self._with_reduction(first, n_chunks, dw), losses, residuals
