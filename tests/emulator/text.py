"""PTX text, read into the instructions of one kernel; calls of other functions are put in place."""

import functools
import re
from dataclasses import dataclass, field, replace

from tests.emulator.variables import SIZES, PtxError, Variable, variable_of, variables_of

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_LABEL = re.compile(r"\s*([$\w]+):(?!:)")
_REGISTERS = re.compile(r"([%$\w]+)<(\d+)>")
_NAME = re.compile(r"(?<![\w$%.])[%$A-Za-z_][\w$]*(?:\.[xyz])?")


@dataclass
class Instruction:
    """One instruction: ``@[!]guard op operands``."""

    text: str
    guard: str | None
    negated: bool
    op: str
    operands: list[str]


@dataclass
class Function:
    """A kernel, or a function that one calls.

    ``code`` holds instructions and, as plain text, labels.
    """

    name: str
    params: list[Variable]
    returns: list[Variable] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)
    registers: dict[str, int] = field(default_factory=dict)
    """Bytes by name; names that end in ``<`` stand for all with a number behind."""
    code: list[Instruction | str] = field(default_factory=list)

    def size_of(self, name: str) -> int | None:
        """Return the bytes of a register; None: it is none."""
        if name in self.registers:
            return self.registers[name]
        # %f3__7, of a call put in place, is of the group "%f<__7"
        if part := re.fullmatch(r"(.*?)\d+((?:__\d+)*)", name):
            return self.registers.get(f"{part[1]}<{part[2]}")
        return None


class Module:
    """The functions and variables of one PTX text."""

    def __init__(self, text: str):
        text = _COMMENT.sub("", text.rstrip("\0"))
        self.target = int(re.search(r"\.target\s+sm_(\d+)", text)[1])
        self.variables: dict[str, Variable] = {}
        self._functions: dict[str, tuple[str, str, str]] = {}
        self._read(text)

    def _read(self, text: str) -> None:
        at = 0
        head = re.compile(r"\.(entry|func|global|const|shared)\b")
        while found := head.search(text, at):
            if found[1] in ("entry", "func"):
                at = self._read_function(text, found.end())
                continue
            end = text.index(";", found.start())
            variable = variable_of(text[found.start() : end])
            self.variables[variable.name] = variable
            at = end + 1

    def _read_function(self, text: str, at: int) -> int:
        brace, semicolon = text.find("{", at), text.find(";", at)
        if -1 < semicolon < brace:  # a declaration
            return semicolon
        header = text[at:brace]
        parts = re.fullmatch(
            r"\s*(?:\(([^)]*)\))?\s*([$\w]+)\s*(?:\((.*)\))?[^)]*", header, re.DOTALL
        )
        if parts is None:
            raise PtxError(f"not a function's head: {header!r}")
        end = _matching(text, brace)
        self._functions[parts[2]] = (parts[1] or "", parts[3] or "", text[brace + 1 : end])
        return end

    @property
    def names(self) -> list[str]:
        """The functions' names."""
        return list(self._functions)

    def used_by(self, name: str) -> set[str]:
        """Return the names of the module's variables that a function's instructions have."""
        found = set()
        for item in self.function(name).code:
            if isinstance(item, Instruction):
                found.update(n for o in item.operands for n in _NAME.findall(o))
        return found & set(self.variables)

    @functools.cache  # noqa: B019
    def function(self, name: str) -> Function:
        """Return a function, all that it calls put in place of the calls.

        Raises:
            PtxError: there is none, or it is not understood.
        """
        if name not in self._functions:
            raise PtxError(f"no function {name}")
        returns, params, body = self._functions[name]
        function = Function(name, variables_of(params), variables_of(returns))
        _Body(self, function).read(body)
        return function


