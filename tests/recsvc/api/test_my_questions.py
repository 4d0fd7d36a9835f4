"""What I should be asked next, over real HTTP with two workers, and what my answers do."""

import threading
import time
from typing import Any

import httpx
import pytest

from tests.recsvc.api.browser import page_of, public_key, put
from tests.recsvc.api.departments import (
    Customer,
    browsers,
    department_shop,
    everywhere,
    fresh,
    user_path,
)
from tests.recsvc.api.service import assert_problem, event, ids_of

QUESTIONS = "/v1/me/questions"
RECS = "/v1/recommendations"


def asked(client: httpx.Client, **params: Any) -> Any:
    answer = client.get(QUESTIONS, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "private, no-store"
    return answer.json()["question"]


def reply(
    client: httpx.Client, question_id: str, *option_ids: str, **params: Any
) -> httpx.Response:
    return client.post(
        f"{QUESTIONS}/{question_id}", json={"option_ids": list(option_ids)}, params=params
    )


def option(question: dict[str, Any], text: str) -> str:
    found: dict[str, str] = {one["text"]: one["option_id"] for one in question["options"]}
    return found[text]


def test_a_new_customer_answers_and_sees_it_everywhere(customer: Customer) -> None:
    me = customer(fresh("ann"))
    question = asked(me)
    assert (question["question_id"], question["kind"], question["many"]) == (
        "departments",
        "choice",
        True,
    )
    assert {one["text"] for one in question["options"]} == {"Pets", "Garden", "Health", "Skip"}
    assert all(one["image_url"] for one in question["options"] if one["option_id"] != "skip")
    before = me.get(RECS, params={"limit": 6}).json()
    assert before["personalized"] is False
    answer = reply(me, "departments", option(question, "Pets"))
    assert answer.json() == {"question_id": "departments", "answered": True}
    for found in everywhere(me, RECS, limit=6):
        assert found["personalized"] is True
        pets = [one for one in found["items"] if int(one["item_id"][1:]) % 3 == 0]
        assert len(pets) >= 3
        assert "followed" in {one["reason"]["code"] for one in pets}
    assert me.get("/v1/me/preferences").json()["interests"] == ["Pets"]
    # The next one goes into what was chosen, and was not asked before.
    (then,) = {str(found) for found in everywhere(me, QUESTIONS)}
    following = asked(me)
    assert str({"question": following}) == then
    assert following["question_id"].startswith(("categories-", "brands-"))
    assert "Pets" in following["text"]
    assert "Pets" in following["because"]


def test_whoever_has_a_history_follows_what_they_answer(
    customer: Customer, backend: httpx.Client
) -> None:
    user = fresh("una")
    me = customer(user)
    backend.post("/v1/events", json=event(user, "i00001")).raise_for_status()
    question = asked(me)
    reply(me, question["question_id"], option(question, "Pets")).raise_for_status()
    assert me.get("/v1/me/preferences").json()["followed_categories"] == ["Pets"]
    for found in everywhere(me, RECS, limit=10):
        reasons = {one["reason"]["code"]: one["item_id"] for one in found["items"]}
        assert int(reasons["followed"][1:]) % 3 == 0


def test_questions_end(customer: Customer) -> None:
    me = customer(fresh("bob"))
    first = asked(me)
    reply(me, first["question_id"], option(first, "Garden"), option(first, "Pets"))
    seen = {first["question_id"]}
    for _ in range(20):
        question = asked(me)
        if question is None:
            break
        assert question["question_id"] not in seen
        seen.add(question["question_id"])
        assert reply(me, question["question_id"], "skip").status_code == 200
    assert asked(me) is None
    assert len(seen) >= 3


def test_not_interested_is_soft(customer: Customer, backend: httpx.Client) -> None:
    user = fresh("joe")
    me = customer(user)
    said = {"hidden_categories": ["Garden"], "followed_categories": ["Health"]}
    me.patch("/v1/me/preferences", json=said).raise_for_status()
    while "Pets" not in (question := asked(me))["text"]:
        reply(me, question["question_id"], "skip").raise_for_status()
    assert (question["kind"], question["many"]) == ("yes_no", False)
    assert [one["option_id"] for one in question["options"]] == ["yes", "no", "skip"]
    assert_problem(reply(me, question["question_id"], "yes", "no"), 422, "#/option_ids")
    backend.post("/v1/events", json=event(user, "i00000")).raise_for_status()
    assert reply(me, question["question_id"], "no").status_code == 200
    profile = me.get("/v1/me/profile").json()
    assert [one["name"] for one in profile["removed"]] == ["Pets"]
    assert [one["kind"] for one in profile["points"]] == ["followed_category", "hidden_category"]
    assert me.get("/v1/me/preferences").json()["hidden_categories"] == ["Garden"]
    assert len(me.get(RECS, params={"limit": 5}).json()["items"]) == 5


def test_what_is_known_or_never_named_is_not_asked(
    customer: Customer, backend: httpx.Client
) -> None:
    user = fresh("eve")
    me = customer(user)
    pets = [f"i{number:05d}" for number in range(0, 60, 3)]
    backend.post("/v1/events", json=[event(user, one) for one in pets]).raise_for_status()
    question = asked(me)
    assert question is None or "Pets" not in {one["text"] for one in question["options"]}
    other = customer(fresh("eva"))
    first = asked(other)
    reply(other, "departments", option(first, "Health")).raise_for_status()
    while (question := asked(other)) is not None:
        assert "Intimate" not in str(question)
        assert "Maker 5" not in str(question), "all of it is intimate"
        reply(other, question["question_id"], "skip").raise_for_status()
    german = customer(fresh("ida")).get(QUESTIONS, params={"language": "de"}).json()["question"]
    assert german["options"][-1]["text"] == "Überspringen"


def test_answers_that_are_none(customer: Customer) -> None:
    me = customer(fresh("kim"))
    question = asked(me)
    pets = option(question, "Pets")
    assert_problem(reply(me, "no such thing", "skip"), 404)
    assert_problem(reply(me, "departments", "nothing"), 422, "#/option_ids/0")
    assert_problem(reply(me, "departments", pets, "yes"), 422, "#/option_ids/1")
    assert_problem(reply(me, "departments", pets, "skip"), 422, "#/option_ids")
    assert_problem(reply(me, "departments"), 422, "#/option_ids")
    assert_problem(me.post(f"{QUESTIONS}/departments", json=[]), 422, "#")
    wrong = {"option_ids": [pets], "more": 1}
    assert_problem(me.post(f"{QUESTIONS}/departments", json=wrong), 422, "#/more")
    assert asked(me) == question
    assert me.get("/v1/me/preferences").json()["interests"] == []


def test_who_refuses_is_asked_nothing(customer: Customer) -> None:
    me = customer(fresh("max"))
    question = asked(me)
    me.patch("/v1/me/preferences", json={"consent": {"profiling": False}}).raise_for_status()
    assert {str(found) for found in everywhere(me, QUESTIONS)} == {"{'question': None}"}
    assert_problem(reply(me, "departments", option(question, "Pets")), 409)
    assert me.get("/v1/me/preferences").json()["interests"] == []
    gil = customer(fresh("gil"))
    objecting = gil.post(
        f"{QUESTIONS}/departments",
        json={"option_ids": [option(question, "Pets")]},
        headers={"Sec-GPC": "1"},
    )
    assert_problem(objecting, 422, "#/option_ids")
    assert asked(gil) is None, "the objection is remembered"


def test_mail_is_asked_about_once_it_is_allowed(customer: Customer) -> None:
    me = customer(fresh("sam"))
    me.patch("/v1/me/preferences", json={"consent": {"email_marketing": True}}).raise_for_status()
    first = asked(me)
    assert first["question_id"] == "departments"
    reply(me, "departments", option(first, "Pets")).raise_for_status()
    question = asked(me)
    assert (question["question_id"], question["many"]) == ("email_frequency", False)
    reply(me, "email_frequency", option(question, "Every two weeks")).raise_for_status()
    assert me.get("/v1/me/preferences").json()["email"]["frequency_days"] == 14
    assert asked(me)["question_id"] not in ("email_frequency", "departments")


@pytest.mark.slow
def test_consent_comes_first_where_it_is_needed(tmp_path: Any) -> None:
    with (
        department_shop(tmp_path, profiling="opt_in") as (service, server),
        browsers(service, server) as customer,
    ):
        key, record = public_key(service)
        put(server, record)
        me = customer(fresh("ona"))
        question = asked(me)
        assert (question["question_id"], question["kind"]) == ("consent_profiling", "consent")
        assert_problem(reply(me, "departments", "skip"), 409)
        reply(me, "consent_profiling", "yes").raise_for_status()
        said = me.get("/v1/me/preferences").json()
        assert said["consent"]["profiling"] is True
        assert said["consent_changes"][-1]["source"] == "customer"
        assert asked(me)["question_id"] == "departments"
        for answer in ("no", "skip"):
            other = customer(fresh(f"oda {answer}"))
            reply(other, "consent_profiling", answer).raise_for_status()
            assert asked(other) is None
        visitor = f"v-0123456789-0123456789-{time.monotonic_ns()}"
        with page_of(service, **{"X-API-Key": key}) as page:
            assert asked(page, anonymous_id=visitor)["kind"] == "consent"
            reply(page, "consent_profiling", "yes", anonymous_id=visitor).raise_for_status()
            question = asked(page, anonymous_id=visitor)
            pets = option(question, "Pets")
            reply(page, "departments", pets, anonymous_id=visitor).raise_for_status()
            found = page.get(RECS, params={"anonymous_id": visitor, "limit": 6}).json()
            assert "followed" in {one["reason"]["code"] for one in found["items"]}
            user = fresh("oma")
            signed_in = customer(user)
            merged = signed_in.post("/v1/me/merge", json={"anonymous_id": visitor})
            assert merged.json()["merged"] is True
            assert_problem(page.get(QUESTIONS, params={"anonymous_id": visitor}), 403)
            late = reply(page, "departments", pets, anonymous_id=visitor)
            assert_problem(late, 403)
        question = asked(signed_in)
        assert question is None or question["question_id"] != "departments"


def test_racing_tabs_all_count(customer: Customer, backend: httpx.Client) -> None:
    user = fresh("tab")
    me = customer(user)
    question = asked(me)
    statuses: list[int] = []

    def tab(*option_ids: str) -> None:
        with httpx.Client(
            base_url=me.base_url, headers=me.headers, verify=False, timeout=60
        ) as mine:
            statuses.append(reply(mine, "departments", *option_ids).status_code)

    names = ("Pets", "Garden", "Health")
    threads = [threading.Thread(target=tab, args=(option(question, name),)) for name in 3 * names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    interests = backend.get(f"{user_path(user)}/preferences").json()["interests"]
    assert interests == sorted(names)
    assert ids_of(me.get(RECS).json())
