"""A radiance field that is exact: a medium's density, and one radiance everywhere."""

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import GridEncodingConfig
from ngp_warp.primitives.volume.config import VolumeConfig, resolve
from ngp_warp.primitives.volume.frame import Frame
from ngp_warp.primitives.volume.kernels.fields import DenseField, dense_density
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.radiance_field import RadianceField


@wp.kernel(module="unique", enable_backward=False)
def exact_values(
    begin: int,
    # in
    field: DenseField,
    side: float,
    gain: float,
    radiance: wp.vec3,
    x: wp.array[float],  # [n_blocks, 3, 32], in the unit cube
    # out
    y: wp.array[float],  # [n_blocks, 4, 32]
):
    i = begin + wp.tid()
    p = wp.vec3()
    for a in range(3):
        p[a] = x[((i / 32) * 3 + a) * 32 + i % 32] * side - 0.5
        y[((i / 32) * 4 + a) * 32 + i % 32] = radiance[a]
    y[((i / 32) * 4 + 3) * 32 + i % 32] = dense_density(field, p) * gain


class ExactField(RadianceField):
    """The medium of some densities, which shines alike everywhere.

    Args:
        values: densities [x, y, z].
        to_world: [4, 4], index to world.
        radiance: [3].
        density_scale: extinction of density 1.
        times: the field's densities are so many times the medium's, its majorants are not.
        device: "cpu" or a CUDA device.
    """

    def __init__(self, values, to_world, radiance, *, density_scale, times=1.0, device):
        self.medium = Medium.from_values(
            values, to_world, density_scale=density_scale, device=device
        )
        config = VolumeConfig(
            mode="radiance",
            density_scale=density_scale,
            encoding=GridEncodingConfig(n_levels=2, log2_hashmap_size=10),
        )
        config = resolve(config, max(values.shape) + 2, values.size, device)
        frame = Frame(values.shape, (0, 0, 0), np.asarray(to_world, np.float64), 1)
        super().__init__(frame, config, device, trainable=False)
        self.majorants.assign(self.medium.majorants)
        self.radiance, self.times = radiance, times

    def evaluation_stages(self, x, y):
        args = [self.medium.data, float(self.frame.side), self.times * self.density_gain]
        args += [wp.vec3(*self.radiance), x, y]
        return [[launch.record(exact_values, x.size // 3, args, self.device)]]
