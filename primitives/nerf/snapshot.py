"""A radiance field from a snapshot of instant-ngp's.

Unproven; see ``ngp_warp.ngp_snapshot``. What is the same on both sides: the box as the unit cube of
the grid, the order of the colour network's inputs (16 values of the density network, then harmonics
of degree 4 of the direction, with the same signs), the density as the exponential of the first
value, colours through a logistic function (of linear photos an exponential). What differs:

- Learned vectors of the photos, and the ones that pad the inputs after them: the vectors are left
  out (as if they were zero), the ones become a part of the first harmonic's weights, exactly.
- The reference turns a scene's axes: its x, y and z are y, z and x of transforms.json. A hash
  cannot be turned with them, so the run's scene has the reference's axes. The offset is that of
  transforms.json, added before they are turned (github.com/NVlabs/instant-ngp/issues/68: its second
  number moves the box along the reference's x).
"""

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ngp_warp import launch
from ngp_warp.config import from_dict
from ngp_warp.decode import state_arrays
from ngp_warp.encodings.padding import next_multiple
from ngp_warp.errors import DataError
from ngp_warp.kernels.spherical_harmonics import norm
from ngp_warp.ngp_parameters import (
    PADDINGS,
    PaddedNetwork,
    density_cells,
    flat_parameters,
    grid_sizes,
    padding_of,
)
from ngp_warp.ngp_snapshot import Snapshot, unknown
from ngp_warp.primitives.nerf.config import NerfConfig, resolve
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.model import NerfModel
from ngp_warp.radiance.settings import AABB_SCALES, N_DIRECTION, N_GEOMETRY
from ngp_warp.rays.lenses import Lens

_STEPS = 1024  # in the inner cube's diagonal, as the reference has them
_LARGE = 1e9  # beyond it a number is none that a scene has
_SIDE = 800  # of a picture where no camera is known
_KNOWN: dict[tuple[str, ...], set[str]] = {
    (): {
        *("params_binary", "n_params", "params_type", "density_grid_binary", "density_grid_size"),
        *("mode", "aabb", "training_step"),
    },
    ("nerf",): {"aabb_scale"},
    ("nerf", "dataset"): {
        *("aabb_scale", "scale", "offset", "xforms", "metadata", "paths", "n_images", "is_hdr"),
        "n_extra_learnable_dims",
    },
}

_KNOWN_OF_LENS = {"focal_length", "resolution", "principal_point", "lens"}


def convert(
    snapshot: Snapshot, settings: dict[str, Any]
) -> tuple[NerfConfig, dict[str, Any], dict[str, np.ndarray], list[str]]:
    """Return a run's config, what it says of its data, its arrays, and what there is to say.

    Args:
        snapshot: as read.
        settings: from its network config, in our JSON form.

    Raises:
        DataError: a part is missing, or of another size than the config says.
        ConfigError: settings that we do not have.
    """
    notes = unknown(snapshot, _KNOWN)
    scale, said = _aabb_scale(snapshot)
    notes += said
    config = from_dict(NerfConfig, settings, str(snapshot.path))
    if config.encoding.per_level_scale is None:
        finest = 2048 * scale
        config = replace(config, encoding=replace(config.encoding, finest_resolution=finest))
        notes.append(
            f"encoding.per_level_scale is not in the file: taken as what leads to {finest}"
        )
    config = replace(config, aabb_scale=scale, march_steps=_STEPS, render_steps=_STEPS)
    config = resolve(config, "cpu", aabb_scale=scale, has_alpha=False, has_depth=False)
    weights, table, half, said = _parameters(snapshot, config)
    notes += said
    dtype = "float16" if half else "float32"
    config = replace(
        config,
        encoding=replace(config.encoding, dtype=dtype),
        optimizer=replace(config.optimizer, ema_decay=0.0),  # what is stored is the average
    )
    data, said = _describe(snapshot, scale)
    notes += said
    cells, said = density_cells(snapshot, Frame.from_dict(data["frame"]).n_cascades)
    notes += said
    launch.init()
    model = NerfModel(data, config, "cpu", snapshot.path.parent)
    model.radiance.weights.assign(weights)
    model.radiance.table.assign(table)
    if cells is None:
        model.radiance.fill_occupancy()
    else:
        model.radiance.occupancy.set_values(cells)
    arrays = {name: array.numpy() for name, array in state_arrays(model).items()}
    return config, data, arrays, notes


