"""Volumes made of arrays."""

import numpy as np

from ngp_warp.primitives.volume.grid import Oddity, Volume


def make_volume(values, to_world=None, first=(0, 0, 0), *, active=None, background=0.0, **more):
    """A volume of values [x, y, z] or [x, y, z, channel]."""
    values = np.ascontiguousarray(values, np.float32)
    n_channels = values.shape[3] if values.ndim == 4 else 1
    none = Oddity()
    kept = {"grid_class": "fog", "dtype": "float32", "unit": "", **more}
    return Volume(
        name="made",
        format="npy",
        values=values,
        first=first,
        active=active,
        background=(background,) * n_channels,
        to_world=np.eye(4) if to_world is None else to_world,
        negative=none,
        nan=none,
        infinite=none,
        **kept,
    )
