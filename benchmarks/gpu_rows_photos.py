"""Rows of the comparison of devices: whole steps on photos, of scenes and of images."""

import functools
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_compare import Arrays, Row, Side, Tolerance
from benchmarks.gpu_rows_fields import MARCHED, MOMENTS, RAYS, UNFUSED, VALUES
from benchmarks.made_inputs import write_scene
from benchmarks.training_step import PHOTO
from ngp_warp.config import GridEncodingConfig, NetworkConfig, TrainingConfig
from ngp_warp.launch import run_stages
from ngp_warp.primitive import report_nothing
from ngp_warp.primitives.image.config import ImageConfig
from ngp_warp.primitives.image.data import load_image
from ngp_warp.primitives.image.raster import Raster
from ngp_warp.primitives.image.task import ImageTask
from ngp_warp.primitives.image.task import estimate as estimate_image
from ngp_warp.primitives.nerf.config import NerfConfig
from ngp_warp.primitives.nerf.data import NerfData
from ngp_warp.primitives.nerf.data import load as load_scene
from ngp_warp.primitives.nerf.task import NerfTask
from ngp_warp.primitives.nerf.task import estimate as estimate_scene

# Slopes of linear interpolation jump at faces, which samples on either side of one show.
POSES = Tolerance(2e-2, "sums of slopes, some of samples at faces of cells", whole=True)
MODES = Tolerance(2e-3, "float32, half copies of a table rounded alike", whole=True)


@functools.cache
def made_scene() -> NerfData:
    """Return a small scene of which the exact photos are known."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_scene(Path(folder) / "ball", side=48)
        return load_scene(source, NerfConfig(), report_nothing)


def scene_config(**changes: Any) -> NerfConfig:
    """Return settings whose step is the same on every device."""
    encoding = GridEncodingConfig(
        n_levels=6, n_features_per_level=2, log2_hashmap_size=14, finest_resolution=128
    )
    values: dict[str, Any] = {
        "encoding": encoding,
        "density_network": UNFUSED,
        "color_network": NetworkConfig(n_neurons=32, backend="unfused"),
        "training": TrainingConfig(batch_size=8192, steps=1),
        "march_steps": 128,
        "render_steps": 256,
        "max_rays": 1024,
    }
    return NerfConfig(**{**values, **changes})


def _scene_step(changes: dict[str, Any], side: Side) -> Arrays:
    """Draw rays, refine, train: one step of a scene."""
    data = made_scene()
    config, _ = estimate_scene(data, scene_config(**changes), side.device)
    task = NerfTask(data, config, side.device)
    run_stages(task.stages())
    batch = task.field.batch
    names = ("origin", "direction", "target", "background", "view")
    found = {name: getattr(batch, name).numpy() for name in names}
    moments = {n: p.first_moment.numpy() for n, p in task.field.parameters().items()}
    # the first step's exposures and poses may be pulled nowhere
    found |= {f"moment {n}": m for n, m in moments.items() if m.any()}
    around = task.field.surroundings
    if around is not None:
        rng = np.random.default_rng(0)
        around.texels.assign(rng.normal(size=around.texels.value.size).astype(np.float32))
        found["environment"] = around.colors(found["direction"].reshape(-1, 3)[:1000])
    return found


def _image_step(dtype: Any, side: Side) -> Arrays:
    image = load_image(PHOTO)
    config = ImageConfig(
        encoding=GridEncodingConfig(n_levels=6, log2_hashmap_size=14, dtype=dtype),
        network=NetworkConfig(n_neurons=32, backend="unfused"),
        training=TrainingConfig(batch_size=2**13, steps=1),
    )
    config, _ = estimate_image(image, config, side.device)
    task = ImageTask(image, config, side.device)
    run_stages(task.stages())
    return {n: p.first_moment.numpy() for n, p in task.field.parameters().items()}


def _raster(small: bool, side: Side) -> Arrays:
    """Pixels of a field, and values and gradients at points."""
    image = load_image(PHOTO)
    network = NetworkConfig(n_neurons=32, backend="unfused")
    encoding = GridEncodingConfig(log2_hashmap_size=12 if small else 16)
    config = ImageConfig(encoding=encoding, network=network)
    config, _ = estimate_image(image, config, side.device)
    task = ImageTask(image, config, side.device)
    table = task.field.table
    rng = np.random.default_rng(0)
    table.assign(rng.standard_normal(table.value.size, dtype=np.float32))
    raster = Raster(task.field, task.transfer, image.info.width, image.info.height,
                    (100, 200, 160, 40))  # fmt: skip
    pixels = np.concatenate([band for _, band in raster.bands()])
    values, jacobian = task.field.value_and_gradient(rng.random((1000, 2)))
    return {"pixels": pixels, "values": values, "jacobian": jacobian}


def rows(small: bool) -> list[Row]:
    """Return the rows of this module."""
    refined = {"train_poses": True, "train_lenses": True, "exposure": True, "appearance": 4}
    scene = {"view": MARCHED} | {
        f"moment {n}": MOMENTS
        for n in ("network", "encoding", "latents", "exposures", "environment")
    }
    scene |= {f"moment {n}": POSES for n in ("poses", "lenses")}
    return [
        Row("scene step", partial(_scene_step, {}), RAYS, scene),
        Row("scene step, refined", partial(_scene_step, refined), RAYS, scene),
        Row("scene step, environment", partial(_scene_step, {"environment": True}), RAYS, scene),
        Row("image step", partial(_image_step, "float32"), MODES),
        Row("image step, half", partial(_image_step, "float16"), MODES),
        Row("image raster and gradients", partial(_raster, small), VALUES),
    ]
