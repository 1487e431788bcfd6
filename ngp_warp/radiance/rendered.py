"""What a radiance field says of rays."""

from dataclasses import dataclass

import numpy as np

# Less than this is nothing: a depth cannot be told from it
_LEAST_OPACITY = 1e-6


@dataclass(frozen=True)
class Rendered:
    """n rays through a radiance field."""

    color: np.ndarray
    """float32 [n, 3]: over the background."""
    opacity: np.ndarray
    """float32 [n]: 1 - transmittance."""
    depth: np.ndarray
    """float32 [n]: expected distance in sides of the box; infinite where there is nothing."""
    n_samples: int
    """Samples of all rays that reached a density network."""


def expected_depth(depth: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Return the sums of weight times distance over the opacity, infinite where that is 0."""
    seen = opacity > _LEAST_OPACITY
    result = np.full_like(depth, np.inf)
    np.divide(depth, opacity, out=result, where=seen)
    return result
