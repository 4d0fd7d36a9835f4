"""Which form of an answer a caller wants: JSON, or a page for people."""

import re
from typing import Annotated, Literal

from fastapi import Depends, Query, Request

Form = Literal["json", "html"]
_FORMS: dict[str, Form] = {"application/json": "json", "text/html": "html"}
_QUALITY = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


def preferred(accept: str) -> Form:
    """Return the form that an ``Accept`` likes best (RFC 9110, 12.5.1); JSON where it does not say.

    Of forms that it likes equally, the first one.
    """
    liked: list[tuple[float, int, Form]] = []
    for place, part in enumerate(accept[:1_000].split(",")):
        name, *parameters = (one.strip().lower() for one in part.split(";"))
        form = _FORMS.get(name)
        qualities = [found[1] for one in parameters if (found := _QUALITY.fullmatch(one))]
        quality = float(qualities[0]) if qualities else 1.0
        if form is not None and quality > 0:
            liked.append((-quality, place, form))
    return min(liked)[2] if liked else "json"


def form_of(
    request: Request,
    wanted: Annotated[
        Form | None,
        Query(
            alias="format",
            description="`html` for a page; otherwise what `Accept` likes best",
            examples=["html"],
        ),
    ] = None,
) -> Form:
    """Return the form in which somebody wants an answer."""
    return wanted or preferred(request.headers.get("accept", ""))


InForm = Annotated[Form, Depends(form_of)]
