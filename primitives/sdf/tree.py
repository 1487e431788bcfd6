"""Builds the tree whose nodes have 16 or 32 children; see kernels/tree.py."""

from dataclasses import dataclass

import numpy as np

from ngp_warp.primitives.sdf.kernels.tree import LEAF_ROWS, NODE_ROWS

_WIDTH = 16
# of a child that is not there: farther than any radius, and its square a float
_NOWHERE = 1e18


@dataclass(frozen=True)
class Tree:
    """Boxes and triangles, in vectors of ``width`` floats."""

    nodes: np.ndarray
    """float32 [n_nodes, 6, width]: boxes of each node's children; the root is the last."""
    leaves: np.ndarray
    """float32 [n_leaves, 17, width]: triangles."""
    first_child: np.ndarray
    """int32 [n_nodes]: leaves count from 0, nodes from n_leaves on."""
    leaf_faces: np.ndarray
    """int32 [n_leaves + 1]: first face of each leaf."""


def leaf_order(centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an order of faces that halves them at the median of the longest axis, and again.

    Args:
        centres: float [m, 3].

    Returns:
        int64 [m], and the first place of each leaf, int64 [n_leaves + 1]; a leaf has 16 at most.
    """
    m = len(centres)
    order, bounds = np.arange(m), np.array([0, m])
    while (sizes := np.diff(bounds)).max() > _WIDTH:
        sorted_centres = centres[order]
        low = np.minimum.reduceat(sorted_centres, bounds[:-1])
        high = np.maximum.reduceat(sorted_centres, bounds[:-1])
        axis = np.repeat((high - low).argmax(axis=1), sizes)
        along = sorted_centres[np.arange(m), axis]
        order = order[np.lexsort((along, np.repeat(np.arange(len(sizes)), sizes)))]
        middles = (bounds[:-1] + bounds[1:]) // 2
        bounds = np.append(np.stack([bounds[:-1], middles], axis=1).reshape(-1), m)
    return order, bounds


def build_tree(triangles: np.ndarray, bounds: np.ndarray, width: int = _WIDTH) -> Tree:
    """Return the tree of faces in the order of ``leaf_order``.

    Args:
        triangles: float32 [m, 3, 3], each with an area.
        bounds: first place of each leaf of 16, int [n_leaves + 1].
        width: children of a node and faces of a leaf, 16 or 32.
    """
    if width > _WIDTH and len(bounds) > 2:
        bounds = bounds[::2]  # as they were before the last halving
    starts, sizes = bounds[:-1], np.diff(bounds)
    # a leaf's empty places repeat its last face
    face = starts[:, None] + np.minimum(np.arange(width), sizes[:, None] - 1)
    low = np.minimum.reduceat(triangles.min(axis=1), starts)
    high = np.maximum.reduceat(triangles.max(axis=1), starts)
    nodes, first_child, base = [], [], 0
    while len(low) > 1 or not nodes:
        n = -(-len(low) // width)
        first_child.append(base + width * np.arange(n))
        base += len(low)
        boxes = np.full((n * width, NODE_ROWS), _NOWHERE, np.float32)
        boxes[: len(low)] = np.concatenate([low, high], axis=1)
        boxes = boxes.reshape(n, width, NODE_ROWS)
        nodes.append(boxes.transpose(0, 2, 1))
        groups = np.arange(0, len(low), width)
        low, high = np.minimum.reduceat(low, groups), np.maximum.reduceat(high, groups)
    return Tree(
        np.ascontiguousarray(np.concatenate(nodes)),
        np.ascontiguousarray(_leaf_rows(triangles)[face].transpose(0, 2, 1)),
        np.concatenate(first_child).astype(np.int32),
        bounds.astype(np.int32),
    )


def _leaf_rows(triangles: np.ndarray) -> np.ndarray:
    """Return what a leaf holds of each face, float32 [m, 17]."""
    a, b, c = np.moveaxis(triangles.astype(np.float64), 1, 0)
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(b - a, axis=1, keepdims=True)
    along = (b - a) / length
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    across = np.cross(normal, along)
    place = [((c - a) * axis).sum(axis=1, keepdims=True) for axis in (along, across)]
    scales = [1 / (e * e).sum(axis=1, keepdims=True) for e in (c - a, c - b)]
    rows = [a, along, across, normal, length, *place, *scales]
    result = np.concatenate(rows, axis=1).astype(np.float32)
    assert result.shape[1] == LEAF_ROWS
    return result