class _Body:
    """Reads the statements of a function's body; names of inner scopes get a number."""

    def __init__(self, module: Module, function: Function):
        self._module, self._function = module, function
        self._scopes: list[dict[str, str]] = [{}]
        self._n_scopes = 0

    def read(self, text: str) -> None:
        at = 0
        while at < len(text):
            if text[at].isspace() or text[at] == ";":
                at += 1
            elif text[at] == "{":
                self._scopes.append({})
                self._n_scopes += 1
                at += 1
            elif text[at] == "}":
                self._scopes.pop()
                at += 1
            elif label := _LABEL.match(text, at):
                self._function.code.append(label[1])
                at = label.end()
            else:
                end = text.index(";", at)
                self._statement(" ".join(text[at:end].split()))
                at = end + 1

    def _statement(self, text: str) -> None:
        if text.partition(" ")[0] in (".pragma", ".loc", ".file"):
            return
        if text.startswith(".reg"):
            self._declare_registers(text)
        elif text.startswith("."):
            variable = variable_of(text)
            name = self._declare(variable.name)
            space = "local" if variable.space == "param" else variable.space
            self._function.variables.append(
                Variable(space, name, variable.size, variable.align, variable.initial)
            )
        else:
            self._instruction(text)

    def _declare_registers(self, text: str) -> None:
        kind, _, names = text.removeprefix(".reg").strip().partition(" ")
        size = SIZES[kind.strip(".")]
        for name in (n.strip() for n in names.split(",")):
            if many := _REGISTERS.fullmatch(name):
                if self._function.registers.setdefault(many[1] + "<", size) != size:
                    raise PtxError(f"{many[1]} of two sizes")
            else:
                self._function.registers[self._declare(name)] = size

    def _declare(self, name: str) -> str:
        if len(self._scopes) == 1:
            return name
        self._scopes[-1][name] = f"{name}__{self._n_scopes}"
        return self._scopes[-1][name]

    def _instruction(self, text: str) -> None:
        guard, negated = None, False
        if found := re.match(r"@(!?)([%$\w]+)\s+", text):
            negated, guard, text = bool(found[1]), self._scoped(found[2]), text[found.end() :]
        op, _, rest = text.partition(" ")
        operands = [_NAME.sub(lambda m: self._scoped(m[0]), o) for o in _split(rest)]
        if op.split(".")[0] == "call":
            if guard is not None:
                raise PtxError(f"a call under a condition: {text}")
            self._call(operands)
            return
        self._function.code.append(Instruction(text, guard, negated, op, operands))

    def _scoped(self, name: str) -> str:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        return name

    def _call(self, operands: list[str]) -> None:
        """Put a function's code here, under names of its own."""
        self._n_scopes += 1
        mark = f"__{self._n_scopes}"
        names = [o.strip("()") for o in operands]
        returned = names[0] if operands[0].startswith("(") else ""
        callee = names[1] if returned else names[0]
        given = names[2 if returned else 1 :]
        inner = self._module.function(callee)
        rename = {p.name: a.strip() for p, a in zip(inner.params, _flat(given), strict=True)}
        rename |= {p.name: a.strip() for p, a in zip(inner.returns, _flat([returned]), strict=True)}
        labels = {item for item in inner.code if isinstance(item, str)}
        own = {v.name for v in inner.variables if v.space == "local"} | labels

        def renamed(match: re.Match) -> str:
            name = match[0]
            if name in rename:
                return rename[name]
            return name + mark if name in own or inner.size_of(name) else name

        # "%f<" of the callee: %f3 becomes %f3__7, of the group that "%f<__7" stands for
        self._function.registers |= {n + mark: size for n, size in inner.registers.items()}
        for v in inner.variables:
            if v.space == "local":
                self._function.variables.append(replace(v, name=v.name + mark))
            elif v not in self._function.variables:  # shared: one for all calls
                self._function.variables.append(v)
        for item in inner.code:
            if isinstance(item, str):
                self._function.code.append(item + mark)
                continue
            guard = item.guard and _NAME.sub(renamed, item.guard)
            op, operands = item.op, [_NAME.sub(renamed, o) for o in item.operands]
            if op.split(".")[0] == "ret":
                op, operands = "bra", ["end" + mark]
            self._function.code.append(Instruction(item.text, guard, item.negated, op, operands))
        self._function.code.append("end" + mark)


def _flat(lists: list[str]) -> list[str]:
    return [name for names in lists for name in names.split(",") if name.strip()]


def _matching(text: str, at: int) -> int:
    """Return where the brace that opens at ``at`` closes."""
    depth = 0
    for found in re.compile(r"[{}]").finditer(text, at):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return found.start()
    raise PtxError("a brace is not closed")


def _split(text: str) -> list[str]:
    """Return operands: parts between commas that are not inside brackets."""
    found, depth, part = [], 0, ""
    for c in text:
        if c in "{[(":
            depth += 1
        elif c in "}])":
            depth -= 1
        if c == "," and depth == 0:
            found.append(part.strip())
            part = ""
        else:
            part += c
    if part.strip():
        found.append(part.strip())
    return found


def parts_of(operand: str) -> list[str]:
    """Return the parts of a vector operand, ``{a, b}``, or the one of another."""
    return [part.strip() for part in operand.strip("{}").split(",")]
