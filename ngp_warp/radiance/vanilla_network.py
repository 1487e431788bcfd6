"""The network of the original NeRF, and a pass of it over the samples of a slice of rays."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import NetworkConfig, check_choice, check_range
from ngp_warp.encodings.frequency import MAX_FREQUENCIES, FrequencyEncoding
from ngp_warp.kernels import hierarchical, rows
from ngp_warp.networks.unfused import UnfusedMLP
from ngp_warp.radiance.settings import ColorSpace

DensityActivation = Literal["relu", "softplus"]

# The unit in which the paper's synthetic scenes are given: three of them span such a scene, as
# the box does. Densities of the size that its learning rate suits follow.
DENSITY_SCALE = 3.0
# Raw density of everything at the start. With 0 half of the space is dead to a ReLU's gradient, and
# on a mostly white picture the other half may follow within the first steps.
INITIAL_DENSITY = 0.1
N_OUTPUTS = 3


@dataclass(frozen=True, kw_only=True)
class VanillaSettings:
    """The radiance field of Mildenhall et al. 2020; the defaults are theirs."""

    n_coarse: int = 64
    """Stratified samples of a ray, for the coarse network."""
    n_fine: int = 128
    """Samples of a ray that are drawn by the coarse network's weights."""
    position_frequencies: int = 10
    """Frequencies of the encoded positions."""
    direction_frequencies: int = 4
    """Frequencies of the encoded directions."""
    n_neurons: int = 256
    """Width of the trunk, and of what it tells the head."""
    n_hidden_layers: int = 8
    """Hidden layers of the trunk."""
    skip_layer: int = 5
    """Hidden layer of the trunk, counted from 0, that is given the encoded position again."""
    n_head_neurons: int = 128
    """Width of the head's hidden layer."""
    density_activation: DensityActivation = "relu"
    """Activation of the density; the paper's is relu."""
    aabb_scale: int = 1
    """Side of the box in sides of the inner cube, to which densities are related."""
    near: float = 0.0
    """Distance from the camera at which rays begin, in sides of the box."""
    color_space: ColorSpace = "srgb"
    """Of colours, targets and backgrounds; compositing takes place in it."""

    def __post_init__(self):
        check_range("n_coarse", self.n_coarse, 2, 4096)
        check_range("n_fine", self.n_fine, 1, 4096)
        check_range("position_frequencies", self.position_frequencies, 0, MAX_FREQUENCIES)
        check_range("direction_frequencies", self.direction_frequencies, 0, MAX_FREQUENCIES)
        check_choice("density_activation", self.density_activation, get_args(DensityActivation))
        check_choice("aabb_scale", self.aabb_scale, tuple(2**k for k in range(8)))
        check_choice("color_space", self.color_space, get_args(ColorSpace))
        check_range("near", self.near, 0.0)
        _ = self.trunk, self.head

    @property
    def trunk(self) -> NetworkConfig:
        """From encoded positions to the raw density and the features."""
        return NetworkConfig(
            n_neurons=self.n_neurons,
            n_hidden_layers=self.n_hidden_layers,
            skip_layer=self.skip_layer,
            bias=True,
            backend="unfused",
        )

    @property
    def head(self) -> NetworkConfig:
        """From features and encoded directions to red, green and blue."""
        return NetworkConfig(
            n_neurons=self.n_head_neurons,
            n_hidden_layers=1,
            output_activation="sigmoid",
            bias=True,
            backend="unfused",
        )

    @property
    def n_samples(self) -> int:
        """Samples of a ray that the fine network is given."""
        return self.n_coarse + self.n_fine

    # What a batch of rays is asked to hold beyond the paper (``BatchSettings``)
    @property
    def ray_gradients(self) -> bool:
        """No gradients of rays."""
        return False

    @property
    def background_gradients(self) -> bool:
        """No gradients of backgrounds."""
        return False

    @property
    def exposure(self) -> bool:
        """No exposures."""
        return False


class VanillaNetwork:
    """Trunk and head: (position, direction) to (raw density, colour).

    The trunk's outputs are the raw density and the features; the head is given the features and the
    encoded direction.
    """

    def __init__(self, settings: VanillaSettings, device: str, backend: str = "auto"):
        s = settings
        self.settings = s
        self.device = device
        self.positions = FrequencyEncoding(3, s.position_frequencies, device)
        self.directions = FrequencyEncoding(3, s.direction_frequencies, device)
        self.n_features = s.n_neurons
        n_in, n_out = self.positions.n_outputs, 1 + self.n_features
        self.trunk = UnfusedMLP(s.trunk, n_in, n_out, device, backend)
        n_in = self.n_features + self.directions.n_outputs
        self.head = UnfusedMLP(s.head, n_in, N_OUTPUTS, device, backend)

    @property
    def n_params(self) -> int:
        """Parameters of the trunk, then of the head."""
        return self.trunk.n_params + self.head.n_params

    def initial_weights(self, seed: int) -> np.ndarray:
        """Return float32 [n_params]: Xavier-uniform, biases zero but the density's."""
        trunk = self.trunk.initial_weights(seed * 2)
        trunk[self.trunk.layers[-1].bias] = INITIAL_DENSITY
        return np.concatenate([trunk, self.head.initial_weights(seed * 2 + 1)])

    def training_rows(self) -> int:
        """Return the floats of a sample that a training pass keeps."""
        networks = self.trunk, self.head
        kept = sum(n.training_rows() + 2 * (n.n_in + n.n_out) for n in networks)
        return kept + 3


