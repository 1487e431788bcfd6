"""Sizes of a fused network on CUDA, and where its parts lie in the arrays."""

from dataclasses import dataclass

from ngp_warp.kernels.mlp_cuda_functions import ACTIVATIONS


@dataclass(frozen=True)
class MlpLayout:
    """Sizes of a network and where its parts lie; a tile is 16 features."""

    n_in: int
    n_neurons: int
    n_hidden_layers: int
    n_out: int
    activation: str
    output_activation: str

    @property
    def in_tiles(self) -> int:
        """Tiles of the inputs."""
        return -(-self.n_in // 16)

    @property
    def hidden_tiles(self) -> int:
        """Tiles of a hidden layer."""
        return self.n_neurons // 16

    @property
    def out_tiles(self) -> int:
        """Tiles of the outputs."""
        return -(-self.n_out // 16)

    @property
    def hidden_weights(self) -> int:
        """First weight of the first matrix between hidden layers."""
        return self.n_neurons * self.n_in

    @property
    def last_weights(self) -> int:
        """First weight of the output matrix."""
        return self.hidden_weights + (self.n_hidden_layers - 1) * self.n_neurons**2

    @property
    def n_weights(self) -> int:
        """Length of the flat weight array."""
        return self.last_weights + self.n_out * self.n_neurons

    @property
    def hidden_fragments(self) -> int:
        """First 16x16 weight tile of the first matrix between hidden layers."""
        return self.in_tiles * self.hidden_tiles

    @property
    def last_fragments(self) -> int:
        """First 16x16 weight tile of the output matrix."""
        return self.hidden_fragments + (self.n_hidden_layers - 1) * self.hidden_tiles**2

    @property
    def n_fragments(self) -> int:
        """16x16 weight tiles of all layers; as many again, transposed, follow."""
        return self.last_fragments + self.hidden_tiles * self.out_tiles

    @property
    def slope_tiles(self) -> int:
        """First scratch tile of dh/dz, where hidden layers store it."""
        return self.in_tiles + self.n_hidden_layers * self.hidden_tiles

    @property
    def kept_tiles(self) -> int:
        """First tile of what tells the hidden layers' slopes: dh/dz where stored, else h."""
        return self.slope_tiles if ACTIVATIONS[self.activation].keeps_slope else self.in_tiles

    @property
    def delta_tiles(self) -> int:
        """First scratch tile of the deltas dL/dz."""
        kept = self.n_hidden_layers * self.hidden_tiles
        return self.slope_tiles + (kept if ACTIVATIONS[self.activation].keeps_slope else 0)

    @property
    def n_scratch_tiles(self) -> int:
        """Scratch tiles of a block of points, each 256 words of 32 bits."""
        return self.delta_tiles + self.n_hidden_layers * self.hidden_tiles + self.out_tiles
