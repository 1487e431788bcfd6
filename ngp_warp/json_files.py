"""Settings in JSON files: with comments, and over those of the files that they name as parents."""

import json
import re
from pathlib import Path
from typing import Any

from ngp_warp.errors import ConfigError

MAX_PARENTS = 16


def parse_json(text: str) -> Any:
    """Return what JSON text holds, with or without comments (``//`` and ``/* */``).

    Raises:
        ValueError: it is none.
    """
    return json.loads(_COMMENT.sub(_blank_comment, text))


# strings come first, so that what looks like a comment in one is none
_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


def _blank_comment(match: re.Match[str]) -> str:
    """Return a string as it is, and blanks for a comment, so that errors name the right place."""
    text = match[0]
    return text if text.startswith('"') else re.sub(r"\S", " ", text)


def merge(below: Any, above: Any) -> Any:
    """Return ``below`` with ``above`` over it: JSON merge patch (RFC 7396), null removes."""
    if not isinstance(above, dict):
        return above
    result = dict(below) if isinstance(below, dict) else {}
    for name, value in above.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def with_parents(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a config over its parents, each beside the file that names it.

    Args:
        values: the config; may have a "parent".
        path: its file.

    Raises:
        ConfigError: a parent is no name, cannot be read, is no object, or its own ancestor.
    """
    chain = [path.resolve()]
    while "parent" in values:
        parent = values["parent"]
        if not isinstance(parent, str) or not parent:
            raise ConfigError(f"{path}: parent must be the name of a file, got {parent!r}")
        file = chain[-1].parent / parent
        try:
            resolved = file.resolve()
        except (ValueError, RuntimeError, OSError) as error:  # a null character, a loop of links
            raise ConfigError(f"{path}: parent cannot be {parent!r}: {error}") from None
        if resolved in chain or len(chain) > MAX_PARENTS:
            raise ConfigError(
                f"{path}: its parents have no end, or are more than {MAX_PARENTS}, at {file}"
            )
        chain.append(resolved)
        below = _read_object(file)
        above = {name: value for name, value in values.items() if name != "parent"}
        try:
            values = merge(below, above)
        except RecursionError:
            raise ConfigError(f"{path}: it is nested too deeply, as is {file}") from None
    return values


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, comments left out.

    Raises:
        ConfigError: it cannot be read, or is no JSON.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read settings from {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not a JSON file: {error}") from None


def _read_object(path: Path) -> dict[str, Any]:
    values = read_json(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold an object, got {type(values).__name__}")
    return values
