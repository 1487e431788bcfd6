"""The pictures that a volume's values have: path traced, or projections of the values."""

from typing import Literal

import numpy as np

from ngp_warp.primitive import Report, report_nothing
from ngp_warp.primitives.pictures import linear_to_srgb
from ngp_warp.primitives.volume.describe import Described
from ngp_warp.primitives.volume.light import Light
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.path_tracer import Picture, render
from ngp_warp.primitives.volume.projection import Kind, project
from ngp_warp.primitives.volume.transfer_function import TransferFunction
from ngp_warp.rays.cameras import Camera

Look = Literal["shaded", "surface", "mip", "transfer"]
DEFAULT_CAMERA = "orbit:30,20,1.8"
DEFAULT_TRANSFER = "bone"


def default_look(n_channels: int, grid_class: str, source_format: str) -> Look:
    """Return what shows most: of level sets the surface, of fogs light, of scans what is dense.

    Args:
        n_channels: of the volume.
        grid_class: of the volume.
        source_format: of its file.
    """
    if grid_class == "level set":
        return "surface"
    if n_channels > 1:
        return "mip"
    return "shaded" if source_format in ("nvdb", "vdb") else "transfer"


def display(picture: Picture, exposure: float = 1.0, *, transparent: bool = False) -> np.ndarray:
    """Return linear light as 8-bit sRGB, uint8 [h, w, 3], transparent with its opacity [h, w, 4].

    Args:
        picture: without a sky where it is transparent.
        exposure: radiance 1 / exposure is white; what is brighter is cut off.
        transparent: whether the opacity goes along.
    """
    light, opacity = picture.color * np.float32(exposure), picture.opacity[..., None]
    if not transparent:
        return np.rint(np.clip(linear_to_srgb(light), 0, 1) * 255).astype(np.uint8)
    straight = linear_to_srgb(light / np.maximum(opacity, 1e-4))
    pixels = np.concatenate([np.clip(straight, 0, 1), np.clip(opacity, 0, 1)], axis=2)
    return np.rint(pixels * 255).astype(np.uint8)


def shown(
    look: Look,
    values: np.ndarray,
    about: Described,
    camera: Camera,
    *,
    light: Light,
    albedo: float,
    density_scale: float | None,
    spp: int,
    device: str,
    progress: Report = report_nothing,
) -> np.ndarray:
    """Return a picture of values, uint8 [h, w, 3]: of the fitted ones and of the original alike.

    Args:
        look: how.
        values: float32 [x, y, z(, channel)].
        about: where they lie.
        camera: in the world.
        light: of the shaded look.
        albedo: of the shaded look.
        density_scale: of the shaded look.
        spp: samples a pixel.
        device: "cpu" or a CUDA device.
        progress: told of the samples done.
    """
    frame = about.frame
    if look == "shaded":
        medium = Medium.from_values(
            values,
            frame.to_world,
            frame.first,
            density_scale=density_scale,
            albedo=albedo,
            device=device,
        )
        return display(render(medium, light, camera, spp, progress=progress))
    kind: Kind = look
    low, high = about.transfer.low, about.transfer.high
    made = project(
        values,
        frame.to_world,
        frame.first,
        camera,
        kind=kind,
        below=about.is_level_set,
        transfer=TransferFunction.preset(DEFAULT_TRANSFER, low, high),
        spp=spp,
        device=device,
        progress=progress,
    )
    return np.rint(made.color * 255).astype(np.uint8)


def side_by_side(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Return pictures uint8 [h, w, 3] of one size in rows, white between them."""
    gap = 8
    lines = []
    for row in rows:
        upright = np.full((row[0].shape[0], gap, 3), 255, np.uint8)
        parts = [part for picture in row for part in (picture, upright)][:-1]
        lines.append(np.concatenate(parts, axis=1))
    level = np.full((gap, lines[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([p for line in lines for p in (line, level)][:-1], axis=0)
