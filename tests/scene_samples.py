"""One synthetic scene of pinhole cameras about an object, written in every format that is read."""

import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ngp_warp.errors import NgpError
from ngp_warp.primitives.nerf.frame import choose_frame
from ngp_warp.primitives.nerf.scene import load_scene, read_scene
from ngp_warp.primitives.nerf.scene.checks import Checks

SIZE = (24, 16)
FOCAL = 30.0
MODEL_IDS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "OPENCV": 4, "FOV": 7}


def look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return a pose [3, 4], OpenGL's axes."""
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, position], axis=1)


@dataclass
class Sample:
    """Cameras on a ring about a target, and points near it."""

    n: int = 5
    target: tuple[float, float, float] = (3.0, -2.0, 1.0)
    radius: float = 5.0
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    def __post_init__(self):
        rng = np.random.default_rng(0)
        self.points = self.target + rng.normal(0, 0.4, (7, 3))

    @property
    def poses(self) -> list[np.ndarray]:
        """Camera to scene [3, 4]."""
        target = np.array(self.target)
        angles = np.arange(self.n) * 2 * np.pi / self.n
        ring = np.stack([np.cos(angles), np.sin(angles), 0.3 + 0.1 * np.cos(3 * angles)], axis=1)
        up = np.array([0.0, 0.0, 1.0])
        return [look_at(target + self.radius * r, target, up) for r in ring]

    @property
    def names(self) -> list[str]:
        return [f"{i:02d}.png" for i in range(self.n)]

    def write_photos(self, folder: Path, size: tuple[int, int] = SIZE) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for index, name in enumerate(self.names):
            pixels = np.full((size[1], size[0], 3), 20 * index % 256, np.uint8)
            Image.fromarray(pixels).save(folder / name)

    # --- transforms.json

    def transforms(self) -> dict[str, Any]:
        frames = [
            {"file_path": f"images/{name}", "transform_matrix": [*pose.tolist(), [0, 0, 0, 1]]}
            for name, pose in zip(self.names, self.poses, strict=True)
        ]
        lens = {"fl_x": FOCAL, "fl_y": FOCAL, "w": SIZE[0], "h": SIZE[1]}
        return {**lens, "cx": SIZE[0] / 2, "cy": SIZE[1] / 2, "frames": frames}

    def write_transforms(self, folder: Path, **top: Any) -> Path:
        self.write_photos(folder / "images")
        (folder / "transforms.json").write_text(json.dumps({**self.transforms(), **top}))
        return folder

    # --- COLMAP

    def world_to_camera(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return quaternions w, x, y, z and translations, OpenCV's axes."""
        result = []
        for pose in self.poses:
            rotation = (pose[:, :3] @ np.diag([1.0, -1.0, -1.0])).T
            result.append((quaternion_of(rotation), -rotation @ pose[:, 3]))
        return result

    def write_colmap_text(self, folder: Path) -> Path:
        self.write_photos(folder / "images")
        model = folder / "sparse" / "0"
        model.mkdir(parents=True)
        w, h = SIZE
        (model / "cameras.txt").write_text(
            f"# Number of cameras: 1\n1 SIMPLE_PINHOLE {w} {h} {FOCAL} {w / 2} {h / 2}\n"
        )
        lines = [f"# Number of images: {self.n}, mean observations per image: 0"]
        for i, ((q, t), name) in enumerate(zip(self.world_to_camera(), self.names, strict=True)):
            numbers = " ".join(repr(float(v)) for v in (*q, *t))
            lines += [f"{i + 1} {numbers} 1 {name}", "1.5 2.5 -1" if i % 2 else ""]
        (model / "images.txt").write_text("\n".join(lines) + "\n")
        lines = [f"# Number of points: {len(self.points)}, mean track length: 0"]
        lines += [f"{i} {x} {y} {z} 1 2 3 0.5 1 0" for i, (x, y, z) in enumerate(self.points)]
        (model / "points3D.txt").write_text("\n".join(lines) + "\n")
        return folder

    def write_colmap_binary(
        self, folder: Path, model: str = "PINHOLE", parameters: tuple[float, ...] | None = None
    ) -> Path:
        self.write_photos(folder / "images")
        out = folder / "sparse" / "0"
        out.mkdir(parents=True)
        w, h = SIZE
        parameters = parameters or (FOCAL, FOCAL, w / 2, h / 2)
        (out / "cameras.bin").write_bytes(
            struct.pack("<QIiQQ", 1, 7, MODEL_IDS[model], w, h)
            + struct.pack(f"<{len(parameters)}d", *parameters)
        )
        data = struct.pack("<Q", self.n)
        for i, ((q, t), name) in enumerate(zip(self.world_to_camera(), self.names, strict=True)):
            data += struct.pack("<I7dI", i + 1, *q, *t, 7) + name.encode() + b"\0"
            data += struct.pack("<Q", i) + struct.pack("<ddq", 1.5, 2.5, -1) * i
        (out / "images.bin").write_bytes(data)
        data = struct.pack("<Q", len(self.points))
        for i, p in enumerate(self.points):
            data += struct.pack("<Q3d3BdQ", i, *p, 1, 2, 3, 0.5, 2) + struct.pack("<4I", 1, 0, 2, 0)
        (out / "points3D.bin").write_bytes(data)
        return folder

    # --- LLFF

    def table(self) -> np.ndarray:
        rows = []
        for pose in self.poses:
            right, up, back, position = pose.T
            hwf = [SIZE[1], SIZE[0], FOCAL]
            matrix = np.stack([-up, right, back, position, hwf], axis=1)
            rows.append([*matrix.ravel(), 0.5 * self.radius, 1.5 * self.radius])
        return np.array(rows)

    def write_llff(self, folder: Path) -> Path:
        self.write_photos(folder / "images")
        np.save(folder / "poses_bounds.npy", self.table())
        return folder


def quaternion_of(r: np.ndarray) -> np.ndarray:
    """Return w, x, y, z of a rotation: the eigenvector of Bar-Itzhack's symmetric matrix."""
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    x, y, z, w = np.linalg.eigh(k / 3)[1][:, -1]
    return np.array([w, x, y, z])


def scene_or_line(path: Path) -> bool:
    """Load a scene; return whether it is one. Anything but one line fails."""
    checks = Checks(collect=True)
    with checks.part():
        read_scene(path, None, checks)
    assert not any("\n" in problem.line for problem in checks.problems)
    try:
        scene = load_scene(path)
        for view in scene.views:
            assert np.isfinite(view.pose).all()
            np.testing.assert_allclose(view.pose[:, :3] @ view.pose[:, :3].T, np.eye(3), atol=1e-9)
            assert view.lens.fx > 0
            assert all(math.isfinite(value) for value in vars(view.lens).values())
        assert math.isfinite(choose_frame(scene).scale)
    except NgpError as error:
        first = str(error)
    else:
        first = ""
    assert "\n" not in first
    assert bool(first) == bool(checks.errors), first
    return not first
