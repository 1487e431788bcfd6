"""Rows of the comparison of devices: networks, losses, the eikonal term, Adam, torch modules."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np
import warp as wp

from benchmarks.gpu_compare import Arrays, Row, Side, Tolerance, blocked, run_list, to_device, zeros
from ngp_warp.config import Activation, GridEncodingConfig, Loss, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.grid import resolve
from ngp_warp.field import Field
from ngp_warp.kernels.grid import GROUP
from ngp_warp.launch import run_stages
from ngp_warp.losses import loss_and_gradient
from ngp_warp.networks.eikonal import EikonalArrays, FusedEikonal
from ngp_warp.networks.eikonal_unfused import UnfusedEikonal
from ngp_warp.networks.fused_cuda import FusedCudaMLP
from ngp_warp.networks.mlp import make_network
from ngp_warp.networks.unfused import UnfusedMLP
from ngp_warp.optimizer import Adam, Parameters, make_table, make_weights

KINKS = {"relu", "leaky_relu"}
SIGNED = {"l1", "mape", "smape", "log_l1"}
"""Losses whose slope is a sign of the residual's, which is another one within rounding."""
ACTIVATIONS: tuple[str, ...] = get_args(Activation)
LOSSES: tuple[str, ...] = get_args(Loss)

# The tensor cores' operands are half precision: 2^-11 each, through three products and back.
HALF = Tolerance(4e-3, "half operands on tensor cores (2^-11), three layers", whole=True)
# With a share p of the signs turned the norm differs by 2 sqrt(p): 2^-11 turns one in a thousand.
KINKED = Tolerance(0.1, "half sums around the kink of a ReLU or a loss lie on either side of it",
                   whole=True)  # fmt: skip
SINGLE = Tolerance(1e-3, "float32 sums in another order, and signs within it", whole=True)
STEEP = Tolerance(5e-3, "float32, and exponentials of exponentials", whole=True)
LOSS = Tolerance(1e-5, "float32 divisions and logarithms of two libraries")
UPDATE = Tolerance(1e-5, "float32 square roots and divisions of two libraries")
ROUNDED = Tolerance(1e-3, "a float16 or quantized copy, rounded to either side", outliers=1e-3)
MODULE = Tolerance(2e-2, "half operands on CUDA, float32 on a CPU", whole=True)
EIKONAL = Tolerance(
    1e-3, "float32 sums in another order, of derivatives of derivatives", whole=True
)


class _Batch:
    """Inputs, targets and gradients for a network on a side."""

    def __init__(self, network: Any, device: str, n: int):
        rng = np.random.default_rng(0)
        self.network, self.device, self.n = network, device, n
        self.w = to_device(network.initial_weights(1), device)
        self.x = blocked(rng.uniform(-1, 1, (n, network.n_in)), device)
        # away from 0, where relative losses have their steepest slopes
        self.target = blocked(rng.uniform(0.2, 1, (n, network.n_out)), device)
        self.dy = blocked(rng.normal(size=(n, network.n_out)), device)
        self.y, self.dx = (zeros(a.size, device) for a in (self.dy, self.x))
        self.dw = zeros(network.n_params, device)

    def passes(self, loss: Any) -> Arrays:
        """Forward and backward, then forward, loss and backward in one."""
        net, w = self.network, self.w
        run_list(net.forward(w, self.x, self.y))
        run_list(net.backward(w, self.x, self.dy, self.dx, self.dw, 1.0))
        found = {"y": self.y.numpy(), "dx": self.dx.numpy().copy(), "dw": self.dw.numpy().copy()}
        items, sums = net.train(w, self.x, self.target, self.n, loss, self.dx, self.dw)
        run_list(items)
        totals = sums.numpy().reshape(-1, 2).sum(axis=0, dtype=np.float64)
        return {**found, "train dx": self.dx.numpy(), "train dw": self.dw.numpy(), "loss": totals}


def _fused(
    small: bool, config: NetworkConfig, loss: str, n_io: tuple[int, int], side: Side
) -> Arrays:
    """The fused network: float32 on a CPU, tensor cores on CUDA, which a CPU can emulate."""
    n = 2**12 if small else 2**16
    if not side.serves_cuda:
        return _Batch(make_network(config, *n_io, side.device), side.device, n).passes(loss)
    before = wp.config.enable_cpu_blocks
    wp.config.enable_cpu_blocks = side.device == "cpu"
    try:
        return _Batch(FusedCudaMLP(config, *n_io, side.device), side.device, n).passes(loss)
    finally:
        wp.config.enable_cpu_blocks = before


def _unfused(small: bool, config: NetworkConfig, loss: str, side: Side) -> Arrays:
    network = UnfusedMLP(config, 20, 3, side.device, side.backend)
    return _Batch(network, side.device, 2**9 if small else 2**13).passes(loss)


