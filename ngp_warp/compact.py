"""The compact form of a run: its table in whole multiples of a step, entropy coded.

A table trained with ``encoding.quantization`` is read in multiples of one step, so nothing is lost.
A level's feature is a stream of integers of its own statistics, which Huffman codes take to within
two percent of their entropy.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.checkpoint import save_checkpoint
from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.errors import CheckpointError, ConfigError
from ngp_warp.field import Field
from ngp_warp.files import check_output
from ngp_warp.primitive import Progress, Report, report_nothing

PARTS = ("coded", "lengths", "widths")
"""Last parts of the names of the arrays that stand for a table's values."""
SUFFIX = ".safetensors"


def encode(values: np.ndarray, quantum: float, encoding: GridEncoding) -> dict[str, np.ndarray]:
    """Return a table in its compact form.

    Args:
        values: float32 [n_params].
        quantum: the step; values are rounded to its multiples.
        encoding: says how levels and features lie in the table.

    Returns:
        "coded" uint8 [bytes], the streams one after another; "lengths" int64 and "widths" uint8
        [n_levels * n_features]: bytes of each stream, and bytes of its integers (1, 2 or 4).
    """
    integers = np.rint(values / np.float32(quantum)).astype(np.int32)
    streams, widths = [], []
    for stream in _streams(integers, encoding):
        largest = int(np.abs(stream).max(initial=0))
        width = 1 if largest < 2**7 else 2 if largest < 2**15 else 4
        # all first bytes, then all second ones: each have their own statistics
        parts = stream.astype(f"<i{width}").view(np.uint8).reshape(-1, width).T
        coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
        streams.append(coder.compress(parts.tobytes()) + coder.flush())
        widths.append(width)
    return {
        "coded": np.frombuffer(b"".join(streams), np.uint8),
        "lengths": np.array([len(stream) for stream in streams], np.int64),
        "widths": np.array(widths, np.uint8),
    }


def decode(parts: dict[str, np.ndarray], quantum: float, encoding: GridEncoding) -> np.ndarray:
    """Return the values, float32 [n_params], of what ``encode`` gave.

    Raises:
        CheckpointError: the streams are damaged, or of another encoding.
    """
    integers = np.empty(encoding.n_params, np.int32)
    coded, end = parts["coded"], np.cumsum(parts["lengths"])
    try:
        columns = list(_streams(integers, encoding))
        ends, widths = end.tolist(), parts["widths"].tolist()
        for column, stop, length, width in zip(
            columns, ends, parts["lengths"].tolist(), widths, strict=True
        ):
            text = zlib.decompress(coded[stop - length : stop].tobytes(), -15)
            planes = np.frombuffer(text, np.uint8).reshape(width, column.size)
            column[:] = np.ascontiguousarray(planes.T).view(f"<i{width}")[:, 0]
    except (zlib.error, ValueError, TypeError) as error:
        raise CheckpointError(f"the compact table is damaged: {error}") from None
    return integers.astype(np.float32) * np.float32(quantum)


def _streams(table: np.ndarray, encoding: GridEncoding) -> Any:
    """Yield a view of every feature of every level."""
    n = encoding.n_features
    for level in encoding.levels:
        entries = table[level.offset * n : (level.offset + level.size) * n].reshape(-1, n)
        yield from entries.T


def stored_bytes(field: Field) -> int:
    """Return the bytes of a field's values where they are stored as small as can be.

    Four bytes a value, two in a float16 table, and the compact form of a quantized one.
    """
    table, n_bytes = field.table, field.weights.value.capacity
    if table.step == 0:
        return n_bytes + table.read.capacity
    parts = encode(table.value.numpy(), table.step, field.encoding)
    return n_bytes + sum(a.nbytes for a in parts.values())


def export_compact(
    run: Any, output: Path | None = None, *, progress: Report = report_nothing
) -> dict[str, Any]:
    """Write a run's compact form, which every command but --resume reads as it reads a run.

    Args:
        run: a ``ngp_warp.run.Run``.
        output: the file; None: exports/compact.safetensors of the run.
        progress: told what is done.

    Returns:
        "output", the file.

    Raises:
        ConfigError: the run was not trained for it, or has not come so far; or another extension.
        CheckpointError: the run cannot be read.
        ResourceError: the file cannot be written.
    """
    target = Path(run.path, "exports", f"compact{SUFFIX}") if output is None else output
    check_output(target, (SUFFIX,))
    field = run.fitted
    table, step = field.table, field.table.step
    if step == 0:
        raise ConfigError(
            f"{run.checkpoint} has no quantized table; train with --encoding.quantization 0.5, "
            "and to the end"
        )
    progress(Progress(stage="write", message="coding the table"))
    coded = encode(table.value.numpy(), step, field.encoding)
    arrays = {f"encoding.{name}": array for name, array in coded.items()}
    arrays["encoding.quantum"] = np.array([step], np.float32)
    arrays["network.value"] = field.weights.value.numpy()
    arrays |= {f"state.{name}": a.numpy() for name, a in field.extra_state().items()}
    header = {**run.header, "curve": [], "compact": True, "parameters": field.n_params}
    save_checkpoint(target, header, arrays)
    return {"output": target}
