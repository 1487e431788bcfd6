"""Autograd functions of encodings and networks, to second order.

First order: ``ForwardPass`` runs encoding and network in our kernels, and so does its backward
pass. With ``create_graph`` that pass is instead built from what is differentiable again:
``Encode``, whose second order is ``Encoding.second_order``, and in torch's operations the network,
and products of encodings where their parameters' gradient is asked for.

Differentiable in points and parameters. Tensors are as in ``native.py``.
Source of the activations: tiny-cuda-nn's common_device.h, K = 10. Twin: tests/reference/mlp.py.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ngp_warp.encodings.composite import CONCATENATION, Composite
from ngp_warp.encodings.padding import Padded
from ngp_warp.errors import ConfigError
from ngp_warp.kernels.reduction import SUM
from ngp_warp.torch.layout import from_blocked, to_blocked
from ngp_warp.torch.memory import BLOCK
from ngp_warp.torch.native import Native, is_linear

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda z: z,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,  # slope 0.01
    "exponential": torch.exp,
    "sine": torch.sin,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "squareplus": lambda z: 0.5 * (z + torch.sqrt(z * z + 0.04)),
    "softplus": lambda z: F.softplus(z, beta=10.0),
    "tanh": torch.tanh,
}


def evaluate(
    native: Native, x: torch.Tensor, params: torch.Tensor, gradient_scale: float
) -> torch.Tensor:
    """Return the outputs [n_blocks, n_out, 32] of points [n_blocks, n_in, 32].

    Args:
        native: on the tensors' device.
        x: points.
        params: flat.
        gradient_scale: what the network's gradients are carried times in half precision.
    """
    if native.settings is None:
        return _apply(Encode, native, x, params)
    if native.network is None:
        return _composed(native, x, params)
    if torch.is_grad_enabled() and (x.requires_grad or params.requires_grad):
        return _apply(ForwardPass, native, gradient_scale, x, params)
    return native.forward(x, params, keep=False)[1]


class ForwardPass(torch.autograd.Function):
    """Encoding and network: (points, params) to outputs."""

    @staticmethod
    def forward(
        ctx: Any, native: Native, gradient_scale: float, x: torch.Tensor, params: torch.Tensor
    ) -> torch.Tensor:
        """Return the outputs; the features are kept."""
        features, y = native.forward(x, params, keep=True)
        ctx.native, ctx.gradient_scale = native, gradient_scale
        ctx.save_for_backward(x, params, features)
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, *dys: torch.Tensor | None) -> tuple[Any, ...]:
        """Return the gradients in points and params that are needed."""
        (dy,) = dys
        needs = _needs(ctx)
        if dy is None or not any(needs):
            return None, None, None, None
        x, params, features = ctx.saved_tensors
        if torch.is_grad_enabled():
            y = _composed(ctx.native, x, params)
            return None, None, *_gradients_with_graph(y, (x, params), dy, needs)
        dy = dy.contiguous()
        return None, None, *ctx.native.backward(x, params, features, dy, needs, ctx.gradient_scale)


class Encode(torch.autograd.Function):
    """An encoding: (points, its parameters) to features."""

    @staticmethod
    def forward(ctx: Any, native: Native, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        ctx.native = native
        ctx.save_for_backward(x, table)
        ctx.set_materialize_grads(False)
        return native.encode(x, table)

    @staticmethod
    def backward(ctx: Any, *dys: torch.Tensor | None) -> tuple[Any, ...]:
        """Return the gradients in points and parameters that are needed."""
        (dy,) = dys
        needs = _needs(ctx)
        if dy is None or not any(needs):
            return None, None, None
        x, table = ctx.saved_tensors
        if torch.is_grad_enabled() and needs[1] and not is_linear(ctx.native.encoding):
            y = _features(ctx.native, x, table)
            return None, *_gradients_with_graph(y, (x, table), dy, needs)
        return None, *_apply(EncodeBackward, ctx.native, needs, x, table, dy.contiguous())


class EncodeBackward(torch.autograd.Function):
    """An encoding's backward pass: (points, its parameters, dy) to (dx, d table)."""

    @staticmethod
    def forward(
        ctx: Any,
        native: Native,
        needs: tuple[bool, bool],
        x: torch.Tensor,
        table: torch.Tensor,
        dy: torch.Tensor,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients that are needed."""
        ctx.native = native
        ctx.save_for_backward(x, table, dy)
        ctx.set_materialize_grads(False)
        return native.encode_backward(x, table, dy, needs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
        """Return the gradients of <v, dx> + <u, d table>."""
        x, table, dy = ctx.saved_tensors
        tensors = (x, table, dy, *gradients)
        with torch.no_grad():
            sums = _second_order(ctx.native, tensors, ctx.needs_input_grad[2:])
        if torch.is_grad_enabled():
            sums = [None if s is None else _apply(NoThirdOrder, s, *tensors) for s in sums]
        return None, None, *sums


class Product(torch.autograd.Function):
    """Matrices a b in float32, differentiable any often.

    Torch's own product takes half precision under autocast, and so does its backward pass.
    """

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return a b."""
        ctx.save_for_backward(a, b)
        with torch.amp.autocast(a.device.type, enabled=False):
            return a @ b

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        """Return the gradients in a and b that are needed."""
        a, b = ctx.saved_tensors
        (g,) = gradients
        needs = _needs(ctx)
        return _product(g, b.t()) if needs[0] else None, _product(a.t(), g) if needs[1] else None


class NoThirdOrder(torch.autograd.Function):
    """Passes on a second-order gradient, and refuses to be differentiated.

    ``once_differentiable`` would take it for a constant where v and u are.
    """

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, *of: torch.Tensor | None) -> torch.Tensor:
        """Return the value, which depends on the tensors ``of``."""
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Raise."""
        raise ConfigError("encodings are differentiable twice, not a third time")


def _second_order(
    native: Native, tensors: tuple[Any, ...], needs: tuple[bool, bool, bool]
) -> list[torch.Tensor | None]:
    """Return the gradients of <v, dx> + <u, d table> in x, table and dy, if needed.

    Tensors are x, table, dy, v and u, of which the last two may be None.

    The second term is <dy, y'>, with y' the features of the parameters u without their constants:
    the encoding is linear in them where u is given.
    """
    x, table, dy, v, u = tensors
    sums: list[torch.Tensor | None] = [None, None, None]
    if v is not None:
        sums = list(native.encode_second_order(x, table, dy, v.contiguous(), needs))
    if u is None or native.encoding.n_params == 0:
        return sums
    for sign, values in ((1, u.contiguous()), (-1, torch.zeros_like(u))):
        if needs[0]:
            dx, _ = native.encode_backward(x, values, dy, (True, False))
            sums[0] = _added(sums[0], dx, sign)
        if needs[2]:
            sums[2] = _added(sums[2], native.encode(x, values), sign)
    return sums


def _needs(ctx: Any) -> tuple[bool, bool]:
    """Return whether the running backward pass asks for the gradients of the last two inputs.

    ``needs_input_grad`` says what requires gradients at all. An eikonal term asks for that of the
    points alone, and the scatter into the table that is spared is most of its time.
    """
    nodes = [node for node, _ in ctx.next_functions[-2:]]
    static = ctx.needs_input_grad[-2:]
    x, params = (need and _is_asked_for(node) for need, node in zip(static, nodes, strict=True))
    return x, params


def _is_asked_for(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except (AttributeError, RuntimeError):  # a leaf that was asked for by name, or another version
        return True


def _added(total: torch.Tensor | None, term: torch.Tensor | None, sign: int) -> torch.Tensor | None:
    assert term is not None
    return term * sign if total is None else total.add_(term, alpha=sign)


def _gradients_with_graph(
    y: torch.Tensor,
    of: tuple[torch.Tensor, torch.Tensor],
    dy: torch.Tensor,
    needs: tuple[bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of <y, dy> with a graph of their own, those that are needed."""
    wanted = [tensor for tensor, need in zip(of, needs, strict=True) if need]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
    dx, d_params = (next(found) if need else None for need in needs)
    return dx, d_params


