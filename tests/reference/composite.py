"""Compositing, losses and their gradients in float64. Twin of ngp_warp/kernels/composite.py.

One ray: thickness s, colours c [n, 3], distances t, lengths dt. Gradients are exact, and the tests
compare them with central differences of the values.
"""

import numpy as np

from tests.reference import losses

MAX_RAW = 15.0


def density(raw):
    """exp of the raw density, clamped."""
    return np.exp(np.minimum(raw, MAX_RAW))


def weights(thickness):
    """Weights of the samples, and the transmittance behind each."""
    behind = np.exp(-np.cumsum(thickness))
    before = np.concatenate([[1.0], behind])[: len(behind)]
    return before * -np.expm1(-np.asarray(thickness)), behind


def kept(thickness, min_transmittance):
    """Number of samples before which the transmittance is at least the minimum."""
    behind = np.exp(-np.cumsum(thickness))
    before = np.concatenate([[1.0], behind])[: len(behind)]
    return int((before >= min_transmittance).sum())


def blend(thickness, colors, t, background):
    """Colour over the background, opacity, sum of w t."""
    w, behind = weights(thickness)
    end = behind[-1] if len(behind) else 1.0
    return w @ colors.reshape(-1, 3) + end * background, 1 - end, w @ t


def decode(p):
    """Light of sRGB values."""
    p = np.maximum(p, 0)
    return np.where(p <= 0.04045, p / 12.92, ((p + 0.055) / 1.055) ** 2.4)


def encode(light):
    """The sRGB values of light."""
    big = np.maximum(light, 0.0031308)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * big ** (1 / 2.4) - 0.055)


def expose(p, stops, color_space):
    """Values as they are with the light times 2^stops."""
    if color_space == "linear":
        return p * 2.0**stops
    return encode(decode(p) * 2.0**stops)


def distortion(w, x, length):
    """Barron et al. 2022, equation 15: all pairs, and each interval with itself."""
    pairs = np.abs(x[:, None] - x[None, :])
    return w @ pairs @ w + (w**2 * length).sum() / 3


def ray_loss(ray, settings, slope=None):
    """The loss of a ray, by its terms: colour's, depth's and distortion's, with their weights.

    Args:
        ray: thickness, colors, t, length, background, target, weight, stops, depth_target, span
            (entry and exit).
        settings: loss, color_space, depth_weight, distortion_weight.
        slope: the colour's loss is replaced by this times the colour: its gradient where the loss
            takes a part of itself as constant.
    """
    color, _, depth = blend(ray["thickness"], ray["colors"], ray["t"], ray["background"])
    shown = expose(color, ray["stops"], settings.color_space) if settings.exposure else color
    value, _ = losses.loss(settings.loss, shown, ray["target"])
    value = value if slope is None else slope * shown
    terms = [ray["weight"] * value.mean(), 0.0, 0.0]
    if ray["weight"] > 0 and ray["depth_target"] > 0:
        terms[1] = settings.depth_weight * losses.loss("huber", depth, ray["depth_target"])[0]
    if ray["weight"] > 0 and len(ray["t"]):
        entry, leave = ray["span"]
        x, length = (ray["t"] - entry) / (leave - entry), ray["length"] / (leave - entry)
        w = weights(ray["thickness"])[0]
        terms[2] = settings.distortion_weight * distortion(w, x, length)
    return terms


def shown_slope(ray, settings):
    """Gradient of the colour's loss in what is shown."""
    color = blend(ray["thickness"], ray["colors"], ray["t"], ray["background"])[0]
    shown = expose(color, ray["stops"], settings.color_space) if settings.exposure else color
    return losses.loss(settings.loss, shown, ray["target"])[1]


def mean_loss(rays, settings, slopes=None):
    """What is minimised: means over all rays, the depth's over those whose depth is known."""
    slopes = slopes or [None] * len(rays)
    terms = np.array([ray_loss(r, settings, s) for r, s in zip(rays, slopes, strict=True)])
    known = sum(ray["weight"] > 0 and ray["depth_target"] > 0 for ray in rays)
    return terms[:, [0, 2]].sum() / len(rays) + terms[:, 1].sum() / max(known, 1)
