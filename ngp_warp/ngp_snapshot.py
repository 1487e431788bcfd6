"""Snapshots of instant-ngp (.ingp, .msgpack): reading one, what it is of, and what it holds.

Unproven: made from what is documented and from what other readers of such files do; no file that
instant-ngp wrote has been read with it yet. ``ngp_parameters`` has the layout of its arrays.
"""

import reprlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngp_warp import memory
from ngp_warp.errors import ConfigError, DataError, ResourceError
from ngp_warp.files import format_bytes

MODES = ("nerf", "sdf", "image", "volume")
MAX_BYTES = 1 << 32
"""Of a file once it is decompressed."""
MAX_VALUES = 1 << 22
"""In arrays and maps: a byte of the file may take a hundred in memory."""

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
        ResourceError: msgpack is not installed, or there is too little memory.
    """
    msgpack = load_msgpack()
    try:
        data = _decompressed(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    limits = dict.fromkeys(("max_array_len", "max_map_len"), min(_MAX_ITEMS, max(len(data), 1)))
    count = _Count()
    try:
        values = msgpack.unpackb(
            data, strict_map_key=False, object_hook=count, list_hook=count, **limits
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise DataError(
            f"{path} is no snapshot, or cut short: no MessagePack ({_reason(error)})"
        ) from None
    inner = values.get("snapshot") if isinstance(values, dict) else None
    if not isinstance(inner, dict):
        raise DataError(f"{path} is no snapshot of instant-ngp's: it has no map named snapshot")
    config = {str(name): value for name, value in values.items() if name != "snapshot"}
    return Snapshot(path=path, config=config, values=inner, n_bytes=len(data))


class _Count:
    """Passes arrays and maps on, until they hold too many values in all."""

    def __init__(self):
        self.n_values = 0

    def __call__(self, part: Any) -> Any:
        self.n_values += 1 + len(part)
        if self.n_values > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values in arrays and maps")
        return part


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 100 else f"{text[:100]}..."


def _decompressed(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(2)
        file.seek(0)
        zlib_head = len(head) == 2 and head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0
        # parts and what is joined of them are there at once
        limit = min(MAX_BYTES, memory.available_bytes() // 2)
        if head != _GZIP and not zlib_head:
            data = file.read(limit + 1)
            _check_length(path, len(data), limit)
            return data
        unpacker, parts, length = zlib.decompressobj(47), [], 0
        chunk = file.read(_CHUNK)
        try:
            while chunk and not unpacker.eof:
                part = unpacker.decompress(chunk, limit + 1 - length)
                length += len(part)
                _check_length(path, length, limit)
                parts.append(part)
                chunk = unpacker.unconsumed_tail or file.read(_CHUNK)
        except zlib.error as error:
            raise DataError(f"{path} is damaged: {error}") from None
        if not unpacker.eof:
            raise DataError(f"{path} is cut short: its compressed data have no end")
    return b"".join(parts)


def _check_length(path: Path, length: int, limit: int) -> None:
    if length > limit:
        too_much = f"{path} holds more than {format_bytes(limit)}, too much for"
        if limit == MAX_BYTES:
            raise DataError(f"{too_much} a snapshot")
        raise ResourceError(f"{too_much} half of the memory that is free")


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
    if said is not None and found is None and given is None:
        raise ConfigError(
            f"{snapshot.path} says that it is of {reprlib.repr(said)}, which is not known; give "
            "--mode nerf, sdf, image or volume"
        )
    if said is None and ("rgb_network" in snapshot.config or "nerf" in snapshot.values):
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
