"""How wide an encoding's features are made for what reads them, as tiny-cuda-nn does it."""

import math

from ngp_warp.encodings.composite import CONCATENATION, Composite
from ngp_warp.encodings.encoding import Encoding
from ngp_warp.encodings.grid_features import GridFeatures
from ngp_warp.encodings.octree import OctreeEncoding
from ngp_warp.encodings.padding import Padded, Padding, next_multiple
from ngp_warp.encodings.spherical_harmonics import SphericalHarmonics


def aligned(encoding: Encoding, alignment: int) -> Encoding:
    """Return the encoding with a number of rows that ``alignment`` divides."""
    alignment = math.lcm(alignment, required_alignment(encoding))
    return padded_to(encoding, next_multiple(encoding.n_outputs, alignment))


def required_alignment(encoding: Encoding) -> int:
    """Return what an encoding's first row must be a multiple of: a level's features of a grid."""
    if isinstance(encoding, Padded):
        return required_alignment(encoding.encoding)
    if isinstance(encoding, Composite):
        return math.lcm(*(required_alignment(e) for e in encoding.encodings))
    return encoding.grid.n_features if isinstance(encoding, GridFeatures) else 1


def padded_to(encoding: Encoding, n_outputs: int) -> Encoding:
    """Return the encoding with ``n_outputs`` rows.

    Grids get zeros after their rows, spherical harmonics ones before, the others ones after. A
    concatenation pads its last part, a sum or product each.
    """
    if n_outputs == encoding.n_outputs:
        return encoding
    if isinstance(encoding, Padded):
        return padded_to(encoding.encoding, n_outputs)
    if isinstance(encoding, Composite):
        parts = list(encoding.encodings)
        if encoding.reduction == CONCATENATION:
            more = n_outputs - encoding.n_outputs
            parts[-1] = padded_to(parts[-1], parts[-1].n_outputs + more)
        else:
            parts = [padded_to(e, n_outputs) for e in parts]
        placed = list(zip(parts, encoding.begins, strict=True))
        return Composite(encoding.n_dims, placed, encoding.reduction)
    value = 0.0 if isinstance(encoding, GridFeatures | OctreeEncoding) else 1.0
    padding = Padding(value=value, before=isinstance(encoding, SphericalHarmonics))
    return Padded(encoding, n_outputs, padding)


def concatenated(n_dims: int, parts: list[tuple[Encoding, int]]) -> Composite:
    """Return the parts one after another, each padded so that the next begins where it must."""
    placed, row = [], 0
    for i, (part, begin) in enumerate(parts):
        if i + 1 < len(parts):
            end = next_multiple(row + part.n_outputs, required_alignment(parts[i + 1][0]))
            placed.append((padded_to(part, end - row), begin))
            row = end
        else:
            placed.append((part, begin))
    return Composite(n_dims, placed)
