"""What customers said, summed up over HTTP and by hand."""

from datetime import UTC, datetime
from typing import Any

import httpx
import polars as pl
import pytest

from feature_store.feedback_report import feedback_report
from tests.recsvc.api.service import assert_problem, event
from tests.waiting import until

PATH = "/v1/reports/feedback"


def said(user_id: str, at: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {
        **event(user_id, "i00001", type=kind, timestamp=f"{at}T12:00:00Z", **fields),
        "item_id": "i00001" if kind == "rating" else None,
    }


def report(client: httpx.Client, **asked: str) -> dict[str, Any]:
    response = client.get(PATH, params=asked)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


LATER: dict[str, Any] = {
    "csat": {"count": 2, "mean": 2.5, "satisfied_share": 0.5},
    "ces": {"count": 1, "mean": 7.0},
    "ratings": {"count": 1, "mean": 4.5},
    "complaints": {"count": 1},
}


def nps(mean: float, score: float, promoters: int, detractors: int) -> dict[str, Any]:
    """Return a summary of answers of which none is passive."""
    return {
        "count": promoters + detractors,
        "mean": mean,
        "nps": score,
        "promoters": promoters,
        "passives": 0,
        "detractors": detractors,
    }


def test_what_was_said_is_in_the_report(client: httpx.Client) -> None:
    # A year that no other test writes to.
    events = [
        said("r1", "2019-04-29", "survey", instrument="nps", score=9),
        said("r2", "2019-05-05", "survey", instrument="nps", score=6),
        said("r3", "2019-05-06", "survey", instrument="nps", score=10),
        said("r3", "2019-05-07", "survey", instrument="csat", score=4),
        said("r3", "2019-05-07", "survey", instrument="csat", score=1),
        said("r3", "2019-05-08", "survey", instrument="ces", score=7),
        said("r1", "2019-05-09", "rating", value=4.5),
        said("r1", "2019-05-09", "rating"),
        said("r1", "2019-05-12", "complaint"),
        said("r1", "2019-05-13", "complaint"),
    ]
    assert client.post("/v1/events", json=events).json()["accepted"] == len(events)
    asked = {"from": "2019-04-29", "to": "2019-05-13", "interval": "week"}
    found: dict[str, Any] = {}

    def is_archived() -> bool:
        found.update(report(client, **asked))
        return bool(found["overall"]["total"].get("nps", {}).get("count") == 3)

    until(is_archived)
    weeks: list[dict[str, Any]] = [
        {"start": "2019-04-29T00:00:00Z", "nps": nps(7.5, 0.0, 1, 1)},
        {"start": "2019-05-06T00:00:00Z", "nps": nps(10.0, 100.0, 1, 0), **LATER},
    ]
    total = {**LATER, "nps": nps(8.3333, 33.33, 2, 1)}
    expected = {"segments": [], "overall": {"total": total, "periods": weeks}}
    assert found == {**asked, **expected}
    months = report(client, **{"from": "2019-01-01", "to": "2020-01-01", "interval": "month"})
    assert [
        (period["start"][:7], period.get("complaints", {}).get("count", 0))
        for period in months["overall"]["periods"]
    ] == [("2019-04", 0), ("2019-05", 2)]


def test_an_answer_off_its_scale_is_rejected_and_says_why(client: httpx.Client) -> None:
    bad = said("r9", "2019-06-01", "survey", instrument="nps", score=11)
    problem = assert_problem(client.post("/v1/events", json=bad), 422, "#")
    assert "a survey by nps needs a whole score from 0 to 10" in problem["errors"][0]["detail"]
    good = said("r9", "2019-06-01", "survey", instrument="csat", score=1)
    rating = said("r9", "2019-06-01", "rating", value=0)
    answer = client.post("/v1/events", json=[bad, good, rating]).json()
    assert answer["accepted"] == 1
    assert [one["index"] for one in answer["rejected"]] == [0, 2]


def test_without_days_it_is_the_last_twelve_weeks(client: httpx.Client) -> None:
    found = report(client)
    first, end = (
        datetime.fromisoformat(found[name]).replace(tzinfo=UTC) for name in ("from", "to")
    )
    assert (end - first).days == 84
    assert first < datetime.now(UTC) < end
    assert found["interval"] == "week"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("interval=year", "#/interval"),
        ("from=2019-05-02&to=2019-05-02", "#"),
        ("from=2019-05-02&to=2009-05-02", "#"),
        ("from=1990-01-01", "#"),
        ("to=yesterday", "#/to"),
        ("to=0001-01-02", "#/to"),
        ("from=9999-12-31", "#/from"),
        ("from=2026-01-01&x=1", "#/x"),
    ],
)
def test_what_cannot_be_reported_is_named(client: httpx.Client, query: str, pointer: str) -> None:
    assert_problem(client.get(f"{PATH}?{query}"), 422, pointer)


def test_segments_are_parts_of_the_whole() -> None:
    answers = pl.DataFrame(
        {
            "person": ["u:a", "u:b", "a:c", "u:a"],
            "at": [datetime(2026, 2, day, tzinfo=UTC) for day in (1, 2, 3, 28)],
            "instrument": ["nps", "nps", "nps", "rating"],
            "score": [0.0, 8.0, 9.0, 2.5],
        },
        schema_overrides={"at": pl.Datetime("ms", "UTC")},
    )
    found = feedback_report(
        answers, "month", {"ours": {"u:a", "u:x"}, "all": ["u:b", "a:c", "u:a"], "nobody": []}
    )
    by_name = {part["segment"]: part for part in found["segments"]}
    assert [one["segment"] for one in found["segments"]] == ["all", "nobody", "ours"]
    assert {**by_name["all"], "segment": None} == {**found["overall"], "segment": None}
    assert by_name["nobody"] == {"segment": "nobody", "total": {}, "periods": []}
    assert by_name["ours"]["total"]["nps"]["nps"] == -100.0
    assert found["overall"]["total"]["nps"] == {
        "count": 3, "mean": 5.6667, "promoters": 1, "passives": 1, "detractors": 1, "nps": 0.0,
    }  # fmt: skip
