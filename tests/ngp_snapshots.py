"""Snapshots as instant-ngp lays them out, made from fields of ours: the inverse of the importer."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

CELLS = 128


def padded(n: int, to: int = 16) -> int:
    """Return the width that tiny-cuda-nn gives a matrix of this one."""
    return (n + to - 1) // to * to


def matrices(
    weights: np.ndarray, layers: list[tuple[int, int]], junk: float, to: int = 16
) -> np.ndarray:
    """Return a network's weights with padded inputs and outputs; the padding holds ``junk``."""
    parts, at = [], 0
    for index, (n_out, n_in) in enumerate(layers):
        last = index == len(layers) - 1
        shape = (padded(n_out, to) if last else n_out, padded(n_in, to) if index == 0 else n_in)
        matrix = np.full(shape, junk, np.float32)
        matrix[:n_out, :n_in] = weights[at : at + n_out * n_in].reshape(n_out, n_in)
        at += n_out * n_in
        parts.append(matrix.reshape(-1))
    assert at == len(weights)
    return np.concatenate(parts)


def layers_of(network: Any, n_in: int, n_out: int) -> list[tuple[int, int]]:
    """Return outputs and inputs of each layer, without padding."""
    widths = [n_in, *[network.n_neurons] * network.n_hidden_layers, n_out]
    return [(widths[i + 1], widths[i]) for i in range(len(widths) - 1)]


def morton_index(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return Morton codes bit by bit, x lowest."""
    code = np.zeros(x.shape, np.int64)
    for bit in range(7):
        for axis, value in enumerate((x, y, z)):
            code += ((value // 2**bit) % 2) * 2 ** (3 * bit + axis)
    return code


def density_grid(values: np.ndarray) -> bytes:
    """Return cells [cascade, z, y, x] as float16 in Morton order."""
    z, y, x = np.meshgrid(*[np.arange(CELLS)] * 3, indexing="ij")
    order = morton_index(x, y, z).reshape(-1)
    cells = np.zeros((len(values), CELLS**3), np.float16)
    cells[:, order] = values.reshape(len(values), -1)
    return cells.tobytes()


ACTIVATIONS = {"none": "None", "relu": "ReLU"}


def network_config(network: Any) -> dict[str, Any]:
    """Return a network's settings by tiny-cuda-nn's names."""
    return {
        "otype": "FullyFusedMLP",
        "activation": ACTIVATIONS[network.activation],
        "output_activation": "None",
        "n_neurons": network.n_neurons,
        "n_hidden_layers": network.n_hidden_layers,
    }


def grid_config(encoding: Any) -> dict[str, Any]:
    """Return a resolved grid's settings by tiny-cuda-nn's names."""
    names = ("n_levels", "n_features_per_level", "log2_hashmap_size", "base_resolution")
    return {
        "otype": "HashGrid",
        "per_level_scale": encoding.per_level_scale,
        **{name: getattr(encoding, name) for name in names},
    }


HARMONICS = {
    "otype": "Composite",
    "nested": [
        {"n_dims_to_encode": 3, "otype": "SphericalHarmonics", "degree": 4},
        {"otype": "Identity"},
    ],
}


def parameters(flat: np.ndarray, dtype: type) -> dict[str, Any]:
    """Return what the library's trainer writes."""
    return {
        "n_params": len(flat),
        "params_type": "__half" if dtype is np.float16 else "float",
        "params_binary": flat.astype(dtype).tobytes(),
    }


def field_snapshot(run: Any, mode: str, dtype: type = np.float32, to: int = 16) -> dict[str, Any]:
    """Return an image's or a mesh's run as a snapshot."""
    config, field = run.config, run.fitted
    n_in = field.encoding.n_outputs
    layers = layers_of(config.network, n_in, field.n_outputs)
    network = matrices(field.weights.value.numpy(), layers, 0.5, to)
    flat = np.concatenate([network, field.table.value.numpy()])
    return {
        "encoding": grid_config(config.encoding),
        "network": network_config(config.network),
        "loss": {"otype": "L2"},
        "snapshot": {"mode": mode, "training_step": 7, **parameters(flat, dtype)},
    }


def nerf_snapshot(model: Any, dtype: type = np.float16, n_extra: int = 0) -> dict[str, Any]:
    """Return a radiance field as a snapshot; its scene has the frame's scale and offset."""
    config, field, frame = model.config, model.radiance, model.frame
    weights = field.weights.value.numpy()
    first = layers_of(config.density_network, field.encoding.n_outputs, 16)
    second = layers_of(config.color_network, 32, 3)
    split = sum(a * b for a, b in first)
    color = matrices(weights[split:], second, 0.5)
    if n_extra:  # after the harmonics: the vectors' columns, then ones
        n = config.color_network.n_neurons
        more = padded(16 + n_extra) - 16
        entry = np.concatenate([color[: n * 32].reshape(n, 32), np.full((n, more), 0.25)], 1)
        color = np.concatenate([entry.reshape(-1), color[n * 32 :]])
    density = matrices(weights[:split], first, 0.5)
    flat = np.concatenate([density, color, field.table.value.numpy()])
    scale = frame.scale * frame.aabb_scale
    offset = [(o - 0.5) * frame.aabb_scale + 0.5 for o in frame.offset]
    values = field.occupancy.values.numpy().reshape(-1, CELLS, CELLS, CELLS)
    poses, lenses = [], []
    for view in model.trained:
        pose = view.pose.copy()
        pose[:, 1:3] *= -1
        pose[:, 3] = view.pose[:, 3] * scale + offset
        poses.append({"start": pose.tolist(), "end": pose.tolist()})
        lens = view.lens
        lenses.append(
            {
                "resolution": [lens.width, lens.height],
                "focal_length": [lens.fx, lens.fy],
                "principal_point": [lens.cx / lens.width, lens.cy / lens.height],
                "lens": {"mode": "Perspective"},
            }
        )
    dataset = {"n_images": len(poses), "xforms": poses, "metadata": lenses, "is_hdr": False}
    # of transforms.json, whose y is the snapshot's x
    turned = [offset[2], offset[0], offset[1]]
    dataset |= {"scale": scale, "offset": turned, "n_extra_learnable_dims": n_extra}
    return {
        "encoding": grid_config(config.encoding),
        "network": network_config(config.density_network),
        "dir_encoding": HARMONICS,
        "rgb_network": network_config(config.color_network),
        "envmap": {"loss": {"otype": "RelativeL2"}},
        "snapshot": {
            "mode": "Nerf",
            "density_grid_size": CELLS,
            "density_grid_binary": density_grid(values),
            "bounding_radius": 1.0,
            "nerf": {"aabb_scale": frame.aabb_scale, "dataset": dataset, "sharpen": 0.0},
            **parameters(flat, dtype),
        },
    }


def write(path: Path, values: Any, packed: str = "zlib") -> Path:
    """Write a snapshot: plain, or compressed by zlib or gzip."""
    import msgpack

    data = msgpack.packb(values)
    pack = {"plain": bytes, "zlib": zlib.compress, "gzip": gzip.compress}[packed]
    path.write_bytes(pack(data))
    return path
