"""Grids behind the interface of all encodings."""

from typing import Any

import numpy as np
import warp as wp

from ngp_warp.config import GridEncodingConfig
from ngp_warp.encodings.encoding import check_rows
from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.encodings.grid_slopes import GridSlopes
from ngp_warp.errors import ConfigError
from ngp_warp.launch import Launch
from ngp_warp.tcnn_names import HASH


class GridFeatures:
    """A hash, dense or tiled grid of one or several levels; parameters are its table.

    Positions are clamped to the unit cube (NaN to 0); outside, gradients in x are those of the
    nearest cell.
    The flags that tell an optimizer which entries have gradients are scratch here.

    Args:
        n_dims: 2 or 3 (tiny-cuda-nn also has 4).
        config: resolved (see ``grid.resolve``), with a float32 table.
        device: "cpu" or a CUDA device.
        backend: as in ``GridEncoding``.

    Raises:
        ConfigError: other dimensions, a float16 or a quantized table.
    """

    def __init__(self, n_dims: int, config: GridEncodingConfig, device: str, backend: str = "auto"):
        if config.half:
            raise ConfigError("an encoding's parameters are float32, got a float16 table")
        self.grid = GridEncoding(n_dims, config, device, backend)
        vectors = self.grid.backend == "vector" and config.interpolation != "nearest"
        self._slopes = GridSlopes(self.grid) if vectors else None
        self.config = config
        self.n_dims = n_dims
        self.n_outputs = self.grid.n_outputs
        self.n_params = self.grid.n_params
        self.device = device

    def initial_params(self, seed: int) -> np.ndarray:
        """Return float32 [n_params], uniform in +-1e-4 (Mueller et al. 2022, section 4)."""
        return self.grid.initial_table(seed)

    def forward(self, x: wp.array, params: wp.array | None, y: wp.array) -> list[Launch]:
        """Record y = interpolated entries."""
        check_rows(self, x=x, params=params, y=y)
        return [self.grid.forward(x, self._table(params), y, self.n_outputs)]

    def backward(
        self,
        x: wp.array,
        params: wp.array | None,
        dy: wp.array,
        *,
        dx: wp.array | None = None,
        d_params: wp.array | None = None,
    ) -> list[Launch]:
        """Record the gradients in x and the table."""
        check_rows(self, x=x, params=params, dy=dy, dx=dx, d_params=d_params)
        launches = []
        if d_params is not None:
            flags = self.grid.make_flags()
            launches.append(self.grid.backward(x, dy, d_params, flags, self.n_outputs))
        if dx is not None:
            table = self._table(params)
            if self._slopes:
                launches += self._slopes.input_gradient(x, table, dy, dx)
            else:
                launches.append(self.grid.input_gradient(x, dy, table, dx, self.n_outputs))
        return launches

    def second_order(
        self,
        x: wp.array,
        params: wp.array | None,
        dy: wp.array,
        v: wp.array,
        *,
        d_dy: wp.array | None,
        dx: wp.array | None,
        d_params: wp.array | None,
    ) -> list[Launch]:
        """Record the gradients of <v, dx>."""
        check_rows(self, x=x, params=params, dy=dy, v=v, d_dy=d_dy, dx=dx, d_params=d_params)
        table = self._table(params)
        args = x, dy, v, table, self.n_outputs
        if self._slopes:
            launches = self.grid.second_order_positions(*args, dx)
            if d_dy is not None:
                launches += self._slopes.tangent(x, table, v, d_dy)
            if d_params is not None:
                launches.append(self._slopes.table_gradient(x, dy, v, d_params))
            return launches
        if d_dy is None and d_params is None:
            return self.grid.second_order_positions(*args, dx)
        # one kernel makes both: what is not wanted is scratch
        return self.grid.second_order(
            *args,
            dd_out=wp.empty_like(dy) if d_dy is None else d_dy,
            d_table=self._zeros() if d_params is None else d_params,
            touched=self.grid.make_flags(),
            ddx=dx,
        )

    def hyperparams(self) -> dict[str, Any]:
        """Return the settings in tiny-cuda-nn's JSON form."""
        config = self.config
        settings = {
            "otype": "Grid",
            "type": config.grid_type.capitalize(),
            "n_levels": self.grid.n_levels,
            "n_features_per_level": self.grid.n_features,
            "base_resolution": config.base_resolution,
            "per_level_scale": config.per_level_scale,
            "interpolation": config.interpolation.capitalize(),
            "hash": HASH,
        }
        if config.grid_type == "hash":
            settings["log2_hashmap_size"] = config.log2_hashmap_size
        return settings

    def _table(self, params: wp.array | None) -> wp.array:
        assert params is not None  # check_rows has looked
        return params

    def _zeros(self) -> wp.array:
        return wp.zeros(self.n_params, dtype=float, device=self.device)