def _aabb_scale(snapshot: Snapshot) -> tuple[int, list[str]]:
    """Return the side of the box in inner cubes, and where it is from if the file has no number."""
    for path in (("nerf", "aabb_scale"), ("nerf", "dataset", "aabb_scale")):
        if (value := snapshot.part(*path)) is not None:
            return _checked_scale(snapshot, value, ".".join(("snapshot", *path))), []
    low, high = (_numbers(snapshot.part("aabb", end), 3) for end in ("min", "max"))
    if low is not None and high is not None:
        side = float((high - low).max())
        if not np.allclose(high - low, side) or not np.allclose(high + low, 1.0):
            raise DataError(
                f"{snapshot.path} has no aabb_scale, and its box from {low.tolist()} to "
                f"{high.tolist()} is no cube about 0.5"
            )
        return _checked_scale(snapshot, round(side, 3), "snapshot.aabb"), [
            f"aabb_scale is not in the file: {side:g} by snapshot.aabb"
        ]
    raise DataError(f"{snapshot.path} does not say how large its box is (snapshot.nerf.aabb_scale)")


def _checked_scale(snapshot: Snapshot, value: Any, name: str) -> int:
    if isinstance(value, bool) or value not in AABB_SCALES:
        raise DataError(
            f"{snapshot.path}: {name} must be a power of two from 1 to 128, got {value!r}"
        )
    return int(value)


def _parameters(
    snapshot: Snapshot, config: NerfConfig
) -> tuple[np.ndarray, np.ndarray, bool, list[str]]:
    """Return the weights of both networks and the table in our layout."""
    extra = snapshot.part("nerf", "dataset", "n_extra_learnable_dims") or 0
    if isinstance(extra, bool) or not isinstance(extra, int) or not 0 <= extra <= 4096:
        raise DataError(f"{snapshot.path}: n_extra_learnable_dims must be a number, got {extra!r}")
    n_encoded, n_table = grid_sizes(config.encoding, 3)

    def networks(padding: int) -> tuple[PaddedNetwork, PaddedNetwork]:
        n_in = N_GEOMETRY + next_multiple(N_DIRECTION + extra, padding)
        return (
            PaddedNetwork(config.density_network, n_encoded, N_GEOMETRY, padding),
            PaddedNetwork(config.color_network, n_in, 3, padding),
        )

    counts = {p: sum(n.n_params for n in networks(p)) + n_table for p in PADDINGS}
    padding, notes = padding_of(snapshot, counts)
    density, color = networks(padding)
    expected = counts[padding]
    parts = f"networks of {density.n_params} and {color.n_params}, a grid of {n_table}"
    flat, half = flat_parameters(snapshot, expected, parts)
    first = density.matrices(flat)
    first[0] = first[0][:, :n_encoded]  # a grid is padded with zeros
    second = color.matrices(flat[density.n_params :])
    entry = second[0]
    second[0] = entry[:, : N_GEOMETRY + N_DIRECTION].copy()
    ones = entry[:, N_GEOMETRY + N_DIRECTION + extra :]
    second[0][:, N_GEOMETRY] += ones.sum(axis=1) / np.float32(norm(0, 0))
    weights = np.concatenate([matrix.reshape(-1) for matrix in (*first, *second)])
    if extra:
        notes.append(f"not taken over: the photos' learned vectors of {extra} values (as if zero)")
    table = flat[density.n_params + color.n_params :]
    return weights, table, half, notes


def _describe(snapshot: Snapshot, aabb_scale: int) -> tuple[dict[str, Any], list[str]]:
    """Return what a run says of its scene, and what there is to say of it."""
    notes = []
    dataset = snapshot.part("nerf", "dataset")
    dataset = dataset if isinstance(dataset, dict) else {}
    scale, offset = _numbers([dataset.get("scale")], 1), _numbers(dataset.get("offset"), 3)
    if scale is None or offset is None:
        scale, offset = np.ones(1), np.zeros(3)
        notes.append(
            "scale and offset are not in the file, or cannot be: units are those of the inner cube"
        )
    if scale[0] <= 0:
        raise DataError(
            f"{snapshot.path}: snapshot.nerf.dataset.scale must be above 0, got {scale[0]:g}"
        )
    offset = np.roll(offset, -1)  # as the axes are
    x, y, z = offset.tolist()
    frame = Frame.from_inner(float(scale[0]), (x, y, z), aabb_scale)
    cameras, said = _cameras(dataset, float(scale[0]), offset)
    notes += said
    notes.append("the scene's x, y, z are those of the snapshot: y, z, x of transforms.json")
    linear = dataset.get("is_hdr")
    if not isinstance(linear, bool):
        linear = False
        notes.append("is_hdr is not in the file, or cannot be: colours are taken as sRGB")
    return {
        "n_dims": 3,
        "n_outputs": 4,
        "format": "transforms",
        "color_space": "linear" if linear else "srgb",
        "has_alpha": False,
        "downscale": 1.0,
        "has_depth": False,
        "frame": frame.to_dict(),
        "train": cameras or [_outside(frame)],
        "held": [],
    }, notes


