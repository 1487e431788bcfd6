"""Light, material and background of the pictures of a surface: a clay model in a bright studio.

Everything is linear light, float32 [n, 3], until ``to_srgb``. The key light and the fill light keep
their place beside the camera, so that a turntable shows a turning object under a standing light.
"""

from dataclasses import dataclass

import numpy as np

from ngp_warp.primitives.pictures import linear_to_srgb
from ngp_warp.rays.cameras import Camera

LIGHT_RADIUS = 0.14
"""Tangent of the key light's angular radius (8 degrees, a softbox): the width of its penumbrae."""

_KEY = np.array([1.75, 1.66, 1.53], np.float32)
_FILL = np.array([0.14, 0.17, 0.22], np.float32)
_SKY = np.array([0.42, 0.46, 0.52], np.float32)
_GROUND = np.array([0.27, 0.25, 0.235], np.float32)
_CLAY = np.array([0.40, 0.335, 0.285], np.float32)
_FLOOR = np.array([0.60, 0.605, 0.615], np.float32)
_HORIZON = np.array([0.62, 0.635, 0.66], np.float32)
_ZENITH = np.array([0.36, 0.41, 0.49], np.float32)

# Schlick's reflectance at normal incidence of plastic, clay, stone; a lobe of a satin surface.
_REFLECTANCE, _GLOSS = 0.04, 36.0

_FLOOR_NEAR, _FLOOR_FAR = 0.7, 2.6
"""Distances from the middle, in cube sides, between which the floor fades to the background."""


@dataclass(frozen=True)
class Studio:
    """Directions of a camera's lights, unit vectors in world coordinates."""

    up: np.ndarray
    key: np.ndarray
    fill: np.ndarray

    @classmethod
    def of(cls, camera: Camera, up: np.ndarray) -> "Studio":
        """Place the key light above the camera's left shoulder, the fill light to its right.

        Args:
            camera: of the picture.
            up: unit vector against gravity.
        """
        right = camera.camera_to_world()[:3, 0]
        back = np.cross(right, up)  # level, towards the viewer
        return cls(
            up.astype(np.float32),
            _unit(-0.62 * right + 1.0 * up + 0.55 * back).astype(np.float32),
            _unit(0.9 * right + 0.25 * up + 0.45 * back).astype(np.float32),
        )


def penumbra(hit: np.ndarray, clearance: np.ndarray) -> np.ndarray:
    """Return the visible share of the key light, from 0 to 1.

    Args:
        hit: bool [n], whether the ray to the light's middle is blocked.
        clearance: [n], tangent of the angle by which it misses.
    """
    share = np.clip(clearance / LIGHT_RADIUS, 0, 1)
    return np.where(hit, np.float32(0), share * share * (3 - 2 * share)).astype(np.float32)


def clay(
    studio: Studio, normals: np.ndarray, rays_d: np.ndarray, key: np.ndarray, openness: np.ndarray
) -> np.ndarray:
    """Return the radiance of the surface towards the viewer.

    Args:
        studio: the lights.
        normals: unit, outward.
        rays_d: unit, from the viewer.
        key: [n], visible share of the key light.
        openness: [n], visible share of the surroundings.
    """
    diffuse = _KEY * (np.maximum(normals @ studio.key, 0) * key)[:, None]
    # wrapped: a large, near light
    fill = np.maximum(0.6 * (normals @ studio.fill) + 0.4, 0) * openness
    diffuse = diffuse + _FILL * fill[:, None] + _ambient(studio, normals) * openness[:, None]
    half = studio.key - rays_d
    half = half / np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
    fresnel = _REFLECTANCE + (1 - _REFLECTANCE) * (1 - np.clip(half @ studio.key, 0, 1)) ** 5
    lobe = (_GLOSS + 8) / 8 * np.maximum(np.sum(normals * half, axis=1), 0) ** _GLOSS
    lit = np.maximum(normals @ studio.key, 0) * key
    return _CLAY * diffuse + _KEY * (fresnel * lobe * lit)[:, None] * np.float32(1 / np.pi)


def floor(
    studio: Studio, points: np.ndarray, middle: np.ndarray, key: np.ndarray, openness: np.ndarray
) -> np.ndarray:
    """Return the radiance of the floor, which fades to the horizon away from ``middle``."""
    up = studio.up
    light = _KEY * (max(float(up @ studio.key), 0.0) * key)[:, None]
    # The sky that the floor sees; in units in which an open, unshadowed floor has its own albedo.
    whole = _KEY * max(float(up @ studio.key), 0.0) + _SKY
    colour = _FLOOR * 1.12 * (light + _SKY * openness[:, None]) / whole
    away = points - middle
    away = away - (away @ up)[:, None] * up
    distance = np.linalg.norm(away, axis=1)
    fade = np.clip((distance - _FLOOR_NEAR) / (_FLOOR_FAR - _FLOOR_NEAR), 0, 1)
    fade = (fade * fade * (3 - 2 * fade))[:, None]
    return colour * (1 - fade) + _HORIZON * fade


def background(studio: Studio, rays_d: np.ndarray) -> np.ndarray:
    """Return the radiance from where there is nothing: the horizon's below it, darker above."""
    height = np.clip(rays_d @ studio.up, 0, 1)[:, None]
    share = 1 - (1 - height) ** 3
    return _HORIZON * (1 - share) + _ZENITH * share


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Return uint8 sRGB of linear light; highlights above 0.8 are rolled off, never clipped."""
    knee = np.float32(0.8)
    over = np.maximum(linear - knee, 0)
    light = np.minimum(linear, knee) + (1 - knee) * (over / (over + (1 - knee)))
    return np.rint(linear_to_srgb(light) * 255).astype(np.uint8)


def _ambient(studio: Studio, normals: np.ndarray) -> np.ndarray:
    """Return what comes from the sky above and the floor below."""
    share = (0.5 + 0.5 * (normals @ studio.up))[:, None]
    return _GROUND * (1 - share) + _SKY * share


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
