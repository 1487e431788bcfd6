"""Multilayer perceptrons of any width, layer by layer, with biases and a skip connection."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import Loss, NetworkConfig
from ngp_warp.errors import ConfigError
from ngp_warp.kernels import linear as vector
from ngp_warp.kernels import linear_portable as portable
from ngp_warp.losses import loss_and_gradient
from ngp_warp.networks.network import xavier_uniform

_BLOCK = 32
_SLICE_MIN_BLOCKS = 32


@dataclass(frozen=True)
class Part:
    """Columns of a layer's matrix, and what they are multiplied with."""

    columns: int
    first: int
    """Where they start in the flat weights."""
    from_input: bool
    """The network's input, else the layer before."""


@dataclass(frozen=True)
class Layer:
    """Where a layer lies in the flat weights: W [n_out, n_in] row-major, then the bias."""

    n_out: int
    n_in: int
    bias: int
    """Where the bias starts; -1: none."""
    activation: str
    parts: tuple[Part, ...]


def make_layers(config: NetworkConfig, n_in: int, n_out: int) -> list[Layer]:
    """Return the layers; a skip concatenates [layer before, input]."""
    layers: list[Layer] = []
    first = 0
    for index in range(config.n_hidden_layers + 1):
        is_last = index == config.n_hidden_layers
        before = config.n_neurons if index else 0
        again = n_in if index in {0, config.skip_layer} else 0
        columns = before + again
        rows = n_out if is_last else config.n_neurons
        parts = [Part(before, first, False)] if before else []
        parts += [Part(again, first + before, True)] if again else []
        first += rows * columns
        activation = config.output_activation if is_last else config.activation
        layers.append(Layer(rows, columns, first if config.bias else -1, activation, tuple(parts)))
        first += rows if config.bias else 0
    return layers


@dataclass(frozen=True)
class View:
    """A blocked array from a block on."""

    array: wp.array
    block: int = 0


@dataclass(frozen=True)
class Pass:
    """Buffers of one slice: activations of every layer, two for gradients, weight gradients."""

    hidden: list[wp.array]
    sums: dict[int, wp.array]
    """What a sine was taken of, by layer."""
    deltas: tuple[wp.array, wp.array]
    partials: wp.array


