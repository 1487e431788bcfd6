"""Config dataclasses as command-line flags, and the flags that several commands share.

A nested config is a prefix (``encoding.n_levels`` is ``--encoding.n-levels``); the fields of
``training`` stand at the top. A field's docstring is its flag's help. Only flags that are given
override; everything else comes from ``--config``, a resumed run or the field's default.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from ngp_warp.config import from_dict, override, settings_of_file, to_dict
from ngp_warp.errors import ConfigError
from ngp_warp.json_files import read_json
from ngp_warp.ngp_config import is_ngp_config, settings_from_ngp

_C = TypeVar("_C")

FLATTENED = "training"  # its fields carry no prefix: --seconds, not --training.seconds


def _check_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise typer.BadParameter(f"{value!r} is not auto, cpu, cuda or cuda:N")
    return value


def parse_numbers(text: str, form: str) -> tuple[float, ...]:
    """Return the numbers of a list like ``low,high``; a usage error where there are not as many."""
    count = form.count(",") + 1
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise typer.BadParameter(f"{text!r} is not {form}: {count} numbers")
    return numbers


RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, its latest link or a checkpoint.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, all else on stderr.")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N",
        callback=_check_device,
        help="Where to compute; auto takes CUDA where there is one.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        envvar="NGP_NUM_THREADS",
        help="CPU threads; every core if not given. The result does not depend on it.",
    ),
]


@dataclass(frozen=True)
class Flag:
    """One field of a config as a flag."""

    path: tuple[str, ...]
    """Names from the config down to the field."""
    annotation: Any
    """Type of the field."""
    default: Any
    """Value of the field where nothing sets it."""
    help: str
    """The field's docstring."""

    @property
    def name(self) -> str:
        """The flag without its dashes: ``encoding.n-levels``."""
        path = self.path[1:] if self.path[0] == FLATTENED else self.path
        return ".".join(path).replace("_", "-")

    @property
    def parameter(self) -> str:
        """The name of the command's parameter: ``encoding__n_levels``."""
        return "__".join(self.path)


def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass, as one line."""
    docs = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for field, below in pairwise(body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    docs[name] = " ".join(text.split())
    return docs


def flags_of(cls: type) -> list[Flag]:
    """Return the flags of a config dataclass and of its nested ones, in the order of the fields."""
    return _flags(cls(), ())


def _flags(config: Any, path: tuple[str, ...]) -> list[Flag]:
    """Return the flags of a config; a nested default may differ from its class's."""
    hints, docs = get_type_hints(type(config)), field_docs(type(config))
    flags = []
    for field in dataclasses.fields(config):
        value, here = getattr(config, field.name), (*path, field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            flags += _flags(value, here)
        else:
            flags.append(Flag(here, hints[field.name], value, docs.get(field.name, "")))
    return flags


def config_from_flags(cls: type[_C], flags: dict[str, Any], base: dict[str, Any]) -> _C:
    """Return the config that ``base`` and, over it, the given flags describe.

    Args:
        cls: the config dataclass.
        flags: parameter name (``encoding__n_levels``) to value, only of flags that were given.
        base: plain JSON values, as ``to_dict`` gives them; may leave anything out.

    Raises:
        ConfigError: as the dataclass raises it.
    """
    given: dict[str, Any] = {}
    for parameter, value in flags.items():
        *path, name = parameter.split("__")
        node = given
        for part in path:
            node = node.setdefault(part, {})
        node[name] = value
    return from_dict(cls, override(base, given), "settings")


def read_config(cls: type, path: Path, primitive: str) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that a JSON file holds, and what there is to say of them.

    The file is a run's config.json, a part of one, or a network config of instant-ngp's.

    Raises:
        ConfigError: not readable, not JSON, or not settings of ``cls``.
    """
    values = read_json(path)
    notes: list[str] = []
    if isinstance(values, dict) and "primitive" in values:  # a run's: its settings and more
        values = values.get("config", {})
    elif is_ngp_config(values):
        values, notes = settings_from_ngp(values, primitive, path)
    with settings_of_file(path):
        from_dict(cls, values, str(path))
    return values, notes


def open_for(run: Path, device: str, threads: int | None) -> Any:
    """Return the run, to compute where ``--device`` and ``--threads`` say.

    Raises:
        NgpError: no such run, device or number of threads.
    """
    from ngp_warp.run import open_run

    if threads is not None:
        from ngp_warp import launch

        launch.set_num_threads(threads)
    return open_run(run, device=None if device == "auto" else device)


def base_settings(
    cls: type, file: Path | None, resume: Path | None, primitive: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that the flags override, and what there is to say of the file.

    They are the resumed run's, then the file's over them.

    Raises:
        ConfigError: a file or a run that does not hold settings of ``cls``.
        CheckpointError: no run at ``resume``.
    """
    values: dict[str, Any] = {}
    if resume is not None:
        from ngp_warp.run import open_run

        run = open_run(resume)
        if not isinstance(run.config, cls):
            raise ConfigError(
                f"{resume} is a run of the {run.primitive} primitive: resume it there"
            )
        values = to_dict(run.config)
    if file is None:
        return values, []
    above, notes = read_config(cls, file, primitive)
    return override(values, above), notes


def with_config_flags(cls: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the flags of a config dataclass.

    The command takes ``ctx: typer.Context`` and ``flags: dict[str, Any]``, which then holds the
    flags that were given, by parameter name; Typer sees the flags instead of ``flags``.
    """
    flags = sorted(flags_of(cls), key=lambda flag: "." in flag.name)  # --seconds first

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [p for p in inspect.signature(command).parameters.values() if p.name != "flags"]
        names = [p.name for p in own] + [flag.parameter for flag in flags]
        if len(set(names)) < len(names):
            raise TypeError(f"{cls.__name__} has a field named as a flag of the command")

        def wrapper(ctx: typer.Context, **values: Any) -> Any:
            settings = {f.parameter: values.pop(f.parameter) for f in flags}
            given = {name: value for name, value in settings.items() if _was_given(ctx, name)}
            return command(ctx, flags=given, **values)

        wrapper.__doc__ = command.__doc__
        # Typer reads the parameters from here; a plain **values has none.
        wrapper.__signature__ = inspect.Signature([*own, *map(_parameter, flags)])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {}
        return wrapper

    return decorate


def _was_given(ctx: typer.Context, parameter: str) -> bool:
    source = ctx.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def _parameter(flag: Flag) -> inspect.Parameter:
    name = f"--{flag.name}"
    if flag.annotation is bool:
        prefix, _, last = flag.name.rpartition(".")
        name += f"/--{prefix}{'.' if prefix else ''}no-{last}"
    option = typer.Option(name, help=flag.help)
    return inspect.Parameter(
        flag.parameter,
        inspect.Parameter.KEYWORD_ONLY,
        default=flag.default,
        annotation=Annotated[flag.annotation, option],
    )
