"""The rows of a PLY's elements, in bytes or text: tables, or rows with lists of changing length."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.sdf.readers.source import parse_numbers

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

    @abstractmethod
    def width(self, dtype: np.dtype) -> int:
        """Return the units that a value takes."""

    @abstractmethod
    def holds(self, n_rows: int, width: int) -> bool:
        """Return whether so many rows of at least so many units follow."""

    @abstractmethod
    def row(self, n: int, position: int) -> tuple[int, int]:
        """Return where the n-th of the rows that follow begins, and where it ends at the latest.

        Args:
            n: counted from the next row.
            position: where the row before it ended.
        """

    @abstractmethod
    def count(self, position: int, dtype: np.dtype) -> int:
        """Return the whole number at a position."""

    @abstractmethod
    def table(
        self, n_rows: int, columns: list[tuple[str, np.dtype, int]]
    ) -> dict[str, np.ndarray] | None:
        """Return the rows that follow: each column [n_rows, length]; None where they are none."""

    @abstractmethod
    def gather(self, starts: np.ndarray, counts: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return the values of lists that lie at ``starts``, one after the other."""

    @abstractmethod
    def advance(self, n_rows: int, position: int) -> None:
        """Go past rows, the last of which ended at a position."""


class BinaryBody(Body):
    """Bytes; a unit is one of them."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position

    def width(self, dtype: np.dtype) -> int:
        """One for every byte."""
        return dtype.itemsize

    def holds(self, n_rows: int, width: int) -> bool:
        """By the number of bytes that are left."""
        return self._position + n_rows * width <= len(self._data)

    def row(self, n: int, position: int) -> tuple[int, int]:
        """Where the row before it ended."""
        return (position if n else self._position), len(self._data)

    def count(self, position: int, dtype: np.dtype) -> int:
        """Of either byte order."""
        little = dtype.byteorder == "<" or (dtype.byteorder != ">" and sys.byteorder == "little")
        value = self._data[position : position + dtype.itemsize]
        return int.from_bytes(value, "little" if little else "big", signed=dtype.kind == "i")

    def table(
        self, n_rows: int, columns: list[tuple[str, np.dtype, int]]
    ) -> dict[str, np.ndarray] | None:
        """As views of the bytes."""
        row = np.dtype([(name, dtype, (length,)) for name, dtype, length in columns])
        if not self.holds(n_rows, row.itemsize):
            return None
        rows = np.frombuffer(self._data, row, n_rows, self._position)
        return {name: rows[name] for name, _, _ in columns}

    def gather(self, starts: np.ndarray, counts: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Whatever their order in the bytes."""
        ends = starts + counts * dtype.itemsize
        parts = [self._data[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        return np.frombuffer(b"".join(parts), dtype)

    def advance(self, n_rows: int, position: int) -> None:
        """To the position."""
        self._position = position


class TextBody(Body):
    """The numbers of a text, float64; a unit is one number, and a row is one line.

    A line may hold more numbers than the header says, as some exporters write them.
    """

    def __init__(self, text: bytes) -> None:
        lines = [line for line in text.replace(b"\r", b"\n").split(b"\n") if line.strip()]
        self._values = parse_numbers(b" ".join(lines), np.float64, "rows")
        widths = np.array([len(line.split()) for line in lines], np.int64)
        self._begins = np.concatenate([[0], np.cumsum(widths)])
        self._line = 0

    def width(self, dtype: np.dtype) -> int:
        """One, whatever the type."""
        return 1

    def holds(self, n_rows: int, width: int) -> bool:
        """By the number of lines that are left."""
        return self._line + n_rows < len(self._begins)

    def row(self, n: int, position: int) -> tuple[int, int]:
        """Where the line begins and ends."""
        begin, end = self._begins[self._line + n : self._line + n + 2].tolist()
        return begin, end

    def count(self, position: int, dtype: np.dtype) -> int:
        """Written as any number."""
        return int(self._values[position])

    def table(
        self, n_rows: int, columns: list[tuple[str, np.dtype, int]]
    ) -> dict[str, np.ndarray] | None:
        """As views of the numbers, where all lines have equally many."""
        begins = self._begins[self._line : self._line + n_rows + 1]
        width = int(begins[1] - begins[0])
        ends = np.cumsum([length for _, _, length in columns])
        if (np.diff(begins) != width).any() or width < ends[-1]:
            return None
        rows = self._values[begins[0] : begins[-1]].reshape(n_rows, width)
        return {
            name: rows[:, end - length : end]
            for (name, _, length), end in zip(columns, ends.tolist(), strict=True)
        }

    def gather(self, starts: np.ndarray, counts: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """By index."""
        before = np.cumsum(counts) - counts
        index = np.arange(int(counts.sum())) + np.repeat(starts - before, counts)
        return self._values[index]

    def advance(self, n_rows: int, position: int) -> None:
        """By the lines."""
        self._line += n_rows


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
        The scalar columns [n_rows], and the wanted list.

    Raises:
        DataError: the file ends before the rows do, or a list's length is negative.
    """
    nothing = np.zeros(0, np.int64)
    if not n_rows or not properties:
        return {p.name: nothing for p in properties if p.count is None}, (nothing, nothing)
    if not body.holds(n_rows, sum(body.width(p.count or p.dtype) for p in properties)):
        raise _cut_short(element, n_rows)
    columns, end = _columns(body, element, n_rows, properties)
    table = body.table(n_rows, columns) if max(c[2] for c in columns) < _TABLE_LIST_MAX else None
    lists = [p for p in properties if p.count is not None]
    if table is None or any((table[_count_name(p)] != table[p.name].shape[1]).any() for p in lists):
        return _walk(body, element, n_rows, properties, wanted)
    start = body.row(0, 0)[0]
    body.advance(n_rows, start + n_rows * (end - start))
    scalars = {p.name: table[p.name][:, 0] for p in properties if p.count is None}
    if not wanted:
        return scalars, (nothing, nothing)
    entries = table[wanted].astype(np.int64)
    return scalars, (entries.reshape(-1), np.full(n_rows, entries.shape[1]))


def _columns(
    body: Body, element: str, n_rows: int, properties: list[Property]
) -> tuple[list[tuple[str, np.dtype, int]], int]:
    """Return name, type and length of the first row's columns, and where it ends.

    Lists are preceded by a column of their lengths.
    """
    columns: list[tuple[str, np.dtype, int]] = []
    position, limit = body.row(0, 0)
    for p in properties:
        length = 1
        if p.count is not None:
            length = _length(body, element, n_rows, position, limit, p.count)
            columns.append((_count_name(p), p.count, 1))
            position += body.width(p.count)
        columns.append((p.name, p.dtype, length))
        position += length * body.width(p.dtype)
    if position > limit:
        raise _cut_short(element, n_rows)
    return columns, position


def _walk(
    body: Body, element: str, n_rows: int, properties: list[Property], wanted: str
) -> tuple[dict[str, np.ndarray], Lists]:
    """Step through rows of unlike lengths; what it returns is as of `read_rows`."""
    starts = np.zeros((len(properties), n_rows), np.int64)
    counts = np.ones((len(properties), n_rows), np.int64)
    steps = [
        (i, p.count, body.width(p.count or p.dtype), body.width(p.dtype))
        for i, p in enumerate(properties)
    ]
    position = 0
    for row in range(n_rows):
        position, limit = body.row(row, position)
        for i, count, head, width in steps:
            starts[i, row] = position
            if count is not None:
                length = _length(body, element, n_rows, position, limit, count)
                starts[i, row], counts[i, row] = position + head, length
                position += length * width
            position += head
        if position > limit:
            raise _cut_short(element, n_rows)
    body.advance(n_rows, position)
    scalars, lists = {}, (np.zeros(0, np.int64), np.zeros(0, np.int64))
    for i, p in enumerate(properties):
        if p.count is None:
            scalars[p.name] = body.gather(starts[i], counts[i], p.dtype)
        elif p.name == wanted:
            lists = body.gather(starts[i], counts[i], p.dtype).astype(np.int64), counts[i]
    return scalars, lists


def _length(
    body: Body, element: str, n_rows: int, position: int, limit: int, count: np.dtype
) -> int:
    """Return a list's length."""
    if position + body.width(count) > limit:
        raise _cut_short(element, n_rows)
    length = body.count(position, count)
    if length < 0:
        raise DataError(f"a list of its {element} rows has a negative length")
    return length


def _count_name(p: Property) -> str:
    """Return the name of the column that holds a list's length; no property has a space in its."""
    return f"length {p.name}"


def _cut_short(element: str, n_rows: int) -> DataError:
    return DataError(f"it is cut short: its header promises {n_rows} {element} rows")
