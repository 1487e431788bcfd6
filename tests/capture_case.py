"""Tasks as CUDA has them, on a CPU: its kernels and its network, the latter emulated.

What stays a CPU's is what asks for the device's name where it is launched: numbers of items, and
the environment's backward pass.
"""

import functools
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import primitives
from ngp_warp.config import from_dict, override, to_dict
from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.networks import mlp
from ngp_warp.networks.fused_cuda import FusedCudaMLP
from ngp_warp.networks.unfused import UnfusedMLP
from ngp_warp.optimizer import Adam
from ngp_warp.primitive import report_nothing
from ngp_warp.primitives.nerf import model
from ngp_warp.primitives.sdf import task as sdf_task
from ngp_warp.primitives.sdf.truth import SignedDistance
from ngp_warp.radiance import field as radiance_field

GRID = {"n_levels": 2, "n_features_per_level": 2, "log2_hashmap_size": 8}
NETWORK = {"n_neurons": 16, "n_hidden_layers": 1}
FIELD: dict[str, Any] = {"encoding": GRID, "network": NETWORK}
SCENE: dict[str, Any] = {
    "march_steps": 32,
    "render_steps": 32,
    "max_rays": 64,
    "encoding": GRID,
    "density_network": NETWORK,
    "color_network": NETWORK,
    "training": {"batch_size": 256},
}
REFINED = {
    "train_poses": True,
    "train_lenses": True,
    "exposure": True,
    "environment": True,
    "appearance": 4,
    "optimizer": {"ema_decay": 0.9},
}
# of the original NeRF, which has no flags for them
FEW = {"n_coarse": 6, "n_fine": 9, "n_neurons": 18, "n_hidden_layers": 3, "skip_layer": 2}
SMALL = {"training": {"batch_size": 64}}

# primitive, settings
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "image": ("image", {**FIELD, **SMALL}),
    "image, averaged": (
        "image",
        {**FIELD, **SMALL, "optimizer": {"ema_decay": 0.9}, "target": "bilinear"},
    ),
    "sdf": ("sdf", {**FIELD, **SMALL, "sign": "normal"}),
    "sdf, winding": ("sdf", {**FIELD, **SMALL, "sign": "winding"}),
    "sdf, eikonal": ("sdf", {**FIELD, **SMALL, "sign": "normal", "eikonal_weight": 0.1}),
    "nerf": ("nerf", SCENE),
    "nerf, refined": ("nerf", {**SCENE, **REFINED}),
    "nerf, vanilla": ("nerf", {"method": "vanilla", "max_rays": 32}),
    "volume": ("volume", {**FIELD, **SMALL}),
    "volume, light": (
        "volume",
        {**FIELD, "mode": "radiance", "training": {"batch_size": 512}},
    ),
}


def use_cuda_kernels(patch: Any) -> None:
    """Put CUDA's kernels and networks in the place of the CPU's."""
    patch.setattr(wp.config, "enable_cpu_blocks", True)
    for cls in (GridEncoding, Adam, UnfusedMLP):
        patch.setattr(cls, "__init__", _portable(cls.__init__))
    patch.setattr(mlp, "FusedMLP", FusedCudaMLP)
    patch.setattr(radiance_field, "_choose", lambda backend, settings, device: "portable")
    portable = functools.partial(SignedDistance, search="portable")
    patch.setattr(sdf_task, "SignedDistance", portable)
    vanilla = model.vanilla_settings_of
    patch.setattr(model, "vanilla_settings_of", lambda *a, **k: replace(vanilla(*a, **k), **FEW))


def _portable(init: Any) -> Any:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def made(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.arguments["backend"] = "portable"
        init(*bound.args, **bound.kwargs)

    return made


def make_source(primitive: str, folder: Path) -> Path:
    """Write something small to fit; return its path."""
    if primitive == "image":
        from image_runs import write_picture

        return write_picture(folder / "picture.png")
    if primitive == "sdf":
        from sdf_runs import write_sphere

        return write_sphere(folder / "sphere.ply")
    if primitive == "nerf":
        from nerf_scenes import write_scene

        return write_scene(folder / "scene", n_train=4, n_test=1, side=16)
    path = folder / "fog.npy"
    index = np.moveaxis(np.indices((12, 10, 9)), 0, -1) - np.array([6, 5, 4])
    np.save(path, np.clip(1 - np.linalg.norm(index, axis=-1) / 5, 0, 1).astype(np.float32))
    return path


def make_task(name: str, folder: Path, device: str = "cpu") -> Any:
    """Return one of ``TASKS``, of a small input."""
    primitive, settings = TASKS[name]
    kind = primitives.get(primitive)
    config = from_dict(kind.config, override(to_dict(kind.config()), settings))
    data = kind.load(make_source(primitive, folder), config, report_nothing)
    config, _ = kind.estimate(data, config, device)
    return kind.build(data, config, device)
