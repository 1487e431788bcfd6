"""Adam in float64 (Kingma and Ba 2015). Twin of ngp_warp/kernels/adam.py and adam_portable.py.

``sparse`` is a grid's table: parameters without a gradient are skipped, and the bias correction
counts each entry's own steps.
"""

import numpy as np


def learning_rate(config, step, n_steps):
    """Rate of step 1, 2, ...: constant, then exponential; constant throughout if n_steps is 0."""
    start = config.decay_start * n_steps
    if n_steps == 0 or step <= start:
        return config.learning_rate
    share = min((step - start) / (n_steps - start), 1.0)
    return config.learning_rate * config.final_learning_rate**share


class AdamTwin:
    """The state of one array of parameters."""

    def __init__(self, values, config, n_features=0):
        self.value = np.array(values, np.float64)
        self.m, self.v = np.zeros_like(self.value), np.zeros_like(self.value)
        self.average = np.zeros_like(self.value)
        self.config = config
        self.n_features = n_features
        self.count = np.zeros(self.value.size // max(n_features, 1), np.int64)

    def step(self, gradient, rate):
        """Step every parameter, or those of a table that have a gradient."""
        c = self.config
        g = np.asarray(gradient, np.float64)
        if self.n_features:
            moved = g != 0
            self.count += moved.reshape(-1, self.n_features).any(axis=1)
            n = np.repeat(self.count, self.n_features)[moved]
        else:
            moved = np.ones(g.size, bool)
            g = g + c.l2_regularization * self.value
            self.count += 1
            n = self.count
        g = g[moved]
        self.m[moved] = c.beta1 * self.m[moved] + (1 - c.beta1) * g
        self.v[moved] = c.beta2 * self.v[moved] + (1 - c.beta2) * g**2
        m, v = self.m[moved], self.v[moved]
        correction = np.sqrt(1 - c.beta2**n) / (1 - c.beta1**n)
        self.value[moved] -= rate * correction * m / (np.sqrt(v) + c.epsilon)
        self.average = c.ema_decay * self.average + (1 - c.ema_decay) * self.value
