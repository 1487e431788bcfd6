"""Quality after some seconds of training on a device, and training curves of two devices."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.gpu_inputs import PRIMITIVES, Input, make_config, make_task
from ngp_warp.config import TrainingConfig
from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.optimizer import Adam
from ngp_warp.primitive import report_nothing
from ngp_warp.primitives import get
from ngp_warp.recording import recorded_step
from ngp_warp.trainer import Trainer, TrainingState

SECONDS = {"image": (3.0,), "sdf": (5.0,), "nerf": (5.0, 60.0), "volume": (5.0,)}
"""Training times by primitive."""
_IN_TIME = 1.05
"""Of the time that was asked for: what took longer is no figure of it."""
_VIEWS = 20
_IOU_POINTS = 2**18
_CURVE_POINTS = 60
_CURVE_STEPS = {"image": 240, "nerf": 1440, "volume": 240}
_CURVE_PARTS = 12
_SETTLED = 1 / 3
"""The last part of a scene's curve: before, rounding decides when its density begins to grow, and
two curves that end alike lie a decibel apart on the way."""
_CURVE_SEEDS = {"image": 1, "nerf": 4, "volume": 1}
"""Trainings whose mean a curve is: of one scene the settled parts of the CPU's two float32 backends
lie up to 0.4 dB apart, either way."""
_ALL_RAYS = {"max_rays": 512, "batch_size": 2**16}
"""Of a scene's step: room for all samples of all rays, whose number is another one else."""


@cache
def _load(name: str, path: Path, config: Any) -> Any:
    return get(name).load(path, config, report_nothing)


