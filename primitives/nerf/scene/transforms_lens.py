"""The lens that a transforms.json states, for all frames or for one."""

import math
from typing import TypeVar

from ngp_warp.primitives.nerf.scene.checks import SceneError
from ngp_warp.primitives.nerf.scene.photo import SIZE_MAX, make_lens
from ngp_warp.primitives.nerf.scene.values import Values
from ngp_warp.rays.lenses import Lens

PERSPECTIVE = {"PERSPECTIVE", "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"}
PERSPECTIVE |= {"FULL_OPENCV"}
FISHEYE = {"OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}
_N = TypeVar("_N", int, float)

DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
# Keys of lenses and shutters that are no central perspective or fisheye projection.
_OTHER_LENSES = ("latlong", "is_equirectangular", "ftheta_p0", "ortho", "rolling_shutter")


def read_lens(top: Values, frame: Values, size: tuple[int, int]) -> Lens:
    """Return a frame's lens; the frame's own keys come before those of the file.

    Args:
        top: the file.
        frame: one of its frames.
        size: width and height of the photo, used where the file states none.

    Raises:
        DataError: a key is wrong, there is no focal length, or another kind of lens.
    """
    both = (frame, top)
    _refuse_other_lenses(both)
    width = _first([v.size("w", SIZE_MAX) for v in both]) or size[0]
    height = _first([v.size("h", SIZE_MAX) for v in both]) or size[1]
    fx = _first([_focal(v, "x", width) for v in both])
    fy = _first([_focal(v, "y", height) for v in both])
    if fx is None and fy is None:
        raise SceneError(
            frame.where,
            "there is no focal length",
            "state camera_angle_x (radians), x_fov (degrees) or fl_x (pixels)",
        )
    cx, cy = (_first([v.number(key) for v in both]) for key in ("cx", "cy"))
    bent = {key: _first([v.number(key) for v in both]) or 0.0 for key in DISTORTION}
    return make_lens(
        frame.where,
        width=width,
        height=height,
        fx=fx or fy or 0.0,
        fy=fy or fx or 0.0,
        cx=width / 2 if cx is None else cx,
        cy=height / 2 if cy is None else cy,
        fisheye=_is_fisheye(both),
        **bent,
    )


def _first(values: list[_N | None]) -> _N | None:
    return next((value for value in values if value is not None), None)


def _focal(values: Values, axis: str, pixels: float) -> float | None:
    """Return the focal length in pixels along an axis, stated in any of three ways."""
    focal = values.positive(f"fl_{axis}")
    if focal is not None:
        return focal
    angle = values.positive(f"camera_angle_{axis}", math.pi)
    if angle is None:
        degrees = values.positive(f"{axis}_fov", 180.0)
        angle = None if degrees is None else math.radians(degrees)
    return None if angle is None else pixels / 2 / math.tan(angle / 2)


def _is_fisheye(both: tuple[Values, Values]) -> bool:
    for values in both:
        model = values.text("camera_model")
        if model is not None:
            return model.upper() in FISHEYE or values.flag("is_fisheye")
        if "is_fisheye" in values:
            return values.flag("is_fisheye")
    return False


def _refuse_other_lenses(both: tuple[Values, Values]) -> None:
    for values in both:
        model = values.text("camera_model")
        if model is not None and model.upper() not in PERSPECTIVE | FISHEYE:
            raise SceneError(
                values.where,
                f"the camera model {model} is not supported",
                f"undistort the photos, or use {', '.join(sorted(PERSPECTIVE | FISHEYE))}",
            )
        for key in _OTHER_LENSES:
            value = values.get(key)
            shutter = value if isinstance(value, list) else [value]
            if any(shutter):
                raise SceneError(
                    values.where,
                    f"{key} is not supported",
                    "the lens must be perspective or fisheye, all of the photo taken at once",
                )
