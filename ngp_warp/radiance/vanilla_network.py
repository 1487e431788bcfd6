"""The network of the original NeRF, and its settings."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ngp_warp.config import NetworkConfig, check_choice, check_range
from ngp_warp.encodings.frequency import MAX_FREQUENCIES, FrequencyEncoding
from ngp_warp.networks.unfused import UnfusedMLP
from ngp_warp.radiance.settings import AABB_SCALES, ColorSpace

DensityActivation = Literal["relu", "softplus"]

# The unit in which the paper's synthetic scenes are given: three of them span such a scene, as
# the box does. Densities of the size that its learning rate suits follow.
DENSITY_SCALE = 3.0
# Bias of the raw density at the start. At first raw densities differ by 0.08 (standard deviation)
# over the box, so that a bias of 0 leaves it to the seed how much of the box is dead to a ReLU's
# gradient: from 1 to 99 percent in twelve seeds, at most 9 percent with this bias. The paper's code
# adds noise instead, but none for the synthetic scenes.
INITIAL_DENSITY = 0.3
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
    max_rays: int = 64
    """Rays of a training step. The paper has 4096; a CPU that has minutes gets further with more
    and smaller steps."""

    def __post_init__(self):
        check_range("n_coarse", self.n_coarse, 2, 4096)
        check_range("n_fine", self.n_fine, 1, 4096)
        check_range("position_frequencies", self.position_frequencies, 0, MAX_FREQUENCIES)
        check_range("direction_frequencies", self.direction_frequencies, 0, MAX_FREQUENCIES)
        check_choice("density_activation", self.density_activation, get_args(DensityActivation))
        check_choice("aabb_scale", self.aabb_scale, AABB_SCALES)
        check_choice("color_space", self.color_space, get_args(ColorSpace))
        check_range("near", self.near, 0.0)
        check_range("max_rays", self.max_rays, 1, 2**22)
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

    @property
    def n_evaluations(self) -> int:
        """Samples of a ray in both networks."""
        return self.n_coarse + self.n_samples

    @property
    def min_step(self) -> float:
        """Mean distance of the fine network's samples in the box's diagonal."""
        return math.sqrt(3) / self.n_samples

    # What other radiance fields may have and this one has not
    @property
    def n_latent_dims(self) -> int:
        """No latent vectors."""
        return 0

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

    def rendering_rows(self) -> int:
        """Return the floats of a sample that a pass of rendering keeps."""
        networks = self.trunk, self.head
        return sum(n.rendering_rows() + n.n_in + n.n_out for n in networks) + 3
