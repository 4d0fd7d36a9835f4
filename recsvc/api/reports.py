"""``/v1/reports``: what customers said, summed up."""

import asyncio
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal

import polars as pl
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_store.event_log import EventLog
from feature_store.feedback_report import feedback_report, read_answers
from feature_store.schema import Timestamp
from recsvc.api.http import AnyWorker, secured
from recsvc.api.openapi import responses
from recsvc.api.schemas import Document
from recsvc.merchandising.audiences import segments_now

router = APIRouter(tags=["reports"])

DEFAULT_DAYS = 84
MAX_DAYS = 3_660

Day = Annotated[date, Field(ge=date(1970, 1, 1), lt=date(9999, 1, 1))]

_NPS = {"count": 3, "mean": 7.6667, "promoters": 2, "passives": 0, "detractors": 1, "nps": 33.33}
_SUMMARY = {
    "nps": _NPS,
    "csat": {"count": 4, "mean": 4.25, "satisfied_share": 0.75},
    "ces": {"count": 2, "mean": 6.5},
    "ratings": {"count": 9, "mean": 4.0222},
    "complaints": {"count": 1},
}
_PART = {"total": _SUMMARY, "periods": [{"start": "2026-11-16T00:00:00Z", **_SUMMARY}]}
EXAMPLE = {
    "interval": "week",
    "from": "2026-11-16",
    "to": "2026-11-23",
    "overall": _PART,
    "segments": [{"segment": "gold_berlin", **_PART}],
}


class FeedbackQuery(BaseModel):
    """The parameters of a report."""

    model_config = ConfigDict(extra="forbid")

    interval: Annotated[
        Literal["day", "week", "month"],
        Field(description="length of a period, in UTC; a week begins on Monday"),
    ] = "week"
    first: Annotated[
        Day | None,
        Field(alias="from", description="the first day, in UTC; 84 days before `to` if left out"),
    ] = None
    end: Annotated[
        Day | None,
        Field(alias="to", description="the first day that no longer counts; tomorrow if left out"),
    ] = None

    @model_validator(mode="after")
    def _in_order(self) -> "FeedbackQuery":
        first, end = self.days(datetime.now(UTC).date())
        if not timedelta(0) < end - first <= timedelta(days=MAX_DAYS):
            raise ValueError(f"`from` must lie before `to`, by {MAX_DAYS} days at most")
        return self

    def days(self, today: date) -> tuple[date, date]:
        """Return the first day and the first that no longer counts."""
        end = self.end or max(today, self.first or today) + timedelta(days=1)
        return self.first or end - timedelta(days=DEFAULT_DAYS), end


class NpsSummary(Document):
    """Answers to the NPS question, 0 to 10."""

    count: int
    mean: float
    promoters: Annotated[int, Field(description="answers of 9 and 10")]
    passives: int
    detractors: Annotated[int, Field(description="answers of 0 to 6")]
    nps: Annotated[float, Field(description="per cent of promoters less that of detractors")]


class CsatSummary(Document):
    """Answers from 1 to 5."""

    count: int
    mean: float
    satisfied_share: Annotated[float, Field(description="share of answers of 4 and 5")]


class ScoreSummary(Document):
    """Answers with a mean."""

    count: int
    mean: float


class CountSummary(Document):
    """How many."""

    count: int


class FeedbackSummary(Document):
    """What was said; a kind of which nothing was said is left out."""

    nps: NpsSummary | None = None
    csat: CsatSummary | None = None
    ces: ScoreSummary | None = None
    ratings: ScoreSummary | None = None
    complaints: CountSummary | None = None


class FeedbackPeriod(FeedbackSummary):
    """What was said in one period."""

    start: Timestamp


class FeedbackPart(Document):
    """What some people said: in all, and by period; periods without an answer are left out."""

    total: FeedbackSummary
    periods: list[FeedbackPeriod]


class FeedbackSegment(FeedbackPart):
    """What the people said who are in a segment now."""

    segment: str


class FeedbackReport(Document):
    """What customers said over time."""

    interval: Literal["day", "week", "month"]
    first: Annotated[date, Field(alias="from")]
    end: Annotated[date, Field(alias="to")]
    overall: FeedbackPart
    segments: list[FeedbackSegment]


@router.get(
    "/v1/reports/feedback",
    operation_id="get_feedback_report",
    summary="NPS, CSAT, CES, ratings and complaints over time",
    response_model=FeedbackReport,
    response_model_exclude_unset=True,
    responses=responses(FeedbackReport, EXAMPLE, 401, 403, 422, 500, 503),
    **secured("marketing:read"),
)
async def get_feedback_report(
    worker: AnyWorker, asked: Annotated[FeedbackQuery, Query()]
) -> dict[str, Any]:
    """Sum up surveys, ratings and complaints of the archive, overall and for each segment.

    An event is in the report within seconds, when it has been archived. Every answer counts, also
    several of one person; those of people who refuse analytics or a profile do not. A segment is
    who is in it now; those of whom nobody answered are left out.
    """
    first, end = asked.days(datetime.now(UTC).date())
    moments = [datetime.combine(day, time(), UTC) for day in (first, end)]
    log = EventLog(worker.settings.data_dir)
    answers = await asyncio.to_thread(read_answers, log, *moments)
    await worker.context(None)  # so that segments of a moment ago are known
    uncounted = await worker.store.uncounted(answers["person"].unique().to_list())
    answers = answers.filter(~pl.col("person").is_in(list(uncounted)))
    people = answers["person"].unique().to_list()
    members = await segments_now(worker.store, worker.holder.current.site.segments, people)
    report = await asyncio.to_thread(feedback_report, answers, asked.interval, members)
    return {"interval": asked.interval, "from": first, "to": end, **report}
