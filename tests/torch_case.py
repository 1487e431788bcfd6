"""Torch modules with the float64 twin of encoding and network, at O(1) parameters."""

from dataclasses import dataclass

import numpy as np
import torch

import ngp_warp.torch as tcnn
from ngp_warp.torch.config import network_settings
from tests import encoding_case
from tests.reference import mlp

ENCODINGS = {case.name: case for case in encoding_case.CASES if case.config}


def silu(z):
    return z / (1 + np.exp(-z))


def silu_slope(z):
    s = 1 / (1 + np.exp(-z))
    return s * (1 + z * (1 - s))


ACTIVATIONS = {**mlp.ACTIVATIONS, "silu": (silu, silu_slope)}


@dataclass(frozen=True)
class Padding:
    """Constant columns beside an encoding's, up to a multiple of 16."""

    value: float = 1.0
    before: bool = False

    def add(self, y):
        n = -y.shape[1] % 16
        constant = np.full((len(y), n), self.value)
        return np.hstack([constant, y] if self.before else [y, constant])

    def remove(self, dy, n):
        return dy[:, -n:] if self.before else dy[:, :n]


class FieldTwin:
    """float64 twin of NetworkWithInputEncoding."""

    def __init__(self, case, padding, widths, activation, output_activation, n_out):
        self.encoding, self.padding, self.n_out = case.twin, padding, n_out
        self.widths = widths
        self.n_weights = sum(a * b for a, b in zip(widths[1:], widths[:-1], strict=True))
        self.names = activation, output_activation
        self.n_features = case.make("cpu").n_outputs

    def _network(self, params):
        matrices = mlp.split_weights(params[: self.n_weights], self.widths)
        return [*matrices[:-1], matrices[-1][: self.n_out]]

    def forward(self, x, params):
        h = self.padding.add(self.encoding.forward(x, params[self.n_weights :]))
        return mlp.forward(self._network(params), h, *self.names)[0]

    def backward(self, x, params, dy):
        table = params[self.n_weights :]
        h = self.padding.add(self.encoding.forward(x, table))
        dh, dw = mlp.backward(self._network(params), h, dy, *self.names)
        dx, d_table = self.encoding.backward(x, table, self.padding.remove(dh, self.n_features))
        padded = np.zeros(self.n_weights - len(dw))
        return dx, np.concatenate([dw, padded, d_table])


class EncodingTwin:
    """float64 twin of Encoding."""

    def __init__(self, case):
        self.forward, self.backward = case.twin.forward, case.twin.backward


class Runner:
    """A module on a device with n points, and its twin."""

    def __init__(self, module, twin, case, device, n=45, seed=1, scale=1.0):
        rng = np.random.default_rng(seed)
        self.module, self.twin = module.to(device), twin
        self.x = case.points(n)
        self.params = rng.normal(size=module.params.numel()).astype(np.float32) * scale
        self.dy = rng.normal(size=(n, module.n_output_dims)).astype(np.float32)
        self.v = rng.normal(size=self.x.shape).astype(np.float32)
        self.u = rng.normal(size=self.params.shape).astype(np.float32)
        with torch.no_grad():
            module.params.copy_(torch.from_numpy(self.params))

    def tensor(self, values, requires_grad=False):
        return torch.tensor(values, device=self.module.params.device, requires_grad=requires_grad)

    def first(self):
        """Return (y, dx, d params) of the module."""
        x = self.tensor(self.x, True)
        y = self.module(x)
        dy = self.tensor(self.dy).to(y.dtype)
        gradients = torch.autograd.grad(y, (x, self.module.params), dy)
        return tuple(value.detach().cpu().double().numpy() for value in (y, *gradients))

    def twin_first(self, t=0.0, with_params=True):
        """Return (y, dx, d params) of the twin at x + t v, params + t u."""
        x = self.x.astype(float) + t * self.v
        params = self.params.astype(float) + (t * self.u if with_params else 0)
        dy = self.dy.astype(float)
        return self.twin.forward(x, params), *self.twin.backward(x, params, dy)

    def second(self, with_params=True):
        """Return the gradients of <v, dx> + <u, d params>, or <v, dx>, in (dy, x, params)."""
        x, dy = self.tensor(self.x, True), self.tensor(self.dy, True)
        params = self.module.params
        y = self.module(x)
        of = (x, params) if with_params else (x,)
        gradients = torch.autograd.grad(y, of, dy, create_graph=True)
        along = self.tensor(self.v), self.tensor(self.u)
        total = sum((g * w).sum() for g, w in zip(gradients, along, strict=False))
        found = torch.autograd.grad(total, (dy, x, params), allow_unused=True)
        wanted = (dy, x, params)
        return tuple(
            (torch.zeros_like(of) if g is None else g).detach().cpu().double().numpy()
            for g, of in zip(found, wanted, strict=True)
        )

    def twin_second(self, with_params=True, h=1e-6):
        """The same: derivatives of (y, dx, d params) along (v, u), by central differences."""
        ends = [self.twin_first(t, with_params) for t in (h, -h)]
        return tuple((a - b) / (2 * h) for a, b in zip(*ends, strict=True))


def encoding_runner(case, device, **more):
    module = tcnn.Encoding(case.twin.n_dims, case.config, dtype=torch.float32)
    return Runner(module, EncodingTwin(case), case, device, **more)


PADDINGS = {
    "identity": Padding(),
    "frequency": Padding(),
    "harmonics 8": Padding(before=True),
    "HashGrid smoothstep 3D": Padding(value=0.0),
    # a grid's zeros times a blob's ones
    "Product": Padding(value=0.0),
}
"""Of encodings whose rows 16 does not divide, but for the harmonics, which have 64."""


def field_runner(
    name, device, activation="Softplus", output_activation="None", otype="FullyFusedMLP",
    n_neurons=16, n_hidden_layers=2, n_out=3, **more,
):  # fmt: skip
    """A network behind one of PADDINGS."""
    case, padding = ENCODINGS[name], PADDINGS[name]
    config = {
        "otype": otype,
        "n_neurons": n_neurons,
        "n_hidden_layers": n_hidden_layers,
        "activation": activation,
        "output_activation": output_activation,
    }
    module = tcnn.NetworkWithInputEncoding(case.twin.n_dims, n_out, case.config, config)
    n_in = -(-case.make("cpu").n_outputs // 16) * 16
    widths = [n_in, *[n_neurons] * n_hidden_layers, -(-n_out // 16) * 16]
    settings = network_settings(config)
    names = settings.activation, settings.output_activation
    twin = FieldTwin(case, padding, widths, *names, n_out)
    return Runner(module, twin, case, device, scale=0.5, **more)


def error(got, wanted):
    """Largest difference over the largest value, which may be 0 or little."""
    assert got.shape == wanted.shape
    assert np.all(np.isfinite(got))
    return np.abs(got - wanted).max(initial=0) / max(np.abs(wanted).max(initial=0), 1)
