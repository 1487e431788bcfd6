"""What Warp says of a NanoVDB volume at indices, for readers and writers to be held against."""

import warp as wp


@wp.kernel
def lookup_float(volume: wp.uint64, at: wp.array[wp.vec3i], out: wp.array[wp.vec3]):
    """Float lookups."""
    i = wp.tid()
    value = wp.volume_lookup_f(volume, at[i][0], at[i][1], at[i][2])
    out[i] = wp.vec3(value, value, value)


@wp.kernel
def lookup_vector(volume: wp.uint64, at: wp.array[wp.vec3i], out: wp.array[wp.vec3]):
    """Vector lookups."""
    i = wp.tid()
    out[i] = wp.volume_lookup_v(volume, at[i][0], at[i][1], at[i][2])
