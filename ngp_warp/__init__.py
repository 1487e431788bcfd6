"""Instant neural graphics primitives on NVIDIA Warp, on every CPU core and on CUDA.

Every public name is here, and is imported when it is first used: ``import ngp_warp`` alone loads
neither Warp nor NumPy nor torch.
"""

from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngp_warp.config import (
        GridEncodingConfig,
        NetworkConfig,
        OptimizerConfig,
        TrainingConfig,
    )
    from ngp_warp.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        NgpError,
        ResourceError,
        ShapeError,
    )
    from ngp_warp.field import Field
    from ngp_warp.fitting import fit
    from ngp_warp.job_settings import JobSettings
    from ngp_warp.primitive import Progress
    from ngp_warp.primitives.image.blocks.fit import fit_image_blocks
    from ngp_warp.primitives.image.config import ImageConfig
    from ngp_warp.primitives.image.fit import fit_image
    from ngp_warp.primitives.nerf.config import NerfConfig
    from ngp_warp.primitives.nerf.fit import fit_nerf
    from ngp_warp.primitives.sdf.config import SdfConfig
    from ngp_warp.primitives.sdf.fit import fit_sdf
    from ngp_warp.primitives.volume.config import VolumeConfig
    from ngp_warp.primitives.volume.fit import fit_volume
    from ngp_warp.run import Run, open_run
    from ngp_warp.trainer import Interrupted

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Field",
    "GridEncodingConfig",
    "ImageConfig",
    "Interrupted",
    "JobSettings",
    "NerfConfig",
    "NetworkConfig",
    "NgpError",
    "OptimizerConfig",
    "Progress",
    "ResourceError",
    "Run",
    "SdfConfig",
    "ShapeError",
    "TrainingConfig",
    "VolumeConfig",
    "fit",
    "fit_image",
    "fit_image_blocks",
    "fit_nerf",
    "fit_sdf",
    "fit_volume",
    "open_run",
]

__version__ = "0.1.0"

# In a checkout, primitives/ and cli/ lie beside this folder; installed, they lie inside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / "primitives" / "__init__.py").is_file() and (_root / "pyproject.toml").is_file():
    __path__.append(str(_root))

_MODULES = {
    "config": ("GridEncodingConfig", "NetworkConfig", "OptimizerConfig", "TrainingConfig"),
    "errors": (
        "CheckpointError",
        "ConfigError",
        "DataError",
        "NgpError",
        "ResourceError",
        "ShapeError",
    ),
    "field": ("Field",),
    "fitting": ("fit",),
    "job_settings": ("JobSettings",),
    "primitive": ("Progress",),
    "primitives.image.config": ("ImageConfig",),
    "primitives.image.blocks.fit": ("fit_image_blocks",),
    "primitives.image.fit": ("fit_image",),
    "primitives.nerf.config": ("NerfConfig",),
    "primitives.nerf.fit": ("fit_nerf",),
    "primitives.sdf.config": ("SdfConfig",),
    "primitives.sdf.fit": ("fit_sdf",),
    "primitives.volume.config": ("VolumeConfig",),
    "primitives.volume.fit": ("fit_volume",),
    "run": ("Run", "open_run"),
    "trainer": ("Interrupted",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
