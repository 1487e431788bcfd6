"""What both of COLMAP's file formats hold."""

from dataclasses import dataclass, field

import numpy as np

from ngp_warp.primitives.nerf.scene.checks import SceneError
from ngp_warp.primitives.nerf.scene.colmap_cameras import Camera


@dataclass(frozen=True)
class Image:
    """An image as its record states it."""

    where: str
    name: str
    quaternion: np.ndarray
    """float64 [4]: w, x, y, z, from world to camera, OpenCV's axes."""
    translation: np.ndarray
    """float64 [3]."""
    camera: int


@dataclass
class Reconstruction:
    """Cameras by their number, images, and sparse points float64 [n, 3]."""

    cameras: dict[int, Camera] = field(default_factory=dict)
    images: list[Image] = field(default_factory=list)
    points: np.ndarray | None = None

    def add_camera(self, number: int, camera: Camera) -> None:
        """Take a camera.

        Raises:
            DataError: its number is that of another.
        """
        if number in self.cameras:
            raise SceneError(camera.where, f"there are two cameras {number}", "remove one of them")
        self.cameras[number] = camera

    def camera_of(self, image: Image) -> Camera:
        """Return an image's camera.

        Raises:
            DataError: there is none of that number.
        """
        if image.camera not in self.cameras:
            raise SceneError(
                image.where,
                f"its camera {image.camera} is not among the cameras",
                "use the files of one model",
            )
        return self.cameras[image.camera]
