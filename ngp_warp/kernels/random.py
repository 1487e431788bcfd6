"""Counter-based random numbers in Warp's language: the generator of ``samplers.HASH``.

A seed, a step, an index and an axis give 32 bits, on every device and for any number of threads.
Twin: ``random_bits`` in tests/reference/samplers.py.
"""

import warp as wp

# as constants: a literal above 2^31 - 1 would be cut to an int first
_ONE = wp.constant(wp.uint32(0x7FEB352D))
_TWO = wp.constant(wp.uint32(0x846CA68B))
_SEED = wp.constant(wp.uint32(0x9E3779B9))
_STEP = wp.constant(wp.uint32(0x85EBCA6B))


@wp.func
def mix(h: wp.uint32) -> wp.uint32:
    """Permute the 32-bit words."""
    a = h ^ (h >> wp.uint32(16))
    a = a * _ONE
    a = a ^ (a >> wp.uint32(15))
    a = a * _TWO
    return a ^ (a >> wp.uint32(16))


@wp.func
def random_key(seed: int, step: wp.int64) -> wp.uint32:
    """Return what ``random_bits`` needs of a seed and a step."""
    a = mix(wp.uint32(seed) ^ _SEED)
    return mix(a + wp.uint32(step) * _STEP)


@wp.func
def random_bits(key: wp.uint32, i: int, d: int) -> wp.uint32:
    """Return 32 random bits of axis d (0 to 3) of point i."""
    return mix(mix(wp.uint32(i) * wp.uint32(4) + wp.uint32(d) + key) ^ key)


@wp.func
def random_unit(key: wp.uint32, i: int, d: int) -> float:
    """Return a multiple of 2^-24 in [0, 1)."""
    return float(random_bits(key, i, d) >> wp.uint32(8)) * (1.0 / 16777216.0)
