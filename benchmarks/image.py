"""``python -m benchmarks image``: PSNR of the decoded 8-bit picture against training seconds."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.plot import line_plot
from benchmarks.training_step import StepSize, make_field, read_photo
from ngp_warp import launch
from ngp_warp.errors import ConfigError
from ngp_warp.fitting import fit
from ngp_warp.primitives import get

OURS = "ngp-warp"
_LEARNING_RATE = 1e-2
_DECAY_START, _FINAL = 0.4, 0.01  # as OptimizerConfig's; a constant rate swings by 10 dB
_EVALUATED_POINTS = 2**18


def run(path: Path, seconds: Sequence[float], peer_batch_log2: int | None) -> dict[str, Any]:
    """Fit the photo anew for every number of seconds, since the learning rate's decay follows it.

    Args:
        path: an 8-bit RGB photo.
        seconds: training times.
        peer_batch_log2: log2 of the PyTorch twins' batch; None: no twins.

    Raises:
        DataError: it is no such photo.
        ConfigError: a training time of zero or less.
    """
    if min(seconds) <= 0:
        raise ConfigError(f"--seconds must be above 0, got {min(seconds):g}")
    photo = read_photo(path)
    curves: dict[str, list[dict[str, float]]] = {OURS: [_fit(path, s) for s in sorted(seconds)]}
    if peer_batch_log2 is not None:
        for name, make in _peers(photo, peer_batch_log2).items():
            curves[name] = [
                _train_peer(make, photo, s, 2**peer_batch_log2) for s in sorted(seconds)
            ]
    return {
        "photo": path.name,
        "width": photo.shape[1],
        "height": photo.shape[0],
        "peer_batch_log2": peer_batch_log2,
        "curves": curves,
    }


def _fit(path: Path, seconds: float) -> dict[str, float]:
    """Return seconds, psnr and speed of the image primitive with its own settings."""
    config = get("image").config()
    config = replace(config, training=replace(config.training, seconds=seconds))
    with tempfile.TemporaryDirectory() as folder:
        metrics = fit("image", path, config=config, out=Path(folder) / "run", device="cpu").metrics
    return {
        "asked": seconds,
        "seconds": metrics["seconds"],
        "psnr": metrics["psnr"],
        "samples_per_second": metrics["samples_per_second"],
        "parameters": metrics["parameters"],
    }


def _peers(photo: np.ndarray, batch_log2: int) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Return what makes each twin and its optimizer anew, as fine as the photo."""
    import torch

    from benchmarks import twin_pyramid, twin_torch

    torch.set_num_threads(launch.num_threads())
    finest = max(photo.shape[:2])

    def hash_grid() -> tuple[Any, Any]:
        field = make_field(StepSize(n_dims=2, batch_log2=batch_log2), finest)
        model = twin_torch.TorchField(field)
        return model, twin_torch.make_optimizer(model)

    def pyramid() -> tuple[Any, Any]:
        torch.manual_seed(0)
        model = twin_pyramid.Pyramid(2, 3, finest)
        return model, twin_pyramid.make_optimizer(model)

    return {"PyTorch, hash grid": hash_grid, "PyTorch, dense pyramid": pyramid}


def _train_peer(
    make: Callable[[], tuple[Any, Any]], photo: np.ndarray, seconds: float, n_points: int
) -> dict[str, float]:
    """Train a twin for so long, with the decay of our optimizer, and measure it."""
    from benchmarks import twin_torch

    model, optimizer = make()
    step = twin_torch.torch_step(model, optimizer, twin_torch.photo_batch(photo, n_points))
    n_steps, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        decay = max(elapsed / seconds - _DECAY_START, 0) / (1 - _DECAY_START)
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * _FINAL**decay
        step()
        n_steps += 1
    return {
        "asked": seconds,
        "seconds": elapsed,
        "psnr": _psnr(model, photo),
        "samples_per_second": n_steps * n_points / elapsed,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _psnr(model: Any, photo: np.ndarray) -> float:
    """Return the PSNR in dB of a twin's picture, rounded to 8 bit, over all pixels."""
    import torch

    height, width, _ = photo.shape
    rows = max(_EVALUATED_POINTS // width, 1)
    squares = 0.0
    with torch.no_grad():
        for top in range(0, height, rows):
            truth = torch.from_numpy(photo[top : top + rows].astype(np.float32))
            y = (torch.arange(top, top + len(truth)) + 0.5) / height
            x = (torch.arange(width) + 0.5) / width
            points = torch.stack([*torch.meshgrid(y, x, indexing="ij")][::-1], dim=-1)
            values = model(points.reshape(-1, 2)).reshape(truth.shape)
            decoded = (values * 255).round().clamp(0, 255)
            squares += (decoded - truth).square().sum(dtype=torch.float64).item()
    return 10 * math.log10(255**2 * photo.size / max(squares, 1e-9))


def describe(results: dict[str, Any]) -> str:
    """Return the results as plain text."""
    head = f"{results['photo']}, {results['width']}x{results['height']}: PSNR in dB over all pixels"
    rows = [["seconds asked for", *results["curves"]]]
    for points in zip(*results["curves"].values(), strict=True):
        cells = [f"{p['psnr']:.2f} (took {p['seconds']:.1f} s)" for p in points]
        rows.append([f"{points[0]['asked']:g}", *cells])
    last = [points[-1] for points in results["curves"].values()]
    rows.append(["million samples/s", *(f"{p['samples_per_second'] / 1e6:.2f}" for p in last)])
    rows.append(["million parameters", *(f"{p['parameters'] / 1e6:.1f}" for p in last)])
    text = f"{head}\n\n{report.table(rows)}"
    if results["peer_batch_log2"] is not None:
        text += (
            f"\n\nThe twins: L=16, F=2, T=2^19, batches of 2^{results['peer_batch_log2']}, "
            "the same decay of the learning rate."
        )
    return text


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw PSNR against seconds."""
    curves = {
        name: [(p["seconds"], p["psnr"]) for p in points]
        for name, points in results["curves"].items()
    }
    title = f"{results['photo']}, {results['width']}x{results['height']}"
    line_plot(curves, path, title=title, x_label="seconds of training", y_label="PSNR, dB")
