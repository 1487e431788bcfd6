"""From a snapshot of instant-ngp's to a run that render, export, query and info open.

Unproven; see ``ngp_warp.ngp_snapshot``.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp import __version__
from ngp_warp.checkpoint import save_checkpoint
from ngp_warp.config import from_dict, settings_of_file, to_dict
from ngp_warp.errors import ConfigError, DataError
from ngp_warp.ngp_config import settings_of_trained
from ngp_warp.ngp_parameters import (
    PADDINGS,
    PaddedNetwork,
    flat_parameters,
    grid_sizes,
    padding_of,
)
from ngp_warp.ngp_snapshot import Snapshot, contents, mode_of, read_snapshot, unknown
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives import get
from ngp_warp.run import Run, open_run
from ngp_warp.run_folder import check_out, checkpoint_path, new_folder, write_json

COMMAND = "import-snapshot"
UNPROVEN = (
    "unproven: no file that instant-ngp wrote has been read with this yet; compare what you get "
    "with what instant-ngp shows"
)
_KNOWN = {"params_binary", "n_params", "params_type", "mode", "training_step"}
# Of four outputs: how instant-ngp places a volume in the unit cube is not documented.
_OUTPUTS = {"image": 3, "sdf": 1, "volume": 4}
_DIMS = {"image": 2, "sdf": 3, "volume": 3}

Converted = tuple[Any, dict[str, Any], dict[str, np.ndarray], list[str]]


def import_snapshot(
    path: str | Path,
    *,
    out: str | Path | None = None,
    mode: str | None = None,
    source: str | Path | None = None,
    write: bool = True,
    progress: Report = report_nothing,
) -> tuple[Run | None, dict[str, Any]]:
    """Read a snapshot and write a run.

    Args:
        path: the file, .ingp or .msgpack.
        out: the run's folder; None: outputs/<file>/import-snapshot/<time>.
        mode: "nerf", "sdf", "image" or "volume"; None: as the file says.
        source: of mode image: the picture that was fitted.
        write: False: read and convert only.
        progress: told what is done, and what is not taken over.

    Returns:
        The run, or None where none was written; and "mode", "contents", "notes".

    Raises:
        NgpError: the file, the settings or the outputs are at fault.
    """
    path, out = Path(path), Path(out) if out is not None else None
    check_out(out)
    progress(Progress(stage="load", message=f"reading {path}"))
    snapshot = read_snapshot(path)
    kind = mode_of(snapshot, mode)
    about = {"mode": kind, "contents": contents(snapshot), "notes": [UNPROVEN]}
    progress(Progress(stage="load", message=UNPROVEN))
    with settings_of_file(path):
        settings, notes = settings_of_trained(snapshot.config, kind, path)
        config, data, arrays, said = _converted(snapshot, kind, settings, source)
    step, of_step = _step(snapshot)
    about["notes"] += [*notes, *said, *of_step]
    for note in about["notes"][1:]:
        progress(Progress(stage="load", message=note))
    if not write:
        return None, about
    if kind == "volume":
        raise DataError(
            f"{path} is of a volume: its parameters fit its config, but where the volume lies in "
            "them is not documented, so that no run can be written; see --dry-run"
        )
    origin = Path(source) if source is not None else path
    static = {
        "version": __version__,
        "primitive": kind,
        "source": str(origin.resolve()),
        "data": data,
        "config": to_dict(config),
        "imported": str(path.resolve()),
    }
    with new_folder(out, path, COMMAND) as folder:
        write_json(folder / "config.json", static)
        header = {**static, "step": step, "n_steps": step, "seconds": 0.0, "curve": []}
        save_checkpoint(checkpoint_path(folder, step), header, arrays)
    return open_run(folder), about


def _step(snapshot: Snapshot) -> tuple[int, list[str]]:
    """Return the step that a snapshot was taken at, and what there is to say of it."""
    step = snapshot.values.get("training_step")
    if type(step) is int and 0 <= step < 2**31:
        return step, []
    return 0, ["training_step is not in the file, or cannot be: taken as 0"]


def _converted(
    snapshot: Snapshot, mode: str, settings: dict[str, Any], source: str | Path | None
) -> Converted:
    if source is not None and mode != "image":
        raise ConfigError(f"--source is for snapshots of images; {snapshot.path} is of {mode}")
    if mode == "nerf":
        from ngp_warp.primitives.nerf.snapshot import convert

        return convert(snapshot, settings)
    notes = unknown(snapshot, {(): _KNOWN})
    config = from_dict(get(mode).config, settings, str(snapshot.path))
    if mode == "image":
        config, data = _image(snapshot, config, source, notes)
    else:
        config, data = _solid(mode, config, notes)
    weights, table, half = _parameters(snapshot, config, _DIMS[mode], _OUTPUTS[mode], notes)
    config = replace(
        config,
        encoding=replace(config.encoding, dtype="float16" if half else "float32"),
        optimizer=replace(config.optimizer, ema_decay=0.0),  # what is stored is the average
    )
    return config, data, {"network.value": weights, "encoding.value": table}, notes


def _image(
    snapshot: Snapshot, config: Any, source: str | Path | None, notes: list[str]
) -> tuple[Any, dict[str, Any]]:
    """Return the resolved config, and what a run says of its picture."""
    if source is None:
        raise ConfigError(
            f"{snapshot.path} is of an image, whose size it does not say: give --source PICTURE"
        )
    kind = get("image")
    config = replace(config, transfer="linear")
    image = kind.load(Path(source), config, report_nothing)
    data = kind.describe(image)
    if config.encoding.per_level_scale is None:
        finest = max(data["width"], data["height"]) // 2
        finest = max(finest, config.encoding.base_resolution)
        config = replace(config, encoding=replace(config.encoding, finest_resolution=finest))
        notes.append(
            f"encoding.per_level_scale is not in the file: taken as what leads to {finest}"
        )
    if data["channels"] != ["R", "G", "B"]:
        names = ", ".join(data["channels"])
        notes.append(f"the picture has channels {names}, the snapshot R, G, B")
        data = {**data, "n_outputs": 3, "channels": ["R", "G", "B"]}
    return kind.estimate(image, config, "cpu")[0], data


def _solid(mode: str, config: Any, notes: list[str]) -> tuple[Any, dict[str, Any]]:
    """Return the resolved config, and what a run says of a shape in the unit cube."""
    if config.encoding.per_level_scale is None:
        config = replace(config, encoding=replace(config.encoding, finest_resolution=2048))
        notes.append("encoding.per_level_scale is not in the file: taken as what leads to 2048")
    if mode == "volume":
        from ngp_warp.primitives.volume.config import resolve

        return resolve(config, 2048, 1, "cpu"), {}
    from ngp_warp.primitives.sdf.config import resolve as resolve_sdf

    notes.append(
        "the mesh's units are not in the file: positions and distances are those of the unit cube, "
        "taken as negative inside"
    )
    return resolve_sdf(config, "cpu"), {
        "n_dims": 3,
        "n_outputs": 1,
        "frame": {"centre": [0.5, 0.5, 0.5], "scale": 1.0},
        "n_vertices": 0,
        "n_faces": 0,
        "watertight": False,
        "sign": "auto",
        "digest": "",
    }


def _parameters(
    snapshot: Snapshot, config: Any, n_dims: int, n_outputs: int, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return a field's weights and table in our layout, and whether they were float16."""
    n_encoded, n_table = grid_sizes(config.encoding, n_dims)
    networks = {p: PaddedNetwork(config.network, n_encoded, n_outputs, p) for p in PADDINGS}
    counts = {p: network.n_params + n_table for p, network in networks.items()}
    padding, said = padding_of(snapshot, counts)
    notes += said
    network, expected = networks[padding], counts[padding]
    parts = f"a network of {network.n_params}, a grid of {n_table}"
    flat, half = flat_parameters(snapshot, expected, parts)
    matrices = network.matrices(flat)
    matrices[0] = matrices[0][:, :n_encoded]  # a grid is padded with zeros
    weights = np.concatenate([matrix.reshape(-1) for matrix in matrices])
    return weights, flat[network.n_params :].copy(), half
