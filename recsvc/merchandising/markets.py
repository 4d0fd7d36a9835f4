"""Which market a request is about."""

from collections.abc import Mapping


def market_of(context: Mapping[str, str]) -> str | None:
    """Return the market whose availability and prices count, or ``None`` for the items' own.

    Parameters
    ----------
    context : mapping of str to str
        Attributes of the request: ``market``, or else ``country``.
    """
    return context.get("market") or context.get("country")
