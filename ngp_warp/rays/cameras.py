"""Pinhole cameras and their rays.

Camera axes are OpenGL's (x right, y up, looking along -z). The world's up axis is y, as in obj and
glTF scans, unless another is named. Pixel (0, 0) is the top left one, its centre (0.5, 0.5).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ngp_warp.errors import ConfigError

Up = Literal["x", "y", "z"]

DEFAULT_FOV = 35.0
"""Vertical field of view in degrees: a short telephoto lens, little distortion."""

CENTRE = (0.5, 0.5, 0.5)
"""Of the unit cube."""

# Up axis -> (up, front): azimuth 0 looks at the front. A person's face is towards +z where y is up
# (glTF), towards -y where z is up (CAD, Blender).
_Vector = tuple[float, float, float]
_AXES: dict[str, tuple[_Vector, _Vector]] = {
    "x": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "y": ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "z": ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
}


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera with square pixels and its principal point in the middle."""

    position: tuple[float, float, float]
    """Of the pinhole, in world coordinates."""
    look_at: tuple[float, float, float] = CENTRE
    """A point that the middle of the picture shows."""
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    """Direction that is up in the picture."""
    fov: float = DEFAULT_FOV
    """Vertical field of view in degrees."""
    width: int = 800
    """Pixels."""
    height: int = 800
    """Pixels."""

    def __post_init__(self):
        if not 0 < self.fov < 180:
            raise ConfigError(f"the camera's field of view must be in (0, 180), got {self.fov:g}")
        if self.width < 1 or self.height < 1:
            raise ConfigError(
                f"the picture must have at least 1x1 pixels, got {self.width}x{self.height}"
            )
        values = np.array([*self.position, *self.look_at, *self.up], np.float64)
        if not np.all(np.isfinite(values)):
            raise ConfigError("the camera's position, look_at and up must be finite numbers")
        forward = np.subtract(self.look_at, self.position)
        sine = np.linalg.norm(np.cross(forward, self.up))
        if sine <= 1e-9 * np.linalg.norm(forward) * np.linalg.norm(self.up):
            raise ConfigError(
                "the camera cannot look along its up direction, or at its own position; move it"
            )

    def camera_to_world(self) -> np.ndarray:
        """Return float64 [4, 4]: columns right, up, back, position."""
        back = np.subtract(self.position, self.look_at)
        back = back / np.linalg.norm(back)
        right = np.cross(self.up, back)
        right = right / np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3] = np.stack([right, np.cross(back, right), back, self.position], axis=1)
        return matrix

    @property
    def pixel_size(self) -> float:
        """Side of a pixel at distance 1 along the optical axis."""
        return 2 * math.tan(math.radians(self.fov) / 2) / self.height

    def rays(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rays through points of the picture.

        Args:
            x: [n], pixels from the left edge; a pixel's centre is at its index + 0.5.
            y: [n], pixels from the top edge.

        Returns:
            rays_o, rays_d: float32 [n, 3], origins and unit directions in world coordinates.
        """
        pixel = self.pixel_size
        local = np.stack(
            [
                (np.asarray(x, np.float64) - self.width / 2) * pixel,
                (self.height / 2 - np.asarray(y, np.float64)) * pixel,
                np.full(len(x), -1.0),
            ],
            axis=1,
        )
        world = local @ self.camera_to_world()[:3, :3].T
        world /= np.linalg.norm(world, axis=1, keepdims=True)
        origins = np.broadcast_to(np.asarray(self.position, np.float32), world.shape)
        return np.ascontiguousarray(origins), world.astype(np.float32)

    def moved(self, scale: float, offset: tuple[float, float, float]) -> "Camera":
        """Return the camera that sees p * scale + offset as this one sees p."""

        def move(point: tuple[float, float, float]) -> tuple[float, float, float]:
            x, y, z = (float(p) * scale + o for p, o in zip(point, offset, strict=True))
            return x, y, z

        return replace(self, position=move(self.position), look_at=move(self.look_at))


def up_vector(up: Up) -> tuple[float, float, float]:
    """Return the unit vector of the world's up axis.

    Raises:
        ConfigError: another name than x, y or z.
    """
    if up not in _AXES:
        raise ConfigError(f"the up axis must be one of {', '.join(_AXES)}, got {up}")
    return _AXES[up][0]


def orbit(
    azimuth: float,
    elevation: float,
    distance: float,
    target: tuple[float, float, float] = CENTRE,
    *,
    up: Up = "y",
    fov: float = DEFAULT_FOV,
    width: int = 800,
    height: int = 800,
) -> Camera:
    """Return a camera on a sphere about a target, looking at it.

    Args:
        azimuth: degrees, counter-clockwise seen from above; at 0 the camera is in front (towards
            +z of the target, where y or x is up; towards -y where z is up).
        elevation: degrees above the horizon, more than -90 and less than 90.
        distance: from the target, in sides of the unit cube.
        target: a point of the unit cube.
        up: the world's up axis.
        fov: vertical, in degrees.
        width: pixels.
        height: pixels.

    Raises:
        ConfigError: a value out of its range.
    """
    if not -90 < elevation < 90:
        raise ConfigError(f"the elevation must be between -90 and 90 degrees, got {elevation:g}")
    if not (distance > 0 and math.isfinite(distance)):
        raise ConfigError(f"the camera's distance must be above 0, got {distance:g}")
    if not math.isfinite(azimuth):
        raise ConfigError(f"the azimuth must be a number of degrees, got {azimuth:g}")
    axis = np.array(up_vector(up))
    front = np.array(_AXES[up][1])
    a, e = math.radians(azimuth), math.radians(elevation)
    ring = math.cos(a) * front + math.sin(a) * np.cross(axis, front)
    x, y, z = np.asarray(target) + distance * (math.cos(e) * ring + math.sin(e) * axis)
    return Camera(
        position=(float(x), float(y), float(z)),
        look_at=target,
        up=(float(axis[0]), float(axis[1]), float(axis[2])),
        fov=fov,
        width=width,
        height=height,
    )


def parse_camera(
    text: str, *, up: Up = "y", fov: float = DEFAULT_FOV, width: int = 800, height: int = 800
) -> Camera:
    """Return the camera that ``orbit:AZ,EL,DIST`` describes (degrees, degrees, cube sides).

    Raises:
        ConfigError: another form, or values out of their range.
    """
    kind, _, rest = text.partition(":")
    try:
        azimuth, elevation, distance = (float(v) for v in rest.split(","))
    except ValueError:
        kind = ""
        azimuth = elevation = distance = 0.0
    if kind != "orbit":
        raise ConfigError(
            "a camera must be orbit:AZIMUTH,ELEVATION,DISTANCE, such as orbit:30,20,2, "
            f"got {text!r}"
        )
    return orbit(azimuth, elevation, distance, up=up, fov=fov, width=width, height=height)


def turntable(camera: Camera, n_frames: int) -> list[Camera]:
    """Return cameras on a full turn about the up direction through what ``camera`` looks at.

    Seen from above they go counter-clockwise; the first is ``camera`` itself, and the one after
    the last would be it again.
    """
    if n_frames < 1:
        raise ConfigError(f"a turntable must have at least 1 frame, got {n_frames}")
    axis = np.asarray(camera.up, np.float64)
    axis = axis / np.linalg.norm(axis)
    arm = np.subtract(camera.position, camera.look_at)
    cameras = []
    for angle in np.arange(n_frames) * (2 * math.pi / n_frames):
        # Rodrigues' formula
        turned = (
            arm * math.cos(angle)
            + np.cross(axis, arm) * math.sin(angle)
            + axis * (axis @ arm) * (1 - math.cos(angle))
        )
        x, y, z = np.add(camera.look_at, turned)
        cameras.append(replace(camera, position=(float(x), float(y), float(z))))
    return cameras
