"""The occupancy grid's update: a slice of the cells each step, and the bits that marching reads.

Source: Mueller et al. 2022, appendix E.2, with slices instead of an update every 16 steps. Not
differentiable. Twin: tests/reference/occupancy.py.

A slice holds cells of one x per cascade. Eight neighbours along x share a byte of the bits and two
slices of one update lie 64 cells apart, so that an item of ``bits_kernel`` owns its byte.
"""

import warp as wp

from ngp_warp.kernels.lanes import lane_sum, lane_sum_int, n_lanes
from ngp_warp.kernels.random import random_key, random_unit
from ngp_warp.launch import module_options

wp.set_module_options(module_options())

EARLY_STEPS = 256
"""Steps in which two slices are updated instead of one: the field changes fast."""
CHUNKS, CHUNKS_CUDA = 128, 512
"""Parts of a slice, each summed by itself: fixed, so that sums do not depend on threads.

On CUDA a lane has one cell of a part, or one for each cascade."""
MAX_THRESHOLD = 0.01
"""Optical thickness of the shortest step above which a cell is occupied at any mean."""
MEAN_SHARE = 0.5
"""Share of the mean that is enough: at the start all cells are alike, and above the mean itself
would be a random half of them."""

_EARLY = wp.constant(EARLY_STEPS)
_MAX_THRESHOLD = wp.constant(MAX_THRESHOLD)
_MEAN_SHARE = wp.constant(MEAN_SHARE)
_CELLS = wp.constant(128)
_CUBE = wp.constant(128 * 128 * 128)
_COARSE = wp.constant(16)
_COARSE_CUBE = wp.constant(16 * 16 * 16)


@wp.func
def is_occupied(bits: wp.array[wp.uint8], cell: int):
    """Whether a cell's bit is set."""
    return (int(bits[cell / 8]) >> (cell % 8)) & 1


@wp.func_native("""
const auto* cells = bits.data + first;
#ifdef __CUDA_ARCH__
const int j = lane % 8 * 16, k = lane / 8 * 2048;
return cells[j + k] != 0 || cells[j + k + 4 * 2048] != 0;
#else
for (int k = 0; k < 8; ++k)
    for (int j = 0; j < 8; ++j)
        if (cells[k * 2048 + j * 16] != 0) return 1;
return 0;
#endif
""")
def any_of_coarse(bits: wp.array[wp.uint8], first: int, lane: int) -> int:
    """Whether any of a coarse cell's 64 bytes has a bit: two of them for each lane on CUDA.

    They lie 16 bytes apart along y and 16 * 128 along z.
    """
    ...


@wp.func
def coarse_byte(bits: wp.array[wp.uint8], coarse: int, lane: int):
    """1 where any of a coarse cell's 8^3 cells is occupied; 8 cells along x are one byte.

    The lanes of a sum share it.
    """
    cascade = coarse / _COARSE_CUBE
    x = coarse % _COARSE
    y = (coarse / _COARSE) % _COARSE
    z = (coarse / (_COARSE * _COARSE)) % _COARSE
    row = (cascade * _CELLS + z * 8) * _CELLS + y * 8
    found = lane_sum_int(any_of_coarse(bits, row * _COARSE + x, lane))
    return wp.where(found > 0, wp.uint8(1), wp.uint8(0))


@wp.kernel
def plan_kernel(
    begin: int,
    # in
    step: wp.array[wp.int64],  # [1], from 1
    n_slices: int,
    first: wp.array[int],  # [n_slices + 1]: where a slice's cells begin in the list
    # out
    plan: wp.array[int],  # [3]: first slice, number of slices, first cell in the list
    count: wp.array[int],  # [1]: cells to be updated
):
    """Which slices a step updates."""
    before = wp.max(int(step[0]) - 1, 0)
    n = wp.where(before < _EARLY, 2, 1)
    index = (before * n) % n_slices
    plan[0] = index
    plan[1] = n
    plan[2] = first[index]
    count[0] = first[index + n] - first[index]


@wp.kernel
def draw_kernel(
    begin: int,
    # in
    seed: int,
    step: wp.array[wp.int64],  # [1]
    plan: wp.array[int],
    count: wp.array[int],
    cells: wp.array[int],  # [n_used]
    n_cascades: int,
    # out
    points: wp.array[float],  # [n_blocks, 3, 32], box
):
    """A random point of each cell; the box's centre in the padding."""
    i = begin + wp.tid()
    at = (i / 32) * 96 + i % 32
    if i >= count[0]:
        for axis in range(3):
            points[at + axis * 32] = 0.5
        return
    cell = cells[plan[2] + i]
    key = random_key(seed, step[0])
    # side of the cascade's cube in sides of the box
    side = 1.0 / float(1 << (n_cascades - 1 - cell / _CUBE))
    place = cell % _CUBE
    for axis in range(3):
        u = (float(place % _CELLS) + random_unit(key, cell, axis)) / float(_CELLS)
        points[at + axis * 32] = 0.5 + (u - 0.5) * side
        place = place / _CELLS


@wp.kernel
def pick_marks_kernel(
    begin: int,
    # in
    plan: wp.array[int],
    count: wp.array[int],
    cells: wp.array[int],  # [n_used]
    met: wp.array[wp.uint8],  # [n_cascades * 128^3]
    # out
    marks: wp.array[wp.uint8],  # [n], 0 in the padding
):
    """The marks of the cells to be updated, for other processes."""
    i = begin + wp.tid()
    mark = wp.uint8(0)
    if i < count[0]:
        mark = met[cells[plan[2] + i]]
    marks[i] = mark


