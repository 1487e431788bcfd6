"""A small network with O(1) features and Jacobians, on a device, and its float64 twin."""

import numpy as np
import warp as wp

from ngp_warp.config import NetworkConfig
from ngp_warp.networks.eikonal import EikonalArrays, FusedEikonal
from ngp_warp.networks.eikonal_unfused import UnfusedEikonal
from tests.reference import eikonal, mlp

WEIGHT = 0.7
OUTPUTS = ("d_features", "slope", "v", "dw", "loss", "squares", "residual")


class EikonalCase:
    """A network of one output, n points, and what a training pass needs."""

    def __init__(self, n_in, settings, device, backend, n=70, n_dims=3, seed=0):
        self.config = NetworkConfig(**settings)
        self.n_in, self.n_dims, self.n, self.device = n_in, n_dims, n, device
        if backend == "fused":
            self.network = FusedEikonal(self.config, n_in, n_dims)
        else:
            self.network = UnfusedEikonal(self.config, n_in, n_dims, device, backend)
        rng = np.random.default_rng(seed)
        self.w = self.network.initial_weights(seed)
        # biases start at zero, and would be no test
        self.w = self.w + 0.1 * rng.normal(size=self.w.size).astype(np.float32)
        self.y = rng.uniform(-1, 1, (n, n_in)).astype(np.float32)
        self.jacobian = rng.normal(size=(n, n_in, n_dims)).astype(np.float32)
        self.target = rng.uniform(0, 1, (n, 1)).astype(np.float32)
        self.n_blocks = -(-n // 32)

    def array(self, values, fill):
        return wp.array(mlp.to_blocks(values, fill).ravel(), dtype=wp.float32, device=self.device)

    def empty(self, n_rows):
        return wp.full(self.n_blocks * n_rows * 32, np.nan, dtype=wp.float32, device=self.device)

    def unblock(self, array, n_rows):
        return mlp.from_blocks(array.numpy().reshape(-1, n_rows, 32), self.n)

    def train(self, loss="l2", weight=WEIGHT, fill=0.5, repeat=1):
        """Return what ``EikonalNetwork.train_eikonal`` fills, as the twin names it."""
        rows = self.jacobian.transpose(0, 2, 1).reshape(self.n, -1)
        arrays = EikonalArrays(
            features=self.array(self.y, fill),
            jacobian=self.array(rows, fill),
            target=self.array(self.target, 1e30),
            d_features=self.empty(self.n_in),
            slope=self.empty(self.n_in),
            v=self.empty(self.n_dims),
        )
        w = wp.array(self.w, dtype=wp.float32, device=self.device)
        dw = wp.full(self.w.size, np.nan, dtype=wp.float32, device=self.device)
        items, losses, residuals = self.network.train_eikonal(w, arrays, self.n, loss, weight, dw)
        for item in items * repeat:
            item.run()
        # the padding's gradients are zero: they are scattered too
        for name in ("d_features", "v"):
            padding = mlp.from_blocks(
                getattr(arrays, name).numpy().reshape(self.n_blocks, -1, 32), self.n_blocks * 32
            )[self.n :]
            assert np.all(padding == 0.0)
        sums = losses.numpy().reshape(-1, 2).astype(np.float64).sum(axis=0)
        return {
            "d_features": self.unblock(arrays.d_features, self.n_in),
            "slope": self.unblock(arrays.slope, self.n_in),
            "v": self.unblock(arrays.v, self.n_dims),
            "dw": dw.numpy(),
            "loss": sums[0],
            "squares": sums[1],
            "residual": residuals.numpy().astype(np.float64).sum(),
        }

    def twin_network(self, w=None):
        c = self.config
        matrices, biases = mlp.split_parameters(
            self.w if w is None else w, self.n_in, c.n_neurons, c.n_hidden_layers, 1, c.bias,
            c.skip_layer,
        )  # fmt: skip
        return eikonal.Network(matrices, c.activation, c.output_activation, biases, c.skip_layer)

    def twin(self, loss="l2", weight=WEIGHT, w=None, y=None, jacobian=None):
        y = self.y if y is None else y
        jacobian = self.jacobian if jacobian is None else jacobian
        arrays = [np.asarray(v, np.float64) for v in (y, jacobian, self.target[:, 0])]
        return eikonal.network_pass(self.twin_network(w), *arrays, loss, weight)


def error(got, wanted):
    """Norm of the difference over the norm."""
    assert np.all(np.isfinite(got))
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
