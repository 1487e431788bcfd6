"""A mesh as it is fitted: cleaned, with its sign method, its place in the unit cube."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.primitive import Progress, Report, check_same
from ngp_warp.primitives.sdf.choose import choose_sign
from ngp_warp.primitives.sdf.config import SdfConfig
from ngp_warp.primitives.sdf.frame import Frame
from ngp_warp.primitives.sdf.mesh import Surface, load_mesh
from ngp_warp.primitives.sdf.sign import Sign


@dataclass(frozen=True)
class SdfData:
    """What is fitted."""

    surface: Surface
    sign: Sign
    sign_reason: str

    @property
    def frame(self) -> Frame:
        """The map between the mesh's units and the unit cube."""
        return self.surface.frame

    @cached_property
    def unit_mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Vertices float32 [n, 3] in the unit cube and faces int32 [m, 3]."""
        vertices = self.frame.to_unit(self.surface.vertices)
        return vertices.astype(np.float32), self.surface.faces

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: enough to know the mesh again, and to undo the frame."""
        digest = hashlib.sha256(self.surface.vertices.tobytes())
        digest.update(self.surface.faces.tobytes())
        return {
            "n_dims": 3,
            "n_outputs": 1,
            "frame": self.frame.to_dict(),
            "n_vertices": len(self.surface.vertices),
            "n_faces": len(self.surface.faces),
            "watertight": self.surface.report.watertight,
            "sign": self.sign,
            "digest": digest.hexdigest()[:16],
        }


def load(source: Path, config: SdfConfig, report: Report) -> SdfData:
    """Read a mesh, say what it is like and which sign method it gets.

    Raises:
        DataError: it cannot be read, or is no surface.
    """
    surface = load_mesh(source)
    for line in surface.report.lines():
        report(Progress(stage="load", message=line))
    if config.sign == "auto":
        report(Progress(stage="load", message="choosing the sign method"))
        vertices = surface.frame.to_unit(surface.vertices)
        sign, reason = choose_sign(vertices, surface.faces, "cpu")
    else:
        sign, reason = config.sign, "as set"
    report(Progress(stage="load", message=f"sign by {sign}: {reason}"))
    return SdfData(surface, sign, reason)


def load_again(run: Any, report: Report) -> SdfData:
    """Read the mesh that a run was fitted to, with the sign method that it had.

    Raises:
        DataError: it is gone, or another.
    """
    config = replace(run.config, sign=run.header["data"]["sign"])
    data = load(run.original(), config, report)
    check_same(run.source, data.describe(), run.header["data"])
    return data
