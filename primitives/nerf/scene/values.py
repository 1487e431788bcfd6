"""Values of a JSON object by key, each with the type and range that it must have."""

import math
from typing import Any

import numpy as np

from ngp_warp.primitives.nerf.scene.checks import SceneError

LARGEST = 1e12
"""Of any number of a scene: its square, in cubes and determinants, still is float64."""


class Values:
    """A JSON object; a key whose value is null counts as not there.

    Args:
        values: what was read.
        where: named in errors.

    Raises:
        DataError: it is no object.
    """

    def __init__(self, values: Any, where: str):
        if not isinstance(values, dict):
            raise SceneError(where, f"must be an object {{...}}, got {shown(values)}")
        self.where = where
        self._values = {key: value for key, value in values.items() if value is not None}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys(self) -> set[str]:
        """Return the keys that have a value."""
        return set(self._values)

    def get(self, key: str) -> Any:
        """Return a value of any type, None where there is none."""
        return self._values.get(key)

    def wrong(self, key: str, wanted: str) -> SceneError:
        """Return the error that says what ``key`` must be, and what it is."""
        return SceneError(self.where, f"{key} must be {wanted}, got {shown(self._values.get(key))}")

    def number(self, key: str) -> float | None:
        """Return a finite number of at most `LARGEST`, None where there is none.

        Raises:
            DataError: it is no such number.
        """
        value = self.get(key)
        if value is None:
            return None
        number = as_number(value)
        if number is None:
            raise self.wrong(key, "a number")
        if not abs(number) <= LARGEST:
            raise self.wrong(key, f"finite and at most {LARGEST:g}")
        return number

    def positive(self, key: str, below: float = math.inf) -> float | None:
        """Return a number above 0 and below ``below``, None where there is none.

        Raises:
            DataError: it is no such number.
        """
        number = self.number(key)
        if number is not None and not 0 < number < below:
            limit = "" if below == math.inf else f" and below {below:g}"
            raise self.wrong(key, f"above 0{limit}")
        return number

    def size(self, key: str, largest: int) -> int | None:
        """Return a whole number from 1 to ``largest``, None where there is none.

        Raises:
            DataError: it is no such number.
        """
        number = self.number(key)
        if number is not None and not (number == int(number) and 1 <= number <= largest):
            raise self.wrong(key, f"a whole number from 1 to {largest}")
        return None if number is None else int(number)

    def flag(self, key: str) -> bool:
        """Return a true or false (1 or 0), False where there is none.

        Raises:
            DataError: it is neither.
        """
        value = self.get(key)
        if value is not None and not (isinstance(value, bool | int) and value in (0, 1)):
            raise self.wrong(key, "true or false")
        return bool(value)

    def text(self, key: str) -> str | None:
        """Return a text that is not empty, None where there is none.

        Raises:
            DataError: it is none.
        """
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise self.wrong(key, "a text that is not empty")
        return value

    def texts(self, key: str) -> list[str] | None:
        """Return a list of texts, None where there is none.

        Raises:
            DataError: it is no such list.
        """
        value = self.get(key)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(item, str) for item in value)
        ):
            raise self.wrong(key, "a list of texts")
        return value

    def matrix(self, key: str, rows: tuple[int, ...], columns: int) -> np.ndarray:
        """Return numbers as float64 [rows, columns], not necessarily finite.

        Args:
            key: must be there.
            rows: how many there may be.
            columns: of each row.

        Raises:
            DataError: it is not there or no such list of lists.
        """
        value = self.get(key)
        wanted = f"{' or '.join(map(str, rows))} rows of {columns} numbers"
        if value is None:
            raise SceneError(self.where, f"{key} is missing", f"it must be {wanted}")
        if not isinstance(value, list) or len(value) not in rows:
            raise self.wrong(key, wanted)
        numbers: list[list[float | None]] = [
            [as_number(item) for item in row] if isinstance(row, list) else [] for row in value
        ]
        if any(len(row) != columns or None in row for row in numbers):
            raise self.wrong(key, wanted)
        return np.array(numbers, np.float64)


def as_number(value: Any) -> float | None:
    """Return a JSON number as a float, None for anything else; too large an integer is infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def shown(value: Any) -> str:
    """Return a value for an error: what it is where it is long."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
