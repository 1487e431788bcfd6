"""How long pictures take on a device: views, traced surfaces, decoded images."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu_inputs import Input, make_config, make_task
from benchmarks.gpu_timing import count_launches, milliseconds, synchronize
from ngp_warp.recording import recorded_step

_PASS_RAYS = 2**15
"""Of a view, whose pass is timed by itself."""
_TRAINED_DB = 20.0
"""Of a batch: less is no scene, whose views would say nothing."""
_LEAST_OPACITY = 0.01


def jobs(
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
    run = recorded_step(stages, device)
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
    metric = task.batch_metric()
    if not small and not metric > _TRAINED_DB:
        raise RuntimeError(f"the scene was not learned: {metric:.1f} dB of a batch")
    side = 32 if small else 800
    subject = Subject.of_model(task.field)
    renderer, shot = subject.renderer(), subject.shot(0, (side, side))
    ms = _clock(lambda: renderer.buffers(shot), 1 if small else 9)
    batch = _rays_of(task, shot, device)
    stages = task.field.radiance.render_stages(batch)
    # one graph, as the renderer has it
    one = milliseconds(recorded_step(stages, device), device, repeats=2 if small else 5, inner=2)
    left_out = int((batch.n_samples.numpy() < 0).sum())
    found = {"ms": ms, "width": side, "height": side, "steps": task.config.training.steps}
    found |= {"metric": metric, "opacity": seen_of(renderer.buffers(shot).opacity)}
    found |= {"input": source.path.name, "usual_input": source.usual}
    found |= {"pass_rays": batch.capacity, "pass_ms": one, "pass_left_out": left_out}
    return found | {"pass_launches": count_launches(stages)}


def seen_of(opacity: np.ndarray) -> float:
    """Return a picture's mean opacity.

    Raises:
        RuntimeError: there is nothing on it: that would be drawn in no time.
    """
    seen = float(np.mean(opacity, dtype=np.float64))
    if not seen > _LEAST_OPACITY:  # NaN is not
        raise RuntimeError(f"a view of opacity {seen:.3f} shows no scene")
    return seen


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
    if not hits:
        raise RuntimeError("no ray has hit the surface")
    ms = _clock(lambda: tracer.trace(o, d), 1 if small else 5)
    return {"ms": ms, "width": side, "height": side, "hits": hits}


def _decode(source: Input, device: str, *, small: bool) -> dict[str, Any]:
    from ngp_warp.primitives.image.raster import Raster

    task = _trained("image", source, device, 10, small=small)
    width, height = (64, 32) if small else (1920, 1080)
    raster = Raster(task.field, task.transfer, width, height)
    ms = _clock(lambda: list(raster.bands()), 1 if small else 5)
    return {"ms": ms, "width": width, "height": height}
