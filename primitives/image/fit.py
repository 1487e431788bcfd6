"""The Python entry: fit a neural field to a picture."""

import dataclasses
from pathlib import Path
from typing import Any

from ngp_warp.config import TrainingConfig, from_dict, override, to_dict
from ngp_warp.errors import ConfigError
from ngp_warp.fitting import fit
from ngp_warp.primitive import Report
from ngp_warp.primitives.image.config import ImageConfig
from ngp_warp.run import Run, open_run


def fit_image(
    source: str | Path | None = None,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: Report | None = None,
    config: ImageConfig | None = None,
    **settings: Any,
) -> Run:
    """Fit a neural field to a picture, or continue a run: ``ngp fit-image``.

    >>> run = fit_image("photo.jpg", seconds=60, loss="l1", encoding={"n_levels": 16}, seed=1)

    Args:
        source: the picture; None with ``resume``: the run's own.
        seconds: training time, 60 if neither it nor ``steps`` is given.
        steps: number of training steps.
        out: the run's folder; None: outputs/<input>/fit-image/<time>.
        resume: a run's folder or checkpoint to continue, bit by bit on a CPU.
        device: "auto" (None), "cpu", "cuda" or "cuda:N".
        threads: CPU threads; the result does not depend on them.
        progress: called with an ``ngp_warp.Progress`` now and then.
        config: settings; None: the resumed run's, or what suits the picture and the device.
        settings: over ``config``, by name: fields of ``ImageConfig`` (``loss``, ``sampler``,
            ``encoding``, ...; the nested ones as a dict or a config) and of ``TrainingConfig``
            (``batch_size``, ``seed``, ...).

    Returns:
        The run: its ``path``, ``metrics``, ``query``, ``value_and_gradient`` and ``render``.

    Raises:
        NgpError: the picture, the settings or the outputs are at fault.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    given |= {"seconds": seconds} if seconds is not None else {}
    given |= {"steps": steps} if steps is not None else {}
    if seconds is not None and steps is not None:
        raise ConfigError("give seconds or steps, not both")
    if given:
        if config is None:
            config = open_run(resume).config if resume is not None else ImageConfig()
        above = _nested(given)
        config = from_dict(ImageConfig, override(to_dict(config), above), "settings")
    return fit(
        "image",
        source,
        config=config,
        out=out,
        resume=resume,
        device=device,
        threads=threads,
        progress=progress,
    )


def _nested(given: dict[str, Any]) -> dict[str, Any]:
    """Return settings as plain JSON values, those of the training where they belong."""
    training = {f.name for f in dataclasses.fields(TrainingConfig)}
    above: dict[str, Any] = {}
    for name, value in given.items():
        plain = to_dict(value) if dataclasses.is_dataclass(value) else value
        plain = str(plain) if isinstance(plain, Path) else plain
        if name in training:
            above.setdefault("training", {})[name] = plain
        else:
            above[name] = {**above.get(name, {}), **plain} if isinstance(plain, dict) else plain
    return above
