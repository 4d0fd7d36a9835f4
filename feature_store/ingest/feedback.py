"""Rows that say what somebody thinks of the shop: refused where nobody could tell what."""

from collections.abc import Mapping

import polars as pl

from feature_store.ingest.refusals import Refusals
from feature_store.ingest.values import as_number, as_text
from feature_store.schema import RATING_SCALE, SURVEY_SCALES, EventType


def refuse_bad_feedback(raw: Mapping[str, pl.Series], types: pl.Series, refusals: Refusals) -> None:
    """Refuse surveys and ratings that `schema.Event` would refuse.

    Parameters
    ----------
    raw : mapping of str to Series
        The file's columns by field.
    types : Series of str
        Type of each row.
    refusals : Refusals
        Gets ``bad_value``, ``bad_instrument`` and ``bad_score``.
    """
    is_rating, is_survey = (types == kind.value for kind in (EventType.RATING, EventType.SURVEY))
    if "value" in raw and is_rating.any():
        given, value = as_text(raw["value"]), as_number(raw["value"])
        inside = value.is_between(*RATING_SCALE).fill_null(value=False)
        refusals.add("bad_value", is_rating & given.is_not_null() & ~inside, given)
    if not is_survey.any():
        return
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(types))
    instrument, given = (
        as_text(raw[field]) if field in raw else nothing for field in ("instrument", "score")
    )
    known = instrument.is_in(list(SURVEY_SCALES)).fill_null(value=False)
    refusals.add("bad_instrument", is_survey & ~known, instrument)
    score = as_number(given)
    lowest, highest = (
        instrument.replace_strict(
            {name: scale[end] for name, scale in SURVEY_SCALES.items()},
            default=None,
            return_dtype=pl.Float64,
        )
        for end in (0, 1)
    )
    whole = (score >= lowest) & (score <= highest) & (score == score.floor())
    refusals.add("bad_score", is_survey & ~whole.fill_null(value=False), given)
