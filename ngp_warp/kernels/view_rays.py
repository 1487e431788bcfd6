"""The rays of a view, and what they have found as a picture, without a ray on the host.

A pass takes some of the pixels of a window, or some samples of listed pixels; the number of a ray
among all of these is its item. A window's items go through strips of a few rows, column by column,
so that neighbours share cells. Not differentiable. Twin: tests/reference/view_rays.py, in float64.

A view is ``N_VIEW`` float32: the lens's row (kernels/lens.py), the pose (camera to box, 3 rows of
4), the distance at which rays begin, the picture's units of depth in a side of the box, and the
background's colour. A window is ``N_WINDOW`` int32: the pass's first item, left column, top row,
columns, rows, rows of a strip, and samples of a listed pixel (0: nothing is listed).
"""

import warp as wp

from ngp_warp.kernels.lens import N_LENS, load_lens, unproject
from ngp_warp.launch import module_options

wp.set_module_options(module_options())

N_VIEW, N_WINDOW = N_LENS + 17, 7
SEEN = 1e-3
"""Opacity below which a depth would be noise over noise."""

_POSE, _BEGIN = wp.constant(N_LENS), wp.constant(N_LENS + 12)
_UNIT, _COLOR = wp.constant(N_LENS + 13), wp.constant(N_LENS + 14)
_SEEN = wp.constant(SEEN)


@wp.func
def window_place(window: wp.array(dtype=int), item: int):
    """Return the column and row in the window of an item."""
    columns, strip = window[3], window[5]
    top = item / (columns * strip) * strip
    height = wp.min(strip, window[4] - top)
    at = item - top * columns
    return at / height, top + at % height


@wp.kernel
def ray_kernel(
    begin: int,
    # in
    view: wp.array[float],  # [N_VIEW]
    window: wp.array[int],  # [N_WINDOW]
    listed: wp.array[int],  # [n, 2]: column and row of pixels, if they are listed
    offsets: wp.array[float],  # [samples, 2]: places in a listed pixel
    count: wp.array[int],  # [1]
    # out
    origin: wp.array[float],  # [n, 3]
    direction: wp.array[float],  # [n, 3]
    weight: wp.array[float],  # [n]: 0 where the lens has no ray
    background: wp.array[float],  # [n, 3]
):
    """d = R lens^-1(place), o = the camera + begin d."""
    ray = begin + wp.tid()
    if ray >= count[0]:
        return
    item = window[0] + ray
    u, v = float(0.5), float(0.5)
    samples = window[6]
    if samples > 0:
        pixel, sample = item / samples, item % samples
        u = float(listed[pixel * 2]) + offsets[sample * 2]
        v = float(listed[pixel * 2 + 1]) + offsets[sample * 2 + 1]
    else:
        column, row = window_place(window, item)
        u += float(window[1] + column)
        v += float(window[2] + row)
    local = unproject(load_lens(view, 0), u, v)
    exists = wp.dot(local, local) > 0.0
    if not exists:
        local = wp.vec3(0.0, 0.0, -1.0)
    weight[ray] = wp.where(exists, 1.0, 0.0)
    for i in range(3):
        at = _POSE + i * 4
        d = view[at] * local[0] + view[at + 1] * local[1] + view[at + 2] * local[2]
        direction[ray * 3 + i] = d
        origin[ray * 3 + i] = view[at + 3] + view[_BEGIN] * d
        background[ray * 3 + i] = view[_COLOR + i]


@wp.kernel
def picture_kernel(
    begin: int,
    # in
    view: wp.array[float],  # [N_VIEW]
    window: wp.array[int],  # [N_WINDOW]
    count: wp.array[int],  # [1]
    direction: wp.array[float],  # [n, 3]
    weight: wp.array[float],  # [n]
    n_samples: wp.array[int],  # [n]; -1: the ray must be rendered again
    color: wp.array[float],  # [n, 3]
    opacity: wp.array[float],  # [n]
    depth: wp.array[float],  # [n]: sum of weight times distance
    # out
    shown: wp.array[float],  # [pixels, 3]
    shown_opacity: wp.array[float],  # [pixels]
    shown_depth: wp.array[float],  # [pixels]: expected, along the optical axis
):
    """The window row by row, or samples as listed: z = (depth / opacity + begin) d . forward.

    Where the lens has no ray all is 0; where the field is transparent z is infinite.
    """
    ray = begin + wp.tid()
    if ray >= count[0]:
        return
    if n_samples[ray] < 0:
        return
    at = ray
    if window[6] == 0:
        column, row = window_place(window, window[0] + ray)
        at = row * window[3] + column
    exists = weight[ray] > 0.0
    alpha = wp.where(exists, opacity[ray], 0.0)
    along = float(0.0)
    for i in range(3):
        along -= view[_POSE + i * 4 + 2] * direction[ray * 3 + i]
        shown[at * 3 + i] = wp.where(exists, color[ray * 3 + i], 0.0)
    shown_opacity[at] = alpha
    z = float(wp.inf)
    if alpha > _SEEN:
        z = (depth[ray] / alpha + view[_BEGIN]) * along * view[_UNIT]
    shown_depth[at] = z
