"""The light around a volume: a sky gradient and a sun.

All radiances are linear RGB (BT.709 primaries), in W / (m^2 sr) up to one common factor: the
picture's. A picture of exposure 1 shows radiance 1 as white. Not differentiable.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.rays.cameras import CENTRE, Up, orbit, up_vector

Color = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Light:
    """A sky and a sun at infinity.

    With h, the sine of a direction's elevation, the sky's radiance is
    horizon + (1 - (1 - |h|)^3) (end - horizon), end being the zenith's above the horizon and the
    ground's below. The sun's disc is uniform and adds to the sky. There is no ground but its
    radiance: it hides neither sky nor sun, and takes no shadow. By default a sunlit white cloud
    has about radiance 0.8, the sun sends three times as much as the sky, and a thin cloud is
    brighter than the blue behind it.
    """

    up: Up = "y"
    """The world's axis against gravity."""
    zenith: Color = (0.16, 0.30, 0.60)
    """Radiance of the sky's highest point."""
    horizon: Color = (0.55, 0.68, 0.85)
    """Radiance of the horizon."""
    ground: Color = (0.20, 0.19, 0.17)
    """Radiance of what lies straight below."""
    sun_azimuth: float = 50.0
    """Degrees, counter-clockwise seen from above; at 0 the sun is in front of the object, where
    the camera of ``orbit:0,...`` is."""
    sun_elevation: float = 40.0
    """Degrees above the horizon, -90 to 90."""
    sun_diameter: float = 0.53
    """Angular diameter in degrees, above 0 up to 360; 360: the whole sphere."""
    sun_radiance: Color = (56000.0, 52000.0, 46000.0)
    """Radiance of the disc. Times its solid angle (6.7e-5 sr by default) it is the irradiance of a
    surface that faces the sun; black: there is no sun."""

    def __post_init__(self):
        up_vector(self.up)
        for name in ("zenith", "horizon", "ground", "sun_radiance"):
            color = getattr(self, name)
            if len(color) != 3 or not all(math.isfinite(c) and c >= 0 for c in color):
                raise ConfigError(f"{name} must be three finite numbers of at least 0, got {color}")
        if not math.isfinite(self.sun_azimuth):
            raise ConfigError(f"sun_azimuth must be a number of degrees, got {self.sun_azimuth:g}")
        if not -90 <= self.sun_elevation <= 90:
            raise ConfigError(
                f"sun_elevation must be from -90 to 90 degrees, got {self.sun_elevation:g}"
            )
        if not 0 < self.sun_diameter <= 360:
            raise ConfigError(
                "sun_diameter must be above 0 and at most 360 degrees, "
                f"got {self.sun_diameter:g}; for no sun, set sun_radiance to 0"
            )

    @property
    def sun_direction(self) -> np.ndarray:
        """Unit vector towards the middle of the sun's disc, float64 [3], world axes."""
        level = orbit(self.sun_azimuth, 0.0, 1.0, up=self.up).position
        elevation = math.radians(self.sun_elevation)
        ring = np.subtract(level, CENTRE)
        return math.cos(elevation) * ring + math.sin(elevation) * np.array(up_vector(self.up))

    @property
    def sun_solid_angle(self) -> float:
        """Of the disc, in sr."""
        # not 1 - cos: nothing is left of that at half a degree
        return 4 * math.pi * math.sin(math.radians(self.sun_diameter) / 4) ** 2

    @property
    def sun_irradiance(self) -> np.ndarray:
        """Of a surface that faces a small sun, W / m^2, float64 [3]."""
        return np.array(self.sun_radiance) * self.sun_solid_angle

    def data(self) -> Any:
        """Return the struct that kernels take (``kernels/light.LightData``)."""
        from ngp_warp.primitives.volume.kernels.light import LightData

        sun, up = self.sun_direction, np.array(up_vector(self.up))
        # across the sun: from the axis that is farthest from it
        side = np.cross(sun, np.eye(3)[int(np.abs(sun).argmin())])
        made: Any = LightData()
        made.up = up.tolist()
        made.zenith, made.horizon, made.ground = self.zenith, self.horizon, self.ground
        made.sun, made.side = sun.tolist(), (side / np.linalg.norm(side)).tolist()
        made.sun_power = self.sun_irradiance.tolist()
        # cap 0 says that there is no sun
        made.sun_cap = self.sun_solid_angle / (2 * math.pi) if any(self.sun_radiance) else 0.0
        return made
