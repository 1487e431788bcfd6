"""Photos of the corner of a room, papered with the bundled photo, whose cameras are known."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT, FOCAL = 320, 240, 300.0
SIDE = 2.0
"""Of each of the three walls."""
N_VIEWS = 8


@cache
def walls() -> np.ndarray:
    """Return float32 [3, n, n, 3]: what is on the walls x = 0, y = 0 and z = 0."""
    photo = PilImage.open(ROOT / "examples" / "seeding.jpg")
    photo.draft("RGB", (1328, 747))
    values = np.asarray(photo.convert("RGB"), np.float32)
    n = 400
    return np.stack([values[150 : 150 + n, x : x + n] for x in (50, 480, 900)])


def poses(n: int = N_VIEWS) -> np.ndarray:
    """Return float64 [n, 3, 4]: camera to room, OpenGL's axes, level, looking into the corner."""
    made = []
    for i in range(n):
        angle = np.radians(25 + 40 * i / max(n - 1, 1))
        height = 1.3 + 0.4 * (i % 3)
        eye = np.array([3.0 * np.cos(angle), 3.0 * np.sin(angle), height])
        made.append(look_at(eye, np.array([0.4, 0.4, 0.5])))
    return np.array(made)


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, eye], axis=1)


def picture(pose: np.ndarray, scale: int = 1) -> np.ndarray:
    """Return uint8 [240 * scale, 320 * scale, 3]: what a camera sees."""
    width, height = WIDTH * scale, HEIGHT * scale
    x = (np.arange(width) + 0.5 - width / 2) / (FOCAL * scale)
    y = -(np.arange(height) + 0.5 - height / 2) / (FOCAL * scale)
    local = np.stack([*np.broadcast_arrays(x, y[:, None]), -np.ones((height, width))], axis=-1)
    direction, eye = local @ pose[:, :3].T, pose[:, 3]
    best, image = np.full((height, width), np.inf), np.zeros((height, width, 3), np.float32)
    for axis in range(3):
        with np.errstate(divide="ignore"):
            t = -eye[axis] / direction[..., axis]
        with np.errstate(invalid="ignore"):
            hit = np.delete(eye + t[..., None] * direction, axis, axis=-1) / SIDE
            seen = (t > 0) & (t < best) & ((hit >= 0) & (hit < 1)).all(axis=-1)
        best[seen] = t[seen]
        image[seen] = _bilinear(walls()[axis], hit[seen])
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _bilinear(texture: np.ndarray, at: np.ndarray) -> np.ndarray:
    position = np.clip(at * len(texture) - 0.5, 0, len(texture) - 1.001)
    low = position.astype(int)
    u, v = (position - low).T[..., None]
    (i, j) = low.T
    top = texture[i, j] * (1 - v) + texture[i, j + 1] * v
    return top * (1 - u) + (texture[i + 1, j] * (1 - v) + texture[i + 1, j + 1] * v) * u


def write_photos(folder: Path, n: int = N_VIEWS) -> list[Path]:
    """Write PNGs whose names have spaces, brackets and numbers of unequal length."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo ({i + 7}).png" for i in range(n)]
    for path, pose in zip(paths, poses(n), strict=True):
        PilImage.fromarray(picture(pose)).save(path)
    return paths


def similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return scale, rotation, translation from the centres of poses a to those of b (Umeyama)."""
    x, y = a[:, :, 3], b[:, :, 3]
    cov = (y - y.mean(0)).T @ (x - x.mean(0)) / len(x)
    u, s, vt = np.linalg.svd(cov)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ flip @ vt
    scale = (s * np.diag(flip)).sum() / (x - x.mean(0)).var(axis=0).sum()
    return scale, rotation, y.mean(0) - scale * rotation @ x.mean(0)
