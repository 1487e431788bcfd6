"""Small made volumes, and runs that fit them from end to end, made once a session."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# A step takes less than a millisecond, and 400 of them fit the fog to 55 dB or so.
SMALL: dict[str, Any] = {
    "batch_size": 1024,
    "encoding": {"n_levels": 4, "n_features_per_level": 2, "log2_hashmap_size": 12},
    "network": {"n_neurons": 16, "n_hidden_layers": 1},
    "device": "cpu",
}
SMALL_FLAGS = [
    *("--batch-size", "1024", "--encoding.n-levels", "4", "--encoding.n-features-per-level", "2"),
    *("--encoding.log2-hashmap-size", "12", "--network.n-neurons", "16", "--device", "cpu"),
]
STEPS = 400
SHEARED = np.array([[0.1, 0.02, 0.03, 1], [0, 0.2, 0.05, 2], [0.01, 0, 0.3, 3], [0, 0, 0, 1.0]])
RADIUS, VOXEL, CENTRE = 3.0, 0.5, (10.0, -5.0, 2.0)
"""Of the level set's sphere, in the world."""


def volume(values: Any, active: Any = None, **more: Any) -> Any:
    """Return values as a ``Volume``."""
    from ngp_warp.primitives.volume.grid import Oddity, Volume

    values = np.asarray(values, np.float32)
    n_channels = values.shape[3] if values.ndim == 4 else 1
    told: dict[str, Any] = {
        "name": "density",
        "format": "nvdb",
        "first": (0, 0, 0),
        "background": (0.0,) * n_channels,
        "to_world": np.eye(4),
        "grid_class": "fog",
        "dtype": "float32",
        "unit": "",
    }
    oddities = dict.fromkeys(("negative", "nan", "infinite"), Oddity())
    return Volume(values=values, active=active, **{**told, **oddities, **more})


def fog() -> Any:
    """A puff with ripples in sheared voxels; it begins at negative indices."""
    shape = np.array([18, 14, 10])
    at = np.moveaxis(np.indices(shape).astype(np.float64), 0, -1)
    away = np.linalg.norm((at - (shape - 1) / 2) / (shape / 2), axis=-1)
    values = np.clip(1.5 * (1 - away), 0, 1) * (1 + 0.2 * np.sin(at[..., 0]))
    return volume(values, values > 0, first=(-7, 3, -2), to_world=SHEARED)


def level_set(mirrored: bool = False) -> Any:
    """A sphere's narrow band; mirrored: the index x runs against the world's."""
    shape = (18, 19, 20)
    matrix = np.diag([-VOXEL if mirrored else VOXEL, VOXEL, VOXEL, 1.0])
    first = (-20, 3, -4)
    middle = np.array(first) + (np.array(shape) - 1) / 2
    matrix[:3, 3] = np.array(CENTRE) - matrix[:3, :3] @ middle
    at = np.moveaxis(np.indices(shape).astype(np.float64), 0, -1) + first
    distance = np.linalg.norm((at - middle) * VOXEL, axis=-1) - RADIUS
    width = 3 * VOXEL
    return volume(
        np.clip(distance, -width, width),
        np.abs(distance) < width,
        first=first,
        to_world=matrix,
        background=(width,),
        grid_class="level set",
        name="surface",
    )


def mirrored() -> Any:
    """The same sphere in the world, of mirrored voxels."""
    return level_set(mirrored=True)


def scan() -> Any:
    """A ball of bone in water in air, 8 bits, thick slices in millimetres."""
    shape = np.array([16, 15, 12])
    at = np.moveaxis(np.indices(shape).astype(np.float64), 0, -1)
    away = np.linalg.norm((at - (shape - 1) / 2) / (shape / 2), axis=-1)
    values = np.rint(255 * np.clip(1.3 - 1.3 * away, 0, 1))
    matrix = np.diag([-0.7, 0.7, 2.5, 1.0])
    matrix[:3, 3] = (11.0, -7.5, 100.25)
    return volume(values, dtype="uint8", to_world=matrix, format="nii", unit="mm")


def vectors() -> Any:
    """A vortex."""
    at = np.moveaxis(np.indices((14, 12, 10)).astype(np.float64), 0, -1)
    x, y, z = np.moveaxis(at - (6.5, 5.5, 4.5), -1, 0)
    fall = np.exp(-(x**2 + y**2 + z**2) / 30)
    values = np.stack([-y * fall, x * fall, 0.3 * fall], axis=-1)
    return volume(
        values,
        np.ones(values.shape[:3], bool),
        first=(-3, 0, 5),
        to_world=np.diag([0.3, 0.7, 1.1, 1.0]),
        grid_class="unknown",
        name="velocity",
    )


MADE = {
    "fog": (fog, "fog.nvdb"),
    "level_set": (level_set, "sphere.nvdb"),
    "mirrored": (mirrored, "mirrored.nvdb"),
    "scan": (scan, "scan.nii.gz"),
    "vectors": (vectors, "velocity.vdb"),
}
"""Kind -> what makes it, and the file that it is written to."""


def write(folder: Path, kind: str) -> Path:
    """Write a volume of ``MADE`` to a folder; return the file."""
    from ngp_warp.primitives.volume.writers import save_volume

    make, name = MADE[kind]
    made = make()
    save_volume(folder / name, made, dtype="uint8" if made.dtype == "uint8" else None)
    return folder / name


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Measure and draw fewer pixels with fewer samples: a tenth of a second."""
    from ngp_warp.primitives.volume import evaluate, painters, radiance_evaluate, radiance_task

    patch.setattr(evaluate, "_SIDE", 48)
    patch.setattr(evaluate, "_SPP", 2)
    patch.setattr(radiance_evaluate, "_SIDE", 32)
    patch.setattr(radiance_evaluate, "REFERENCE_SPP", 32)
    patch.setattr(radiance_evaluate, "SPP", 32)
    patch.setattr(painters, "TRACED_SPP", 4)
    patch.setattr(radiance_task, "LOOK_SAMPLES", 16)


@contextmanager
def quick() -> Iterator[None]:
    """Be quick within a block."""
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        yield


def fit(source: Path | None, **settings: Any) -> Any:
    """Fit with small settings, quickly."""
    import ngp_warp

    small = {"device": "cpu"} if "resume" in settings else SMALL
    with quick():
        return ngp_warp.fit_volume(source, **{**small, **settings})


class VolumeRuns:
    """The files of ``MADE`` and their runs, each made when it is first asked for.

    Args:
        folder: holds them.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._runs: dict[tuple[str, str], Any] = {}

    def source(self, kind: str) -> Path:
        """Return a volume's file."""
        path = self._folder / MADE[kind][1]
        return path if path.exists() else write(self._folder, kind)

    def run(self, kind: str, mode: str = "density") -> Any:
        """Return a finished run, which tests must leave as it is."""
        if (kind, mode) not in self._runs:
            out = self._folder / f"{kind}-{mode}"
            self._runs[kind, mode] = fit(self.source(kind), mode=mode, steps=STEPS, out=out)
        return self._runs[kind, mode]