def part_of(flat: wp.array, first: int, n: int) -> wp.array:
    """Return n values of a flat array from ``first`` on, sharing its memory."""
    part = flat[first : first + n]
    assert isinstance(part, wp.array)  # to type checkers a slice may be an indexed array
    return part


def _parts(network: VanillaNetwork, flat: wp.array) -> tuple[wp.array, wp.array]:
    """Return the trunk's and the head's parts of a flat array."""
    n = network.trunk.n_params
    return part_of(flat, 0, n), part_of(flat, n, network.head.n_params)


class Pass:
    """Arrays of a network over ``n_samples`` samples of each of ``n_rays`` rays, and its launches.

    Args:
        network: what is passed through.
        w: its parameters.
        dw: gradients; None: no training.
        n_rays: of the slice.
        n_samples: of a ray; sample s of ray i is point i * n_samples + s.
    """

    def __init__(
        self,
        network: VanillaNetwork,
        w: wp.array,
        dw: wp.array | None,
        n_rays: int,
        n_samples: int,
    ):
        self.network, self.n_rays, self.n_samples = network, n_rays, n_samples
        self.device = network.device
        self.n_points = n_rays * n_samples
        self.n_blocks = -(-self.n_points // 32)
        self.ray_blocks = -(-n_rays // 32)
        self._w = _parts(network, w)
        # zeros: the padding is read, and its gradients are added up
        self.t, self.weights, self.after = (self._zeros(self.n_points) for _ in range(3))
        self.x = self._rows(3)
        trunk, head = network.trunk, network.head
        self._trunk_x, self.trunk_y = self._rows(trunk.n_in), self._rows(trunk.n_out)
        self._head_x, self.rgb = self._rows(head.n_in), self._rows(head.n_out)
        self.directions = self._zeros(self.ray_blocks * 3 * 32)
        self._encoded = self._zeros(self.ray_blocks * network.directions.n_outputs * 32)
        self._trains = dw is not None
        if dw is not None:
            self._dw = _parts(network, dw)
            self.d_trunk_y, self.d_rgb = self._rows(trunk.n_out), self._rows(head.n_out)
            self._d_head_x = self._rows(head.n_in)
            self._kept = trunk.make_pass(self.n_blocks), head.make_pass(self.n_blocks)

    def _zeros(self, size: int) -> wp.array:
        return wp.zeros(size, dtype=wp.float32, device=self.device)

    def _rows(self, n: int) -> wp.array:
        return self._zeros(self.n_blocks * n * 32)

    def forward(self) -> list[launch.Launch]:
        """Record rgb and trunk_y (row 0: the raw density) of x and the rays' directions."""
        n, w = self.network, self._w
        items = [n.positions.forward(self.x, self._trunk_x)]
        if self._trains:
            items += n.trunk.forward_pass(w[0], self._trunk_x, self.trunk_y, self._kept[0])
        else:
            items += n.trunk.forward(w[0], self._trunk_x, self.trunk_y)
        items += [n.directions.forward(self.directions, self._encoded), *self._join()]
        if self._trains:
            return items + n.head.forward_pass(w[1], self._head_x, self.rgb, self._kept[1])
        return items + n.head.forward(w[1], self._head_x, self.rgb)

    def _join(self) -> list[launch.Launch]:
        """Record the head's inputs: the trunk's features, the rays' encoded directions."""
        n = self.network
        args = [self._encoded, n.directions.n_outputs, self.n_samples, n.head.n_in, n.n_features]
        spread = launch.record(rows.spread_rows, self.n_points, [*args, self._head_x], self.device)
        return [self._copy(self.trunk_y, 1, self._head_x, 0), spread]

    def _copy(self, source: wp.array, first: int, target: wp.array, to: int) -> launch.Launch:
        """Record a copy of the features' rows."""
        n = self.network.n_features
        per_row = self.n_blocks * 32
        args = [source, source.size // per_row, first, n, target.size // per_row, to, target]
        n_items = rows.copy_items(self.n_blocks, n, self.device)
        return launch.record(rows.copy_rows_kernel(), n_items, args, self.device)

    def backward(self, *, accumulate: bool) -> list[launch.Launch]:
        """Record the gradients of the parameters from d_rgb and d_trunk_y (row 0)."""
        n, w, dw = self.network, self._w, self._dw
        head, trunk = self._kept[1], self._kept[0]
        return [
            *n.head.backward_pass(
                w[1], self._head_x, self.rgb, self.d_rgb, self._d_head_x, dw[1], head,
                accumulate=accumulate,
            ),
            self._copy(self._d_head_x, 0, self.d_trunk_y, 1),
            *n.trunk.backward_pass(
                w[0], self._trunk_x, self.trunk_y, self.d_trunk_y, None, dw[0], trunk,
                accumulate=accumulate,
            ),
        ]  # fmt: skip

    def place(self, first_ray: int, count: wp.array, origin: wp.array, direction: wp.array):
        """Record x and the directions of the slice's rays from t."""
        args = [first_ray, count, origin, direction, self.t, self.n_samples, self.x]
        kernel = hierarchical.sample_positions
        return [
            launch.record(kernel, self.n_points, args, self.device),
            launch.record(
                hierarchical.ray_directions, self.n_rays,
                [first_ray, count, direction, self.directions], self.device,
            ),
        ]  # fmt: skip
