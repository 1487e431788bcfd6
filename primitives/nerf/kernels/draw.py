"""Drawing a training batch: pixels of the photos, and the rays through them.

Two kernels, because reads of the photos miss every cache: the first one chooses the pixels and asks
for their cache lines, so that the misses overlap. Not differentiable here; the derivatives by
cameras and environment are kernels/refine.py and kernels/environment.py. Twin:
tests/reference/draw.py.
"""

import functools
from typing import Literal

import warp as wp

from ngp_warp.kernels.lens import load_lens, unproject
from ngp_warp.kernels.random import mix, random_bits, random_key, random_unit
from ngp_warp.launch import module_options
from ngp_warp.primitives.nerf.kernels.environment import environment_function

wp.set_module_options(module_options())

Background = Literal["random", "fixed", "environment"]

# Streams of random numbers of one seed and step: no other draws from these
STREAM = 0x52415953
_STREAM = wp.constant(wp.uint32(STREAM))
_WORD = wp.constant(wp.uint64(0xFFFFFFFF))


@wp.func
def draw_key(seed: int, step: wp.int64) -> wp.uint32:
    """Return the key of a batch: for its pixels and jitters; mixed once more, for backgrounds."""
    return mix(random_key(seed, step) ^ _STREAM)


@wp.func
def random_index(high: wp.uint32, low: wp.uint32, n: wp.int64) -> wp.int64:
    """Return floor(n (high 2^32 + low) / 2^64), exactly."""
    a, b = wp.uint64(high), wp.uint64(low)
    n_high, n_low = wp.uint64(n) >> wp.uint64(32), wp.uint64(n) & _WORD
    left, right = a * n_low, b * n_high
    carry = (left & _WORD) + (right & _WORD) + ((b * n_low) >> wp.uint64(32))
    whole = a * n_high + (left >> wp.uint64(32)) + (right >> wp.uint64(32))
    return wp.int64(whole + (carry >> wp.uint64(32)))


@wp.func
def view_of(offsets: wp.array(dtype=wp.int64), index: wp.int64) -> int:
    """Return the view that pixel ``index`` of all belongs to: offsets[v] <= index."""
    low = wp.int32(0)
    high = offsets.shape[0] - 1
    while high - low > 1:
        middle = (low + high) / 2
        if offsets[middle] <= index:
            low = middle
        else:
            high = middle
    return low


@wp.func
def in_middle(place: int, n: int) -> int:
    """Return the place in the middle half of n that stands for ``place`` of all."""
    return n / 4 + place / 2


