"""The rows of a PLY's elements, in bytes or text: tables, or rows with lists of changing length."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from ngp_warp.errors import DataError

Lists = tuple[np.ndarray, np.ndarray]
"""The entries of one list property, row after row, int64, and how many each row has, int64."""
_TABLE_LIST_MAX = 1 << 12  # longer lists of one length are walked, lest a broken count allocate


@dataclass(frozen=True)
class Property:
    """One column: a scalar, or a list where ``count`` is the type of its length."""

    name: str
    dtype: np.dtype
    count: np.dtype | None = None


class Body(ABC):
    """What follows the header, and how far it was read, in units of its own."""

    position = 0
    size: int

    @abstractmethod
    def width(self, dtype: np.dtype) -> int:
        """Return the units that a value takes."""

    @abstractmethod
    def count(self, position: int, dtype: np.dtype) -> int:
        """Return the whole number at a position."""

    @abstractmethod
    def table(self, n_rows: int, columns: list[tuple[str, np.dtype, int]]) -> dict[str, np.ndarray]:
        """Return the rows that begin at ``position``: each column [n_rows, length]."""

    @abstractmethod
    def gather(self, starts: np.ndarray, counts: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return the values of lists that lie at ``starts``, one after the other, int64."""


class BinaryBody(Body):
    """Bytes; a unit is one of them."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.size, self.position = data, len(data), position

    def width(self, dtype: np.dtype) -> int:
        """One for every byte."""
        return dtype.itemsize

    def count(self, position: int, dtype: np.dtype) -> int:
        """Of either byte order."""
        little = dtype.byteorder == "<" or (dtype.byteorder != ">" and sys.byteorder == "little")
        value = self.data[position : position + dtype.itemsize]
        return int.from_bytes(value, "little" if little else "big", signed=dtype.kind == "i")

    def table(self, n_rows: int, columns: list[tuple[str, np.dtype, int]]) -> dict[str, np.ndarray]:
        """As views of the bytes."""
        row = np.dtype([(name, dtype, (length,)) for name, dtype, length in columns])
        rows = np.frombuffer(self.data, row, n_rows, self.position)
        return {name: rows[name] for name, _, _ in columns}

    def gather(self, starts: np.ndarray, counts: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Whatever their order in the bytes."""
        ends = starts + counts * dtype.itemsize
        parts = [self.data[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        return np.frombuffer(b"".join(parts), dtype).astype(np.int64)


class TextBody(Body):
    """The numbers of a text, float64; a unit is one number."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.size = values, len(values)

    def width(self, dtype: np.dtype) -> int:
        """One, whatever the type."""
        return 1

    def count(self, position: int, dtype: np.dtype) -> int:
        """Written as any number."""
        return int(self.values[position])

    def table(self, n_rows: int, columns: list[tuple[str, np.dtype, int]]) -> dict[str, np.ndarray]:
        """As views of the numbers."""
        ends = np.cumsum([length for _, _, length in columns])
        end = self.position + n_rows * int(ends[-1])
        rows = self.values[self.position : end].reshape(n_rows, -1)
        return {
            name: rows[:, end - length : end]
            for (name, _, length), end in zip(columns, ends.tolist(), strict=True)
        }

    def gather(self, starts: np.ndarray, counts: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """By index."""
        before = np.cumsum(counts) - counts
        index = np.arange(int(counts.sum())) + np.repeat(starts - before, counts)
        return self.values[index].astype(np.int64)


def read_rows(
    body: Body, element: str, n_rows: int, properties: list[Property], wanted: str
) -> tuple[dict[str, np.ndarray], Lists]:
    """Read one element's rows and advance.

    Args:
        body: what follows the header.
        element: named in errors.
        n_rows: how many.
        properties: the columns.
        wanted: the list property to return, or "".

    Returns:
        The scalar columns [n_rows]; none where lists change their length from row to row. And the
        wanted list.

    Raises:
        DataError: the file ends before the rows do, or a list's length is negative.
    """
    least = sum(body.width(p.count or p.dtype) for p in properties)
    if n_rows * least > body.size - body.position:
        raise _cut_short(element, n_rows)
    if not n_rows or not properties:
        nothing = np.zeros(0, np.int64)
        return {p.name: nothing for p in properties if p.count is None}, (nothing, nothing)
    columns = _columns(body, element, n_rows, properties)
    width = sum(length * body.width(dtype) for _, dtype, length in columns)
    if n_rows * width <= body.size - body.position and max(c[2] for c in columns) < _TABLE_LIST_MAX:
        table = body.table(n_rows, columns)
        lengths = {p.name: table[_count_name(p)][:, 0] for p in properties if p.count is not None}
        if all((n == table[name].shape[1]).all() for name, n in lengths.items()):
            body.position += n_rows * width
            scalars = {p.name: table[p.name][:, 0] for p in properties if p.count is None}
            entries = table[wanted].astype(np.int64).reshape(-1) if wanted else np.zeros(0, int)
            counts = np.full(n_rows, table[wanted].shape[1]) if wanted else np.zeros(0, int)
            return scalars, (entries, counts)
    return {}, _walk(body, element, n_rows, properties, wanted)


def _columns(
    body: Body, element: str, n_rows: int, properties: list[Property]
) -> list[tuple[str, np.dtype, int]]:
    """Return name, type and length of the first row's columns, lists preceded by their counts."""
    columns: list[tuple[str, np.dtype, int]] = []
    position = body.position
    for p in properties:
        length = 1
        if p.count is not None:
            if position + body.width(p.count) > body.size:
                raise _cut_short(element, n_rows)
            length = body.count(position, p.count)
            if length < 0:
                raise DataError(f"a list of its {element} rows has a negative length")
            columns.append((_count_name(p), p.count, 1))
            position += body.width(p.count)
        columns.append((p.name, p.dtype, length))
        position += length * body.width(p.dtype)
    return columns


def _walk(body: Body, element: str, n_rows: int, properties: list[Property], wanted: str) -> Lists:
    """Step through rows of unlike lengths."""
    starts, counts = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64)
    position, size = body.position, body.size
    steps = [
        (p.count, body.width(p.count or p.dtype), body.width(p.dtype), p.name == wanted)
        for p in properties
    ]
    kind = next((p.dtype for p in properties if p.name == wanted), np.dtype(np.int64))
    for row in range(n_rows):
        for count, head, width, is_wanted in steps:
            start = position
            position += head
            if position > size:
                raise _cut_short(element, n_rows)
            if count is None:
                continue
            length = body.count(start, count)
            if length < 0:
                raise DataError(f"a list of its {element} rows has a negative length")
            if is_wanted:
                starts[row], counts[row] = position, length
            position += length * width
    if position > size:
        raise _cut_short(element, n_rows)
    body.position = position
    return body.gather(starts, counts, kind)[: int(counts.sum())], counts


def _count_name(p: Property) -> str:
    """Return the name of the column that holds a list's length; no property has a space in its."""
    return f"length {p.name}"


def _cut_short(element: str, n_rows: int) -> DataError:
    return DataError(f"it is cut short: its header promises {n_rows} {element} rows")
