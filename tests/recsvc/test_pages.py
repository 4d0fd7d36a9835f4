"""The laws of whole pages, over random shops, rules, pages and customers."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.artifact import ModelArtifact
from feature_store.preferences import (
    NO_PREFERENCES,
    UNREADABLE,
    Preferences,
    Snooze,
)
from feature_store.preferences import (
    Page as ChosenPage,
)
from feature_store.schema import ItemId
from feature_store.state import UserState
from feature_store.store import UserContext
from recsvc.answering import Question, choose
from recsvc.merchandising.needs import Needs
from recsvc.merchandising.page_documents import (
    BUILT_IN,
    ME,
    STAGES,
    Module,
    Page,
    PageBody,
    body_of_page,
    check_page,
    page_of,
)
from recsvc.merchandising.placements import BUILT_IN as PLACEMENTS
from recsvc.merchandising.placements import PRODUCTS
from recsvc.merchandising.site import Site
from recsvc.pages import Filled, arranged, check_modules, fill_modules, make_page
from recsvc.requests import RecommendationRequest
from recsvc.rules import CheckedRule, parse_rule
from recsvc.snapshot import Snapshot
from recsvc.telemetry import Metrics
from tests.recsvc import rules_strategies as some
from tests.recsvc.shop import NOW_S, bought, item_ids

Item = dict[str, Any]
"""A document of the catalogue."""
LATER = datetime(2100, 1, 1, tzinfo=UTC)
ON_PRODUCTS = [name for name, one in PLACEMENTS.items() if one.kinds == PRODUCTS]

modules = st.lists(
    st.tuples(
        st.sampled_from(ON_PRODUCTS), st.integers(1, 8), st.sampled_from([True, True, False])
    ),
    min_size=1,
    max_size=6,
).map(
    lambda found: tuple(
        Module(f"m{at}", placement, limit=limit, fallback=fallback)
        for at, (placement, limit, fallback) in enumerate(found)
    )
)


def question_of(
    request: RecommendationRequest,
    state: UserState,
    preferences: Preferences,
    stage: str | None = None,
    *,
    profiled: bool = True,
) -> Question:
    context = UserContext(
        state,
        preferences,
        0,
        profile=orjson.dumps({"loyalty": {"tier": "gold"}}),
        computed=None if stage is None else orjson.dumps({"stage": stage}),
        person="u:ann",
    )
    request = replace(request, user_id="ann")
    return Question(request, "u:ann", context, profiled, True, None, 0, [], 0.0)


def shop(artifact: ModelArtifact, found: list[Item], rules: list[CheckedRule]) -> Snapshot:
    """Return a shop whose rules see the customer and the page, as in a service."""
    snapshot = some.build_snapshot(artifact, some.build_catalogue(found), rules)
    site = Site(rules={one.rule.rule_id: one for one in rules}, needs=Needs(person=True, page=True))
    return replace(snapshot, site=site)


def rows_of(filled: Sequence[Filled]) -> list[list[int]]:
    return [[one.row for one in each.response.chosen] for each in filled]


def siblings(found: list[Item], rows: list[int]) -> set[int]:
    """Return some rows and all other variants of their groups."""
    groups = {found[row]["group_id"] for row in rows} - {None}
    return set(rows) | {row for row, one in enumerate(found) if one["group_id"] in groups}


snoozes = st.lists(some.ids, max_size=2, unique=True).map(
    lambda ids: tuple(Snooze(item_id=ItemId(one), until=LATER) for one in ids)
)


@settings(deadline=None, max_examples=150)
@given(
    *(some.catalogues, some.rule_lists(), some.preferences, snoozes, some.requests, some.states),
    *(modules, st.booleans()),
)
def test_a_page_shows_nothing_twice_and_each_module_is_as_full_as_it_can_be(
    artifact: ModelArtifact,
    found: list[Item],
    rules: list[CheckedRule],
    preferences: Preferences,
    snoozed: tuple[Snooze, ...],
    request_: RecommendationRequest,
    state: UserState,
    page: tuple[Module, ...],
    profiled: bool,
) -> None:
    snapshot = shop(artifact, found, rules)
    said = preferences.model_copy(update={"snoozed": snoozed})
    question = question_of(request_, state, said, profiled=profiled)
    filled = fill_modules(snapshot, page, question, NOW_S)
    assert [one.module for one in filled] == list(page)
    lists = rows_of(filled)
    shown = [row for rows in lists for row in rows]

    # No item twice, nor two variants of one.
    assert len(set(shown)) == len(shown)
    groups = [found[row]["group_id"] for row in shown if found[row]["group_id"]]
    assert len(set(groups)) == len(groups)
    hidden = {*said.hidden_items, *(one.item_id for one in snoozed)}
    hidden |= {*request_.item_ids, *request_.exclude_item_ids}
    _check_wanted(snapshot, found, shown, hidden, said.hidden_brands)

    # Each module is what its placement answers alone without what stands above it.
    for at, (module, rows) in enumerate(zip(page, lists, strict=True)):
        above = siblings(found, [row for one in lists[:at] for row in one])
        ids = [ItemId(item_ids(len(found))[row]) for row in above]
        asked = replace(
            question.request,
            placement=module.placement,
            limit=module.limit,
            exclude_item_ids=(*request_.exclude_item_ids, *ids),
        )
        alone = choose(snapshot, replace(question, request=asked), NOW_S).chosen
        whole = [one.row for one in alone]
        if module.fallback:
            assert rows == whole
        else:
            kept = set(rows)
            assert rows == [row for row in whole if row in kept]
        assert len(rows) <= (module.limit or 0)
        _check_explained(filled[at], profiled=profiled)


def _check_wanted(
    snapshot: Snapshot,
    found: list[Item],
    rows: list[int],
    hidden: set[ItemId],
    brands: frozenset[str],
) -> None:
    """Nothing that the customer, or the shop, does not want shown."""
    for row in rows:
        assert found[row]["available"]
        assert found[row]["brand"] not in brands
        assert snapshot.catalogue.item_id(row) not in hidden


def _check_explained(one: Filled, *, profiled: bool) -> None:
    """What is filled without a fallback is of the placement's own sources, or pinned."""
    assert profiled or not one.response.personalized
    if one.module.fallback:
        return
    own = {
        "home": {"blend"},
        "email": {"blend"},
        "product": {"similar"},
        "buy_again": {"repeat"},
        "together": {"together"},
        "cart": {"together"},
        "trending": {"trending"},
        "new": {"new"},
        "popular": {"popular"},
    }[one.module.placement]
    assert {each.candidates.source for each in one.response.chosen} <= own | {"pinned"}


