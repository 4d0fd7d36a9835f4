"""The values of a field as documents have them, ready for comparing."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from feature_store.conditions.tree import Kind


def values_in(found: Any, kind: Kind) -> list[Any]:
    """Return the values that a document has for a field; those of a wrong type are left out.

    Parameters
    ----------
    found : Any
        A JSON value; a list has several, ``None`` none.
    kind : Kind
        What the field's values should be.

    Returns
    -------
    list
        Numbers (money by its amount), aware datetimes, texts or booleans by the kind.
    """
    if found is None:
        return []
    ready = READY[kind]
    values = map(ready, found if isinstance(found, list | tuple) else [found])
    return [value for value in values if value is not None]


def _number(part: Any) -> float | None:
    if isinstance(part, dict):
        part = part.get("amount")
        if isinstance(part, str):
            try:
                return float(part)
            except ValueError:
                return None
    if isinstance(part, bool) or not isinstance(part, int | float):
        return None
    return float(part)


def _any(part: Any) -> Any:
    return part


def _text(part: Any) -> str | None:
    return part if isinstance(part, str) else None


def _boolean(part: Any) -> bool | None:
    return part if isinstance(part, bool) else None


def _time(part: Any) -> datetime | None:
    if isinstance(part, str):
        try:
            part = datetime.fromisoformat(part)
        except ValueError:
            return None
    if not isinstance(part, datetime):
        return None
    return part if part.tzinfo is not None else part.replace(tzinfo=UTC)


READY: dict[Kind, Callable[[Any], Any]] = {
    **dict.fromkeys(Kind, _text),
    Kind.ANY: _any,
    Kind.NUMBER: _number,
    Kind.TIME: _time,
    Kind.BOOLEAN: _boolean,
}
"""Makes one value of a document ready for comparing; ``None`` if it is not of the kind."""
