"""Lenses: from pixels to directions and back, exactly, for every model that is in use.

Camera axes are OpenGL's (x right, y up, looking along -z). Pixel (0, 0) is the top left one, its
centre (0.5, 0.5). A pixel beyond the fold of a distortion has no direction. Kernels:
ngp_warp/kernels/lens.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.kernels import lens as kernels

_MAX_ITERATIONS = 100
_EPSILON = 1e-14


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Focal lengths, principal point and distortion, in pixels.

    Perspective (OpenCV's rational model): with x = X / Z, y = Y / Z, r^2 = x^2 + y^2,
    q = (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6),
    x' = q x + 2 p1 x y + p2 (r^2 + 2 x^2), y' = q y + p1 (r^2 + 2 y^2) + 2 p2 x y.
    Fisheye (OpenCV's): theta' = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8) with
    theta the angle to the axis. Then u = fx x' + cx, v = fy y' + cy (y down).

    Raises:
        ConfigError: a value that is not finite, a picture without pixels, a focal length that is
            not above 0, or a coefficient that the model does not have.
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

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value):
                raise ConfigError(f"the lens's {field.name} must be a finite number, got {value}")
        if self.width < 1 or self.height < 1:
            raise ConfigError(
                f"a photo must have at least 1x1 pixels, got {self.width}x{self.height}"
            )
        if not (self.fx > 0 and self.fy > 0):
            raise ConfigError(
                f"the focal lengths must be above 0 pixels, got {self.fx:g} and {self.fy:g}"
            )
        if self.fisheye and (self.k5 or self.k6 or self.p1 or self.p2):
            raise ConfigError("a fisheye lens has no coefficients but k1, k2, k3 and k4")

    @property
    def coefficients(self) -> tuple[float, ...]:
        """Return k1 to k6, p1, p2."""
        return (self.k1, self.k2, self.k3, self.k4, self.k5, self.k6, self.p1, self.p2)

    @property
    def model(self) -> int:
        """Return the simplest of kernels/lens.py's models that this lens is."""
        if self.fisheye:
            return kernels.FISHEYE
        if self.p1 or self.p2:
            return kernels.TANGENTIAL
        return kernels.RADIAL if any(self.coefficients) else kernels.PINHOLE

    @cached_property
    def limit(self) -> float:
        """Largest radius r (perspective) or angle (fisheye) before the distortion folds."""
        ones = np.array([1.0])
        if self.fisheye:
            odd = np.array([3 * self.k1, 5 * self.k2, 7 * self.k3, 9 * self.k4])
            return min(math.sqrt(_first_root(np.concatenate([ones, odd]))), math.pi)
        over = np.polynomial.Polynomial([1.0, self.k1, self.k2, self.k3])
        under = np.polynomial.Polynomial([1.0, self.k4, self.k5, self.k6])
        s = np.polynomial.Polynomial([0.0, 2.0])
        # of d(r over / under)/dr, times under^2
        slope = over * under + s * (over.deriv() * under - over * under.deriv())
        # short of a pole, so that the distorted radius there is huge and no infinity of either sign
        pole = _first_root(under.coef) * (1 - 1e-5)
        return math.sqrt(min(_first_root(slope.coef), pole))

    def scaled(self, width: int, height: int) -> "Lens":
        """Return the lens of the same photo resampled to another size."""
        x, y = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * x,
            fy=self.fy * y,
            cx=self.cx * x,
            cy=self.cy * y,
        )

    def project(self, points: Any) -> np.ndarray:
        """Return where the picture shows points.

        Args:
            points: [n, 3] in the camera's axes, at any distance.

        Returns:
            float64 [n, 2], pixels from the top left edge; NaN for points behind a perspective
            lens or beyond the fold of its distortion.
        """
        x, y, z = _columns("points", points, 3).T
        y, z = -y, -z
        side = np.hypot(x, y)
        with np.errstate(all="ignore"):
            if self.fisheye:
                theta = np.arctan2(side, z)
                scale = np.where(side > 0, self._radial(theta)[0] / side, 0.0)
                image, seen = (x * scale, y * scale), theta <= self.limit
            else:
                image, seen = self._distort(x / z, y / z), (z > 0) & (side <= self.limit * z)
        pixels = np.stack([self.fx * image[0] + self.cx, self.fy * image[1] + self.cy], axis=1)
        return np.where(seen[:, None], pixels, np.nan)

    def unproject(self, pixels: Any) -> np.ndarray:
        """Return the directions of places in the picture.

        Args:
            pixels: [n, 2], from the top left edge; a pixel's centre is at its index + 0.5.

        Returns:
            float64 [n, 3], unit vectors in the camera's axes; NaN where the distortion has no
            inverse.
        """
        u, v = _columns("pixels", pixels, 2).T
        x, y = (u - self.cx) / self.fx, (v - self.cy) / self.fy
        with np.errstate(all="ignore"):
            if self.fisheye:
                distorted = np.hypot(x, y)
                theta = self._undistort_radius(distorted)
                scale = np.where(distorted > 0, np.sin(theta) / distorted, 1.0)
                local = np.stack([scale * x, -scale * y, -np.cos(theta)], axis=1)
            else:
                x, y = self._undistort(x, y)
                local = np.stack([x, -y, np.full_like(x, -1.0)], axis=1)
            return local / np.linalg.norm(local, axis=1, keepdims=True)

    def _radial(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distorted radius or angle, and its derivative."""
        s = r * r
        k1, k2, k3, k4, k5, k6, _, _ = self.coefficients
        if self.fisheye:
            value = 1 + s * (k1 + s * (k2 + s * (k3 + s * k4)))
            return r * value, 1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4)))
        under = 1 + s * (k4 + s * (k5 + s * k6))
        q = (1 + s * (k1 + s * (k2 + s * k3))) / under
        slope = k1 + s * (2 * k2 + s * 3 * k3) - q * (k4 + s * (2 * k5 + s * 3 * k6))
        return r * q, q + 2 * s * slope / under

    def _distort(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        s = x * x + y * y
        k1, k2, k3, k4, k5, k6, p1, p2 = self.coefficients
        q = (1 + s * (k1 + s * (k2 + s * k3))) / (1 + s * (k4 + s * (k5 + s * k6)))
        return (
            q * x + 2 * p1 * x * y + p2 * (s + 2 * x * x),
            q * y + p1 * (s + 2 * y * y) + 2 * p2 * x * y,
        )

    def _jacobian(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return dx'/dx, dx'/dy = dy'/dx and dy'/dy."""
        s = x * x + y * y
        k1, k2, k3, k4, k5, k6, p1, p2 = self.coefficients
        under = 1 + s * (k4 + s * (k5 + s * k6))
        q = (1 + s * (k1 + s * (k2 + s * k3))) / under
        slope = k1 + s * (2 * k2 + s * 3 * k3) - q * (k4 + s * (2 * k5 + s * 3 * k6))
        d = 2 * slope / under
        cross = d * x * y + 2 * (p1 * x + p2 * y)
        return (
            q + d * x * x + 2 * p1 * y + 6 * p2 * x,
            cross,
            q + d * y * y + 6 * p1 * y + 2 * p2 * x,
        )

    def _undistort_radius(self, distorted: np.ndarray) -> np.ndarray:
        """Invert ``_radial``: Newton between bounds that close in; NaN: there is no inverse."""
        low, high = np.zeros_like(distorted), np.full_like(distorted, self.limit)
        beyond = np.zeros(distorted.shape, bool)
        if math.isfinite(self.limit):
            beyond = self._radial(high)[0] < distorted
        else:
            high = distorted.copy()
            while np.any(short := self._radial(high)[0] < distorted):
                high = np.where(short, 2 * high, high)
        r = np.clip(distorted, low, high)
        for _ in range(_MAX_ITERATIONS):
            value, slope = self._radial(r)
            error = value - distorted
            high, low = np.where(error > 0, r, high), np.where(error > 0, low, r)
            following = r - error / slope
            inside = (following >= low) & (following <= high)
            following = np.where(inside, following, (low + high) / 2)
            done = np.abs(following - r) <= _EPSILON * r
            r = following
            if np.all(done | beyond):
                break
        return np.where(beyond, np.nan, r)

    def _undistort(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Invert ``_distort``; NaN where there is no inverse."""
        if self.model == kernels.PINHOLE:
            return x, y
        distorted = np.hypot(x, y)
        r = self._undistort_radius(distorted)
        if self.model == kernels.TANGENTIAL:
            # tangential distortion may still reach where the radial one does not
            r = np.where(np.isnan(r), 0.999 * self.limit, r)
        scale = np.where(distorted > 0, r / distorted, 1.0)
        p, q = scale * x, scale * y
        if self.model != kernels.TANGENTIAL:
            return p, q
        for _ in range(_MAX_ITERATIONS):
            a, b, d = self._jacobian(p, q)
            det = a * d - b * b
            e, f = (v - w for v, w in zip(self._distort(p, q), (x, y), strict=True))
            step = np.where(det > 0, [(d * e - b * f) / det, (a * f - b * e) / det], np.nan)
            p, q = p - step[0], q - step[1]
            if not np.any(np.hypot(*step) > _EPSILON * np.hypot(p, q)):
                break
        a, b, d = self._jacobian(p, q)
        error = np.hypot(*(v - w for v, w in zip(self._distort(p, q), (x, y), strict=True)))
        valid = (a * d - b * b > 0) & (np.hypot(p, q) <= self.limit)
        valid &= error <= 1e-10 * (1 + distorted)
        return np.where(valid, p, np.nan), np.where(valid, q, np.nan)


def lens_table(lenses: Sequence[Lens]) -> np.ndarray:
    """Return what kernels/lens.py reads: float32 [n, 16]."""
    table = np.zeros((len(lenses), kernels.N_LENS), np.float32)
    for row, lens in zip(table, lenses, strict=True):
        row[: kernels.K1] = lens.fx, lens.fy, lens.cx, lens.cy
        row[kernels.K1 : kernels.MODEL] = lens.coefficients
        row[kernels.MODEL] = lens.model
        row[kernels.LIMIT] = min(lens.limit, kernels.UNLIMITED)
        row[kernels.WIDTH], row[kernels.HEIGHT] = lens.width, lens.height
    return table


def _first_root(coefficients: np.ndarray) -> float:
    """Return the smallest positive root of a polynomial that is 1 at 0; infinite: none."""
    largest = np.abs(coefficients).max()
    kept = np.trim_zeros(np.where(np.abs(coefficients) > 1e-14 * largest, coefficients, 0.0), "b")
    roots = np.polynomial.polynomial.polyroots(kept)
    # a double root, where the slope only touches zero, comes as a pair beside the axis
    real = roots[np.abs(roots.imag) <= 1e-6 * np.abs(roots)].real
    return float(min(real[real > 0], default=math.inf))


def _columns(name: str, values: Any, n: int) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or array.shape[1] != n:
        raise ShapeError(f"{name} must have shape [n, {n}], got {list(array.shape)}")
    return array