@wp.kernel
def put_marks_kernel(
    begin: int,
    # in
    plan: wp.array[int],
    count: wp.array[int],
    cells: wp.array[int],  # [n_used]
    marks: wp.array[wp.uint8],  # [n]
    # in and out
    met: wp.array[wp.uint8],  # [n_cascades * 128^3]
):
    """Put back what ``pick_marks_kernel`` has picked out."""
    i = begin + wp.tid()
    if i < count[0]:
        met[cells[plan[2] + i]] = marks[i]


@wp.kernel
def store_kernel(
    begin: int,
    # in
    plan: wp.array[int],
    first: wp.array[int],  # [n_slices + 1]
    cells: wp.array[int],  # [n_used]
    density: wp.array[float],  # [n]: of the points that were drawn
    thickness: float,  # of the shortest step where the density is 1
    early_decay: float,
    decay: float,
    n_chunks: int,
    # in and out
    met: wp.array[wp.uint8],  # [n_cascades * 128^3], set to zero
    values: wp.array[float],  # [n_cascades * 128^3]
    # out
    partial_sums: wp.array[float],  # [2 * n_chunks]
):
    """value = max(decay * value, density * thickness), and each chunk's sum of them.

    The value of a cell that was met does not decay.
    """
    lane = (begin + wp.tid()) % n_lanes()
    item = (begin + wp.tid()) / n_lanes()
    j = item / n_chunks
    total = float(0.0)
    if j < plan[1]:
        low = first[plan[0] + j]
        n = first[plan[0] + j + 1] - low
        k = item % n_chunks
        factor = wp.where(plan[1] == 2, early_decay, decay)
        for i in range(low + n * k / n_chunks + lane, low + n * (k + 1) / n_chunks, n_lanes()):
            cell = cells[i]
            kept = wp.where(met[cell] == wp.uint8(0), factor, 1.0) * values[cell]
            met[cell] = wp.uint8(0)
            value = wp.max(kept, density[i - plan[2]] * thickness)
            values[cell] = value
            total += value
    total = lane_sum(total)
    if lane == 0:
        partial_sums[item] = total


@wp.kernel
def threshold_kernel(
    begin: int,
    # in
    plan: wp.array[int],
    partial_sums: wp.array[float],  # [2 * n_chunks]
    n_chunks: int,
    n_slices: int,
    n_used: float,
    # in and out
    slice_sums: wp.array[float],  # [n_slices]
    # out
    threshold: wp.array[float],  # [1]
):
    """threshold = min(MAX_THRESHOLD, MEAN_SHARE * mean over the used cells); one sum."""
    lane = begin + wp.tid()
    parts = wp.vec2(0.0, 0.0)
    for j in range(2):
        part = float(0.0)
        if j < plan[1]:
            for k in range(lane, n_chunks, n_lanes()):
                part += partial_sums[j * n_chunks + k]
        parts[j] = lane_sum(part)
    total = float(0.0)
    for s in range(lane, n_slices, n_lanes()):
        j = s - plan[0]
        if j < 0 or j >= plan[1]:
            total += slice_sums[s]
        else:  # of this step: no lane may read what another writes
            total += wp.where(j == 0, parts[0], parts[1])
    total = lane_sum(total)
    if lane > 0:
        return
    for j in range(2):
        if j < plan[1]:
            slice_sums[plan[0] + j] = parts[j]
    threshold[0] = wp.min(_MAX_THRESHOLD, _MEAN_SHARE * total / wp.max(n_used, 1.0))


@wp.kernel
def bits_kernel(
    begin: int,
    # in
    plan: wp.array[int],
    count: wp.array[int],
    cells: wp.array[int],
    values: wp.array[float],
    threshold: wp.array[float],
    # in and out
    bits: wp.array[wp.uint8],
):
    """The bit of each updated cell: value > threshold."""
    i = begin + wp.tid()
    if i >= count[0]:
        return
    cell = cells[plan[2] + i]
    bit = 1 << (cell % 8)
    byte = int(bits[cell / 8]) & (255 - bit)
    if values[cell] > threshold[0]:
        byte = byte | bit
    bits[cell / 8] = wp.uint8(byte)


@wp.kernel
def coarse_kernel(
    begin: int,
    # in
    plan: wp.array[int],
    planes: wp.array[int],  # [n_slices]: x of a slice's cells
    n_cascades: int,
    # in and out
    bits: wp.array[wp.uint8],
):
    """The bytes of the coarse cells that the updated slices pass through."""
    lane = (begin + wp.tid()) % n_lanes()
    item = (begin + wp.tid()) / n_lanes()
    per_slice = n_cascades * _COARSE * _COARSE
    j = item / per_slice
    if j < plan[1]:
        coarse = (item % per_slice) * _COARSE + planes[plan[0] + j] / 8
        byte = coarse_byte(bits, coarse, lane)
        if lane == 0:
            bits[n_cascades * (_CUBE / 8) + coarse] = byte


@wp.kernel
def all_bits_kernel(
    begin: int,
    # in
    values: wp.array[float],
    threshold: wp.array[float],
    # out
    bits: wp.array[wp.uint8],
):
    """Eight cells' bits: value > threshold."""
    item = begin + wp.tid()
    byte = wp.int32(0)
    for k in range(8):
        if values[item * 8 + k] > threshold[0]:
            byte = byte | (1 << k)
    bits[item] = wp.uint8(byte)


@wp.kernel
def all_coarse_kernel(
    begin: int,
    # in
    n_cascades: int,
    # in and out
    bits: wp.array[wp.uint8],
):
    """The byte of each coarse cell."""
    lane = (begin + wp.tid()) % n_lanes()
    item = (begin + wp.tid()) / n_lanes()
    byte = coarse_byte(bits, item, lane)
    if lane == 0:
        bits[n_cascades * (_CUBE / 8) + item] = byte
