"""Revisions of documents as entity tags: ``If-Match`` says which one the writer has seen."""

from fastapi import Request

from recsvc.checks import FieldError, InvalidRequestError


def etag(revision: int) -> str:
    """Return the entity tag of a revision."""
    return f'"{revision}"'


def expected_revision(request: Request) -> int | None:
    """Return the revision that a writer has seen, for ``Write.expected_revision``.

    Returns
    -------
    int or None
        Of ``If-Match: "3"``; 0, "there is none", of ``If-None-Match: *``; ``None`` if the writer
        does not mind.

    Raises
    ------
    InvalidRequestError
        If ``If-Match`` is no revision.
    """
    if request.headers.get("if-none-match", "").strip() == "*":
        return 0
    given = request.headers.get("if-match", "").strip()
    if not given or given == "*":
        return None
    number = given.removeprefix("W/").strip('"')
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        said = f'is the revision that you have read, as in If-Match: "3", not {given}'
        raise InvalidRequestError(FieldError("#/If-Match", said))
    return int(number)
