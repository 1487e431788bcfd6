"""Losses of one prediction p against one target t: the text of value and gradient.

Source: Mueller et al. 2022 and tiny-cuda-nn's definitions; in the relative losses the denominator's
prediction counts as a constant. Differentiable in p. Twin: tests/reference/losses.py.
"""

# value and gradient of one prediction p against one target t, d = p - t
LOSSES = {
    "l2": ("d * d", "2.f * d"),
    "l1": ("vabs(d)", "sign(d)"),
    "relative_l2": ("d * d / (p * p + 0.01f)", "2.f * d / (p * p + 0.01f)"),
    "mape": ("vabs(d) / (vabs(t) + 0.01f)", "sign(d) / (vabs(t) + 0.01f)"),
    "smape": (
        "vabs(d) / (0.5f * (vabs(p) + vabs(t)) + 0.01f)",
        "sign(d) / (0.5f * (vabs(p) + vabs(t)) + 0.01f)",
    ),
    "huber": (
        "vabs(d) < 0.1f ? 5.f * d * d : vabs(d) - 0.05f",
        "vabs(d) < 0.1f ? 10.f * d : sign(d)",
    ),
    "log_l1": ("vlog(1.f + vabs(d))", "sign(d) / (1.f + vabs(d))"),
}