def _features(native: Native, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Return the features, with what is not linear in the parameters in torch."""
    e = native.encoding
    if isinstance(e, Padded):
        y = _features(native.of(e.encoding), x, table)
        constant = y.new_full((len(y), e.n_outputs - y.shape[1], BLOCK), e.padding.value)
        return torch.cat([constant, y] if e.padding.before else [y, constant], dim=1)
    if is_linear(e) or not isinstance(e, Composite):
        return _apply(Encode, native, x, table)
    tables = table.split([part.n_params for part in e.encodings])
    parts = [
        _features(native.of(part), x[:, begin : begin + part.n_dims].contiguous(), own)
        for part, begin, own in zip(e.encodings, e.begins, tables, strict=True)
    ]
    if e.reduction == CONCATENATION:
        return torch.cat(parts, dim=1)
    return functools.reduce(torch.add if e.reduction == SUM else torch.mul, parts)


def _composed(native: Native, x: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
    """Return the outputs by the encoding, and the network in torch."""
    assert native.settings is not None
    sizes = [native.n_weights, native.encoding.n_params]
    # one split: its gradient is one concatenation, where slices would each fill a whole array
    weights, table = params.split(sizes)
    h = from_blocked(_apply(Encode, native, x, table), len(x) * BLOCK)
    matrices = weights.split([j * k for j, k in native.layers])
    last = len(matrices) - 1
    for index, (matrix, (rows, columns)) in enumerate(zip(matrices, native.layers, strict=True)):
        w = matrix.view(rows, columns)
        name = native.settings.activation
        if index == last:
            w, name = w[: native.n_out], native.settings.output_activation
        h = ACTIVATIONS[name](_product(h, w.t()))
    return to_blocked(h)


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _apply(Product, a, b)


def _apply(function: type[torch.autograd.Function], *args: Any) -> Any:
    """Apply a function (torch's stubs do not type it)."""
    return function.apply(*args)
