"""What a module computes with on one device: an encoding, a network, and their launches on tensors.

Tensors are contiguous float32 on the object's device, per-point ones blocked, as [n_blocks, n_rows,
32]. Warp reads and writes their memory: nothing is copied. On CUDA everything is queued on torch's
current stream. Launches are recorded for each call, which is less than 0.7 ms of a step: buffers of
their own would cost copies, and several threads may call at a time.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import warp as wp

from ngp_warp import launch
from ngp_warp.encodings.composite import Composite
from ngp_warp.encodings.encoding import Encoding
from ngp_warp.encodings.make import make_encoding
from ngp_warp.encodings.padding import Padded
from ngp_warp.field import query_points
from ngp_warp.kernels import reduction
from ngp_warp.launch import Launch
from ngp_warp.networks.mlp import make_network
from ngp_warp.torch.config import ALIGNMENT, NetworkSettings
from ngp_warp.torch.memory import (
    BLOCK,
    aligned,
    allocate,
    flat,
    flat_or_none,
    on_torch_stream,
    run,
)


class Native:
    """An encoding, and the network behind it if there is one.

    Args:
        n_in: dimensions of a point.
        encoding: tiny-cuda-nn's JSON.
        network: settings; None: an encoding alone, whose rows are not padded.
        n_out: outputs of the network that count.
        device: "cpu" or "cuda:N".

    Raises:
        ConfigError: an encoding that a config does not describe.
    """

    def __init__(
        self,
        n_in: int,
        encoding: dict[str, Any],
        network: NetworkSettings | None,
        n_out: int,
        device: str,
    ):
        launch.init()
        self.device = device
        with on_torch_stream(torch.device(device)):
            self._make(n_in, encoding, network, n_out)

    def _make(
        self, n_in: int, encoding: dict[str, Any], network: NetworkSettings | None, n_out: int
    ) -> None:
        alignment = 0 if network is None else ALIGNMENT
        self.encoding = make_encoding(n_in, encoding, self.device, alignment=alignment)
        self.settings = network
        self.n_out = self.encoding.n_outputs if network is None else n_out
        self.layers = [] if network is None else network.layers(self.encoding.n_outputs, n_out)
        self.n_weights = sum(j * k for j, k in self.layers)
        self.n_params = self.n_weights + self.encoding.n_params
        config = None if network is None else network.kernel_config()
        n_features = self.encoding.n_outputs
        self.network = (
            None if config is None else make_network(config, n_features, n_out, self.device)
        )

    def initial_params(self, seed: int) -> np.ndarray:
        """Return float32 [n_params]: the network's, then the encoding's."""
        parts = [self.encoding.initial_params(seed)]
        if self.settings is not None:
            parts.insert(0, self.settings.initial_weights(self.layers, seed))
        return np.concatenate(parts).astype(np.float32)

    def hyperparams(self) -> dict[str, Any]:
        """Return the settings in tiny-cuda-nn's JSON form."""
        if self.settings is None:
            return self.encoding.hyperparams()
        parts = {"encoding": self.encoding.hyperparams(), "network": self.settings.hyperparams()}
        return {"otype": "NetworkWithInputEncoding", **parts}

    def encode(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Return the features [n_blocks, n_features, 32] of points; table: its parameters."""
        y = self._empty(len(x), self.encoding.n_outputs)
        self._run(lambda: _chain(self.encoding.forward(flat(x), self._read(table), flat(y))), x)
        return y

    def encode_backward(
        self, x: torch.Tensor, table: torch.Tensor, dy: torch.Tensor, needs: tuple[bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients of <y, dy> in x and the table, those that are needed."""
        dx = self._empty(len(x), self.encoding.n_dims) if needs[0] else None
        d_table = self._zeros(self.encoding.n_params) if needs[1] else None

        def record() -> list[list[Launch]]:
            args = flat(x), self._read(table), flat(dy)
            gradients = {"dx": flat_or_none(dx), "d_params": flat_or_none(d_table)}
            return _chain(self.encoding.backward(*args, **gradients))

        self._run(record, x)
        return dx, d_table

    def encode_second_order(
        self,
        x: torch.Tensor,
        table: torch.Tensor,
        dy: torch.Tensor,
        v: torch.Tensor,
        needs: tuple[bool, bool, bool],
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients of <v, dx(x, table, dy)> in x, the table and dy, if needed."""
        e = self.encoding
        dx = self._empty(len(x), e.n_dims) if needs[0] else None
        d_table = self._zeros(e.n_params) if needs[1] else None
        d_dy = self._empty(len(x), e.n_outputs) if needs[2] else None

        def record() -> list[list[Launch]]:
            args = flat(x), self._read(table), flat(dy), flat(v)
            gradients = {"dx": flat_or_none(dx), "d_params": flat_or_none(d_table)}
            return _chain(e.second_order(*args, d_dy=flat_or_none(d_dy), **gradients))

        self._run(record, x)
        return dx, d_table, d_dy

    def of(self, encoding: Encoding) -> "Native":
        """Return the same with another encoding, of its own for example."""
        other = copy.copy(self)
        other.encoding = encoding
        return other

    def forward(
        self, x: torch.Tensor, params: torch.Tensor, *, keep: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return the features, if they are to be kept, and the outputs [n_blocks, n_out, 32].

        Features that nobody keeps are made in passes that the caches hold.
        """
        y = self._empty(len(x), self.n_out)
        n_features = self.encoding.n_outputs
        size = len(x) if keep else min(len(x), query_points(self.device) // BLOCK)
        features = self._empty(size, n_features)
        for begin in range(0, len(x), max(size, 1)):
            part = slice(begin, begin + size)

            def record(part: slice = part) -> list[list[Launch]]:
                w, table = map(self._read, self._split(params))
                points, out = flat(x[part]), flat(y[part])
                own: Any = flat(features)[: len(x[part]) * n_features * BLOCK]
                assert self.network is not None
                encode = self.encoding.forward(points, table, own)
                return _chain([*encode, *self.network.forward(w, own, out)])

            self._run(record, x)
        return features if keep else None, y

    def backward(
        self,
        x: torch.Tensor,
        params: torch.Tensor,
        features: torch.Tensor,
        dy: torch.Tensor,
        needs: tuple[bool, bool],
        gradient_scale: float,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients of <y, dy> in x and params, those that are needed.

        The rows of the last matrix that are padding have zero gradients, as in the reference.
        """
        dx = self._empty(len(x), self.encoding.n_dims) if needs[0] else None
        d_params = self._zero_gradient() if needs[1] else None

        def record() -> list[list[Launch]]:
            w, table = map(self._read, self._split(params))
            dw, d_table = wp.empty_like(w), None
            if d_params is not None:
                dw, d_table = map(flat, self._split(d_params))
            assert self.network is not None
            d_features = wp.empty(features.numel(), dtype=float, device=self.device)
            passes = self.network.backward(
                w, flat(features), flat(dy), d_features, dw, gradient_scale
            )
            gradients = {"dx": flat_or_none(dx), "d_params": d_table}
            if dx is None and (d_table is None or self.encoding.n_params == 0):
                return _chain(passes)
            scatter = self.encoding.backward(flat(x), table, d_features, **gradients)
            # the last pass sums the weights' gradients, and may run beside what reads d_features
            return [*_chain(passes[:-1]), passes[-1:] + scatter[:1], *_chain(scatter[1:])]

        self._run(record, x)
        return dx, d_params

    def _split(self, params: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the network's weights without padded rows, and the encoding's parameters."""
        assert self.network is not None
        return params[: self.network.n_params], params[self.n_weights :]

    def _read(self, params: torch.Tensor) -> wp.array:
        """Return parameters that are only read: on CUDA in loads of up to 16 bytes."""
        return flat(params if self.device == "cpu" else aligned(params))

    def _zero_gradient(self) -> torch.Tensor:
        """Return zeros for all parameters, of which the table's begin at whole 16 bytes."""
        before = -self.n_weights % 4  # not 0 for networks of an odd width alone
        zeros = self._zeros(before + self.n_params)
        return zeros[before:] if before else zeros

    def _run(self, record: Callable[[], list[list[Launch]]], x: torch.Tensor) -> None:
        """Record and run stages of launches; nothing for no points."""
        if len(x):
            run(record, x.device)

    def _empty(self, n_blocks: int, n_rows: int) -> torch.Tensor:
        return allocate((n_blocks, n_rows, BLOCK), self.device)

    def _zeros(self, n: int) -> torch.Tensor:
        return allocate((n,), self.device, zero=True)


def _chain(launches: list[Launch]) -> list[list[Launch]]:
    return [[item] for item in launches]


def is_linear(encoding: Encoding) -> bool:
    """Return whether features are linear in an encoding's parameters, up to a constant."""
    if isinstance(encoding, Padded):
        return is_linear(encoding.encoding)
    if isinstance(encoding, Composite):
        product = encoding.reduction == reduction.PRODUCT
        return not product and all(map(is_linear, encoding.encodings))
    return True