def _loss(loss: Any, side: Side) -> Arrays:
    rng, n = np.random.default_rng(0), 2**12
    p, t = (blocked(rng.uniform(-1, 1, (n, 3)), side.device) for _ in range(2))
    dp, sums = zeros(n * 3, side.device), zeros(n // 32 * 2, side.device)
    loss_and_gradient(p, t, n, 3, loss, d_prediction=dp, sums=sums, device=side.device).run()
    return {"gradient": dp.numpy(), "sums": sums.numpy()}


def _eikonal(small: bool, activation: Any, side: Side) -> Arrays:
    config = NetworkConfig(activation=activation, n_neurons=32 if small else 64)
    n_in, n = 16, 2**9 if small else 2**13
    if side.serves_cuda:
        network: Any = UnfusedEikonal(config, n_in, 3, side.device, side.backend)
    else:
        network = FusedEikonal(config, n_in, 3)
    rng, device = np.random.default_rng(0), side.device
    arrays = EikonalArrays(
        features=blocked(rng.normal(size=(n, n_in)), device),
        jacobian=blocked(rng.normal(size=(n, n_in * 3)), device),
        target=blocked(rng.normal(size=(n, 1)), device),
        d_features=zeros(n * n_in, device),
        slope=zeros(n * n_in, device),
        v=zeros(n * 3, device),
    )
    w, dw = to_device(network.initial_weights(1), device), zeros(network.n_params, device)
    items, losses, residuals = network.train_eikonal(w, arrays, n, "l1", 0.3, dw)
    run_list(items)
    found = {name: getattr(arrays, name).numpy() for name in ("d_features", "slope", "v")}
    sums = [losses.numpy().reshape(-1, 2).sum(axis=0), [residuals.numpy().sum()]]
    return {**found, "dw": dw.numpy(), "sums": np.concatenate(sums)}


def _eikonal_step(small: bool, n_dims: int, side: Side) -> Arrays:
    """A field's whole step with the term: on a CPU the fused kernels on both sides."""
    encoding = resolve(GridEncodingConfig(n_levels=6, log2_hashmap_size=12, finest_resolution=256))
    field = Field(
        n_dims, 1, encoding=encoding, network=NetworkConfig(activation="softplus"),
        optimizer=OptimizerConfig(), seed=0, device=side.device,
    )  # fmt: skip
    rng, n = np.random.default_rng(0), 2**9 if small else 2**13
    field.table.assign(rng.normal(size=field.table.value.size).astype(np.float32))
    x = blocked(rng.random((n, n_dims), dtype=np.float32), side.device)
    target = blocked(rng.normal(size=(n, 1)), side.device)
    stages, _, residuals = field.eikonal_train_stages(x, target, n, "l2", 0.1)
    run_stages([[field.optimizer.advance()], *stages])
    moments = {name: p.first_moment.numpy() for name, p in field.parameters().items()}
    return {**moments, "residuals": np.array([residuals.numpy().sum()])}


def _adam(settings: dict[str, Any], side: Side) -> Arrays:
    """Three steps from the same gradients, of which some entries get none."""
    rng, device, n = np.random.default_rng(0), side.device, 2**16
    config = OptimizerConfig(ema_decay=0.9)
    fixed_point = settings.get("fixed_point", False) and side.serves_cuda
    values, w = (rng.normal(size=size).astype(np.float32) for size in (n, 5000))
    table = make_table(values, 4, config, device, **{**settings, "fixed_point": fixed_point})
    weights = make_weights(w, config, device)
    adam = Adam(config, [weights, table], device, side.backend)
    adam.n_steps.fill_(3)
    adam.quantize()
    stages = [[adam.advance()], *adam.update()]
    for _ in range(3):
        _set_gradients(rng, weights, table)
        run_stages(stages)
    found = {"step": adam.step.numpy(), "schedule": adam.schedule.numpy(), "count": _count(table)}
    for name, p in (("weights", weights), ("table", table)):
        parts = {"value": p.value, "m": p.first_moment, "v": p.second_moment, "average": p.average}
        found |= {f"{name} {key}": a.numpy() for key, a in parts.items() if a is not None}
    if table.half_value is not None:
        found["table read"] = table.half_value.numpy()
    return found


def _count(table: Parameters) -> np.ndarray:
    assert table.count is not None
    return table.count.numpy()


def _set_gradients(rng: np.random.Generator, weights: Parameters, table: Parameters) -> None:
    weights.gradient.assign(rng.normal(size=weights.gradient.size).astype(np.float32))
    per_group = table.n_features * GROUP
    touched = rng.random(table.gradient.size // per_group) < 0.3
    gradient = rng.normal(size=table.gradient.size) * np.repeat(touched, per_group)
    if table.gradient.dtype == wp.int64:
        table.gradient.assign(np.rint(gradient * 2.0**44).astype(np.int64))
    else:
        table.gradient.assign(gradient.astype(np.float32))
    if table.touched is not None:
        table.touched.assign(touched.astype(np.uint8))


def _module(network: dict[str, Any], side: Side) -> Arrays:
    """A torch module: values, gradients, and the gradient of a gradient."""
    import torch

    from ngp_warp.torch import NetworkWithInputEncoding

    device = side.device
    if device != "cpu" and not torch.cuda.is_available():
        raise ModuleNotFoundError("torch has no CUDA here")
    with torch.device(device):
        module = NetworkWithInputEncoding(
            3, 2,
            {"otype": "HashGrid", "n_levels": 6, "log2_hashmap_size": 12, "base_resolution": 8,
             "per_level_scale": 1.5, "interpolation": "Smoothstep"}, network,
        )  # fmt: skip
    rng = np.random.default_rng(0)
    values = rng.normal(size=module.params.numel()) * 0.3
    module.params.data.copy_(torch.from_numpy(values.astype(np.float32)))
    points = torch.from_numpy(rng.random((512, 3), dtype=np.float32)).to(device)
    x = points.requires_grad_()
    y = module(x)
    (slope,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
    (slope.norm(dim=1) - 1).square().mean().backward()
    assert module.params.grad is not None
    found = {"y": y, "slope": slope, "params": module.params.grad}
    return {name: a.detach().float().cpu().numpy() for name, a in found.items()}


UNEVEN = NetworkConfig(
    n_neurons=40, n_hidden_layers=3, bias=True, skip_layer=1, activation="tanh",
    output_activation="sigmoid",
)  # fmt: skip


def _network_rows(small: bool) -> list[Row]:
    made = []
    # emulating a warp on a CPU takes long to compile: a few of the networks will do there
    chosen = {"relu", "sine"} if small else set(ACTIVATIONS)
    for index, name in enumerate(ACTIVATIONS):
        loss = LOSSES[index % len(LOSSES)]
        config: Any = NetworkConfig(activation=name)  # type: ignore[arg-type]
        if name in chosen:
            run = partial(_fused, small, config, loss, (32, 3))
            made.append(_fused_row(f"fused network, {name}, {loss}", run, name in KINKS, loss))
        config = replace(UNEVEN, activation=name)
        run = partial(_unfused, small, config, loss)
        tolerance = STEEP if name == "exponential" else SINGLE
        made.append(Row(f"unfused network, {name}, {loss}", run, tolerance, on_cpu=True))
    if not small:
        for name in ACTIVATIONS:
            config = NetworkConfig(output_activation=name)  # type: ignore[arg-type]
            run = partial(_fused, small, config, "l2", (32, 16))
            made.append(_fused_row(f"fused network, output {name}", run, True, "l2"))
        wide = NetworkConfig(n_neurons=128, n_hidden_layers=3)
        run = partial(_fused, small, wide, "huber", (35, 17))
        made.append(_fused_row("fused network of 128", run, True, "huber"))
    return made


def _fused_row(name: str, run: Callable[[Side], Arrays], kinked: bool, loss: str) -> Row:
    trained = ("train dx", "train dw")
    turned = ("dx", "dw", *trained) if kinked else trained if loss in SIGNED else ()
    return Row(name, run, HALF, dict.fromkeys(turned, KINKED), on_cpu=True)


def rows(small: bool) -> list[Row]:
    """Return the rows of this module."""
    made = _network_rows(small)
    made += [Row(f"loss {name}", partial(_loss, name), LOSS) for name in LOSSES]
    for name in ("softplus", "sine", "squareplus"):
        run = partial(_eikonal, small, name)
        made.append(Row(f"eikonal pass, {name}", run, EIKONAL, on_cpu=True))
    for d in (2, 3):
        made.append(Row(f"eikonal step {d}D", partial(_eikonal_step, small, d), EIKONAL))
    adams: dict[str, dict[str, Any]] = {
        "float32": {},
        "half": {"half": True},
        "quantized": {"half": True, "quantization": 0.5},
        "fixed point": {"fixed_point": True},
        "flagged": {"flagged": True},
    }
    for name, settings in adams.items():
        others = {"table read": ROUNDED}
        made.append(Row(f"Adam, {name}", partial(_adam, settings), UPDATE, others, on_cpu=True))
    fused = {"otype": "FullyFusedMLP", "n_neurons": 32, "n_hidden_layers": 2}
    made.append(Row("torch module", partial(_module, fused), MODULE))
    return made
