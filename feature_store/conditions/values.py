"""The values of a field as documents have them, ready for comparing."""

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
    parts = found if isinstance(found, list | tuple) else [found]
    if kind is Kind.ANY:
        return [part for part in parts if part is not None]
    ready = (ready_value(part, kind) for part in parts)
    return [part for part in ready if part is not None]


def ready_value(part: Any, kind: Kind) -> Any:
    """Return one value ready for comparing, or ``None`` if it is not of the kind."""
    if kind is Kind.NUMBER:
        return _number(part)
    if kind is Kind.TIME:
        return _time(part)
    if kind is Kind.BOOLEAN:
        return part if isinstance(part, bool) else None
    return part if isinstance(part, str) else None


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


def _time(part: Any) -> datetime | None:
    if isinstance(part, str):
        try:
            part = datetime.fromisoformat(part)
        except ValueError:
            return None
    if not isinstance(part, datetime):
        return None
    return part if part.tzinfo is not None else part.replace(tzinfo=UTC)
