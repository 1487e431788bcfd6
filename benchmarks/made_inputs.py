"""Inputs that are made: a mesh, a scene and a volume, for where no file or reader is at hand."""

import json
from pathlib import Path

import numpy as np

from ngp_warp.rays.cameras import orbit

_FOV = 0.7


def torus(n_around: int = 96, n_across: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices float32 [n, 3] in the unit cube and faces int32 [m, 3] of a wavy torus."""
    u = np.arange(n_around) * (2 * np.pi / n_around)
    v = np.arange(n_across) * (2 * np.pi / n_across)
    u, v = np.meshgrid(u, v, indexing="ij")
    minor = 0.11 * (1 + 0.2 * np.sin(5 * u))
    ring = 0.3 + minor * np.cos(v)
    xyz = np.stack([ring * np.cos(u), ring * np.sin(u), minor * np.sin(v)], axis=-1) + 0.5
    i, j = np.meshgrid(np.arange(n_around), np.arange(n_across), indexing="ij")

    def at(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a % n_around) * n_across + b % n_across

    a, b, c, d = at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return xyz.reshape(-1, 3).astype(np.float32), faces.astype(np.int32)


def cloud(n: int = 48) -> np.ndarray:
    """Return densities float32 [n, n, n]: some balls with ripples, nothing around them."""
    rng = np.random.default_rng(2)
    index = np.moveaxis(np.indices((n, n, n)), 0, -1)
    values = np.zeros((n, n, n))
    for centre, radius in zip(rng.uniform(0.25, 0.75, (5, 3)) * n, rng.uniform(0.1, 0.2, 5) * n,
                              strict=True):  # fmt: skip
        distance = np.linalg.norm(index - centre, axis=-1)
        values = np.maximum(values, np.clip(1 - distance / radius, 0, 1))
    values *= 0.75 + 0.25 * np.sin(index * (40.0 / n)).prod(axis=-1)
    return values.astype(np.float32)


def write_mesh(path: Path) -> Path:
    """Write the torus as OBJ."""
    vertices, faces = torus()
    lines = [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_volume(path: Path, n: int = 48) -> Path:
    """Write the cloud as NPY."""
    np.save(path, cloud(n))
    return path


def write_scene(folder: Path, *, n_train: int = 24, n_test: int = 3, side: int = 64) -> Path:
    """Write photos of a coloured ball as NeRF-synthetic's scenes are; return the folder."""
    import imageio.v3 as iio

    folder.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", n_train), ("test", n_test)):
        (folder / split).mkdir(exist_ok=True)
        frames = []
        for k in range(n):
            turn = 137.5 * k + (60 if split == "test" else 0)
            pose = orbit(turn, 50 * np.sin(k), 4.0, (0.0, 0.0, 0.0), up="z").camera_to_world()
            # TIFF, which needs no decoder but tifffile
            name = f"./{split}/r_{k}.tif"
            iio.imwrite(folder / name, _photo(pose[:3], side))
            frames.append({"file_path": name, "transform_matrix": pose.tolist()})
        text = json.dumps({"camera_angle_x": _FOV, "frames": frames})
        (folder / f"transforms_{split}.json").write_text(text)
    return folder


def _photo(pose: np.ndarray, side: int) -> np.ndarray:
    """Return a view of a ball of radius 1 about the origin, uint8 [side, side, 4]."""
    fine = side * 3  # nine samples a pixel
    focal = 0.5 * fine / np.tan(_FOV / 2)
    x, y = np.meshgrid(np.arange(fine) + 0.5 - fine / 2, np.arange(fine) + 0.5 - fine / 2)
    d = np.stack([x / focal, -y / focal, -np.ones_like(x)], -1) @ pose[:, :3].T
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    o = pose[:, 3]
    b = d @ o
    root = b**2 - (o @ o - 1)
    p = o + (-b - np.sqrt(np.maximum(root, 0)))[..., None] * d
    color = 0.5 + 0.45 * np.sin(2.5 * p + [0.3, 1.1, 2.0])
    color[np.abs(p[..., 2] - 0.2) < 0.12] *= 0.15
    hit = (root > 0)[..., None]
    values = np.concatenate([color * hit, hit], axis=-1)
    values = values.reshape(side, 3, side, 3, 4).mean(axis=(1, 3))
    values[..., :3] /= np.maximum(values[..., 3:], 1e-9)
    return np.rint(values * 255).astype(np.uint8)
