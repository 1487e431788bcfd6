"""A run: what was fitted, and what can be asked of it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.checkpoint import read_checkpoint, read_header
from ngp_warp.config import from_dict
from ngp_warp.errors import CheckpointError, ConfigError, DataError, ResourceError
from ngp_warp.primitive import Report, check_options, report_nothing
from ngp_warp.run_folder import list_checkpoints, read_blocks, read_metrics


@dataclass(frozen=True)
class Run:
    """A run's folder, as ``open_run`` finds it or ``fit`` leaves it."""

    path: Path
    checkpoint: Path
    """The checkpoint that queries, renders and exports read; of a run in blocks its config.json."""
    header: dict[str, Any]
    """Its header: primitive, source, config, step, n_steps, data, curve; of a run in blocks what
    its config.json holds: primitive, source, config, data, and blocks."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """metrics.json; empty while the run has not ended."""
    device: str | None = None
    """Where queries, renders and exports compute: "auto" (None), "cpu", "cuda" or "cuda:N"."""

    @property
    def primitive(self) -> str:
        """Name of the primitive."""
        return self.header["primitive"]

    @property
    def source(self) -> Path:
        """The file that was fitted."""
        return Path(self.header["source"])

    def original(self) -> Path:
        """Return the file that was fitted, to be read again.

        Raises:
            DataError: the run is of a snapshot, without what that was fitted to.
        """
        if self.header.get("imported") == self.header["source"]:
            raise DataError(
                f"{self.path} is an imported snapshot: there is no original to compare it with"
            )
        return self.source

    @property
    def in_blocks(self) -> bool:
        """Whether its parts are runs of their own, in its folder ``blocks``."""
        return "blocks" in self.header

    @property
    def config(self) -> Any:
        """The resolved config, as the primitive's dataclass."""
        from ngp_warp.primitives import get

        return from_dict(get(self.primitive).config, self.header["config"], str(self.checkpoint))

    def arrays(self, parts: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
        """Read the checkpoint's arrays, checked to be whole; see ``read_checkpoint``."""
        return read_checkpoint(self.checkpoint, parts)[1]

    @cached_property
    def fitted(self) -> Any:
        """What was trained, on the run's device, in its own coordinates and units.

        A ``Field``, of an image in blocks a ``primitives.image.blocks.mosaic.Mosaic``, of photos a
        ``primitives.nerf.model.NerfModel``, of a volume's light a
        ``primitives.volume.radiance_field.RadianceField``.
        """
        from ngp_warp.decode import load_field

        return (self._kind().fitted or load_field)(self)

    def query(self, points: Any) -> Any:
        """Return what was fitted at points.

        Args:
            points: NumPy array or torch tensor [n, n_dims]. Of an image: in the unit square
                (clamped to it); its top left corner is (0, 0), its bottom right one (1, 1), and
                pixel i of w has its centre at (i + 0.5) / w. Of a mesh: anywhere, in its own units.
                Of a volume: anywhere in its world.

        Returns:
            float32 [n, n_outputs], a NumPy array, or a torch tensor on the device of ``points``.
            Integer images give shares of full scale (0 black, 1 full), not clipped; float images
            give their own values; meshes give signed distances in their units, negative inside;
            volumes give their own values, outside the background; in radiance mode [n, 4]: the
            light that a collision there scatters, linear RGB, and the density.

        Raises:
            ShapeError: another shape, or values that are no real numbers.
            CheckpointError: the checkpoint is cut short or altered.
        """
        from ngp_warp.field import as_numpy

        array, back = as_numpy(points)
        return back(self._kind().query(self, array, gradient=False)[0])

    def value_and_gradient(self, points: Any) -> tuple[Any, Any]:
        """Return values [n, n_outputs] and Jacobians [n, n_outputs, n_dims] at points.

        Units and errors as in ``query``; the Jacobian is for one unit of the points' coordinates.
        """
        from ngp_warp.field import as_numpy

        array, back = as_numpy(points)
        values, jacobian = self._kind().query(self, array, gradient=True)
        return back(values), back(jacobian)

    def sphere_trace(self, rays_o: Any, rays_d: Any) -> Any:
        """Return where rays meet the surface of a fitted mesh.

        Args:
            rays_o: origins [n, 3], in the mesh's units.
            rays_d: directions [n, 3], of any length but zero.

        Returns:
            A ``Trace``: ``t`` float32 [n], distance in the mesh's units (infinite where there is no
            hit), ``hit`` bool [n], and ``clearance`` float32 [n].

        Raises:
            ConfigError: what was fitted has no surface.
            ShapeError: arrays that are no rays.
        """
        kind = self._kind()
        if kind.trace is None:
            raise ConfigError(f"{self.path} is a fitted {kind.name}, which has no surface to trace")
        return kind.trace(self, rays_o, rays_d)

    def render_rays(self, rays_o: Any, rays_d: Any) -> Any:
        """Return what is seen along rays through a fitted scene.

        Args:
            rays_o: origins [n, 3], in the scene's units.
            rays_d: directions [n, 3], of any length but zero.

        Returns:
            A ``Rendered``: ``color`` float32 [n, 3] over the run's background, in the photos'
            colour space; ``opacity`` float32 [n]; ``depth`` float32 [n], expected distance in the
            scene's units, infinite where nothing is.

        Raises:
            ConfigError: what was fitted is no scene.
            ShapeError: arrays that are no rays.
        """
        kind = self._kind()
        if kind.render_rays is None:
            raise ConfigError(f"{self.path} is a fitted {kind.name}, which has no colours of rays")
        return kind.render_rays(self, rays_o, rays_d)

    def render(
        self, output: str | Path, *, progress: Report = report_nothing, **options: Any
    ) -> Path:
        """Make a picture or a film, as ``ngp render`` does.

        Args:
            output: the file; its extension says the format.
            progress: told how far it has come.
            options: the flags of ``ngp render`` with their values, those of None left out. Of an
                image: ``width`` or ``scale``, and ``crop`` (left, top, width, height). Of a mesh:
                ``width``, ``height``, ``camera``, ``camera_path``, ``up``, ``spp``, ``show``,
                ``frames``, ``fps``. Of a volume: ``primitives.volume.output.render``.

        Returns:
            ``output``.

        Raises:
            NgpError: as the primitive's ``render``.
        """
        output = Path(output)
        kind = self._kind()
        given = {name: value for name, value in options.items() if value is not None}
        check_options(given, kind.render_options, f"a fitted {kind.name}")
        kind.render(self, output, progress=progress, **given)
        return output

    def export(
        self,
        format_name: str,
        output: str | Path | None = None,
        *,
        progress: Report = report_nothing,
        **options: Any,
    ) -> dict[str, Any]:
        """Write a file that other programs read, as ``ngp export`` does.

        Args:
            format_name: one of ``ngp_warp.primitives.get(self.primitive).exporters``.
            output: the file or folder; None: in the run's exports.
            progress: told how far it has come.
            options: the flags of ``ngp export`` with their values, those of None left out.

        Returns:
            "output", the path of what was written, and what there is to say of it.

        Raises:
            NgpError: as the format's exporter.
        """
        kind = self._kind()
        if format_name not in kind.exporters:
            raise ConfigError(
                f"--format must be one of {', '.join(sorted(kind.exporters))}, got {format_name}"
            )
        given = {name: value for name, value in options.items() if value is not None}
        known = kind.export_options.get(format_name, frozenset())
        check_options(given, known, f"--format {format_name}")
        target = None if output is None else Path(output)
        if target is None:
            folder = self.path / "exports"  # not yet there beside a compact export
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ResourceError(f"cannot make {folder}: {error.strerror}") from error
        return kind.exporters[format_name](self, target, progress=progress, **given)

    def _kind(self) -> Any:
        from ngp_warp.primitives import get

        return get(self.primitive)


def open_run(path: str | Path, *, device: str | None = None) -> Run:
    """Open a run by its folder, a ``latest`` link or one of its checkpoints.

    Args:
        path: the folder, the link or the checkpoint.
        device: where queries, renders and exports compute; None: CUDA where there is one.

    Raises:
        CheckpointError: there is no run, or it has no checkpoint yet.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"there is no run {path}")
    if path.is_file():
        header = read_header(path)
        # a compact export may lie anywhere; what is made of it goes beside it
        folder = path.with_suffix("") if header.get("compact") else path.resolve().parent.parent
        return Run(folder, path, header, read_metrics(folder), device)
    checkpoints = list_checkpoints(path)
    if not checkpoints and (header := read_blocks(path)):
        return Run(path, path / "config.json", header, read_metrics(path), device)
    if not checkpoints:
        raise CheckpointError(
            f"{path} holds no checkpoint (looked for {path}/checkpoints/step-*.safetensors)"
        )
    newest = checkpoints[-1]
    return Run(path, newest, read_header(newest), read_metrics(path), device)


def describe(path: str | Path) -> dict[str, Any]:
    """Return what a run or checkpoint holds: ``ngp info``; the checkpoint is checked to be whole.

    Raises:
        CheckpointError: there is none, or it is cut short or altered.
    """
    run = open_run(path)
    if run.in_blocks:
        return run._kind().describe_blocks(run)
    header, arrays = read_checkpoint(run.checkpoint)
    values = [a for name, a in arrays.items() if name.endswith(".value")]
    return {
        "run": str(run.path),
        "checkpoint": str(run.checkpoint),
        "primitive": run.primitive,
        "source": str(run.source),
        "step": header["step"],
        "steps": header["n_steps"],
        "parameters": header.get("parameters") or int(sum(a.size for a in values)),
        "bytes": run.checkpoint.stat().st_size,
        "data": header["data"],
        "config": header["config"],
        "metrics": run.metrics,
    }