def train(name: str, source: Input, seconds: float, device: str, *, small: bool) -> dict[str, Any]:
    """Train for some seconds as ``ngp`` does and measure what was learned.

    Returns:
        The quality under its name ("psnr" or "iou"), steps, seconds, and the learning curve, whose
        figure is that of batches (of ``sdf``: of 8,192 points).
    """
    kind = get(name)
    config = make_config(name, small=small)
    data = _load(name, source.path, config)
    config, _ = kind.estimate(data, config, device)
    training = replace(config.training, seconds=seconds, steps=None, checkpoint_seconds=1e6)
    config = replace(config, training=training)
    begin = time.perf_counter()
    task = kind.build(data, config, device)
    state = TrainingState(seconds=time.perf_counter() - begin)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "checkpoints").mkdir()
        state = Trainer(task, training, Path(folder), {}, report_nothing, state).train()
    trained = time.perf_counter()
    task.field.use_average()
    figures = MEASURES[name](task, data)
    curve = state.curve[:: max(len(state.curve) // _CURVE_POINTS, 1)]
    return {
        **figures,
        "asked_seconds": seconds,
        "seconds": state.seconds,
        "in_time": state.seconds <= seconds * _IN_TIME,
        "wall_seconds": trained - begin,
        "measuring_seconds": time.perf_counter() - trained,
        "steps": state.step,
        "metric": task.metric_name,
        "curve": [[int(step), round(at, 3), round(value, 4)] for step, at, value in curve],
        "input": source.path.name,
        "usual_input": source.usual,
        "note": source.note,
    }


def _image(task: Any, image: Any) -> dict[str, Any]:
    """PSNR over all pixels, rounded as they are stored."""
    from ngp_warp.primitives.image.raster import Raster, quantize

    info, squares = image.info, 0.0
    raster = Raster(task.field, task.transfer, info.width, info.height)
    for row, band in raster.bands():
        decoded = quantize(band, info.dtype).astype(np.float32)
        truth = np.asarray(image.pixels[row : row + len(band)], np.float32)
        squares += float(np.square(decoded - truth).sum(dtype=np.float64))
    top = np.iinfo(info.dtype).max if info.dtype != "float32" else 1.0
    mean = squares / image.pixels.size
    return {"psnr": float(10 * np.log10(top**2 / max(mean, 1e-12)))}


def _sdf(task: Any, data: Any) -> dict[str, Any]:
    """IoU of points of the cube, by the truth that was trained on."""
    points = np.random.default_rng(9).random((_IOU_POINTS, 3), dtype=np.float32)
    inside = task.truth.query(points) < 0
    fitted = task.field.query(points)[:, 0] < 0
    return {"iou": float(np.count_nonzero(fitted & inside) / np.count_nonzero(fitted | inside))}


def _nerf(task: Any, data: Any) -> dict[str, Any]:
    """Mean PSNR of views held back."""
    from ngp_warp.primitives.nerf.evaluate import mask_of, truth_of
    from ngp_warp.primitives.nerf.subject import Subject

    if data.held is None:
        return {"psnr": None}
    subject = Subject.of_model(task.field)
    numbers = subject.held_back
    photos, found = data.held.photos, []
    background = (1.0, 1.0, 1.0) if photos.has_alpha else None
    renderer = subject.renderer(background)
    for number in np.unique(np.linspace(0, len(numbers) - 1, _VIEWS).astype(int)).tolist():
        width, height = (int(n) for n in photos.sizes[number])
        made = renderer.buffers(subject.shot(numbers[number], (width, height)))
        truth = truth_of(photos, number, background)
        found.append(_psnr_8_bit(made.color, truth, mask_of(photos, number), subject))
    return {"psnr": float(np.mean(found)), "views": len(found)}


def _psnr_8_bit(color: np.ndarray, truth: np.ndarray, mask: Any, subject: Any) -> float:
    from ngp_warp.primitives.nerf.colors import to_srgb

    shown = np.clip(to_srgb(color, subject.field.settings.color_space), 0, 1)
    error = (np.rint(shown * 255) - np.rint(np.clip(truth, 0, 1) * 255)) / 255
    squares = np.square(error if mask is None else error[mask])
    return float(-10 * np.log10(max(squares.mean(dtype=np.float64), 1e-12)))


def _volume(task: Any, volume: Any) -> dict[str, Any]:
    from ngp_warp.primitives.volume.evaluate import evaluate_field

    return {"psnr": float(evaluate_field(task.field, volume, report_nothing)[0]["psnr"])}


MEASURES: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "image": _image,
    "sdf": _sdf,
    "nerf": _nerf,
    "volume": _volume,
}


def quality_jobs(
    inputs: Mapping[str, Input], device: str, *, small: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what trains each primitive for each of its times, by name."""
    runs = [(s, name) for name in PRIMITIVES for s in ((0.5,) if small else SECONDS[name])]
    return {
        f"{name} {seconds:g} s": partial(train, name, inputs[name], seconds, device, small=small)
        # what has no time left is one of the longest, or has no target
        for seconds, name in sorted(runs, key=lambda run: (run[1] == "volume", run[0]))
    }


def curve(
    name: str, source: Input, device: str, *, serves_cuda: bool, n_steps: int, seed: int = 0
) -> list[float]:
    """Return the mean metric of batches, part by part of a training; all devices' steps are alike.

    Args:
        name: of the primitive.
        source: its input.
        device: "cpu" or a CUDA device.
        serves_cuda: on a CPU, train with the grid's and Adam's kernels that CUDA has.
        n_steps: of training, a multiple of the number of parts.
        seed: of all that is drawn.
    """
    config = make_config(name, small=True)
    batch_size = 2**13
    if name == "nerf":
        config = replace(config, max_rays=_ALL_RAYS["max_rays"])
        batch_size = _ALL_RAYS["batch_size"]
    training = TrainingConfig(batch_size=batch_size, steps=n_steps, seed=seed)
    config = replace(config, training=training)
    task = make_task(name, source, config, device)
    if serves_cuda and device == "cpu" and name != "nerf":
        field = task.field
        field.encoding = GridEncoding(field.n_dims, field.encoding.config, device, "portable")
        field.optimizer = Adam(field.optimizer.config, field.optimizer.parameters, device,
                               "portable")  # fmt: skip
    step, found = recorded_step(task.stages(), device), []
    task.field.optimizer.n_steps.fill_(n_steps)
    for _ in range(n_steps):
        step()
        found.append(task.batch_metric())
    return np.reshape(found, (_CURVE_PARTS, -1)).mean(axis=1).tolist()


def apart(name: str, ours: list[float], theirs: list[float]) -> float:
    """Return how far two curves lie apart: at most; of scenes, their settled parts' means."""
    difference = np.subtract(ours, theirs)
    if name == "nerf":
        return float(abs(difference[-round(_SETTLED * len(ours)) :].mean()))
    return float(np.abs(difference).max())


def curves(name: str, source: Input, device: str, *, small: bool) -> dict[str, Any]:
    """Return the training curves of the CPU and of the device, and how far they lie apart.

    Each is the mean of some trainings; how far those of one seed lie apart is told as well.
    """
    if name == "nerf" and device == "cpu":
        return {"skipped": "a CPU has one code for the shared step"}
    n_steps = 3 * _CURVE_PARTS if small else _CURVE_STEPS[name]
    seeds = range(1 if small else _CURVE_SEEDS[name])
    run = partial(curve, name, source, n_steps=n_steps)
    ours = [run("cpu", serves_cuda=False, seed=seed) for seed in seeds]
    theirs = [run(device, serves_cuda=True, seed=seed) for seed in seeds]
    means = [np.mean(values, axis=0).tolist() for values in (ours, theirs)]
    return {
        "steps": n_steps,
        "seeds": len(seeds),
        "cpu": means[0],
        "device": means[1],
        "most_apart": apart(name, *means),
        "by_seed": [apart(name, *pair) for pair in zip(ours, theirs, strict=True)],
    }


def curve_jobs(
    inputs: Mapping[str, Input], device: str, *, small: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what compares the curves of the primitives whose metric is in decibels."""
    names = ("image", "nerf", "volume")
    return {name: partial(curves, name, inputs[name], device, small=small) for name in names}


def describe(found: Mapping[str, Any]) -> str:
    """Return the qualities as plain text."""
    rows = [["trained", "quality", "steps", "seconds", "input"]]
    for name, q in found.items():
        if "error" in q:
            rows.append([name, "", "", "", q["error"][:60]])
            continue
        value = q.get("psnr", q.get("iou"))
        unit = "dB" if "psnr" in q else "IoU"
        shown = "-" if value is None else f"{value:.2f} {unit}" if unit == "dB" else f"{value:.4f}"
        rows.append([name, shown, str(q["steps"]), f"{q['seconds']:.1f}", q["input"]])
    return report.table(rows)
