"""A training step in the configuration that grids are compared in, whole and part by part."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import warp as wp

from benchmarks.limits import Limits
from ngp_warp import launch, samplers
from ngp_warp.config import GridEncodingConfig, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.grid import resolve
from ngp_warp.errors import DataError
from ngp_warp.field import Field
from ngp_warp.kernels.grid import GROUP
from ngp_warp.primitives.image.data import load_image
from ngp_warp.primitives.image.kernels import target_kernel

N_OUTPUTS = {2: 3, 3: 1}
FINEST_RESOLUTION = {2: 1920, 3: 2048}
PHOTO = Path(__file__).resolve().parent.parent / "examples" / "seeding.jpg"
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class StepSize:
    """What a step is made for: L=16, F=2, N_min=16, two hidden layers of 64, L2, float32."""

    n_dims: int
    batch_log2: int = 18
    table_log2: int = 19

    @property
    def n_points(self) -> int:
        """Points of a batch."""
        return 1 << self.batch_log2

    @property
    def n_outputs(self) -> int:
        """Values of a point: a colour, or a distance."""
        return N_OUTPUTS[self.n_dims]


def make_field(
    size: StepSize,
    finest_resolution: int | None = None,
    *,
    device: str = "cpu",
    deterministic: bool = False,
) -> Field:
    """Return the field with its initial values; N_max None: the comparison's own."""
    encoding = GridEncodingConfig(
        n_levels=16,
        n_features_per_level=2,
        log2_hashmap_size=size.table_log2,
        base_resolution=16,
        finest_resolution=finest_resolution or FINEST_RESOLUTION[size.n_dims],
    )
    return Field(
        size.n_dims,
        size.n_outputs,
        encoding=resolve(encoding),
        network=NetworkConfig(),
        optimizer=OptimizerConfig(),
        seed=_SEED,
        device=device,
        deterministic=deterministic,
    )


def read_photo(path: Path = PHOTO) -> np.ndarray:
    """Return an 8-bit photo, uint8 [h, w, 3].

    Raises:
        DataError: it cannot be read, or is of another kind.
    """
    pixels = load_image(path).pixels
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
        raise DataError(f"{path} must be an 8-bit RGB photo, it is {pixels.dtype} {pixels.shape}")
    return pixels


