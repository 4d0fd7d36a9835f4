"""In which language somebody is answered."""

from typing import Annotated

from fastapi import Depends, Query, Request

from recsvc.explaining.words import Words, library, words


def words_of(
    request: Request,
    language: Annotated[
        str | None,
        Query(
            max_length=35,
            description="of the texts, as `de` or `fr-CA`; otherwise what `Accept-Language` likes"
            " best. What is not there is said in English",
            examples=["de"],
        ),
    ] = None,
) -> Words:
    """Return the texts in which a person is answered."""
    if language is not None:
        return words(language)
    return words(library().preferred(request.headers.get("accept-language", "")))


InWords = Annotated[Words, Depends(words_of)]
