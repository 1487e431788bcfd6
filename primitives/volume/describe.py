"""What a run keeps of a volume, to check it on resume and to write it back."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.volume.config import VolumeConfig, raw_layout
from ngp_warp.primitives.volume.data import load_volume
from ngp_warp.primitives.volume.frame import Frame
from ngp_warp.primitives.volume.grid import GridClass, Oddity, Volume
from ngp_warp.primitives.volume.transfer import Transfer, dense_bytes, is_integer, value_dtype

_LEAST_SPAN, _MOST_SPAN = 1e-37, 3e38


def load(source: Path, config: VolumeConfig, report: Report = report_nothing) -> Volume:
    """Read the grid that a config names; report what is odd about it.

    Raises:
        NgpError: as ``load_volume``.
        DataError: the values' range, or its inverse, is beyond float32, in which they are learned.
    """
    volume = load_volume(source, grid=config.grid, raw=raw_layout(config))
    span = Transfer.of(volume).range
    if not _LEAST_SPAN <= span <= _MOST_SPAN:
        raise DataError(
            f"cannot fit {source}: its values differ by {span:g}, and must by {_LEAST_SPAN:g} to "
            f"{_MOST_SPAN:g}; scale them"
        )
    for remark in volume.remarks():
        report(Progress(stage="load", message=remark))
    return volume


def make_frame(volume: Volume, margin: int = 0) -> Frame:
    """Return the map between a volume and the unit cube."""
    x, y, z = volume.values.shape[:3]
    return Frame((x, y, z), volume.first, volume.to_world, margin)


def describe(volume: Volume) -> dict[str, Any]:
    """Return plain JSON values: ``Primitive.describe``."""
    digest = hashlib.sha256(np.ascontiguousarray(volume.values).data)
    if volume.active is not None:
        digest.update(np.packbits(volume.active).data)
    return {**_data(volume), "digest": digest.hexdigest()[:32]}


def _data(volume: Volume) -> dict[str, Any]:
    transfer = Transfer.of(volume)
    return {
        "n_dims": 3,
        "n_outputs": volume.n_channels,
        "grid": volume.name,
        "format": volume.format,
        "dtype": value_dtype(volume),
        "grid_class": volume.grid_class,
        "frame": make_frame(volume).to_dict(),
        "unit": volume.unit,
        "background": list(volume.background),
        "low": transfer.low,
        "gain": transfer.gain,
        "dense_bytes": dense_bytes(volume),
    }


@dataclass(frozen=True)
class Described:
    """What ``describe`` said of a run's volume."""

    frame: Frame
    transfer: Transfer
    n_channels: int
    name: str
    format: str
    dtype: str
    grid_class: GridClass
    unit: str
    background: tuple[float, ...]

    @classmethod
    def of(cls, run: Any) -> "Described":
        """Return what a run's header holds."""
        return cls._from(run.header["data"])

    @classmethod
    def of_volume(cls, volume: Volume) -> "Described":
        """Return what a run of the volume would hold."""
        return cls._from(_data(volume))

    @classmethod
    def _from(cls, data: dict[str, Any]) -> "Described":
        return cls(
            frame=Frame.from_dict(data["frame"]),
            transfer=Transfer(data["low"], data["gain"]),
            n_channels=data["n_outputs"],
            name=data["grid"],
            format=data["format"],
            dtype=data["dtype"],
            grid_class=data["grid_class"],
            unit=data["unit"],
            background=tuple(data["background"]),
        )

    @property
    def is_level_set(self) -> bool:
        """Whether values are signed distances."""
        return self.grid_class == "level set"

    def volume(self, values: np.ndarray, active: np.ndarray | None) -> Volume:
        """Return values [x, y, z(, channel)] as the volume that they were fitted to."""
        none = Oddity()
        return Volume(
            name=self.name,
            format=self.format,
            values=values,
            first=self.frame.first,
            active=active,
            background=self.background,
            to_world=self.frame.to_world,
            grid_class=self.grid_class,
            dtype=self.dtype if is_integer(self.dtype) else "float32",
            unit=self.unit,
            negative=none,
            nan=none,
            infinite=none,
        )
