"""What radiance mode learns: the density of a medium, and the light that it scatters."""

from functools import cached_property
from typing import Any

import numpy as np
import warp as wp

from ngp_warp.decode import evaluated_config, load_into
from ngp_warp.field import Field, field_settings
from ngp_warp.launch import resolve_device
from ngp_warp.primitives.volume.config import VolumeConfig
from ngp_warp.primitives.volume.frame import Frame
from ngp_warp.primitives.volume.majorants import BLOCK
from ngp_warp.primitives.volume.medium import cloud_structs, grid_from_world

N_OUTPUTS = 4
"""Scattered radiance, linear RGB, and the density times ``density_gain``."""
_BETWEEN = 1e-6
"""Voxels within which a point lies between blocks."""


class RadianceField(Field):
    """A field from points to radiance and density, with the bounds of the density.

    The radiance is what a collision at the point sends in any direction: scattering is isotropic.

    Args:
        frame: of the medium, with a margin of 1.
        config: resolved.
        device: "cpu" or a CUDA device.
        trainable: as of ``Field``.
    """

    def __init__(self, frame: Frame, config: VolumeConfig, device: str, *, trainable: bool = True):
        settings = field_settings(config)
        super().__init__(3, N_OUTPUTS, device=device, trainable=trainable, **settings)
        self.frame, self.config = frame, config
        shape = [-(-(n + 1) // BLOCK) for n in frame.shape]
        self.majorants = wp.zeros(shape, dtype=wp.float32, device=device)
        """Bounds of the density, block by block (``majorants.py``); 0: there is nothing."""

    def extra_state(self) -> dict[str, wp.array]:
        """Return the majorants: a picture needs them, and not the original."""
        return {"majorants": self.majorants}

    @property
    def density_gain(self) -> float:
        """What takes densities to 0..1."""
        return 1.0 / float(self.majorants.numpy().max())

    @property
    def to_grid(self) -> np.ndarray:
        """float64 [4, 4], world to the grid coordinates of ``medium.py``."""
        return grid_from_world(self.frame.to_world, self.frame.first)

    @property
    def cloud(self) -> Any:
        """What kernels track light with (``kernels/tracking.Cloud``), once there are majorants."""
        return self._structs[0]

    @cached_property
    def _structs(self) -> tuple[Any, ...]:
        """``cloud`` and what it points to: a struct holds addresses, which do not keep arrays."""
        return cloud_structs(
            self.majorants.numpy(),
            BLOCK,
            self.to_grid,
            float(self.config.density_scale or 0.0),
            albedo=self.config.albedo,
            device=self.device,
        )

    def densities(self, voxels: np.ndarray) -> np.ndarray:
        """Return densities at voxels [n, 3] counted from the first, float32 [n], at least 0.

        As they are drawn: not above their majorant, 0 in empty blocks and beyond the medium.
        """
        most = self.bounds(voxels)
        values = np.zeros(len(voxels), np.float32)
        some = most > 0
        found = self.query(self.frame.unit_from_voxel(voxels[some]))[:, 3] / self.density_gain
        values[some] = np.clip(found, 0, most[some])
        return values

    def bounds(self, voxels: np.ndarray) -> np.ndarray:
        """Return the majorants of the blocks that voxels [n, 3] lie in, float32 [n].

        Every fourth middle lies between blocks, and rounding would choose one. All of them bound
        the value there: the least does best.
        """
        majorants = self.majorants.numpy()
        padded = np.pad(majorants, 1)  # beyond the medium is nothing
        sides = [np.floor((voxels + (1 + s)) / BLOCK) for s in (-_BETWEEN, _BETWEEN)]
        low, high = (
            np.clip(side + 1, 0, np.array(majorants.shape) + 1).astype(np.int64) for side in sides
        )
        most = padded[tuple(low.T)]
        two = np.flatnonzero(np.any(low != high, axis=1))
        for choice in np.ndindex(2, 2, 2):
            block = np.where(choice, high[two], low[two])
            most[two] = np.minimum(most[two], padded[tuple(block.T)])
        return most


def load_radiance_field(run: Any) -> RadianceField:
    """Return a run's field, on the run's device, with its evaluated parameters.

    Raises:
        CheckpointError: the checkpoint is cut short, altered, or does not fit its config.
    """
    frame = Frame.from_dict({**run.header["data"]["frame"], "margin": 1})
    field = RadianceField(frame, evaluated_config(run), resolve_device(run.device), trainable=False)
    load_into(field, run)
    return field
