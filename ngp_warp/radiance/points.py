"""Densities and colours of a radiance field at points, for any number of them."""

from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ShapeError
from ngp_warp.kernels import layout
from ngp_warp.kernels import spherical_harmonics as harmonics
from ngp_warp.launch import Stages
from ngp_warp.optimizer import Parameters
from ngp_warp.radiance.marching import part
from ngp_warp.radiance.settings import N_DIRECTION, N_GEOMETRY, RadianceSettings
from ngp_warp.radiance.staged import make_networks

CAPACITY = 2**16
"""Points of one pass, a multiple of 32."""
_N_BANDS = 4


class PointQuery:
    """Evaluates points pass by pass.

    Args:
        settings: of the field.
        backend: records the density network.
        weights: of both networks.
        n_features: of the encoding.
        device: "cpu" or a CUDA device.
    """

    def __init__(
        self,
        settings: RadianceSettings,
        backend: Any,
        weights: Parameters,
        n_features: int,
        device: str,
    ):
        self.settings, self.device = settings, device
        self._points, self._density = self._zeros(3), self._zeros(1)
        self._geometry = self._zeros(N_GEOMETRY)
        self._count = wp.array([CAPACITY], dtype=wp.int32, device=device)
        self._stages: Stages = backend.density(
            self._points, self._density, self._count, self._geometry
        )
        density, self._color_network = make_networks(settings, n_features, device)
        self._color_weights = part(weights.value, density.n_params, weights.value.size)

    def _zeros(self, n_rows: int) -> wp.array:
        return wp.zeros(CAPACITY * n_rows, dtype=wp.float32, device=self.device)

    def density(self, points: np.ndarray) -> np.ndarray:
        """See ``RadianceField.density``."""
        _check("points", points, len(points))
        values = np.empty(len(points), np.float32)
        for begin in range(0, len(points), CAPACITY):
            n = self._evaluate(points[begin : begin + CAPACITY])
            values[begin : begin + n] = self._density.numpy()[:n]
        return values

    def color(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """See ``RadianceField.color``."""
        _check("points", points, len(points))
        _check("directions", directions, len(points))
        colors = np.empty((len(points), 3), np.float32)
        n_rows = N_GEOMETRY + N_DIRECTION + self.settings.n_latent_dims
        inputs, rgb = self._zeros(n_rows), self._zeros(3)
        passes = self._color_network.forward(self._color_weights, inputs, rgb)
        for begin in range(0, len(points), CAPACITY):
            n = self._evaluate(points[begin : begin + CAPACITY])
            rows = np.zeros((CAPACITY // 32, n_rows, 32), np.float32)
            rows[:, :N_GEOMETRY] = self._geometry.numpy().reshape(-1, N_GEOMETRY, 32)
            sh = self._harmonics(directions[begin : begin + n])
            rows[:, N_GEOMETRY : N_GEOMETRY + N_DIRECTION] = sh.transpose(0, 2, 1)
            inputs.assign(rows.reshape(-1))
            for item in passes:
                item.run()
            colors[begin : begin + n] = _unblocked(rgb, 3)[:n]
        return colors

    def _evaluate(self, points: np.ndarray) -> int:
        """Set densities and geometry of points; return their number."""
        n = len(points)
        source = wp.array(np.ascontiguousarray(points, np.float32), device=self.device)
        launch.launch(layout.to_blocked, -(-n // 32) * 32, [source, 3, self._points], self.device)
        self._count.fill_(n)
        launch.run_stages(self._stages)
        return n

    def _harmonics(self, directions: np.ndarray) -> np.ndarray:
        """Return the harmonics of directions, [CAPACITY / 32, 32, N_DIRECTION]."""
        n = len(directions)
        flat = np.ascontiguousarray(directions, np.float32).reshape(-1)
        rows = self._zeros(N_DIRECTION)
        args = [wp.array(flat, device=self.device)]
        args += [wp.array(harmonics.norms(), device=self.device), _N_BANDS, None, rows]
        launch.launch(harmonics.harmonics_kernel, n, args, self.device)
        return rows.numpy().reshape(-1, 32, N_DIRECTION)


def _check(name: str, array: np.ndarray, n: int) -> None:
    if array.shape != (n, 3):
        raise ShapeError(f"{name} must have shape [{n}, 3], got {list(array.shape)}")


def _unblocked(blocked: wp.array, n_rows: int) -> np.ndarray:
    """Return [n, n_rows]."""
    return blocked.numpy().reshape(-1, n_rows, 32).transpose(0, 2, 1).reshape(-1, n_rows)