class UnfusedMLP:
    """A multilayer perceptron, one launch a layer; implements ``Network``.

    Parameters lie layer after layer: W [n_out, n_in] row-major, then its bias [n_out] if there are
    any. Weights start Xavier-uniform, biases at zero. The optimizer's L2 penalty acts on the flat
    array, biases included. Before hidden layer ``skip_layer`` the input is concatenated again,
    behind the hidden features.

    Long batches are worked off in slices, so that the activations that are kept are bounded.

    Args:
        config: settings.
        n_in: inputs.
        n_out: outputs.
        device: "cpu" or a CUDA device.
        backend: "vector" (CPU only), "portable", or "auto": the faster one.

    Raises:
        ConfigError: the vector backend on CUDA.
    """

    def __init__(
        self, config: NetworkConfig, n_in: int, n_out: int, device: str, backend: str = "auto"
    ):
        if backend == "vector" and device != "cpu":
            raise ConfigError(f"the network's vector backend runs on a CPU, not on {device}")
        self.config = config
        self.n_in = n_in
        self.n_out = n_out
        self.device = device
        use_vector = backend == "vector" or (backend == "auto" and device == "cpu")
        self._kernels: Any = vector if use_vector else portable
        self.layers = make_layers(config, n_in, n_out)
        self.n_params = sum(v.n_out * (v.n_in + config.bias) for v in self.layers)

    @property
    def slice_floats(self) -> int:
        """Floats of activations that are kept at a time, as suits the device."""
        return self._kernels.SLICE_FLOATS

    def initial_weights(self, seed: int) -> np.ndarray:
        """See ``Network.initial_weights``."""
        flat = xavier_uniform([(v.n_out, v.n_in) for v in self.layers], seed)
        parts, first = [], 0
        for v in self.layers:
            parts.append(flat[first : first + v.n_out * v.n_in])
            first += v.n_out * v.n_in
            parts.append(np.zeros(v.n_out * self.config.bias, np.float32))
        return np.concatenate(parts)

    def forward(
        self, w: wp.array, x: wp.array, y: wp.array, count: wp.array | None = None
    ) -> list[launch.Launch]:
        """See ``Network.forward``."""
        _, slices = self._slices(x, self.rendering_rows())
        buffers = self._buffers(slices, training=False)
        items = []
        for first, n_blocks in slices:
            items += self._forward(w, View(x, first), View(y, first), n_blocks, buffers)
        return items

    def backward(
        self,
        w: wp.array,
        x: wp.array,
        dy: wp.array,
        dx: wp.array,
        dw: wp.array,
        gradient_scale: float = 128.0,
        count: wp.array | None = None,
    ) -> list[launch.Launch]:
        """See ``Network.backward``."""
        n_blocks, slices = self._slices(x, self.training_rows())
        y = wp.empty(n_blocks * self.n_out * _BLOCK, dtype=float, device=self.device)
        buffers = self._buffers(slices, training=True)
        items = []
        for first, n in slices:
            views = View(x, first), View(y, first)
            items += self._forward(w, *views, n, buffers)
            gradients = View(dy, first), View(dx, first), dw
            items += self._backward(w, *views, *gradients, n, buffers, first > 0)
        return items

    def train(
        self,
        w: wp.array,
        x: wp.array,
        target: wp.array,
        n_points: int,
        loss: Loss,
        dx: wp.array,
        dw: wp.array,
    ) -> tuple[list[launch.Launch], wp.array]:
        """See ``Network.train``."""
        n_blocks, slices = self._slices(x, self.training_rows())
        y, dy = (
            wp.empty(n_blocks * self.n_out * _BLOCK, dtype=float, device=self.device)
            for _ in range(2)
        )
        losses = wp.zeros(n_blocks * 2, dtype=float, device=self.device)
        buffers = self._buffers(slices, training=True)
        items = []
        for first, count in slices:
            views = View(x, first), View(y, first)
            items += self._forward(w, *views, count, buffers)
            items.append(
                loss_and_gradient(
                    y, target, n_points, self.n_out, loss, d_prediction=dy, sums=losses,
                    device=self.device, first_block=first, n_blocks=count,
                )
            )  # fmt: skip
            gradients = View(dy, first), View(dx, first), dw
            items += self._backward(w, *views, *gradients, count, buffers, first > 0)
        return items, losses

    def make_pass(self, n_blocks: int) -> Pass:
        """Allocate what ``forward_pass`` keeps for ``backward_pass``: n_blocks blocks, unsliced."""
        return self._buffers([(0, n_blocks)], training=True)

    def forward_pass(
        self, w: wp.array, x: wp.array, y: wp.array, kept: Pass
    ) -> list[launch.Launch]:
        """Record y = network(x), whose activations are kept until the next forward pass.

        Args:
            w: parameters.
            x: blocked, of as many blocks as ``kept`` was made for.
            y: out.
            kept: from ``make_pass``.
        """
        n_blocks = x.size // (self.n_in * _BLOCK)
        return self._forward(w, View(x), View(y), n_blocks, kept)

    def backward_pass(
        self,
        w: wp.array,
        x: wp.array,
        y: wp.array,
        dy: wp.array,
        dx: wp.array | None,
        dw: wp.array,
        kept: Pass,
        *,
        accumulate: bool,
    ) -> list[launch.Launch]:
        """Record dx and dw of the ``forward_pass`` with the same arguments.

        Unlike ``backward`` it does not repeat the forward pass, for callers that need y to find dy.

        Args:
            w: parameters.
            x: as in the forward pass.
            y: as in the forward pass.
            dy: zero where a block is padded.
            dx: out; None: not wanted.
            dw: out.
            kept: as in the forward pass.
            accumulate: add to what dw holds.
        """
        n_blocks = x.size // (self.n_in * _BLOCK)
        gradients = View(dy), None if dx is None else View(dx), dw
        return self._backward(w, View(x), View(y), *gradients, n_blocks, kept, accumulate)

    def _forward(
        self, w: wp.array, x: View, y: View, count: int, buffers: Pass
    ) -> list[launch.Launch]:
        """Record a slice's forward pass; hidden layers go to the buffers."""
        items = []
        for index, layer in enumerate(self.layers):
            out = y if index == len(self.layers) - 1 else View(buffers.hidden[index])
            for number, part in enumerate(layer.parts):
                is_last = number == len(layer.parts) - 1
                source = x if part.from_input else View(buffers.hidden[index - 1])
                kernel = self._kernels.layer_kernel(layer.activation if is_last else "none", False)
                sums = View(buffers.sums[index]) if index in buffers.sums else out
                args = [w, part.first, layer.n_in, 1, layer.bias if number == 0 else -1, number]
                args += [source.array, source.block, part.columns, layer.n_out, count]
                args += [sums.array, sums.block, out.array, out.block]
                n_items = self._kernels.layer_items(count, layer.n_out)
                items.append(launch.record(kernel, n_items, args, self.device))
        return items

    def _backward(
        self,
        w: wp.array,
        x: View,
        y: View,
        dy: View,
        dx: View | None,
        dw: wp.array,
        count: int,
        buffers: Pass,
        accumulate_dw: bool,
    ) -> list[launch.Launch]:
        """Record a slice's backward pass; dw is added to from the second slice on."""
        last = len(self.layers) - 1
        items, d = [], dy
        if self.layers[last].activation != "none":
            h = View(buffers.sums[last]) if last in buffers.sums else y
            d = View(buffers.deltas[last % 2])
            args = [dy.array, dy.block, h.array, h.block, self.n_out, d.array]
            n_items = self._kernels.slope_items(count, self.n_out)
            kernel = self._kernels.slope_kernel(self.layers[last].activation)
            items.append(launch.record(kernel, n_items, args, self.device))
        dx_is_set = 0
        for index in reversed(range(last + 1)):
            layer = self.layers[index]
            next_d = d
            for number, part in enumerate(layer.parts):
                source = x if part.from_input else View(buffers.hidden[index - 1])
                bias = layer.bias if number == 0 else -1
                if part.from_input:
                    out = h = dx
                    activation, accumulate = "none", dx_is_set
                    dx_is_set = 1
                else:
                    out = next_d = View(buffers.deltas[(index - 1) % 2])
                    activation, accumulate = self.layers[index - 1].activation, 0
                    h = View(buffers.sums.get(index - 1, buffers.hidden[index - 1]))
                if out is not None and h is not None:
                    arrays = d, h, out, count
                    items.append(
                        self._input_gradient(w, layer, part, activation, accumulate, *arrays)
                    )
                items += self._weight_gradient(
                    layer, part, bias, d, source, accumulate_dw, count, buffers.partials, dw
                )
            d = next_d
        return items

    def _input_gradient(
        self,
        w: wp.array,
        layer: Layer,
        part: Part,
        activation: str,
        accumulate: int,
        d: View,
        h: View,
        out: View,
        count: int,
    ) -> launch.Launch:
        """Record out (+)= W^T d, times the derivative of the activation before."""
        kernel = self._kernels.layer_kernel(activation, activation != "none")
        args = [w, part.first, 1, layer.n_in, -1, accumulate, d.array, d.block, layer.n_out]
        args += [part.columns, count, h.array, h.block, out.array, out.block]
        n_items = self._kernels.layer_items(count, part.columns)
        return launch.record(kernel, n_items, args, self.device)

    def _weight_gradient(
        self,
        layer: Layer,
        part: Part,
        bias: int,
        d: View,
        source: View,
        accumulate: bool,
        count: int,
        partials: wp.array,
        dw: wp.array,
    ) -> list[launch.Launch]:
        """Record the chunks' sums of d h^T, and their sum."""
        k, j, columns = self._kernels, layer.n_out, part.columns
        chunks = k.n_chunks(count, j, columns)
        args = [d.array, d.block, j, source.array, source.block, columns, count, chunks, partials]
        n_items = k.weight_gradient_items(chunks, j, columns)
        first = launch.record(k.weight_gradient_kernel(), n_items, args, self.device)
        args = [partials, chunks, j, columns, part.first, layer.n_in, bias, int(accumulate), dw]
        n_items = k.reduce_items(j, columns)
        return [first, launch.record(k.reduce_kernel(), n_items, args, self.device)]

    def _widest(self) -> int:
        return max(self.config.n_neurons, self.n_in, self.n_out)

    def rendering_rows(self) -> int:
        """Return the floats of a point that a forward pass keeps: two layers take turns."""
        return 2 * self._widest()

    def training_rows(self) -> int:
        """Return the floats of a point that a training pass keeps."""
        twice = 2 if self.config.activation == "sine" else 1
        return self.config.n_neurons * self.config.n_hidden_layers * twice + 2 * self._widest()

    def _slices(self, x: wp.array, rows: int) -> tuple[int, list[tuple[int, int]]]:
        """Return the number of blocks of x, and [(first block, blocks)] of its slices."""
        n_blocks = x.size // (self.n_in * _BLOCK)
        size = max(self._kernels.SLICE_FLOATS // (rows * _BLOCK), _SLICE_MIN_BLOCKS)
        n_slices = max(-(-n_blocks // size), 1)
        bounds = [n_blocks * i // n_slices for i in range(n_slices + 1)]
        return n_blocks, [(a, b - a) for a, b in pairwise(bounds)]

    def _buffers(self, slices: list[tuple[int, int]], *, training: bool) -> Pass:
        """Allocate what a slice needs; without training two layers take turns."""
        count = max(n for _, n in slices)

        def rows(n: int) -> wp.array:
            return wp.empty(max(count * n * _BLOCK, 1), dtype=float, device=self.device)

        hidden, width = self.layers[:-1], self.config.n_neurons
        if not training:
            turns = [rows(width), rows(width)]
            arrays = [turns[i % 2] for i in range(len(hidden))]
            unused = turns[0]
            return Pass(arrays, {}, (unused, unused), unused)
        sums = {i: rows(v.n_out) for i, v in enumerate(self.layers) if v.activation == "sine"}
        deltas = [rows(max(width, self.n_out)) for _ in range(2)]
        kept = [rows(width) for _ in hidden]
        return Pass(kept, sums, (deltas[0], deltas[1]), self._partials(slices))

    def _partials(self, slices: list[tuple[int, int]]) -> wp.array:
        """Allocate the weight gradients of the chunks of one layer at a time."""
        k = self._kernels
        sizes = [
            k.n_chunks(count, layer.n_out, part.columns) * k.n_partials(layer.n_out, part.columns)
            for layer in self.layers
            for part in layer.parts
            for count in {n for _, n in slices}
        ]
        return wp.empty(max(sizes), dtype=float, device=self.device)
