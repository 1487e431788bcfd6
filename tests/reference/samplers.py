"""Random and low-discrepancy points in Python integers. Twin of ngp_warp/kernels/samplers.py."""

from fractions import Fraction

import numpy as np

WORD = 0xFFFFFFFF


def mix(h):
    """Permute 32-bit words (Wellons' "lowbias32" round)."""
    h ^= h >> 16
    h = h * 0x7FEB352D & WORD
    h ^= h >> 15
    h = h * 0x846CA68B & WORD
    return h ^ h >> 16


def random_bits(seed, step, i, d):
    """32 random bits of axis d of point i."""
    key = mix(mix(seed ^ 0x9E3779B9) + step * 0x85EBCA6B & WORD)
    return mix(mix(i * 4 + d + key & WORD) ^ key)


def unit(h):
    """Fraction in [0, 1) of the upper 24 bits."""
    return (h >> 8) / 2**24


def uniform(seed, step, i, d, n, n_dims):
    """Independent points."""
    return unit(random_bits(seed, step, i, d))


def stratified(seed, step, i, d, n, n_dims):
    """A random point of the cell that lies at a random place in the i-th n-th of a Morton curve."""
    n_bits = (n - 1).bit_length()
    cell = int(2**n_bits / n * (i + unit(random_bits(seed, step, i, 3))))
    coordinate = sum((cell >> k & 1) << k // n_dims for k in range(d, n_bits, n_dims))
    axis_bits = len(range(d, n_bits, n_dims))
    return unit(coordinate << 32 - axis_bits | random_bits(seed, step, i, d) >> axis_bits)


def radical_inverse(i, base):
    """Mirror the digits of i at the point."""
    result, digit = Fraction(0), Fraction(1, base)
    while i:
        result, digit, i = result + digit * (i % base), digit / base, i // base
    return result


def halton(seed, step, i, d, n, n_dims):
    """Radical inverses from index 1, rotated by a random number a seed."""
    return float((radical_inverse(step * n + i + 1, (2, 3, 5)[d]) + shift(seed, d)) % 1)


def shift(seed, d):
    """Rotation of an axis of the Halton sequence."""
    return Fraction(unit(mix(seed * 4 + d + 1 & WORD)))


# Primitive polynomials (degree, inner coefficients) and first odd integers m: Joe and Kuo 2008.
POLYNOMIALS = {1: (1, 0, [1]), 2: (2, 1, [1, 3])}


def direction_numbers(d):
    """32 direction numbers of an axis, by the recurrence of Bratley and Fox 1988."""
    if d == 0:
        return [1 << 31 - k for k in range(32)]
    degree, inner, m = POLYNOMIALS[d]
    m = list(m)
    for k in range(degree, 32):
        new = m[k - degree] ^ m[k - degree] << degree
        for q in range(1, degree):
            new ^= (inner >> degree - 1 - q & 1) * m[k - q] << q
        m.append(new)
    return [v << 31 - k for k, v in enumerate(m)]


def sobol(seed, step, i, d, n, n_dims):
    """Sobol' points with a random digital shift a seed."""
    result, index = mix(seed * 4 + d + 1 & WORD), step * n + i
    for k, direction in enumerate(direction_numbers(d)):
        result ^= direction * (index >> k & 1)
    return unit(result)


def sample(kind, n_dims, seed, step, n):
    """Batch [n, n_dims]."""
    draw = {"uniform": uniform, "stratified": stratified, "halton": halton, "sobol": sobol}[kind]
    rows = [[draw(seed, step, i, d, n, n_dims) for d in range(n_dims)] for i in range(n)]
    return np.array(rows)
