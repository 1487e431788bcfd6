"""Snapshots of instant-ngp (.ingp, .msgpack): what one holds, and its parameters in our layout.

Unproven: made from what is documented and from what other readers of such files do; no file that
instant-ngp wrote has been read with it yet.

Layout: tiny-cuda-nn's. ``params_binary`` holds the evaluated parameters (of an average, where there
is one), float16 or float32: of each network its matrices, [outputs, inputs] row by row, with inputs
and outputs padded to 16; then the grid's levels, coarsest first. A radiance field has its density
network, its colour network, then the grid. ``density_grid_binary`` holds float16 cells of 128^3 a
cascade in Morton order (x in the lowest bit), in units of the shortest step's optical thickness.
"""

import math
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.config import NetworkConfig
from ngp_warp.encodings.padding import next_multiple
from ngp_warp.errors import ConfigError, DataError, ResourceError
from ngp_warp.files import format_bytes

MODES = ("nerf", "sdf", "image", "volume")
MAX_BYTES = 1 << 32
"""Of a file once it is decompressed."""
PADDINGS = (16, 8)
"""Inputs and outputs of tiny-cuda-nn's networks are padded to multiples of the first; those of its
CutlassMLP were to the second in 2022."""
CELLS = 128

_CHUNK = 1 << 20
_MAX_ITEMS = 1 << 18  # of an array or a map: its room is made before it is read
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a file holds."""

    path: Path
    config: dict[str, Any]
    """The network config that it was trained with."""
    values: dict[str, Any]
    """The rest: parameters, density grid, scene."""
    n_bytes: int
    """Of the file once it is decompressed."""

    def part(self, *names: str) -> Any:
        """Return a value by its path in ``values``; None where it is not there."""
        value: Any = self.values
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value


def load_msgpack() -> Any:
    """Return the msgpack package.

    Raises:
        ResourceError: it is not installed.
    """
    try:
        import msgpack
    except ImportError:
        raise ResourceError(
            "reading snapshots needs the package msgpack: pip install 'ngp-warp[ngp]'"
        ) from None
    return msgpack


def read_snapshot(path: Path) -> Snapshot:
    """Read a file, compressed (zlib, gzip) or plain.

    Raises:
        DataError: it cannot be read, is cut short, too large, or no snapshot.
        ResourceError: msgpack is not installed.
    """
    msgpack = load_msgpack()
    try:
        data = _decompressed(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    limits = dict.fromkeys(("max_array_len", "max_map_len"), min(_MAX_ITEMS, max(len(data), 1)))
    try:
        values = msgpack.unpackb(data, strict_map_key=False, **limits)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise DataError(
            f"{path} is no snapshot, or cut short: no MessagePack ({_reason(error)})"
        ) from None
    inner = values.get("snapshot") if isinstance(values, dict) else None
    if not isinstance(inner, dict):
        raise DataError(f"{path} is no snapshot of instant-ngp's: it has no map named snapshot")
    config = {str(name): value for name, value in values.items() if name != "snapshot"}
    return Snapshot(path=path, config=config, values=inner, n_bytes=len(data))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 100 else f"{text[:100]}..."


def _decompressed(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(2)
        file.seek(0)
        zlib_head = len(head) == 2 and head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0
        if head != _GZIP and not zlib_head:
            data = file.read(MAX_BYTES + 1)
            _check_length(path, len(data))
            return data
        unpacker, parts, length = zlib.decompressobj(47), [], 0
        chunk = file.read(_CHUNK)
        try:
            while chunk and not unpacker.eof:
                part = unpacker.decompress(chunk, MAX_BYTES + 1 - length)
                length += len(part)
                _check_length(path, length)
                parts.append(part)
                chunk = unpacker.unconsumed_tail or file.read(_CHUNK)
        except zlib.error as error:
            raise DataError(f"{path} is damaged: {error}") from None
        if not unpacker.eof:
            raise DataError(f"{path} is cut short: its compressed data have no end")
    return b"".join(parts)


def _check_length(path: Path, length: int) -> None:
    if length > MAX_BYTES:
        raise DataError(
            f"{path} holds more than {format_bytes(MAX_BYTES)}, too much for a snapshot"
        )


def mode_of(snapshot: Snapshot, given: str | None) -> str:
    """Return what a snapshot is of.

    Args:
        snapshot: as read.
        given: what the user says; None: the file's.

    Raises:
        ConfigError: the file does not say it.
        DataError: it says something else than the user.
    """
    said = snapshot.values.get("mode")
    found = said.lower() if isinstance(said, str) and said.lower() in MODES else None
    if found is None and ("rgb_network" in snapshot.config or "nerf" in snapshot.values):
        found = "nerf"
    if given is not None and found is not None and given != found:
        raise DataError(f"{snapshot.path} is of {found}, not of {given}")
    if (mode := given or found) is None:
        raise ConfigError(
            f"{snapshot.path} does not say what it is of; give --mode nerf, sdf, image or volume"
        )
    return mode


def contents(snapshot: Snapshot) -> dict[str, str]:
    """Return what a snapshot holds, name by name, for people."""
    found: dict[str, str] = {}

    def walk(value: Any, name: str, depth: int) -> None:
        if isinstance(value, dict) and depth:
            for key, item in value.items():
                walk(item, f"{name}.{key}" if name else str(key), depth - 1)
        else:
            found[name] = _brief(value)

    walk(snapshot.config, "", 2)
    walk(snapshot.values, "snapshot", 3)
    return found


def _brief(value: Any) -> str:
    if isinstance(value, bytes):
        return format_bytes(len(value))
    if isinstance(value, dict | list):
        text = str(value)
        kind = "values" if isinstance(value, list) else "entries"
        return text if len(text) <= 60 else f"{len(value)} {kind}"
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."


@dataclass(frozen=True)
class PaddedNetwork:
    """A network's matrices as tiny-cuda-nn stores them, and the part of them that we keep."""

    config: NetworkConfig
    n_in: int
    """Inputs without padding."""
    n_out: int
    """Outputs without padding."""
    padding: int = PADDINGS[0]
    """Of inputs and outputs."""

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Outputs and inputs of each stored matrix."""
        widths = [next_multiple(self.n_in, self.padding)]
        widths += [self.config.n_neurons] * self.config.n_hidden_layers
        widths.append(next_multiple(self.n_out, self.padding))
        return [(b, a) for a, b in pairwise(widths)]

    @property
    def n_params(self) -> int:
        """Stored weights."""
        return sum(j * k for j, k in self.layers)

    def matrices(self, flat: np.ndarray) -> list[np.ndarray]:
        """Return the matrices: the first with its padded inputs, the last without its outputs'."""
        found, at = [], 0
        for j, k in self.layers:
            found.append(flat[at : at + j * k].reshape(j, k))
            at += j * k
        found[-1] = found[-1][: self.n_out]
        return found