@functools.cache
def pick_kernel(dtype: type, masks: bool, depths: bool) -> wp.Kernel:
    """Return the kernel that draws pixels, and asks for what ``ray_kernel`` reads of them."""
    pixel_type = wp.array[dtype]
    others = "__builtin_prefetch(mask.data + i);" if masks else ""
    others += "__builtin_prefetch(depth.data + i);" if depths else ""
    text = f"""
#ifndef __CUDA_ARCH__
const size_t i = (size_t)index;
__builtin_prefetch(pixels.data + i * 4);
{others}
#endif
"""

    @wp.func_native(text)
    def prefetch(
        pixels: pixel_type, mask: wp.array[wp.uint8], depth: wp.array[float], index: wp.int64
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def pick_pixels(
        begin: int,
        # in
        pixels: pixel_type,  # [n_pixels, 4]
        mask: wp.array[wp.uint8],  # [n_pixels] or empty
        depth: wp.array[float],  # [n_pixels] or empty
        offsets: wp.array[wp.int64],  # [n_views + 1]
        sizes: wp.array[int],  # [n_views, 2]
        seed: int,
        step: wp.array[wp.int64],  # [1]
        crop_steps: wp.int64,
        count: wp.array[int],  # [1]
        # out
        view: wp.array[int],  # [n]
        pixel: wp.array[int],  # [n, 2]: column and row
    ):
        """Each ray a pixel of all photos, each pixel alike; of their middles in the first steps."""
        ray = begin + wp.tid()
        if ray >= count[0]:
            return
        key = draw_key(seed, step[0])
        n = offsets[offsets.shape[0] - 1]
        index = random_index(random_bits(key, ray, 0), random_bits(key, ray, 1), n)
        v = view_of(offsets, index)
        place = int(index - offsets[v])
        width = sizes[v * 2]
        x, y = place % width, place / width
        if step[0] <= crop_steps:
            x, y = in_middle(x, width), in_middle(y, sizes[v * 2 + 1])
            index = offsets[v] + wp.int64(y) * wp.int64(width) + wp.int64(x)
        prefetch(pixels, mask, depth, index)
        view[ray] = v
        pixel[ray * 2] = x
        pixel[ray * 2 + 1] = y

    return pick_pixels


@functools.cache
def ray_kernel(
    dtype: type, masks: bool, depths: bool, mode: Background, color_space: str, exposed: bool
) -> wp.Kernel:
    """Return the kernel of the rays through drawn pixels: uint8 (of 255) or float16."""
    lookup = environment_function(color_space)
    pixel_type = wp.array[dtype]
    scale = "(1.f / 255.f) * " if dtype is wp.uint8 else ""

    # in 64 bits, which Warp's own indices have not
    @wp.func_native(f"return {scale}(float)pixels.data[(size_t)index * 4 + channel];")
    def value_at(pixels: pixel_type, index: wp.int64, channel: int) -> float: ...

    @wp.func_native(f"return {'mask.data[(size_t)index] != 0' if masks else 'true'};")
    def mask_at(mask: wp.array[wp.uint8], index: wp.int64) -> bool: ...

    @wp.func_native(f"return {'depth.data[(size_t)index]' if depths else '0.f'};")
    def depth_at(depth: wp.array[float], index: wp.int64) -> float: ...

    @wp.kernel(module="unique", module_options=module_options())
    def make_rays(
        begin: int,
        # in
        pixels: pixel_type,  # [n_pixels, 4]; not premultiplied
        mask: wp.array[wp.uint8],  # [n_pixels] or empty
        depth: wp.array[float],  # [n_pixels] or empty: along the optical axis, scene units
        offsets: wp.array[wp.int64],  # [n_views + 1]
        sizes: wp.array[int],  # [n_views, 2]
        poses: wp.array[float],  # [n_views, 3, 4]: camera to box
        lenses: wp.array[float],  # [n_views, N_LENS]
        exposures: wp.array[float],  # [n_views, 3] or empty
        depth_scale: float,  # from scene units to the box
        seed: int,
        step: wp.array[wp.int64],  # [1]
        count: wp.array[int],  # [1]
        fixed: wp.vec3,  # background
        texels: wp.array[float],  # [height, width, 4], or empty: the environment
        width: int,
        height: int,
        view: wp.array[int],  # [n]
        pixel: wp.array[int],  # [n, 2]
        # out
        alpha: wp.array[float],  # [n]
        target: wp.array[float],  # [n, 3]
        weight: wp.array[float],  # [n]
        depth_target: wp.array[float],  # [n]
        origin: wp.array[float],  # [n, 3]
        direction: wp.array[float],  # [n, 3]
        jitter: wp.array[float],  # [n]
        background: wp.array[float],  # [n, 3]
        exposure: wp.array[float],  # [n, 3] or empty
    ):
        """d = R lens^-1(pixel centre), o = the camera; target = a colour + (1 - a) background."""
        ray = begin + wp.tid()
        if ray >= count[0]:
            return
        key = draw_key(seed, step[0])
        jitter[ray] = random_unit(key, ray, 2)
        v = view[ray]
        x, y = pixel[ray * 2], pixel[ray * 2 + 1]
        index = offsets[v] + wp.int64(y) * wp.int64(sizes[v * 2]) + wp.int64(x)
        local = unproject(load_lens(lenses, v), float(x) + 0.5, float(y) + 0.5)
        w = float(1.0)
        if not mask_at(mask, index):
            w = 0.0
        if wp.dot(local, local) == 0.0:
            w = 0.0
            local = wp.vec3(0.0, 0.0, -1.0)
        weight[ray] = w
        distance = float(0.0)
        if local[2] < 0.0:
            distance = -depth_at(depth, index) * depth_scale / local[2]
        depth_target[ray] = distance
        d = wp.vec3()
        for i in range(3):
            at = v * 12 + i * 4
            d[i] = poses[at] * local[0] + poses[at + 1] * local[1] + poses[at + 2] * local[2]
            origin[ray * 3 + i] = poses[at + 3]
            direction[ray * 3 + i] = d[i]
        b = fixed
        if wp.static(mode == "random"):
            other = mix(key)
            for c in range(3):
                b[c] = random_unit(other, ray, c)
        if wp.static(mode == "environment"):
            b = lookup(texels, width, height, d)
        a = value_at(pixels, index, 3)
        alpha[ray] = a
        for c in range(3):
            background[ray * 3 + c] = b[c]
            target[ray * 3 + c] = a * value_at(pixels, index, c) + (1.0 - a) * b[c]
            if wp.static(exposed):
                exposure[ray * 3 + c] = exposures[v * 3 + c]

    return make_rays
