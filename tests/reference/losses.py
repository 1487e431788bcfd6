"""Elementwise losses in float64: value and gradient with respect to the prediction.

Twin of the losses in ngp_warp/kernels. Denominators that hold the prediction are taken as constant.
"""

import numpy as np


def _l2(p, t):
    return (p - t) ** 2, 2 * (p - t)


def _l1(p, t):
    return np.abs(p - t), np.sign(p - t)


def _relative_l2(p, t):
    denominator = p**2 + 0.01
    return (p - t) ** 2 / denominator, 2 * (p - t) / denominator


def _mape(p, t):
    denominator = np.abs(t) + 0.01
    return np.abs(p - t) / denominator, np.sign(p - t) / denominator


def _smape(p, t):
    denominator = 0.5 * (np.abs(p) + np.abs(t)) + 0.01
    return np.abs(p - t) / denominator, np.sign(p - t) / denominator


def _huber(p, t, delta=0.1):
    d = p - t
    inside = np.abs(d) <= delta
    value = np.where(inside, 0.5 * d**2 / delta, np.abs(d) - 0.5 * delta)
    return value, np.where(inside, d / delta, np.sign(d))


def _log_l1(p, t):
    d = p - t
    return np.log(1 + np.abs(d)), np.sign(d) / (1 + np.abs(d))


LOSSES = {
    "l2": _l2,
    "l1": _l1,
    "relative_l2": _relative_l2,
    "mape": _mape,
    "smape": _smape,
    "huber": _huber,
    "log_l1": _log_l1,
}


def loss(name, prediction, target):
    """Return (value, dvalue/dprediction), elementwise, float64."""
    return LOSSES[name](np.asarray(prediction, np.float64), np.asarray(target, np.float64))