def test_an_item_pinned_in_two_modules_stands_in_the_first(artifact: ModelArtifact) -> None:
    found: list[Item] = [
        {"brand": "b0", "categories": [], "available": True, "group_id": None, "attributes": {}}
        for _ in range(30)
    ]
    rule = parse_rule(
        {
            "rule_id": "r",
            "status": "live",
            "placements": ["*"],
            "action": {"type": "pin", "item_ids": ["i00007", "i00008"], "positions": [2]},
        }
    )
    page = (Module("a", "trending", limit=4), Module("b", "new", limit=4), Module("c", "home"))
    question = question_of(RecommendationRequest(), bought(), NO_PREFERENCES)
    lists = rows_of(fill_modules(shop(artifact, found, [rule]), page, question, NOW_S))
    assert (lists[0][1], lists[1][1]) == (7, 8)
    assert not {7, 8} & set(lists[2])
    assert sorted(row for rows in lists for row in rows) == sorted(
        {r for rows in lists for r in rows}
    )
    assert len(lists[2]) == 20


# --- which modules ------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "d", "e"]
definitions = st.builds(
    lambda names, choosable, defaults: Page(
        ME,
        "",
        tuple(
            Module(name, "home", choosable=can) for name, can in zip(names, choosable, strict=False)
        ),
        {
            stage: tuple(name for name in order if name in names)
            for stage, order in defaults.items()
            if set(order) & set(names)
        },
    ),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.dictionaries(
        st.sampled_from([*STAGES, "unknown"]),
        st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    ),
)


