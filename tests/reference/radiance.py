"""A radiance field in float64: from given samples to the loss. Twin of ngp_warp/radiance/.

Differentiated by the tests with central differences; samples (distances and steps along each ray)
are given, as marching is not differentiable.
"""

import numpy as np

from tests.reference import composite, grid, mlp, spherical_harmonics

N_GEOMETRY, N_BANDS = 16, 4


class FieldTwin:
    """Values of a field's parameters: weights (both networks, flat), table, latents."""

    def __init__(self, settings, levels, weights, table, latents=None):
        self.settings, self.levels = settings, levels
        self.weights = np.asarray(weights, np.float64)
        self.table = np.asarray(table, np.float64)
        self.latents = None if latents is None else np.asarray(latents, np.float64)

    def network(self, config, flat, x, n_out):
        """Outputs of a network."""
        matrices, biases = mlp.split_parameters(
            flat, x.shape[1], config.n_neurons, config.n_hidden_layers, n_out,
            config.bias, config.skip_layer,
        )  # fmt: skip
        return mlp.forward(
            matrices, x, config.activation, config.output_activation,
            biases=biases, skip_layer=config.skip_layer,
        )[0]  # fmt: skip

    def evaluate(self, x, d, view, n_density):
        """Raw densities [n] and colours [n, 3] at positions and unit directions [n, 3]."""
        s = self.settings
        features = grid.forward(
            x, self.table, self.levels, s.encoding.grid_type, s.encoding.interpolation
        )
        geometry = self.network(s.density_network, self.weights[:n_density], features, N_GEOMETRY)
        rows = [geometry, spherical_harmonics.harmonics(d, N_BANDS)]
        if self.latents is not None:
            none = np.zeros((1, self.latents.shape[1]))
            rows.append(np.concatenate([self.latents, none])[view])
        rgb = self.network(s.color_network, self.weights[n_density:], np.hstack(rows), 3)
        return geometry[:, 0], rgb

    def rays(self, batch, samples, n_density):
        """Rays for ``composite``: of arrays origin, direction, ... [n, ...] and (t, dt) lists."""
        n = [len(t) for t, _ in samples]
        ray = np.repeat(np.arange(len(n)), n)
        t = np.concatenate([t for t, _ in samples])
        x = batch["origin"][ray] + t[:, None] * batch["direction"][ray]
        d = batch["direction"] / np.linalg.norm(batch["direction"], axis=1, keepdims=True)
        raw, rgb = self.evaluate(x, d[ray], batch["view"][ray], n_density)
        rays = []
        for r, (ts, dts) in enumerate(samples):
            own = ray == r
            thickness = composite.density(raw[own]) * dts * self.settings.aabb_scale
            names = ("background", "target", "weight", "depth_target", "span", "stops")
            values = {name: batch[name][r] for name in names}
            rays.append(
                {"thickness": thickness, "colors": rgb[own], "t": ts, "length": dts} | values
            )
        return rays

    def loss(self, batch, samples, n_density):
        """What a training step minimises."""
        return composite.mean_loss(self.rays(batch, samples, n_density), self.settings)
