"""From a checkpoint back to a field that can be queried."""

from dataclasses import replace
from typing import Any

import numpy as np
import warp as wp

from ngp_warp.compact import PARTS, decode
from ngp_warp.errors import CheckpointError
from ngp_warp.field import Field, field_settings
from ngp_warp.launch import resolve_device
from ngp_warp.primitive import Trainable
from ngp_warp.run import Run


def load_field(run: Run) -> Field:
    """Return a run's field, on the run's device, with its evaluated parameters.

    Raises:
        CheckpointError: the checkpoint is cut short, altered, or does not fit its config.
    """
    config, data = evaluated_config(run), run.header["data"]
    field = Field(
        data["n_dims"],
        data["n_outputs"],
        device=resolve_device(run.device),
        trainable=False,
        **field_settings(config),
    )
    load_into(field, run)
    return field


def evaluated_config(run: Run) -> Any:
    """Return the config of a run's field that is not trained on: a compact export has no average.

    It holds the averaged values themselves.
    """
    config = run.config
    if not run.header.get("compact", False):
        return config
    return replace(config, optimizer=replace(config.optimizer, ema_decay=0.0))


def load_into(field: Field, run: Run) -> None:
    """Give a field, made from a run's config, the run's evaluated parameters.

    Raises:
        CheckpointError: the checkpoint is cut short, altered, or does not fit its config.
    """
    extra = [f"state.{name}" for name in field.extra_state()]
    arrays = run.arrays(("value", "average", "quantum", *PARTS, *extra))
    if run.header.get("compact", False):
        parts = {name: arrays[f"encoding.{name}"] for name in PARTS}
        quantum = float(arrays["encoding.quantum"][0])
        arrays["encoding.value"] = decode(parts, quantum, field.encoding)
    load_state(field, arrays)
    field.optimizer.step.assign(np.array([run.header["step"]], np.int64))
    field.use_average()


def state_arrays(field: Trainable) -> dict[str, wp.array]:
    """Return what a checkpoint holds of a field, by name."""
    arrays = {
        f"{name}.{part}": array
        for name, p in field.parameters().items()
        for part, array in p.state().items()
    }
    return {**arrays, **{f"state.{name}": a for name, a in field.extra_state().items()}}


def load_state(field: Trainable, arrays: dict[str, np.ndarray]) -> None:
    """Copy a checkpoint's arrays into a field.

    Raises:
        CheckpointError: names, shapes or dtypes differ; says which.
    """
    for name, array in state_arrays(field).items():
        stored = arrays.get(name)
        if stored is None:
            raise CheckpointError(f"the checkpoint has no array {name}")
        if stored.shape != array.shape or stored.dtype != wp.dtype_to_numpy(array.dtype):
            raise CheckpointError(
                f"the checkpoint's {name} is {stored.dtype}{list(stored.shape)}, the "
                f"settings need {list(array.shape)}; resume with the run's own settings"
            )
    for name, p in field.parameters().items():
        p.load({part: arrays[f"{name}.{part}"] for part in p.state()})
    for name, array in field.extra_state().items():
        array.assign(arrays[f"state.{name}"])
