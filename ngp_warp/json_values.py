"""Values of another program's JSON settings: checked, and errors and notes that say where."""

import reprlib
from pathlib import Path
from typing import Any

from ngp_warp.errors import ConfigError


class JsonValues:
    """Checks the values of one file and gathers notes of what is not taken over.

    Args:
        path: the file, named in errors.
        idle: settings whose usual values mean that nothing is to be done; those are not noted.

    Its methods take a value and the place that it is from, and raise ConfigError.
    """

    def __init__(self, path: Path, idle: dict[str, tuple[Any, ...]]):
        self.path, self.idle = path, idle
        self.notes: list[str] = []

    def leave(self, name: str, why: str = "") -> None:
        """Note a setting that is not taken over."""
        self.notes.append(f"not taken over: {name}" + (f" ({why})" if why else ""))

    def error(self, where: str, message: str) -> ConfigError:
        """Return an error that names the file and the setting."""
        return ConfigError(f"{self.path}: {where} {message}")

    def wrong(self, where: str, wanted: str, value: Any) -> ConfigError:
        """Return the error for a value that is not what is wanted."""
        return self.error(where, f"must be {wanted}, got {reprlib.repr(value)}")

    def object(self, value: Any, where: str) -> dict[str, Any]:
        """Return a value that is an object."""
        if not isinstance(value, dict):
            raise self.wrong(where, "an object", value)
        return value

    def otype(self, value: dict[str, Any], where: str, usual: str | None = None) -> str:
        """Return an object's otype, by default ``usual``."""
        otype = value.get("otype", usual)
        if not isinstance(otype, str):
            raise self.wrong(f"{where}.otype", "a name", otype)
        return otype

    def number(self, value: Any, where: str) -> float:
        """Return a value that is a finite number."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) < 1e300:  # whole numbers have no end
            raise self.wrong(where, "a number", value)
        return value

    def whole(self, value: Any, where: str) -> int:
        """Return a value that is a whole number."""
        number = self.number(value, where)
        if number != int(number):  # a whole number may be written as one with a point
            raise self.wrong(where, "a whole number", value)
        return int(number)

    def name(self, value: Any, where: str) -> str:
        """Return a value that is a name, in lower case."""
        if not isinstance(value, str):
            raise self.wrong(where, "a name", value)
        return value.lower()

    def leave_rest(self, value: dict[str, Any], known: set[str], where: str) -> None:
        """Note the settings of an object that are neither known nor idle."""
        for name, item in value.items():
            if name not in known and not (name in self.idle and item in self.idle[name]):
                self.leave(f"{where}.{name}")

    def choice(self, value: Any, choices: tuple[str, ...], where: str) -> str:
        """Return a name, in lower case, that is one of ``choices``."""
        name = self.name(value, where)
        if name not in choices:
            raise self.wrong(where, f"one of {', '.join(choices)}", value)
        return name