def padding_of(snapshot: Snapshot, counts: dict[int, int]) -> tuple[int, list[str]]:
    """Return the padding that the number of bytes fits, and what there is to say of it.

    Args:
        snapshot: as read.
        counts: parameters that there would be, by padding; the first is the usual one.
    """
    data: Any = snapshot.values.get("params_binary")
    usual, *others = counts
    n_bytes = len(data) if isinstance(data, bytes) else 0
    for padding in others:
        fits, n = counts[padding], counts[usual]
        if n_bytes in (2 * fits, 4 * fits) and n_bytes not in (2 * n, 4 * n):
            return padding, [f"networks are padded to {padding}, by the number of parameters"]
    return usual, []


def flat_parameters(snapshot: Snapshot, expected: int, parts: str) -> np.ndarray:
    """Return the parameters, float32.

    Args:
        snapshot: as read.
        expected: how many the config says.
        parts: what they are made of, for the error.

    Raises:
        DataError: there are none, another number, or some that are not finite.
    """
    data = snapshot.values.get("params_binary")
    if not isinstance(data, bytes):
        raise DataError(f"{snapshot.path} has no parameters (snapshot.params_binary)")
    half = 2 * expected == len(data)
    if not half and 4 * expected != len(data):
        raise DataError(
            f"{snapshot.path} has {len(data)} bytes of parameters ({len(data) // 2} of float16), "
            f"its config says {expected} parameters ({parts}): {2 * expected} bytes of float16 or "
            f"{4 * expected} of float32"
        )
    count, kind = snapshot.values.get("n_params"), snapshot.values.get("params_type")
    if count is not None and count != expected:
        raise DataError(f"{snapshot.path} says {count} parameters, its config {expected}")
    if kind is not None and (str(kind) in ("__half", "half", "float16")) != half:
        raise DataError(
            f"{snapshot.path} says its parameters are {kind}, they have "
            f"{len(data) // expected} bytes each"
        )
    values = np.frombuffer(data, "<f2" if half else "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise DataError(f"{snapshot.path} has {bad} parameters that are no finite numbers")
    return values


def is_half(snapshot: Snapshot, n_params: int) -> bool:
    """Return whether the parameters are float16."""
    return len(snapshot.values["params_binary"]) == 2 * n_params


def density_cells(snapshot: Snapshot, n_cascades: int) -> tuple[np.ndarray | None, list[str]]:
    """Return the density grid, float32 [cascade, z, y, x], and what there is to say of it.

    A cell of a coarser cascade holds at least what those of the finer ones inside it hold.

    Returns:
        None where the file has no grid.

    Raises:
        DataError: a grid of another size.
    """
    data = snapshot.values.get("density_grid_binary")
    if not isinstance(data, bytes) or not data:
        return None, ["snapshot.density_grid_binary is not there: cells are filled from the field"]
    size = snapshot.values.get("density_grid_size", CELLS)
    if size != CELLS:
        raise DataError(f"{snapshot.path} has a density grid of {size}^3 cells, not of {CELLS}^3")
    cube = CELLS**3
    stored, rest = divmod(len(data), 2 * cube)
    if rest or stored < n_cascades:
        raise DataError(
            f"{snapshot.path} has {len(data)} bytes of density grid, its box needs "
            f"{2 * cube * n_cascades} ({n_cascades} times {CELLS}^3 of float16)"
        )
    notes = []
    if stored > n_cascades:
        notes.append(f"not taken over: cascades {n_cascades} to {stored - 1} of the density grid")
    flat = np.frombuffer(data, "<f2", cube * n_cascades).reshape(n_cascades, cube)
    cells = flat[:, morton_codes().reshape(-1)].astype(np.float32)
    cells = np.nan_to_num(cells).reshape(n_cascades, CELLS, CELLS, CELLS)
    low, high = CELLS // 4, CELLS - CELLS // 4
    for coarse, fine in zip(cells[1:], cells, strict=False):
        middle = coarse[low:high, low:high, low:high]
        half = CELLS // 2
        np.maximum(middle, fine.reshape(half, 2, half, 2, half, 2).max((1, 3, 5)), out=middle)
    return cells, notes


def morton_codes() -> np.ndarray:
    """Return each cell's place in Morton order, int [z, y, x]."""
    axis = np.arange(CELLS)
    spread = sum(((axis >> bit) & 1) << (3 * bit) for bit in range(int(math.log2(CELLS))))
    spread = np.asarray(spread)
    return spread[None, None, :] | spread[None, :, None] << 1 | spread[:, None, None] << 2


def unknown(snapshot: Snapshot, known: dict[tuple[str, ...], set[str]]) -> list[str]:
    """Return a note that names what was not read.

    Args:
        snapshot: as read.
        known: names that were, by the path of the map that they are in.
    """
    names = []
    for path, inside in known.items():
        part = snapshot.part(*path)
        if isinstance(part, dict):
            nested = {p[len(path)] for p in known if len(p) > len(path) and p[: len(path)] == path}
            left = [key for key in part if key not in inside | nested]
            names += [".".join(("snapshot", *path, str(key))) for key in left]
    return [f"not taken over: {', '.join(names)}"] if names else []
