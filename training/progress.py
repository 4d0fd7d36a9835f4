"""How a long run says where it is."""

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, 0 to 1."""

Report = Callable[[float], None]
"""Called with the share that is done, 0 to 1."""


def silent(stage: str, fraction: float) -> None:
    """Say nothing."""


def unheard(fraction: float) -> None:
    """Say nothing about one stage."""


def part(progress: Progress, stage: str, start: float, end: float) -> Report:
    """Return a reporter whose 0 to 1 is `start` to `end` of a stage."""

    def report(fraction: float) -> None:
        progress(stage, start + (end - start) * fraction)

    return report
