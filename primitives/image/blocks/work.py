"""What a job does: it fits one block of a run, or measures the whole.

It can be run again at any time: a block that is finished stays, one that is half done goes on from
its checkpoint.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ngp_warp.config import from_dict
from ngp_warp.job import Place, perform
from ngp_warp.primitive import Report
from ngp_warp.primitives.image.blocks.layout import Layout, name_of
from ngp_warp.primitives.image.blocks.mosaic import block_folder, is_finished
from ngp_warp.primitives.image.config import ImageConfig, format_box, parse_box
from ngp_warp.run import open_run
from ngp_warp.run_folder import list_checkpoints, read_blocks

WHOLE = "whole"
"""Name of the job that measures all blocks together."""
MAY_CHANGE = ("cache_dir", "checkpoint_seconds")
"""Settings that may differ when a run goes on: what is learned does not depend on them."""


@dataclass(frozen=True)
class Work:
    """One job: a function without arguments, which submitit sends to where it runs."""

    run: Path
    """The run's folder, absolute."""
    cell: tuple[int, int] | None
    """Row and column of the block; None: measure the whole."""
    place: Place

    @property
    def name(self) -> str:
        """The block's name, or WHOLE."""
        return WHOLE if self.cell is None else name_of(*self.cell)

    def at(self, place: Place) -> "Work":
        """Return the same job at another place."""
        return replace(self, place=place)

    def checkpoint(self) -> Any:
        """Return what submitit queues again: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def __call__(self) -> dict[str, Any]:
        """Do the work; see ``ngp_warp.job.perform``."""
        self.place.enter()
        return perform(self.run / "jobs", self.name, self._do)

    def _do(self, report: Report) -> None:
        if self.cell is None:
            from ngp_warp.primitives.image.blocks.evaluate import measure_run

            measure_run(self.run, self.place.device, self.place.threads, report)
        elif not is_finished(block_folder(self.run, *self.cell)):
            self._fit(*self.cell, report)

    def _fit(self, row: int, column: int, report: Report) -> None:
        from ngp_warp.fitting import fit

        header, folder = read_blocks(self.run), block_folder(self.run, row, column)
        config = from_dict(ImageConfig, header["config"], str(self.run / "config.json"))
        options: dict[str, Any]
        if list_checkpoints(folder):
            options = {"resume": folder, "config": _as_begun(open_run(folder).config, config)}
        else:
            outer = parse_box(config.crop) or (0, 0)
            left, top, width, height = Layout.from_dict(header).box(row, column)
            box = (outer[0] + left, outer[1] + top, width, height)
            options = {"out": folder, "config": replace(config, crop=format_box(box))}
        fit(
            "image",
            header["source"],
            device=self.place.device,
            threads=self.place.threads,
            progress=report,
            **options,
        )


def _as_begun(block: ImageConfig, run: ImageConfig) -> ImageConfig:
    """Return the settings of a block with those of MAY_CHANGE as the run now has them."""
    training = replace(block.training, checkpoint_seconds=run.training.checkpoint_seconds)
    return replace(block, cache_dir=run.cache_dir, training=training)
