"""Small meshes of the tests, in unit space: (vertices float32 [n, 3], faces int32 [m, 3])."""

import numpy as np


def _arrays(mesh):
    return np.asarray(mesh.vertices, np.float32) + np.float32(0.5), np.asarray(mesh.faces, np.int32)


def box(size=0.5, centre=(0.0, 0.0, 0.0)):
    """Box of 12 faces; size: a number or three."""
    import trimesh

    mesh = trimesh.creation.box(np.broadcast_to(size, 3))
    mesh.apply_translation(centre)
    return _arrays(mesh)


def sphere(subdivisions=2, radius=0.4):
    """Icosphere of 20 * 4^subdivisions faces."""
    import trimesh

    return _arrays(trimesh.creation.icosphere(subdivisions, radius))


def torus():
    """Torus of 512 faces."""
    import trimesh

    return _arrays(trimesh.creation.torus(0.3, 0.1, major_sections=16, minor_sections=16))


def needle():
    """A flat, sharp tetrahedron: normals of its faces are far apart at each edge and vertex."""
    vertices = np.array([[0.1, 0.48, 0.5], [0.9, 0.5, 0.47], [0.15, 0.53, 0.52], [0.2, 0.5, 0.45]])
    return vertices.astype(np.float32), np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [0, 2, 3]])


def joined(*meshes):
    """Several meshes as one."""
    offsets = np.cumsum([0, *(len(v) for v, _ in meshes[:-1])])
    faces = [f + n for (_, f), n in zip(meshes, offsets, strict=True)]
    return np.concatenate([v for v, _ in meshes]), np.concatenate(faces)


def shell():
    """A box with a cavity: the inner box's faces are wound inwards."""
    vertices, faces = box(0.3)
    return joined(box(0.8), (vertices, faces[:, ::-1]))


def moebius(n=16):
    """A Moebius strip of 2 n faces: nothing winds it consistently."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    across = np.array([-0.1, 0.1])[:, None]
    radius = 0.3 + across * np.cos(angle / 2)
    rows = [radius * np.cos(angle), radius * np.sin(angle), across * np.sin(angle / 2)]
    vertices = 0.5 + np.stack(rows, axis=-1).reshape(-1, 3)
    i = np.arange(n)
    low, high = i, i + n
    # after one turn the upper edge goes on as the lower one
    next_low, next_high = np.append(low[1:], n), np.append(high[1:], 0)
    faces = [np.stack([low, next_low, high], 1), np.stack([high, next_low, next_high], 1)]
    return vertices.astype(np.float32), np.concatenate(faces).astype(np.int32)


WATERTIGHT = {"box": box, "sphere": sphere, "torus": torus, "needle": needle, "shell": shell}


def points_about(vertices, faces, n, seed=0, spread=0.01):
    """Points of the cube, of its surroundings, near the surface: float32 [3 n, 3]."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet((0.3, 0.3, 0.3), n)  # many lie close to edges and vertices
    on = (vertices[faces[rng.integers(len(faces), size=n)]] * weights[..., None]).sum(axis=1)
    parts = [rng.random((n, 3)), rng.random((n, 3)) * 3 - 1, on + spread * rng.normal(size=(n, 3))]
    return np.concatenate(parts).astype(np.float32)
