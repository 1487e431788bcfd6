"""Activations and their derivatives as C++ expressions, for the generated network kernels.

Source: Mueller, tiny-cuda-nn (definitions only: leaky slope 0.01, squareplus and softplus with the
argument scaled by 10). Twin: tests/reference/mlp.py.
"""

from typing import NamedTuple


class ActivationText(NamedTuple):
    """C++ expressions of an activation."""

    value: str
    """h of the pre-activation z."""
    slope: str
    """dh/dz of h (and of z, where ``keeps_slope``)."""
    keeps_slope: bool = False
    """dh/dz cannot be had from h: hidden layers store it beside h."""
    branches: bool = False
    """Holds a division or a root, whose rare cases are a branch: the warp must converge after."""


ACTIVATIONS = {
    "none": ActivationText("z", "1.0f"),
    "relu": ActivationText("z > 0.0f ? z : 0.0f", "h > 0.0f ? 1.0f : 0.0f"),
    "leaky_relu": ActivationText("z > 0.0f ? z : 0.01f * z", "h > 0.0f ? 1.0f : 0.01f"),
    "exponential": ActivationText("expf(z)", "h"),
    # sin z does not tell the sign of cos z
    "sine": ActivationText("sine(z)", "cosine(z)", keeps_slope=True),
    "sigmoid": ActivationText("1.0f / (1.0f + expf(-z))", "h * (1.0f - h)", branches=True),
    # with f = 10 h, f^2 - 10 z f = 1; hence dh/dz = f^2 / (f^2 + 1). For z < 0 the sum of the
    # textbook form cancels, so the root is taken as 1 / (10 * (r - 10 z) / 2) there.
    "squareplus": ActivationText(
        "z > 0.0f ? 0.05f * (10.0f * z + sqrtf(100.0f * z * z + 4.0f))"
        " : 0.2f / (sqrtf(100.0f * z * z + 4.0f) - 10.0f * z)",
        "100.0f * h * h / (100.0f * h * h + 1.0f)",
        branches=True,
    ),
    # not log(exp(10 z) + 1): that overflows from z = 8.8 on
    "softplus": ActivationText(
        "(z > 0.0f ? z : 0.0f) + 0.1f * logf(1.0f + expf(-10.0f * fabsf(z)))",
        "1.0f - expf(-10.0f * h)",
        branches=True,
    ),
    "tanh": ActivationText("tanhf(z)", "1.0f - h * h", branches=True),
}
