"""Fields with a known surface, and what a mesh is measured by."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

RADIUS = 0.37
MAJOR, MINOR = 0.3, 0.11


def sphere(points, centre=(0.51, 0.49, 0.5), radius=RADIUS):
    return np.linalg.norm(points - np.float32(centre), axis=1) - np.float32(radius)


def torus(points):
    p = points - np.float32(0.5)
    return np.hypot(np.hypot(p[:, 0], p[:, 1]) - np.float32(MAJOR), p[:, 2]) - np.float32(MINOR)


def noise(points, n_cells, seed=0):
    """Independent values at the nodes of a lattice over the unit cube: every case occurs."""
    nodes = np.rint(points * np.float32(n_cells)).astype(int)
    table = np.random.default_rng(seed).normal(size=(n_cells + 1,) * 3).astype(np.float32)
    return table[tuple(nodes.T)]


def bumpy(points):
    """A torus with ripples, two floaters and a void, steeper than a distance field in places."""
    wave = np.sin(np.float32(90) * points).prod(axis=1) * np.float32(0.012)
    floaters = [sphere(points, (0.1, 0.12, 0.1), 0.03), sphere(points, (0.9, 0.1, 0.85), 0.02)]
    void = -sphere(points, (0.8, 0.5, 0.5), 0.05)
    return np.maximum(np.minimum.reduce([torus(points) + wave, *floaters]), void)


def euler_characteristic(mesh):
    edges = np.unique(np.sort(mesh.faces[:, (0, 1, 1, 2, 2, 0)].reshape(-1, 2), axis=1), axis=0)
    return len(mesh.vertices) - len(edges) + len(mesh.faces)


def n_fans(faces):
    """Number of groups of faces around the vertices: one each in a 2-manifold."""
    corners = np.arange(faces.size).reshape(-1, 3)
    # an edge's two faces run along it in opposite directions: each end is a corner of both
    a, b = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    at_a, at_b = corners.ravel(), np.roll(corners, -1, axis=1).ravel()
    forward, backward = np.lexsort((b, a)), np.lexsort((a, b))
    rows = np.concatenate([at_a[forward], at_b[forward]])
    columns = np.concatenate([at_b[backward], at_a[backward]])
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(faces.size,) * 2)
    return connected_components(graph, directed=False)[0]


def triangles(mesh):
    """The triangles as a set of positions, whatever their order."""
    corners = mesh.vertices[mesh.faces]
    first = np.lexsort(corners.transpose(2, 0, 1), axis=1)[:, :1]
    turned = np.take_along_axis(corners, ((first + np.arange(3)) % 3)[:, :, None], axis=1)
    return np.unique(turned.reshape(-1, 9), axis=0)
