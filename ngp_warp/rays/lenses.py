"""Lenses: from pixels to directions and back, exactly, for every model that is in use.

Camera axes are OpenGL's (x right, y up, looking along -z). Pixel (0, 0) is the top left one, its
centre (0.5, 0.5).
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Focal lengths, principal point and distortion, in pixels.

    Perspective (OpenCV's rational model): with x = X / Z, y = Y / Z, r^2 = x^2 + y^2,
    q = (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6),
    x' = q x + 2 p1 x y + p2 (r^2 + 2 x^2), y' = q y + p1 (r^2 + 2 y^2) + 2 p2 x y.
    Fisheye (OpenCV's): theta' = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8) with
    theta the angle to the axis. Then u = fx x' + cx, v = fy y' + cy (y down).
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    fisheye: bool = False
    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0
    k5: float = 0.0
    k6: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
