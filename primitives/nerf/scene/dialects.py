"""What the dialects of transforms.json say beside poses and lenses: box, depth unit, keys.

- Blender (NeRF-synthetic): a field of view alone; the object lies within 1.5 units of the origin.
- instant-ngp: aabb_scale, and scale and offset, 0.33 and 0.5 where they are not stated.
- nerfstudio: camera_model, lists of the splits' files, masks and depth maps; no box.
"""

import difflib
from dataclasses import dataclass

from ngp_warp.primitives.nerf.scene.checks import Checks
from ngp_warp.primitives.nerf.scene.transforms_lens import DISTORTION
from ngp_warp.primitives.nerf.scene.values import LARGEST, Values, as_number
from ngp_warp.radiance.settings import AABB_SCALES

_NGP_SCALE, _NGP_OFFSET = 0.33, 0.5
_BLENDER_SCALE = 1 / 3
_NERFSTUDIO_DEPTH_UNIT = 1e-3

_NGP_KEYS = {"aabb_scale", "scale", "offset"}
_NERFSTUDIO_KEYS = {"camera_model", "applied_transform", "applied_scale", "ply_file_path"}
_NERFSTUDIO_KEYS |= {"train_filenames", "val_filenames", "test_filenames"}
_PIXEL_KEYS = {"fl_x", "fl_y", "cx", "cy", "w", "h", *DISTORTION}
_LENS_KEYS = {"camera_angle_x", "camera_angle_y", "x_fov", "y_fov", "is_fisheye", *_PIXEL_KEYS}
_DEPTH_KEYS = {"depth_unit_scale_factor", "integer_depth_scale", "enable_depth_loading"}
TOP_KEYS = _NGP_KEYS | _NERFSTUDIO_KEYS | _LENS_KEYS | _DEPTH_KEYS | {"frames"}
FRAME_KEYS = _LENS_KEYS | {"file_path", "transform_matrix", "mask_path", "depth_file_path"}
FRAME_KEYS |= {"depth_path", "camera_model"}


@dataclass(frozen=True)
class Box:
    """What a file fixes of the box; None: not stated."""

    scale: float | None = None
    offset: tuple[float, float, float] | None = None
    aabb_scale: int | None = None


def read_box(top: Values) -> Box:
    """Return the box that a file states, or that its dialect has.

    Raises:
        DataError: a value out of its range.
    """
    if top.keys() & _NGP_KEYS:
        scale = top.positive("scale")
        return Box(_NGP_SCALE if scale is None else scale, _offset(top), _aabb_scale(top))
    if not top.keys() & (_NERFSTUDIO_KEYS | _PIXEL_KEYS) and "camera_angle_x" in top:
        return Box(_BLENDER_SCALE, (0.5, 0.5, 0.5), 1)
    return Box()


def _aabb_scale(top: Values) -> int | None:
    number = top.number("aabb_scale")
    if number is None:
        return None
    if number not in AABB_SCALES:
        raise top.wrong("aabb_scale", "a power of two from 1 to 128")
    return int(number)


def _offset(top: Values) -> tuple[float, float, float]:
    value = top.get("offset")
    items = value if isinstance(value, list) else [_NGP_OFFSET if value is None else value] * 3
    numbers = [as_number(item) for item in items]
    if len(numbers) != 3 or any(n is None or not abs(n) <= LARGEST for n in numbers):
        raise top.wrong("offset", "a number or 3 numbers")
    x, y, z = (number or 0.0 for number in numbers)
    return x, y, z


def read_depth_unit(top: Values) -> float | None:
    """Return the scene units of one unit of a depth map; None: the maps are not to be used.

    nerfstudio's depth_unit_scale_factor (1e-3 where it is not stated), or instant-ngp's
    integer_depth_scale.

    Raises:
        DataError: a value out of its range.
    """
    if "enable_depth_loading" in top and not top.flag("enable_depth_loading"):
        return None
    for key in ("depth_unit_scale_factor", "integer_depth_scale"):
        unit = top.positive(key)
        if unit is not None:
            return unit
    return _NERFSTUDIO_DEPTH_UNIT


def warn_of_misspelt(values: Values, known: set[str], checks: Checks) -> None:
    """Warn of keys that are unknown and spelt almost like one that is known."""
    for key in sorted(values.keys() - known):
        near = difflib.get_close_matches(key, known - values.keys(), n=1, cutoff=0.85)
        if near:
            checks.warn(values.where, f"unknown key {key[:40]!r}", f"did you mean {near[0]!r}?")
