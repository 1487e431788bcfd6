"""``python -m benchmarks torch``: a torch module, its plain twin and our step's parts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import report, twin_torch
from benchmarks.training_step import StepSize, TrainingStep
from ngp_warp import launch
from ngp_warp.torch import NetworkWithInputEncoding

GOALS = {"PyTorch": 5.0, "own": 1.3}
"""How many times faster than the twin at least, and slower than our own parts at most."""
_ROUNDS = 5
_OWN_ROUNDS = 3  # of ours for each of the twin's
_AGREEMENT = 1e-4


def make_module(step: TrainingStep) -> NetworkWithInputEncoding:
    """Return the module with the configuration and the parameters of a step's field."""
    encoding, config = step.field.encoding.config, step.field.network.config
    module = NetworkWithInputEncoding(
        step.size.n_dims,
        step.size.n_outputs,
        {
            "otype": "HashGrid",
            "n_levels": encoding.n_levels,
            "n_features_per_level": encoding.n_features_per_level,
            "log2_hashmap_size": encoding.log2_hashmap_size,
            "base_resolution": encoding.base_resolution,
            "per_level_scale": encoding.per_level_scale,
        },
        {
            "otype": "FullyFusedMLP",
            "n_neurons": config.n_neurons,
            "n_hidden_layers": config.n_hidden_layers,
        },
    )
    weights, table = step.field.weights.value.numpy(), step.field.table.value.numpy()
    with torch.no_grad():
        module.params[: weights.size] = torch.from_numpy(weights)
        module.params[-table.size :] = torch.from_numpy(table)
    return module


def run(size: StepSize, n_rounds: int = _ROUNDS) -> dict[str, Any]:
    """Measure a forward and a backward pass of the three, and compare the module with the twin.

    Args:
        size: of the step.
        n_rounds: of the twin.

    Raises:
        AssertionError: module and twin are not the same function.
    """
    torch.set_num_threads(launch.num_threads())
    step = TrainingStep(size)
    for name in ("sample", "fetch targets"):
        step.parts.get(name, lambda: None)()
    x, target = twin_torch.points_and_targets(step)
    module, twin = make_module(step), twin_torch.TorchField(step.field)
    difference = _difference(module, twin, x)
    if not difference < _AGREEMENT:
        raise AssertionError(f"module and twin differ by {difference}, allowed is {_AGREEMENT}")
    parts = [step.parts[name] for name in ("encode", "network train", "grid backward")]

    def own() -> None:
        parts[0]()
        step.forward()
        for part in parts[1:]:
            part()

    def own_sweep() -> None:
        for part in parts:
            part()

    ours: dict[str, Callable[[], Any]] = {"own": own, "sweep": own_sweep}
    ours["module"] = _passes(module, x, target)
    # Ours first warms up after the twin, whose threads spin for a moment when they end.
    timed = {"PyTorch": _passes(twin, x, target), "warm": own}
    timed |= {f"{name} {i}": part for i in range(_OWN_ROUNDS) for name, part in ours.items()}
    times = report.interleave(timed, n_rounds)
    seconds = {"PyTorch": float(np.median(times["PyTorch"]))}
    for name in ours:
        seconds[name] = float(np.median([times[f"{name} {i}"] for i in range(_OWN_ROUNDS)]))
    return {
        "batch_log2": size.batch_log2,
        "table_log2": size.table_log2,
        "n_dims": size.n_dims,
        "difference": difference,
        "seconds": seconds,
        "faster_than_twin": seconds["PyTorch"] / seconds["module"],
        "slower_than_own": seconds["module"] / seconds["own"],
        "slower_than_sweep": seconds["module"] / seconds["sweep"],
    }


def _passes(model: torch.nn.Module, x: torch.Tensor, target: torch.Tensor) -> Callable[[], None]:
    def passes() -> None:
        model.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(model(x), target).backward()

    return passes


def _difference(module: torch.nn.Module, twin: torch.nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        got, wanted = module(x), twin(x)
    return float((got - wanted).abs().max() / wanted.abs().max())


def describe(results: dict[str, Any]) -> str:
    """Return the results as plain text."""
    seconds = results["seconds"]
    rows = [
        ["forward and backward", "ms", "module", "goal"],
        ["NetworkWithInputEncoding", f"{seconds['module'] * 1e3:.0f}", "", ""],
        [
            "plain PyTorch twin",
            f"{seconds['PyTorch'] * 1e3:.0f}",
            f"{results['faster_than_twin']:.1f} times faster",
            f"at least {GOALS['PyTorch']:g}",
        ],
        [
            "own parts: encode, forward, forward and backward, scatter",
            f"{seconds['own'] * 1e3:.0f}",
            f"{results['slower_than_own']:.2f} times slower",
            f"at most {GOALS['own']:g}",
        ],
        [
            "own parts without the forward pass alone",
            f"{seconds['sweep'] * 1e3:.0f}",
            f"{results['slower_than_sweep']:.2f} times slower",
            "",
        ],
    ]
    head = (
        f"A torch module in {results['n_dims']}D: 2^{results['batch_log2']} points, L=16, F=2, "
        f"T=2^{results['table_log2']}, 2x64, L2, float32; no optimizer"
    )
    return (
        f"{head}\n\n{report.table(rows)}\n\n"
        "Our training step makes forward pass, loss and backward pass in one sweep; autograd\n"
        "needs the outputs first, so that the forward pass is run twice. "
        f"Module and twin differ by {results['difference']:.0e}."
    )
