"""A trained model, measured on the views held back, and drawn."""

from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.primitive import Progress, Report
from ngp_warp.primitives.nerf.data import NerfData, load_again
from ngp_warp.primitives.nerf.evaluate import Evaluation, evaluate_views, write_pictures
from ngp_warp.primitives.nerf.model import NerfModel
from ngp_warp.primitives.nerf.subject import Subject


def measure(model: NerfModel, data: NerfData, report: Report) -> Evaluation:
    """Compare the views held back with their photos; the trained ones where none are."""
    subject = Subject.of_model(model)
    side, numbers = data.held, subject.held_back
    if side is None:
        text = "no view was held back: the figures are those of the photos that were trained"
        report(Progress(stage="evaluate", message=text))
        side, numbers = data.train, subject.trained
    evaluation = evaluate_views(
        subject, numbers, side.photos, background=model.photos_background, progress=report
    )
    evaluation.metrics["held_back"] = data.held is not None
    return evaluation


def finish(
    model: NerfModel, data: NerfData, run: Path, curve: np.ndarray, report: Report
) -> dict[str, Any]:
    """Measure a model and write the pictures to run/renders; return the metrics."""
    evaluation = measure(model, data, report)
    write_pictures(run / "renders", evaluation, curve, report)
    return evaluation.metrics


def evaluate_again(run: Any, report: Report) -> dict[str, Any]:
    """Measure a run against its photos."""
    return measure(run.fitted, load_again(run, report), report).metrics
