"""Checkpoints: one safetensors file with a JSON header, written beside and renamed.

The file's metadata holds ``header`` (JSON), its digest, and ``sha256``: the digest of the whole
file with the digest itself zeroed, so that a file cut short or altered by one byte is noticed
wherever it is.
"""

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import CheckpointError
from ngp_warp.files import atomic_path, check_free_space

FORMAT = 1
DISK_ADVICE = "free some, or choose another --out"
_NO_DIGEST = "0" * 64
_HEADER_MAX = 1 << 26
_SAFETENSORS_TYPES = {
    "float32": "F32",
    "uint16": "U16",
    "uint8": "U8",
    "int32": "I32",
    "int64": "I64",
}


def save_checkpoint(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a checkpoint.

    Args:
        path: the file; its folder must exist.
        header: plain JSON values.
        arrays: by name.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    n_bytes = sum(a.nbytes for a in arrays.values())
    check_free_space(path.parent, n_bytes + (1 << 16), "a checkpoint", DISK_ADVICE)
    text = json.dumps({"format": FORMAT, **header}, sort_keys=True)
    metadata = {"header": text, "header_sha256": _digest(text), "sha256": _NO_DIGEST}
    head = _safetensors_head(arrays, metadata)
    # Not the library's writer: it keeps the interpreter lock, and training would stand still for
    # seconds. Writing and hashing a buffer both release it.
    digest = hashlib.sha256(head)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(head)
        for array in arrays.values():
            data = array.reshape(-1).view(np.uint8).data
            digest.update(data)
            file.write(data)
        file.seek(head.index(_NO_DIGEST.encode()))
        file.write(digest.hexdigest().encode())


def _safetensors_head(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """Return what a safetensors file begins with: 8 bytes of length, then JSON padded to 8."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, array in arrays.items():
        entries[name] = {
            "dtype": _SAFETENSORS_TYPES[array.dtype.name],
            "shape": array.shape,
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_checkpoint(
    path: Path, parts: tuple[str, ...] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a checkpoint and check that it is whole.

    Args:
        path: the file.
        parts: names of the arrays that are wanted, or their last parts ("value", ...); None: all.

    Returns:
        The header and the arrays by name.

    Raises:
        CheckpointError: missing, cut short, altered, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = json.loads(_checked_metadata(data)["header"])
        with safe_open(path, framework="numpy") as tensors:
            arrays = {
                name: tensors.get_tensor(name)
                for name in tensors.keys()  # noqa: SIM118, it is no mapping
                if parts is None or name in parts or name.rpartition(".")[2] in parts
            }
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        raise _damaged(path) from None
    return _checked(path, header), arrays


def read_header(path: Path) -> dict[str, Any]:
    """Read a checkpoint's header alone, without its arrays.

    Raises:
        CheckpointError: missing, its header cut short or altered, or no checkpoint.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            start += file.read(_header_end(start) - 8)
        metadata = _metadata(start)
        text, digest = metadata["header"], metadata["header_sha256"]
        header = json.loads(text) if _digest(text) == digest else None
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no checkpoint of ngp-warp, or cut short or altered"
        ) from error
    if header is None:
        raise _damaged(path)
    return _checked(path, header)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {path} is cut short or altered; use an earlier one of its folder"
    )


def _checked(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    """Return the header if it is of this version's format."""
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint {path} has format {header.get('format')}, this version reads "
            f"{FORMAT}; use the version of ngp-warp that wrote it"
        )
    return header


def _checked_metadata(data: Any) -> dict[str, str]:
    """Return the metadata of a whole file; ValueError unless its digest is right."""
    metadata = _metadata(data)
    digest = metadata["sha256"].encode()
    position = data.find(digest, 8, _header_end(data))
    with memoryview(data) as view:
        zeroed = hashlib.sha256(view[:position])
        zeroed.update(_NO_DIGEST.encode())
        zeroed.update(view[position + len(digest) :])
    if zeroed.hexdigest().encode() != digest:
        raise ValueError("the digest is another")
    return metadata


def _header_end(data: Any) -> int:
    """Return where the JSON at the file's head ends: 8 bytes of length, then so many."""
    length = int.from_bytes(bytes(data[:8]), "little")
    if len(data) < 8 or length > _HEADER_MAX:
        raise ValueError("no safetensors header")
    return 8 + length


def _metadata(data: bytes) -> dict[str, str]:
    return json.loads(data[8 : _header_end(data)])["__metadata__"]
