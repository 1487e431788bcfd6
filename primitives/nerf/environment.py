"""A trained picture of everything outside the box, by direction: the background of the rays.

Equirectangular, with the box's +z axis as its pole (kernels/environment.py).
"""

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import OptimizerConfig, check_range
from ngp_warp.errors import ShapeError
from ngp_warp.kernels.grid import GROUP
from ngp_warp.optimizer import Adam, Parameters, make_table
from ngp_warp.primitives.nerf.draw import Draw
from ngp_warp.primitives.nerf.kernels import environment as kernels
from ngp_warp.radiance.batch import RayBatch
from ngp_warp.radiance.settings import ColorSpace

WIDTH, HEIGHT = 512, 256
"""Texels of a whole turn, and from pole to pole: 0.7 degrees each."""

_ITEMS = 32


class Environment:
    """The map, and its launches.

    Args:
        color_space: of its colours: srgb, in (0, 1), or linear, above 0.
        device: "cpu" or a CUDA device.
        size: width and height in texels; their product is a multiple of 4.
        optimizer: settings of its Adam.
        trainable: keep gradients and moments.

    Raises:
        ConfigError: a size out of range.
    """

    texels: Parameters
    """float32 [height * width * 4] before the activation; the fourth of each is not used."""

    def __init__(
        self,
        color_space: ColorSpace,
        device: str,
        *,
        size: tuple[int, int] = (WIDTH, HEIGHT),
        optimizer: OptimizerConfig | None = None,
        trainable: bool = True,
    ):
        check_range("the environment's width", size[0], GROUP, 2**14)
        check_range("the environment's height", size[1], 1, 2**14)
        self.color_space, self.device, self.size = color_space, device, size
        # a step of Adam is at most a hundredth of the logistic's slope
        self.optimizer = optimizer or OptimizerConfig(learning_rate=2e-2)
        n = size[0] // GROUP * GROUP * size[1] * 4
        self.size = (size[0] // GROUP * GROUP, size[1])
        self.texels = make_table(
            np.zeros(n),
            4,
            self.optimizer,
            device,
            fixed_point=device != "cpu",
            trainable=trainable,
        )

    def parameters(self) -> dict[str, Parameters]:
        """Return what is trained."""
        return {"environment": self.texels}

    def __call__(self, directions: np.ndarray) -> np.ndarray:
        """Return ``colors``."""
        return self.colors(directions)

    def colors(self, directions: np.ndarray) -> np.ndarray:
        """Return the colours in directions [n, 3] of the box, float32 [n, 3].

        Raises:
            ShapeError: another shape.
        """
        directions = np.asarray(directions, np.float32)
        if directions.ndim != 2 or directions.shape[1] != 3:
            raise ShapeError(f"directions must have shape [n, 3], got {list(directions.shape)}")
        given = wp.array(directions.ravel(), dtype=wp.float32, device=self.device)
        found = wp.zeros(directions.size, dtype=wp.float32, device=self.device)
        self.lookup(given, found).run()
        return found.numpy().reshape(-1, 3)

    def lookup(self, directions: wp.array, colors: wp.array) -> launch.Launch:
        """Record: the colours, flat [n * 3], in directions, flat [n * 3]."""
        kernel = kernels.lookup_kernel(self.color_space)
        args = [self.texels.value, *self.size, directions, colors]
        return launch.record(kernel, directions.size // 3, args, self.device)

    def stages_after(self, batch: RayBatch, draw: Draw, leader: Adam) -> list[list[launch.Launch]]:
        """Record the gradient and the step; after the batch's gradients.

        Args:
            batch: with ``d_background``; it was drawn with this environment.
            draw: how.
            leader: the field's optimizer, whose step counts here too.

        Raises:
            ShapeError: the batch lacks the gradient.
        """
        n = batch.capacity
        launch.check_size("the batch's d_background", batch.d_background, n * 3, self.device)
        row = wp.zeros(n, dtype=wp.int32, device=self.device)
        args = [batch.direction, draw.alpha, batch.weight, batch.count, *self.size, row]
        rows = launch.record(kernels.row_kernel, n, args, self.device)
        cuda = self.device != "cpu"
        rows_per_item = -(-self.size[1] // _ITEMS)
        n_items = n if cuda else -(-self.size[1] // rows_per_item)
        args = [batch.direction, batch.d_background, row, n, *self.size, self.texels.value]
        args += [rows_per_item, self.texels.gradient, self.texels.touched]
        kernel = kernels.backward_kernel(self.color_space, cuda)
        backward = launch.record(kernel, n_items, args, self.device)
        adam = Adam(self.optimizer, [self.texels], self.device, leader=leader)
        return [[rows, adam.advance()], [backward], *adam.update()]
