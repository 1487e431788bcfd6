"""What the GPU benchmark trains on: files that are there, or what is made; and the tasks."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import made_inputs
from benchmarks.training_step import PHOTO
from ngp_warp.config import TrainingConfig
from ngp_warp.primitive import report_nothing
from ngp_warp.primitives import get

PRIMITIVES = ("image", "sdf", "nerf", "volume")
FILES = {
    "image": "image/leaves_scan_35mp/leaves_6976x5074.jpg",
    "sdf": "mesh/instant_ngp/armadillo.obj",
    "nerf": "nerf/chair_400",
    "volume": "volume/fuel/fuel.nii.gz",
}
"""Below the folder of data; the targets of quality are for these."""
DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@dataclass(frozen=True)
class Input:
    """What a primitive is trained on."""

    path: Path
    usual: bool
    """Whether it is the file that the targets of quality are for."""
    note: str = ""
    """Which file is missing, where another takes its place."""


def find_inputs(
    data: Path | None, given: dict[str, Path | None], folder: Path, *, small: bool
) -> dict[str, Input]:
    """Return every primitive's input; what is not there is made, or is the bundled photo.

    Args:
        data: where the usual files lie; None: beside the checkout, if they do.
        given: of any primitives, another file than the usual one.
        folder: where what is made is written.
        small: make all that is not given.
    """
    found = {}
    for name in PRIMITIVES:
        other, usual = given.get(name), (data or DATA) / FILES[name]
        if other is not None:
            found[name] = Input(other, usual=Path(FILES[name]).name == other.name)
        elif not small and usual.exists():
            found[name] = Input(usual, usual=True)
        else:
            note = "" if small else f"{Path(FILES[name]).name} is missing"
            found[name] = Input(_made(name, folder, small), usual=False, note=note)
    return found


def _made(name: str, folder: Path, small: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if name == "sdf":
        return made_inputs.write_mesh(folder / "torus.obj")
    if name == "volume":
        n = 40 if small else 128
        return made_inputs.write_volume(folder / f"cloud_{n}.npy", n)
    if name == "nerf":
        n_train, side = (24, 48) if small else (60, 200)
        scene = folder / f"ball_{side}"
        if not (scene / "transforms_test.json").exists():
            made_inputs.write_scene(scene, n_train=n_train, side=side)
        return scene
    return PHOTO


SMALL: dict[str, dict[str, Any]] = {
    "image": {},
    "sdf": {},
    "nerf": {"march_steps": 128, "render_steps": 128, "max_rays": 512},
    "volume": {},
}


def make_config(name: str, *, small: bool, **training: Any) -> Any:
    """Return a primitive's own settings, or small ones that a test has time for."""
    config = get(name).config()
    changes = dict(SMALL[name]) if small else {}
    if small:
        training = {"batch_size": 2**12, **training}
        changes["encoding"] = replace(config.encoding, n_levels=4, log2_hashmap_size=12)
    return replace(config, training=TrainingConfig(**training), **changes)


def make_task(name: str, source: Input, config: Any, device: str) -> Any:
    """Return a primitive at work on its input.

    Raises:
        NgpError: it cannot be read.
    """
    kind = get(name)
    data = kind.load(source.path, config, report_nothing)
    config, _ = kind.estimate(data, config, device)
    return kind.build(data, config, device)
