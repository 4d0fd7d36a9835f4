"""The record of an answer: it may fail, and the answer does not."""

import time
from pathlib import Path

import orjson
import pytest

from feature_store.preferences import NO_PREFERENCES
from feature_store.store import UserContext
from recsvc.answering import Question, finish
from recsvc.decisions import DecisionRecorder
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot
from recsvc.telemetry import Metrics
from tests.recsvc.shop import bought


def question(channel: str) -> Question:
    request = RecommendationRequest(user_id="ann", context={"channel": channel})
    context = UserContext(bought((3, 1), (6, 2)), NO_PREFERENCES, 0, person="u:ann")
    return Question(request, "u:ann", context, True, True, None, 0, (), time.perf_counter())


@pytest.mark.parametrize("sample", [0.0, 1.0])
async def test_what_cannot_be_recorded_is_answered(
    snapshot: Snapshot, tmp_path: Path, sample: float
) -> None:
    recorder = DecisionRecorder(tmp_path, Metrics(), sample)
    # JSON has no half of a pair of surrogates; a context with one comes through no door.
    answers = [
        orjson.loads(finish(snapshot, question(channel), recorder).body)
        for channel in ("web", "\ud800", "app")
    ]
    assert [len(one["items"]) > 0 for one in answers] == [True] * 3
    with pytest.raises(orjson.JSONEncodeError):
        await recorder.flush()
    await recorder.flush()
    found = []
    for one in answers:
        identity = one["recommendation_id"]
        found.append(await recorder.find(identity, int(identity[:12], 16)))
    await recorder.close()
    contexts = [None if record is None else record["context"]["channel"] for record in found]
    assert contexts == ["web", None, "app"]
