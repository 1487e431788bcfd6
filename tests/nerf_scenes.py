"""A small scene of which the exact photos are known: a coloured ball with a stripe."""

import json
from pathlib import Path

import numpy as np

RADIUS = 1.0
FOV = 0.7
"""Horizontal field of view in radians."""


def poses(n: int, distance: float = 4.0, seed: int = 0) -> np.ndarray:
    """Cameras around the origin that look at it, float64 [n, 3, 4], OpenGL's axes."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        height = -0.6 + 1.4 * (k + 0.5) / n
        angle = k * 2.399963 + rng.uniform(-0.1, 0.1)
        ring = np.sqrt(1 - height**2)
        back = np.array([ring * np.cos(angle), ring * np.sin(angle), height])
        right = np.cross([0, 0, 1], back)
        right /= np.linalg.norm(right)
        made.append(np.stack([right, np.cross(back, right), back, distance * back], axis=1))
    return np.array(made)


def photo(pose: np.ndarray, side: int) -> np.ndarray:
    """The ball from a camera, uint8 [side, side, 4]: smooth colours, a dark stripe, transparent
    around it; edges by 16 samples a pixel."""
    fine = side * 4
    focal = 0.5 * fine / np.tan(FOV / 2)
    x, y = np.meshgrid(np.arange(fine) + 0.5, np.arange(fine) + 0.5)
    local = np.stack([(x - fine / 2) / focal, -(y - fine / 2) / focal, -np.ones_like(x)], -1)
    d = local @ pose[:, :3].T
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    o = pose[:, 3]
    b = d @ o
    root = b**2 - (o @ o - RADIUS**2)
    hit = root > 0
    p = o + (-b - np.sqrt(np.maximum(root, 0)))[..., None] * d
    color = 0.5 + 0.45 * np.sin(2.5 * p + [0.3, 1.1, 2.0])
    color[np.abs(p[..., 2] - 0.2) < 0.12] *= 0.15
    values = np.concatenate([color * hit[..., None], hit[..., None]], axis=-1)
    values = values.reshape(side, 4, side, 4, 4).mean(axis=(1, 3))
    alpha = values[..., 3:]
    straight = np.where(alpha > 0, values[..., :3] / np.maximum(alpha, 1e-9), 0)
    return np.rint(np.concatenate([straight, alpha], -1) * 255).astype(np.uint8)


def write_scene(folder: Path, *, n_train: int = 24, n_test: int = 3, side: int = 32) -> Path:
    """Write the scene as NeRF-synthetic's scenes are; return the folder."""
    import imageio.v3 as iio

    cameras = poses(n_train + n_test)
    tests = set(np.linspace(1, n_train + n_test - 2, n_test).astype(int).tolist())
    frames: dict[str, list] = {"train": [], "test": []}
    for k, pose in enumerate(cameras):
        split = "test" if k in tests else "train"
        name = f"{split}/r_{len(frames[split])}"
        (folder / split).mkdir(parents=True, exist_ok=True)
        iio.imwrite(folder / f"{name}.png", photo(pose, side))
        matrix = np.vstack([pose, [0, 0, 0, 1]]).tolist()
        frames[split].append({"file_path": f"./{name}", "transform_matrix": matrix})
    for split, list_ in frames.items():
        text = json.dumps({"camera_angle_x": FOV, "frames": list_})
        (folder / f"transforms_{split}.json").write_text(text)
    return folder
