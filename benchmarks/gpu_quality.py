"""Quality after some seconds of training on a device, curves of two devices, and pictures."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.gpu_compare import run_all
from benchmarks.gpu_inputs import PRIMITIVES, Input, make_config, make_task
from benchmarks.gpu_timing import count_launches, milliseconds, recorded, synchronize
from ngp_warp.config import TrainingConfig
from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.optimizer import Adam
from ngp_warp.primitive import report_nothing
from ngp_warp.primitives import get
from ngp_warp.trainer import Trainer, TrainingState

SECONDS = {"image": (3.0,), "sdf": (5.0,), "nerf": (5.0, 60.0), "volume": (5.0,)}
"""Training times by primitive."""
_VIEWS = 20
_PASS_RAYS = 2**15
"""Of a view, whose pass is timed by itself."""
_IOU_POINTS = 2**18
_CURVE_POINTS = 60
_CURVE_STEPS, _CURVE_EVERY = 240, 20


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
        # the longest last: what has no time left is one of these
        for seconds, name in sorted(runs, key=lambda run: run[0])
    }


def curve(name: str, source: Input, device: str, *, serves_cuda: bool, n_steps: int) -> list[float]:
    """Return the metric of batches every few steps; the same steps on every device.

    Args:
        name: of the primitive.
        source: its input.
        device: "cpu" or a CUDA device.
        serves_cuda: on a CPU, train with the grid's and Adam's kernels that CUDA has.
        n_steps: of training.
    """
    config = make_config(name, small=True)
    config = replace(config, training=TrainingConfig(batch_size=2**13, steps=n_steps))
    task = make_task(name, source, config, device)
    if serves_cuda and device == "cpu" and name != "nerf":
        field = task.field
        field.encoding = GridEncoding(field.n_dims, field.encoding.config, device, "portable")
        field.optimizer = Adam(field.optimizer.config, field.optimizer.parameters, device,
                               "portable")  # fmt: skip
    stages, found = task.stages(), []
    task.field.optimizer.n_steps.fill_(n_steps)
    for number in range(1, n_steps + 1):
        run_all(stages)
        if number % _CURVE_EVERY == 0:
            found.append(task.batch_metric())
    return found


def curves(name: str, source: Input, device: str, *, small: bool) -> dict[str, Any]:
    """Return the training curves of the CPU and of the device, and how far they lie apart."""
    if name == "nerf" and device == "cpu":
        return {"skipped": "a CPU has one code for the shared step"}
    n_steps = 2 * _CURVE_EVERY if small else _CURVE_STEPS
    ours = curve(name, source, "cpu", serves_cuda=False, n_steps=n_steps)
    theirs = curve(name, source, device, serves_cuda=True, n_steps=n_steps)
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    return {"every": _CURVE_EVERY, "cpu": ours, "device": theirs, "most_apart": apart}


def curve_jobs(
    inputs: Mapping[str, Input], device: str, *, small: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what compares the curves of the primitives whose metric is in decibels."""
    names = ("image", "nerf", "volume")
    return {name: partial(curves, name, inputs[name], device, small=small) for name in names}


def pictures(
    inputs: Mapping[str, Input], device: str, *, small: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what times pictures, by name: each trains for a moment first."""
    return {
        "nerf": partial(_view, inputs["nerf"], device, small=small),
        "sdf": partial(_trace, inputs["sdf"], device, small=small),
        "image": partial(_decode, inputs["image"], device, small=small),
    }


def _trained(name: str, source: Input, device: str, n_steps: int, *, small: bool) -> Any:
    task = make_task(name, source, make_config(name, small=small, steps=n_steps), device)
    stages = task.stages()
    task.field.optimizer.n_steps.fill_(n_steps)
    run = recorded(stages, device)
    for _ in range(n_steps):
        run()
    synchronize(device)
    return task


def _clock(run: Callable[[], Any], n: int) -> float:
    """Return the median milliseconds of what waits for its own end, after one run."""
    run()
    found = []
    for _ in range(n):
        begin = time.perf_counter()
        run()
        found.append((time.perf_counter() - begin) * 1e3)
    return float(np.median(found))


def _view(source: Input, device: str, *, small: bool) -> dict[str, Any]:
    """A view of a trained scene: the whole picture as a user gets it, and a pass on the device."""
    from ngp_warp.primitives.nerf.subject import Subject

    task = _trained("nerf", source, device, 10 if small else 2000, small=small)
    side = 32 if small else 800
    subject = Subject.of_model(task.field)
    renderer, shot = subject.renderer(), subject.shot(0, (side, side))
    ms = _clock(lambda: renderer.buffers(shot), 1 if small else 5)
    batch = _rays_of(task, shot, device)
    stages = task.field.radiance.render_stages(batch)
    one = milliseconds(lambda: run_all(stages), device, repeats=1 if small else 5, inner=1)
    left_out = int((batch.n_samples.numpy() < 0).sum())
    found = {"ms": ms, "width": side, "height": side, "steps": task.config.training.steps}
    found |= {"pass_rays": batch.capacity, "pass_ms": one, "pass_left_out": left_out}
    return found | {"pass_launches": count_launches(stages)}


def _rays_of(task: Any, shot: Any, device: str) -> Any:
    """Return a batch of rays about a picture's middle, in the order of its rows."""
    from ngp_warp.radiance.batch import make_batch

    y, x = np.mgrid[0 : shot.height, 0 : shot.width]
    n = min(x.size, _PASS_RAYS)
    part = slice((x.size - n) // 2, (x.size - n) // 2 + n)
    origin, directions = shot.rays(x.ravel()[part] + 0.5, y.ravel()[part] + 0.5)
    batch = make_batch(task.field.radiance.settings, n, device)
    origins = np.broadcast_to(task.field.frame.to_box(origin[None]), directions.shape)
    for array, values in ((batch.origin, origins), (batch.direction, directions)):
        array.assign(np.ascontiguousarray(values, np.float32).reshape(-1))
    batch.jitter.fill_(0.5)
    return batch


def _trace(source: Input, device: str, *, small: bool) -> dict[str, Any]:
    from ngp_warp.rays.cameras import orbit
    from ngp_warp.rays.sphere_trace import SphereTracer

    task = _trained("sdf", source, device, 10 if small else 1000, small=small)
    side = 24 if small else 800
    camera = orbit(30, 20, 1.6, width=side, height=side)
    pose, half = camera.camera_to_world(), side / 2
    y, x = np.mgrid[0:side, 0:side]
    depth = np.full(x.size, -1 / np.tan(np.radians(camera.fov / 2)))
    local = np.stack([(x.ravel() + 0.5) / half - 1, 1 - (y.ravel() + 0.5) / half, depth], axis=1)
    d = (local @ pose[:3, :3].T).astype(np.float32)
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    o = np.tile(pose[:3, 3].astype(np.float32), (len(d), 1))
    tracer = SphereTracer(task.field)
    hits = int(tracer.trace(o, d).hit.sum())
    ms = _clock(lambda: tracer.trace(o, d), 1 if small else 5)
    return {"ms": ms, "width": side, "height": side, "hits": hits}


def _decode(source: Input, device: str, *, small: bool) -> dict[str, Any]:
    from ngp_warp.primitives.image.raster import Raster

    task = _trained("image", source, device, 10, small=small)
    width, height = (64, 32) if small else (1920, 1080)
    raster = Raster(task.field, task.transfer, width, height)
    ms = _clock(lambda: list(raster.bands()), 1 if small else 5)
    return {"ms": ms, "width": width, "height": height}


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
