"""How commands speak: results on stdout, everything else on stderr, progress as bars or lines."""

import sys
import time
from types import TracebackType
from typing import Any, Self

import orjson
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from recsvc.commands.exits import check_interrupted

_LINE_EVERY_S = 5.0
_WIDTH_IN_A_PIPE = 140


def stdout() -> Console:
    """Return a console for results; in a pipe it does not wrap at a terminal's width."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_IN_A_PIPE, highlight=False)


def stderr() -> Console:
    """Return a console for everything that is not a result."""
    return Console(
        stderr=True, width=None if sys.stderr.isatty() else _WIDTH_IN_A_PIPE, highlight=False
    )


def say(text: str) -> None:
    """Write a line of a result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Write a line that is not a result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def write_json(document: Any) -> None:
    """Write the one document of ``--json``."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z
    sys.stdout.buffer.write(orjson.dumps(document, default=str, option=options) + b"\n")
    sys.stdout.buffer.flush()


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table; a column whose name ends in ``>`` is aligned to the right."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        name = column.removesuffix(">")
        made.add_column(name, justify="right" if name != column else "left", overflow="fold")
    return made


class ProgressReport:
    """Shows how far each step of a long command is: bars on a terminal, lines in a pipe.

    Call it with the step's name, what is done, and of how much (0 if unknown).
    """

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._began_s: dict[str, float] = {}
        self._said_s: dict[str, float] = {}
        self._finished: set[str] = set()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                console=stderr(),
            )
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Report a step."""
        check_interrupted()
        if self._bars is None:
            self._say(step, done, total)
            return
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total or None)
        self._bars.update(self._tasks[step], completed=done, total=total or None)

    def _say(self, step: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if step not in self._began_s:
            self._began_s[step] = self._said_s[step] = now_s
            note(f"{step} ...")
        elapsed_s = now_s - self._began_s[step]
        if total and done >= total:
            if step not in self._finished:
                self._finished.add(step)
                note(f"{step}: done in {elapsed_s:.1f} s")
        elif now_s - self._said_s[step] >= _LINE_EVERY_S:
            self._said_s[step] = now_s
            share = f"{100 * done // total} %" if total else f"{done:,}"
            note(f"{step}: {share} after {elapsed_s:.0f} s")
