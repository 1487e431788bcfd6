"""What is wrong with a scene: raised at once when loading, collected when validating."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ngp_warp.errors import DataError, NgpError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and how to mend it."""

    severity: Severity
    where: str
    """A file, and the frame or record in it; may be empty."""
    what: str
    mend: str
    """What to do; may be empty."""

    @property
    def line(self) -> str:
        """All of it in one line."""
        start = f"{self.where}: " if self.where else ""
        return f"{start}{self.what}" + (f"; {self.mend}" if self.mend else "")


class SceneError(DataError):
    """An error whose parts are known by themselves."""

    def __init__(self, where: str, what: str, mend: str = ""):
        self.problem = Problem("error", where, what, mend)
        super().__init__(self.problem.line)


def problem_of(error: NgpError) -> Problem:
    """Return what an error says."""
    return error.problem if isinstance(error, SceneError) else Problem("error", "", str(error), "")


class Checks:
    """Takes what a reader finds.

    Args:
        collect: go on after an error where what follows does not need what was wrong.
        report: is given each warning's line.
    """

    def __init__(self, *, collect: bool = False, report: Callable[[str], None] = lambda line: None):
        self.collect = collect
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._report = report

    @property
    def errors(self) -> list[Problem]:
        """The errors among the problems."""
        return [problem for problem in self.problems if problem.severity == "error"]

    @contextmanager
    def part(self) -> Iterator[None]:
        """Run a part that can fail by itself: its error is raised, or collected."""
        try:
            yield
        except NgpError as error:
            if not self.collect:
                raise
            self.problems.append(problem_of(error))

    def warn(self, where: str, what: str, mend: str = "") -> None:
        """Note what is odd but can be trained with."""
        problem = Problem("warning", where, what, mend)
        self.problems.append(problem)
        self._report(problem.line)

    def note(self, line: str) -> None:
        """Report what was chosen; no problem at all."""
        self.notes.append(line)
        self._report(line)
