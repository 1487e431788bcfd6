"""A run of a volume, with what pictures and exports need of it."""

from functools import cached_property
from typing import Any

import numpy as np

from ngp_warp.primitive import Report, check_same
from ngp_warp.primitives.volume.decoding import values_at_voxels
from ngp_warp.primitives.volume.describe import Described, describe, load
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.radiance_field import RadianceField
from ngp_warp.primitives.volume.transfer import is_integer, quantize

FLOAT_THRESHOLD, BAND_THRESHOLD = 2e-3, 1e-2
"""Shares of the range: what differs less from the background is left out of sparse files; the
second of level sets, whose band would else fray."""


class Subject:
    """A run, its field, and the values that the field decodes to.

    Args:
        run: of a volume.
    """

    def __init__(self, run: Any):
        self.run = run
        self.config = run.config
        self.about = Described.of(run)
        self._values: np.ndarray | None = None

    @classmethod
    def of(cls, run: Any) -> "Subject":
        """Return a run's subject: the same one each time, as decoding takes a while."""
        return run.__dict__.setdefault("volume", cls(run))

    @cached_property
    def field(self) -> Any:
        """A ``Field``, in radiance mode a ``RadianceField``."""
        return self.run.fitted

    @property
    def has_radiance(self) -> bool:
        """Whether the light was learned, too."""
        return self.config.mode == "radiance"

    def values(self, report: Report) -> np.ndarray:
        """Return the values at all voxels, float32 [x, y, z(, channel)], in the volume's units."""
        if self._values is None:
            self._values = decode(self.field, self.about, report)
        return self._values

    @property
    def default_threshold(self) -> float:
        """Half a step of integers, a hundredth of a level set's range, a 500th of others'.

        Of floats no more than the largest error that was measured: what is written is within it.
        """
        about = self.about
        if is_integer(about.dtype) and not self.has_radiance:
            return 0.5
        share = BAND_THRESHOLD if about.is_level_set else FLOAT_THRESHOLD
        usual = share * about.transfer.range
        return min(usual, self.run.metrics.get("max_error", usual))

    def volume(self, report: Report, threshold: float) -> Volume:
        """Return the decoded volume.

        Args:
            report: told of progress.
            threshold: values that differ from the background by no more (of vectors, the length of
                the difference; of a level set from the background of either sign) are inactive and
                hold the background.
        """
        values, about = self.values(report), self.about
        background = np.array(about.background, np.float32)
        if about.is_level_set:
            width = np.abs(background[0])
            active = np.abs(values) < width - np.float32(threshold)
            return about.volume(np.where(active, values, np.copysign(width, values)), active)
        difference = values - (background if about.n_channels > 1 else background[0])
        size = np.linalg.norm(difference, axis=-1) if about.n_channels > 1 else np.abs(difference)
        active = size > threshold
        return about.volume(np.where(expanded(active, values), values, background), active)

    def original(self, report: Report) -> Volume:
        """Return the volume that was fitted, read again; what is odd about it is reported.

        Raises:
            DataError: it is gone, or another.
        """
        volume = load(self.run.source, self.config, report)
        check_same(self.run.source, describe(volume), self.run.header["data"])
        return volume


def expanded(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a mask of voxels with an axis for channels where the values have one."""
    return mask[..., None] if values.ndim > mask.ndim else mask


def decode(field: Any, about: Described, report: Report, stage: str = "write") -> np.ndarray:
    """Return what a field holds at all voxels, float32 [x, y, z(, channel)].

    Of a ``RadianceField`` the density.

    Args:
        field: of either mode.
        about: its volume.
        report: told of progress.
        stage: of progress.
    """
    frame = about.frame
    if isinstance(field, RadianceField):
        return values_at_voxels(
            lambda points: field.densities(frame.voxel_from_unit(points)), frame, 1, report, stage
        )
    return values_at_voxels(
        lambda points: quantize(field.query(points), about.transfer, about.dtype),
        frame,
        about.n_channels,
        report,
        stage,
    )
