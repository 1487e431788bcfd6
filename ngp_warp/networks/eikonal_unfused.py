"""The eikonal term's training pass layer by layer: any network on a CPU, every one on CUDA.

The equations stand at the head of kernels/mlp_eikonal.py; biases add dL/db_i = sum d_i, and a skip
connection gives its layer the tangent t_0 again.
"""

from dataclasses import dataclass

import warp as wp

from ngp_warp import launch
from ngp_warp.config import Loss, NetworkConfig
from ngp_warp.kernels import eikonal as kernels
from ngp_warp.losses import loss_and_gradient
from ngp_warp.networks.eikonal import EikonalArrays, check_arrays
from ngp_warp.networks.unfused import Pass, UnfusedMLP, View

_BLOCK = 32


@dataclass(frozen=True)
class _Buffers:
    """What a slice keeps of every layer, beside its activations."""

    bends: list[wp.array]
    """df/dh, then act'' u df/dh."""
    deltas: list[wp.array]
    """e = df/dz."""
    tangents: list[wp.array]
    """u, then t."""
    input_tangent: wp.array
    ones: wp.array
    """df/dh of the last layer."""


@dataclass(frozen=True)
class _Slice:
    """A part of the batch, and where its activations lie."""

    first: int
    count: int
    activations: Pass
    buffers: _Buffers
    y: wp.array
    """All points' outputs."""


