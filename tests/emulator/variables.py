"""Types and variables of PTX."""

import re
from dataclasses import dataclass

SIZES = {"pred": 1, "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2}
SIZES |= {"b32": 4, "u32": 4, "s32": 4, "f32": 4, "f16x2": 4}
SIZES |= {"b64": 8, "u64": 8, "s64": 8, "f64": 8}

_VARIABLE = re.compile(
    r"\.(global|const|shared|local|param)\s+(?:\.attribute\S+\s+)?(?:\.align\s+(\d+)\s+)?"
    r"\.(\w+)\s+([$%\w]+)\s*(?:\[(\d*)\])?\s*(?:=\s*(.*))?$",
    re.DOTALL,
)


class PtxError(Exception):
    """Text that is not understood, or what a GPU would have refused to do."""


@dataclass(frozen=True)
class Variable:
    """A variable of an address space."""

    space: str
    name: str
    size: int
    align: int
    initial: bytes = b""


def variable_of(text: str) -> Variable:
    """Return a variable from its declaration without the semicolon."""
    text = text.replace(".visible", "").replace(".extern", "").replace(".weak", "").strip()
    parts = _VARIABLE.search(text)
    if parts is None:
        raise PtxError(f"not a variable: {text[:200]}")
    space, align, kind, name, length, initial = parts.groups()
    size = SIZES[kind]
    count = 1 if length is None else int(length or 0)
    return Variable(
        space, name, size * count, int(align or size), _initial(initial, size) if initial else b""
    )


def _initial(text: str, size: int) -> bytes:
    values = [v.strip() for v in text.strip().strip("{}").split(",") if v.strip()]
    found = b""
    for value in values:
        if value[:2] in ("0f", "0F", "0d", "0D"):
            found += int(value[2:], 16).to_bytes(size, "little")
        else:
            number = int(value, 0)
            found += number.to_bytes(size, "little", signed=number < 0)
    return found


def variables_of(text: str) -> list[Variable]:
    """Return a function's parameters."""
    found = []
    for part in text.split(","):
        if part.strip():
            found.append(
                variable_of(re.sub(r"\.ptr\S*(\s+\.(global|shared|align \d+))*", "", part))
            )
    return found