@given(
    definitions,
    st.lists(st.sampled_from([*NAMES, "gone"]), max_size=6),
    st.sampled_from([*STAGES, "of another version", None]),
    st.booleans(),
)
def test_the_choice_counts_then_the_stage_then_the_page(
    page: Page, wanted: list[str], stage: str | None, profiled: bool
) -> None:
    said = Preferences(page=ChosenPage(modules=tuple(wanted)))
    question = question_of(RecommendationRequest(), bought(), said, stage, profiled=profiled)
    found = arranged(page, question)
    names = [module.name for module in found.modules]
    known = {module.name: module for module in page.modules}
    chosen = [name for name in dict.fromkeys(wanted) if name in known and known[name].choosable]
    if chosen:
        assert (found.because, names) == ("chosen", chosen)
    elif profiled and stage is not None and stage in page.defaults:
        assert (found.because, names) == (f"stage:{stage}", list(page.defaults[stage]))
    else:
        assert found.because == "default"
        assert names == list(page.defaults.get("unknown", known))
    assert list(found.chosen) == chosen
    assert list(found.missing) == [one for one in dict.fromkeys(wanted) if one not in names]
    # No other page knows of choices.
    other = arranged(replace(page, name="home"), question)
    assert other.because != "chosen"
    assert other.missing == ()
    site = Site(pages={ME: page})
    refused = {error.pointer for error in check_modules(site, wanted)}
    assert refused == {
        f"#/page/modules/{at}"
        for at, name in enumerate(wanted)
        if name not in page.choosable or name in wanted[:at]
    }


def test_preferences_that_cannot_be_read_choose_nothing() -> None:
    question = question_of(
        RecommendationRequest(), bought((1, 1)), UNREADABLE, "active", profiled=False
    )
    assert arranged(BUILT_IN[ME], question).because == "default"


@pytest.mark.parametrize("page", BUILT_IN.values(), ids=lambda page: page.name)
def test_built_in_pages_are_ones_that_could_be_written(page: Page) -> None:
    body = PageBody.model_validate(body_of_page(page))
    assert check_page(body, PLACEMENTS) == []
    assert page_of(page.name, body) == page


def test_a_page_as_it_is_written(artifact: ModelArtifact) -> None:
    found: list[Item] = [
        {"brand": "b0", "categories": [], "available": True, "group_id": None, "attributes": {}}
        for _ in range(40)
    ]
    snapshot = shop(artifact, found, [])
    question = question_of(
        RecommendationRequest(fields=("brand",)), bought((3, 2), (4, 30)), NO_PREFERENCES, "active"
    )
    made = make_page(snapshot, BUILT_IN[ME], question, None, Metrics(), mine=True)
    page = orjson.loads(made.body)
    assert (made.private, made.etag, made.personalized) == (True, None, True)
    assert [one["module"] for one in page["modules"]] == ["buy_again", "for_you", "new"]
    assert page["because"] == "stage:active"
    again, for_you, _ = page["modules"]
    assert sorted(one["item_id"] for one in again["items"]) == ["i00003", "i00004"]
    assert [one["rank"] for one in for_you["items"]] == list(range(1, 13))
    for module in page["modules"]:
        assert list(module)[:2] == ["module", "title"]
        for item in module["items"]:
            assert item["item"] == {"brand": "b0"}
            assert item["reason"]["text"]
    assert [one["module"] for one in page["choosable"]] == BUILT_IN[ME].choosable
    nobody = Question(
        *(RecommendationRequest(), None, UserContext(bought(), NO_PREFERENCES, 0), True, False),
        *(None, 0, [], 0.0),
    )
    tags = {make_page(snapshot, BUILT_IN[ME], nobody, None, Metrics()).etag for _ in range(3)}
    assert len(tags) == 1
    assert None not in tags