def _cameras(
    dataset: dict[str, Any], scale: float, offset: np.ndarray
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the cameras of the photos, in the scene's units and OpenGL's camera axes."""
    given = dataset.get("xforms")
    if not isinstance(given, list) or not given:
        return [], ["cameras are not in the file: one that sees the box from outside stands in"]
    lenses, paths = dataset.get("metadata"), dataset.get("paths")
    lenses = lenses if isinstance(lenses, list) else []
    cameras, guessed = [], 0
    for index, item in enumerate(given):
        matrix = _pose(item.get("start") if isinstance(item, dict) else item)
        if matrix is None:
            return [], [
                f"not taken over: cameras (xforms[{index}] is no matrix of 3x4 with a rotation); "
                "one that sees the box from outside stands in"
            ]
        pose = matrix.copy()
        pose[:, 1:3] *= -1  # the reference looks along +z, y down
        pose[:, 3] = (matrix[:, 3] - offset) / scale
        lens = _lens(lenses[index]) if index < len(lenses) else None
        guessed += lens is None
        name = paths[index] if isinstance(paths, list) and index < len(paths) else None
        cameras.append(
            {
                "name": name if isinstance(name, str) and name else f"photo-{index + 1:04d}",
                "lens": asdict(lens or _usual_lens()),
                "pose": pose.tolist(),
            }
        )
    notes = [f"cameras: {len(cameras)}, by snapshot.nerf.dataset.xforms"]
    if guessed:
        notes.append(f"lenses of {guessed} cameras are not in the file: 50 degrees stand in")
    if guessed < len(cameras):
        notes.append(
            "lenses by metadata: focal_length and resolution in pixels, principal_point in shares"
        )
    return cameras, notes + _left_of_cameras(given, lenses)


def _left_of_cameras(xforms: list[Any], lenses: list[Any]) -> list[str]:
    """Return what there is to say of what cameras have and we have no place for."""
    notes = []
    about = [lens for lens in lenses if isinstance(lens, dict)]
    if distorted := sum(bool(lens.get("lens")) for lens in about):
        notes.append(f"not taken over: distortions of {distorted} lenses (metadata.lens)")
    if left := sorted({str(name) for lens in about for name in lens} - _KNOWN_OF_LENS):
        names = ", ".join(f"snapshot.nerf.dataset.metadata.{name}" for name in left)
        notes.append(f"not taken over: {names}")
    pairs = [(x.get("start"), x.get("end")) for x in xforms if isinstance(x, dict)]
    if moving := sum(end is not None and end != start for start, end in pairs):
        notes.append(f"not taken over: where {moving} cameras moved to meanwhile (xforms.end)")
    return notes


def _pose(value: Any) -> np.ndarray | None:
    """Return a matrix of 3 rows and 4 columns, or of 4 columns with 3 values each; or None."""
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError):
        return None
    matrix = matrix.T if matrix.shape == (4, 3) else matrix
    if matrix.shape != (3, 4) or not (np.abs(matrix) < _LARGE).all():
        return None
    turned = matrix[:, :3]
    return matrix if np.allclose(turned @ turned.T, np.eye(3), atol=1e-3) else None


def _lens(about: Any) -> Lens | None:
    if not isinstance(about, dict):
        return None
    size = _numbers(about.get("resolution"), 2)
    focal = _numbers(about.get("focal_length"), 2)
    middle = _numbers(about.get("principal_point"), 2)
    if size is None or focal is None or middle is None:
        return None
    if not (size.min() >= 1 and size.max() <= 1e6 and focal.min() > 0):
        return None
    width, height = (int(v) for v in size)
    cx, cy = (float(v) for v in middle * size)
    return Lens(width=width, height=height, fx=float(focal[0]), fy=float(focal[1]), cx=cx, cy=cy)


def _usual_lens() -> Lens:
    focal = _SIDE / 2 / float(np.tan(np.radians(25)))
    half = _SIDE / 2
    return Lens(width=_SIDE, height=_SIDE, fx=focal, fy=focal, cx=half, cy=half)


def _outside(frame: Frame) -> dict[str, Any]:
    """Return a camera that sees the inner cube from outside of it, along -z."""
    inner = 1 / frame.aabb_scale
    middle = frame.to_scene(np.array([[0.5, 0.5, 0.5 + 2 * inner]]))[0]
    pose = np.column_stack([np.eye(3), middle])
    return {"name": "outside", "lens": asdict(_usual_lens()), "pose": pose.tolist()}


def _numbers(value: Any, n: int) -> np.ndarray | None:
    """Return n numbers that float32 computes with, as float64, or None."""
    if not isinstance(value, list) or len(value) != n:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return None
    numbers = np.array(value, np.float64)
    return numbers if (np.abs(numbers) < _LARGE).all() else None
