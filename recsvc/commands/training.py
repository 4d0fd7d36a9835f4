"""What ``recsvc train`` and ``recsvc evaluate`` say; the training itself is not known here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from feature_store.errors import UserError
from recsvc.commands.models import show_evaluation
from recsvc.commands.output import ProgressReport, say, write_json

StageProgress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, 0 to 1."""

_PARTS = 1000


@contextmanager
def reporting() -> Iterator[StageProgress]:
    """Show how far each stage of a training is."""
    with ProgressReport() as progress:
        yield stages(progress)


def stages(progress: ProgressReport) -> StageProgress:
    """Return what a training calls."""

    def report(stage: str, share: float) -> None:
        progress(stage, round(share * _PARTS), _PARTS)

    return report


def refuse_later(engine: str, tune: int | None, budget: str | None) -> None:
    """Say what a later version will do.

    Raises
    ------
    UserError
        If one of these options was given.
    """
    if engine != "local":
        raise UserError(f"--engine {engine} is not yet supported in this version; use local")
    if tune is not None or budget is not None:
        raise UserError("--tune and --budget are not yet supported in this version")


def window(start: str | None, end: str | None) -> tuple[datetime | None, datetime | None]:
    """Read the bounds of what is learned from; a bound without a zone is in UTC.

    Raises
    ------
    UserError
        If one is no time, or they are in the wrong order.
    """
    bounds = _time(start, "--from"), _time(end, "--to")
    if bounds[0] is not None and bounds[1] is not None and bounds[0] >= bounds[1]:
        raise UserError(f"--from {start} is not before --to {end}")
    return bounds


def _time(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"{option} takes a day or a time like 2026-01-31T10:00:00Z, not {text!r}"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def report(
    manifest: dict[str, Any],
    evaluation: dict[str, Any] | None,
    published: bool,
    reason: str,
    *,
    as_json: bool,
) -> None:
    """Say what came of a training.

    Parameters
    ----------
    manifest : dict
        Of the model.
    evaluation : dict or None
        The table; ``None`` if there was nobody to test on.
    published : bool
        Whether the model serves now.
    reason : str
        Why, or why not.
    """
    if as_json:
        write_json(
            {
                "version": manifest["version"],
                "published": published,
                "reason": reason,
                "n_items": manifest["n_items"],
                "gate": manifest["gate"],
                "evaluation": evaluation,
            }
        )
        return
    if evaluation is not None and evaluation["rows"]:
        show_evaluation(evaluation)
        say("")
    serves = "serves" if published else "does not serve"
    say(f"{manifest['version']} ({manifest['n_items']:,} items) {serves}: {reason}")
