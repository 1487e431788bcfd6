"""Transfer functions: which colour and opacity a volume's values have in a picture."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError, DataError
from ngp_warp.primitives.pictures import srgb_to_linear

Point = tuple[float, float, float, float, float]

N_ENTRIES = 1024
"""Of the table that kernels read."""

_MOST_OPAQUE = 1 - 1e-12
"""An opacity of 1 would be an infinite extinction."""

# Value as a share of the range, sRGB, opacity per voxel. What lies low is mostly air or noise and
# stays invisible.
_PRESETS: dict[str, tuple[Point, ...]] = {
    "grey": (
        (0.0, 0.0, 0.0, 0.0, 0.0),
        (0.1, 0.1, 0.1, 0.1, 0.0),
        (1.0, 1.0, 1.0, 1.0, 0.12),
    ),
    "bone": (
        (0.0, 0.35, 0.12, 0.08, 0.0),
        (0.15, 0.48, 0.19, 0.13, 0.0),
        (0.35, 0.74, 0.42, 0.31, 0.02),
        (0.55, 0.90, 0.76, 0.60, 0.12),
        (0.75, 0.97, 0.92, 0.82, 0.45),
        (1.0, 1.0, 0.99, 0.96, 0.8),
    ),
    "fire": (
        (0.0, 0.20, 0.02, 0.12, 0.0),
        (0.05, 0.32, 0.04, 0.16, 0.0),
        (0.25, 0.78, 0.14, 0.08, 0.05),
        (0.5, 0.97, 0.46, 0.07, 0.2),
        (0.75, 1.0, 0.78, 0.22, 0.5),
        (1.0, 1.0, 0.96, 0.72, 0.85),
    ),
    "cool": (
        (0.0, 0.06, 0.10, 0.32, 0.0),
        (0.05, 0.08, 0.16, 0.42, 0.0),
        (0.25, 0.10, 0.36, 0.70, 0.05),
        (0.5, 0.12, 0.62, 0.78, 0.2),
        (0.75, 0.45, 0.86, 0.80, 0.5),
        (1.0, 0.90, 0.99, 0.92, 0.85),
    ),
}
PRESETS = tuple(_PRESETS)
"""Names that ``TransferFunction.preset`` knows."""


@dataclass(frozen=True)
class TransferFunction:
    """Colours and opacities of values, linear between points, constant beyond them."""

    points: tuple[Point, ...]
    """At least two (value, red, green, blue, opacity), values rising; colours as displayed (sRGB)
    from 0 to 1, the opacity of a voxel's length from 0 to 1."""

    def __post_init__(self):
        if len(self.points) < 2:
            raise ConfigError(
                f"a transfer function needs at least 2 points, got {len(self.points)}"
            )
        for index, point in enumerate(self.points):
            if len(point) != 5:
                raise ConfigError(
                    f"point {index} of a transfer function must be five numbers: value, red, "
                    f"green, blue, opacity; got {list(point)}"
                )
            if not all(math.isfinite(number) for number in point):
                raise ConfigError(f"point {index} of a transfer function is not finite: {point}")
            if not all(0 <= number <= 1 for number in point[1:]):
                raise ConfigError(
                    f"point {index} of a transfer function has a colour or an opacity outside "
                    f"0 to 1: {list(point)}"
                )
            if index and not point[0] > self.points[index - 1][0]:
                raise ConfigError(
                    f"a transfer function's values must rise: point {index} has {point[0]:g} "
                    f"after {self.points[index - 1][0]:g}"
                )

    @classmethod
    def preset(cls, name: str, low: float, high: float) -> "TransferFunction":
        """Return a preset for values from ``low`` to ``high``.

        Args:
            name: one of ``PRESETS``. "grey": opacity and brightness rise with the value; "bone":
                low values like tissue, high ones like bone; "fire", "cool": dark to bright.
            low: the value that is shown as nothing.
            high: the one that is most opaque; above ``low``.

        Raises:
            ConfigError: another name, or a range that is none.
        """
        if name not in _PRESETS:
            raise ConfigError(
                f"a transfer function must be one of {', '.join(PRESETS)} or a JSON file, "
                f"got {name!r}"
            )
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(
                f"a transfer function's range must rise and be finite, got {low:g} to {high:g}"
            )
        return cls(tuple((low + p[0] * (high - low), *p[1:]) for p in _PRESETS[name]))

    @classmethod
    def load(cls, path: str | Path) -> "TransferFunction":
        """Read ``{"points": [[value, red, green, blue, opacity], ...]}``.

        Raises:
            DataError: the file is missing, not JSON, or holds something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"cannot read {path}: it is not JSON ({error})") from error
        try:
            return cls(_points(content))
        except ConfigError as error:
            raise DataError(f"cannot read {path}: {error}") from error

    @classmethod
    def parse(cls, text: str, low: float, high: float) -> "TransferFunction":
        """Return what a preset's name (for a range of values) or a JSON file's path says.

        Raises:
            ConfigError: neither.
            DataError: a file that cannot be read.
        """
        if text in _PRESETS or not (text.endswith(".json") or Path(text).is_file()):
            return cls.preset(text, low, high)
        return cls.load(text)

    @property
    def low(self) -> float:
        """The first point's value."""
        return self.points[0][0]

    @property
    def high(self) -> float:
        """The last point's value."""
        return self.points[-1][0]

    def at(self, values: np.ndarray) -> np.ndarray:
        """Return red, green, blue (sRGB) and opacity per voxel, float64 [..., 4]."""
        columns = np.array(self.points).T
        return np.stack([np.interp(values, columns[0], c) for c in columns[1:]], axis=-1)

    def table(self) -> np.ndarray:
        """Return linear red, green, blue and the extinction per voxel length.

        Returns:
            float32 [N_ENTRIES, 4], at equidistant values from ``low`` to ``high``. An opacity a
            is the extinction -log(1 - a): that of another length follows by its exponential.
        """
        found = self.at(np.linspace(self.low, self.high, N_ENTRIES))
        extinction = -np.log1p(-np.minimum(found[:, 3:], _MOST_OPAQUE))
        return np.concatenate([srgb_to_linear(found[:, :3]), extinction], axis=1, dtype=np.float32)


def _points(content: Any) -> tuple[Point, ...]:
    """Return the points of a file's JSON.

    Raises:
        ConfigError: it is of another form.
    """
    if not isinstance(content, dict) or "points" not in content:
        raise ConfigError('a transfer function must be {"points": [...]}; there is no "points"')
    points = content["points"]
    if not isinstance(points, list) or not all(isinstance(p, list) for p in points):
        raise ConfigError('"points" must be a list of [value, red, green, blue, opacity]')
    for index, point in enumerate(points):
        # a bool is an int to Python
        if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in point):
            raise ConfigError(f"point {index} of a transfer function holds no numbers: {point}")
    made: Any = tuple(tuple(_as_float(n) for n in point) for point in points)
    return made


def _as_float(number: float) -> float:
    """Return a JSON number; integers beyond a float are infinite, as JSON's 1e999 is."""
    try:
        return float(number)
    except OverflowError:
        return math.inf