class TrainingStep:
    """The field's step on stratified batches: a photo's colours in 2D, fixed noise in 3D.

    Attributes:
        parts: name to a function that runs this part, in the order of a step; together they
            train like ``whole``.
        forward: the network's forward pass alone, which no training step has.
    """

    def __init__(self, size: StepSize, photo: np.ndarray | None = None):
        self.size = size
        self.field = field = make_field(size)
        n, n_rows = size.n_points, field.encoding.n_outputs
        self.x, self.target = field.zeros(n, size.n_dims), field.zeros(n, size.n_outputs)
        self._draw = [
            field.optimizer.advance(),
            samplers.sample("stratified", size.n_dims, _SEED, field.optimizer.step, self.x, "cpu"),
        ]
        self._fetch = self._fetch_launches(photo)
        self._features, self._d_features = field.zeros(n, n_rows), field.zeros(n, n_rows)
        self._y = field.zeros(n, size.n_outputs)
        self.forward = _runner(field.network.forward(field.weights.value, self._features, self._y))
        self.parts = self._record_parts()
        stages, _ = field.train_stages(self.x, self.target, n, "l2")
        self._stages = [[item] for item in self._draw + self._fetch] + stages

    def whole(self) -> None:
        """Run one step as the trainer does."""
        launch.run_stages(self._stages)

    def loss_and_gradients(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the loss of the batch in ``x`` and ``target``, and its gradients.

        Returns:
            Mean loss; gradient of the weights [n]; gradient of the table [n_entries * F], which
            is zero again afterwards.
        """
        for name in ("encode", "network train", "grid backward"):
            self.parts[name]()
        table = self.field.table.gradient.numpy().copy()
        self.field.table.gradient.zero_()
        assert self.field.table.touched is not None
        self.field.table.touched.zero_()
        loss = self._losses.numpy().reshape(-1, 2)[:, 0].sum(dtype=np.float64)
        weights = self.field.weights.gradient.numpy().copy()
        return float(loss) / (self.size.n_points * self.size.n_outputs), weights, table

    def count_touched(self) -> int:
        """Return the groups of table entries that a batch touches; runs a step by its parts."""
        assert self.field.table.touched is not None
        n_touched = 0
        for name, part in self.parts.items():
            if name == "optimizer, table":
                n_touched = int(self.field.table.touched.numpy().sum())
            part()
        return n_touched

    def _fetch_launches(self, photo: np.ndarray | None) -> list[launch.Launch]:
        n = self.size.n_points
        if self.size.n_dims == 3:
            noise = np.random.default_rng(_SEED).random(self.target.size, dtype=np.float32)
            self.target.assign(noise)
            return []
        photo = photo if photo is not None else read_photo()
        height, width, n_channels = photo.shape
        pixels = wp.array(photo.reshape(-1), dtype=wp.uint8, device="cpu")
        kernel = target_kernel(wp.uint8, n_channels, bilinear=False, asinh=False)
        args = [pixels, width, height, 1.0 / 255.0, self.x, self.target]
        return [launch.record(kernel, n // 32, args, "cpu")]

    def _record_parts(self) -> dict[str, Callable[[], None]]:
        field, n, n_rows = self.field, self.size.n_points, self.field.encoding.n_outputs
        assert field.table.touched is not None
        encode = field.encoding.forward(self.x, field.table.read, self._features, n_rows)
        train, self._losses = field.network.train(
            field.weights.value,
            self._features,
            self.target,
            n,
            "l2",
            self._d_features,
            field.weights.gradient,
        )
        scatter = field.encoding.backward(
            self.x, self._d_features, field.table.gradient, field.table.touched, n_rows
        )
        ((weights, table),) = field.optimizer.update()
        parts = {
            "sample": self._draw,
            "fetch targets": self._fetch,
            "encode": [encode],
            "network train": train,
            "grid backward": [scatter],
            "optimizer, weights": [weights],
            "optimizer, table": [table],
        }
        return {name: _runner(launches) for name, launches in parts.items() if launches}


def _runner(launches: list[launch.Launch]) -> Callable[[], None]:
    def run() -> None:
        for item in launches:
            item.run()

    return run


def least_times(step: TrainingStep, limits: Limits, n_touched: int) -> dict[str, float]:
    r"""Return the seconds that each part takes at least by the machine's limits.

    With n points, d dimensions, C outputs, L levels of F features, W weights:

    - sample: 4 n d bytes written / bandwidth.
    - fetch targets: 4 n (d + C) bytes of positions and targets and n C of pixels / bandwidth.
    - encode: the larger of the sum over levels of n 2^d reads / gather rate at the level's size,
      and 4 n (d + L F) bytes of positions and features / bandwidth.
    - network forward: 2 n W operations / peak; network train: 6 n W (forward, gradients of the
      inputs and of the weights).
    - grid backward: like encode, with the update rate.
    - optimizer: bytes / bandwidth; 7 floats a weight (value and two moments read and written, the
      gradient read); for the table 8 floats an entry (the gradient is also cleared) and 4 bytes
      of step count, of touched groups of entries only, and a byte for every group's flag.

    Gathers and updates are counted at random places; a batch in the order of a curve through space
    finds neighbours in one cache line, so a share above 1 is possible there.
    """
    size, field = step.size, step.field
    n, d = size.n_points, size.n_dims
    entries = [level.size for level in field.encoding.levels]
    feature_bytes = 4 * n * (d + field.encoding.n_outputs)
    gathers = sum(n * 2**d / limits.gather_rate(m) for m in entries)
    updates = sum(n * 2**d / limits.update_rate(m) for m in entries)
    n_weights = field.weights.value.size
    n_groups = field.encoding.n_entries // GROUP
    table_bytes = n_touched * GROUP * (32 * field.encoding.n_features + 4) + n_groups
    times = {
        "sample": 4 * n * d / limits.bandwidth,
        "fetch targets": n * (4 * d + 5 * size.n_outputs) / limits.bandwidth,
        "encode": max(gathers, feature_bytes / limits.bandwidth),
        "network train": 6 * n * n_weights / limits.flops,
        "grid backward": max(updates, feature_bytes / limits.bandwidth),
        "optimizer, weights": 28 * n_weights / limits.bandwidth,
        "optimizer, table": table_bytes / limits.bandwidth,
    }
    parts: Mapping[str, float] = {name: times[name] for name in step.parts}
    return {
        **parts,
        "network forward": 2 * n * n_weights / limits.flops,
        "whole step": sum(parts.values()),
    }
