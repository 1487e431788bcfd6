"""What lies behind a radiance field, and so shows where it is transparent."""

from collections.abc import Callable

import numpy as np

Backdrop = Callable[[np.ndarray], np.ndarray]
"""Unit directions float32 [n, 3] -> colours float32 [n, 3] in the field's colour space.

``Plain`` ones, and those with the method ``lookup`` of ``radiance.viewed.Surroundings``, are drawn
on the field's device.
"""


class Plain:
    """One colour.

    Args:
        color: [3], in the field's colour space.
    """

    def __init__(self, color: np.ndarray):
        self.color = np.asarray(color, np.float32)

    def __call__(self, directions: np.ndarray) -> np.ndarray:
        """Return it for every direction."""
        return np.broadcast_to(self.color, directions.shape)