class UnfusedEikonal(UnfusedMLP):
    """One launch a layer and direction; implements ``EikonalNetwork``.

    Args:
        config: the network's settings; its weights are laid out so fused or not.
        n_in: inputs.
        n_dims: axes of the Jacobian.
        device: "cpu" or a CUDA device.
        backend: as for ``UnfusedMLP``.
    """

    def __init__(
        self, config: NetworkConfig, n_in: int, n_dims: int, device: str, backend: str = "auto"
    ):
        super().__init__(config, n_in, 1, device, backend)
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
        n_blocks, slices = self._slices(arrays.features, self._kept_eikonal())
        check_arrays(arrays, n_blocks, self.n_in, self.n_dims, self.device)
        launch.check_size("w", w, self.n_params, self.device)
        launch.check_size("dw", dw, self.n_params, self.device)
        y, dy, residuals = (self._rows(n_blocks, 1) for _ in range(3))
        losses = wp.zeros(n_blocks * 2, dtype=float, device=self.device)
        activations = self._buffers(slices, training=True)
        buffers = self._eikonal_buffers(max(n for _, n in slices))
        items = []
        for first, count in slices:
            part = _Slice(first, count, activations, buffers, y)
            x = View(arrays.features, first)
            items += self._forward(w, x, View(y, first), count, activations)
            items += self._slope(w, part, View(arrays.slope, first))
            items.append(self._term(part, arrays, n_points, weight, residuals))
            items += self._tangent(w, part)
            items.append(
                loss_and_gradient(
                    y, arrays.target, n_points, 1, loss, d_prediction=dy, sums=losses,
                    device=self.device, first_block=first, n_blocks=count,
                )
            )  # fmt: skip
            items += self._gradients(w, part, arrays, View(dy, first), dw, activations.partials)
        return items, losses, residuals

    def _activated(self, part: _Slice, index: int) -> View:
        """Return what the derivatives of a layer's activation are taken of."""
        if index in part.activations.sums:
            return View(part.activations.sums[index])
        if index == len(self.layers) - 1:
            return View(part.y, part.first)
        return View(part.activations.hidden[index])

    def _slope(self, w: wp.array, part: _Slice, slope: View) -> list[launch.Launch]:
        """Record e and df/dh of every layer, and df/dy."""
        buffers, items, is_set = part.buffers, [], 0
        last = len(self.layers) - 1
        for index in reversed(range(last + 1)):
            layer, h = self.layers[index], self._activated(part, index)
            q = buffers.ones if index == last else buffers.bends[index]
            args = [q, 0, h.array, h.block, layer.n_out, buffers.deltas[index]]
            n_items = self._kernels.slope_items(part.count, layer.n_out)
            kernel = self._kernels.slope_kernel(layer.activation)
            items.append(launch.record(kernel, n_items, args, self.device))
            e = View(buffers.deltas[index])
            for piece in layer.parts:
                out = slope if piece.from_input else View(buffers.bends[index - 1])
                accumulate = is_set if piece.from_input else 0
                is_set = is_set or int(piece.from_input)
                items.append(
                    self._input_gradient(
                        w, layer, piece, "none", accumulate, e, out, out, part.count
                    )
                )
        return items

    def _term(
        self,
        part: _Slice,
        arrays: EikonalArrays,
        n_points: int,
        weight: float,
        residuals: wp.array,
    ) -> launch.Launch:
        """Record v, t_0 and the residuals."""
        args = [arrays.jacobian, arrays.slope, self.n_in, n_points, 2.0 * weight / n_points]
        args += [part.first, arrays.v, part.buffers.input_tangent, residuals]
        n_items = kernels.block_items(part.count, self.device)
        return launch.record(kernels.eikonal_kernel(self.n_dims), n_items, args, self.device)

    def _tangent(self, w: wp.array, part: _Slice) -> list[launch.Launch]:
        """Record t and act'' u df/dh of every layer."""
        buffers, items = part.buffers, []
        kernel = self._kernels.layer_kernel("none", False)
        for index, layer in enumerate(self.layers):
            out = buffers.tangents[index]
            for number, piece in enumerate(layer.parts):
                source = self._tangent_of(part, index, piece.from_input)
                args = [w, piece.first, layer.n_in, 1, -1, number, source, 0, piece.columns]
                args += [layer.n_out, part.count, out, 0, out, 0]
                n_items = self._kernels.layer_items(part.count, layer.n_out)
                items.append(launch.record(kernel, n_items, args, self.device))
            h = self._activated(part, index)
            r = buffers.bends[index]
            q = buffers.ones if index == len(self.layers) - 1 else r
            args = [h.array, h.block, q, layer.n_out, out, r]
            n_items = kernels.block_items(part.count, self.device)
            bend = kernels.tangent_kernel(layer.activation)
            items.append(launch.record(bend, n_items, args, self.device))
        return items

    def _tangent_of(self, part: _Slice, index: int, from_input: bool) -> wp.array:
        """Return the tangent of a layer's input."""
        return part.buffers.input_tangent if from_input else part.buffers.tangents[index - 1]

    def _gradients(
        self,
        w: wp.array,
        part: _Slice,
        arrays: EikonalArrays,
        dy: View,
        dw: wp.array,
        partials: wp.array,
    ) -> list[launch.Launch]:
        """Record dL/dz of every layer, the weights' gradients and d_features."""
        items, p, is_set = [], dy, 0
        for index in reversed(range(len(self.layers))):
            layer, d = self.layers[index], View(part.activations.deltas[index % 2])
            items.append(self._delta(part, index, p, d))
            next_p = d
            for number, piece in enumerate(layer.parts):
                out = View(arrays.d_features, part.first)
                if not piece.from_input:
                    out = next_p = View(part.activations.deltas[(index - 1) % 2])
                accumulate = is_set if piece.from_input else 0
                is_set = is_set or int(piece.from_input)
                items.append(
                    self._input_gradient(
                        w, layer, piece, "none", accumulate, d, out, out, part.count
                    )
                )
                x, hidden = View(arrays.features, part.first), part.activations.hidden
                source = x if piece.from_input else View(hidden[index - 1])
                tangent = View(self._tangent_of(part, index, piece.from_input))
                e = View(part.buffers.deltas[index])
                bias = layer.bias if number == 0 else -1
                for left, right, b, added in (
                    (d, source, bias, part.first > 0),
                    (e, tangent, -1, True),
                ):
                    items += self._weight_gradient(
                        layer, piece, b, left, right, added, part.count, partials, dw
                    )
            p = next_p
        return items

    def _delta(self, part: _Slice, index: int, p: View, d: View) -> launch.Launch:
        """Record d = p act' + bend; d may be p."""
        layer, h = self.layers[index], self._activated(part, index)
        args = [p.array, p.block, part.buffers.bends[index], h.array, h.block, layer.n_out]
        n_items = kernels.block_items(part.count, self.device)
        kernel = kernels.delta_kernel(layer.activation)
        return launch.record(kernel, n_items, [*args, d.array], self.device)

    def _kept_eikonal(self) -> int:
        """Return the rows that a point's pass keeps."""
        return self.training_rows() + 3 * sum(v.n_out for v in self.layers) + self.n_in

    def _rows(self, n_blocks: int, n_rows: int) -> wp.array:
        return wp.empty(max(n_blocks * n_rows * _BLOCK, 1), dtype=float, device=self.device)

    def _eikonal_buffers(self, count: int) -> _Buffers:
        def each() -> list[wp.array]:
            return [self._rows(count, v.n_out) for v in self.layers]

        ones = wp.ones(max(count * _BLOCK, 1), dtype=float, device=self.device)
        return _Buffers(each(), each(), each(), self._rows(count, self.n_in), ones)
