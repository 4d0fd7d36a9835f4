"""What is computed of customers, from made-up logs whose answers can be worked out by hand."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.catalogue import Catalogue, hash_ids
from feature_store.event_log import EVENT_LOG_SCHEMA
from feature_store.item_columns import as_catalogue_frame
from training.customers.histories import histories_of
from training.customers.lifecycle import GROUPS, STAGES, group_codes, quintiles, stage_codes
from training.customers.purchases import read_purchases
from training.customers.run import Customers, compute_customers

NOW = datetime(2026, 6, 30, 20, tzinfo=UTC)
Event = dict[str, Any]


def log(*events: Event) -> pl.LazyFrame:
    """Return events with the columns of the log; purchases unless they say otherwise."""
    filled = [{"type": "purchase", **event} for event in events]
    columns = {name: [event.get(name) for event in filled] for name in EVENT_LOG_SCHEMA}
    return pl.LazyFrame(columns, schema=dict(EVENT_LOG_SCHEMA.items()))


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def bought(user: str, item: str, days: float, price: float | None = None, **more: Any) -> Event:
    known = {"user_id": user, "item_id": item, "timestamp": ago(days), "unit_price": price}
    return {**known, "currency": None if price is None else "EUR", **more}


def shelf(**items: tuple[str | None, list[str]]) -> Catalogue:
    frame = pl.DataFrame(
        {
            "item_id": list(items),
            "brand": [brand for brand, _ in items.values()],
            "categories": [paths for _, paths in items.values()],
        },
        schema={"item_id": pl.String, "brand": pl.String, "categories": pl.List(pl.String)},
    )
    return Catalogue(as_catalogue_frame(frame), *hash_ids(list(items)))


def documents(known: Customers) -> dict[str, Any]:
    frame = known.frame
    return {who: json.loads(text) for who, text in zip(*frame.get_columns(), strict=True)}


# --- orders -------------------------------------------------------------------------------------


def orders(*events: Event) -> list[tuple[str, int, float]]:
    """Return who, how many days ago, worth what."""
    known = read_purchases(log(*events), 60.0)
    return [
        (known.persons[person], known.as_of_day - day, round(value, 2))
        for person, day, value in known.orders.rows()
    ]


def test_lines_of_one_order_are_one_and_days_count_where_no_order_is_named() -> None:
    found = orders(
        bought("a", "x", 3, 2.0, order_id="o1", quantity=3),
        bought("a", "y", 3, 1.5, order_id="o1"),
        bought("a", "x", 3, 1.0, order_id="o2"),
        bought("a", "x", 0.1, 1.0),
        bought("a", "y", 0.0, 1.0),
        bought("b", "x", 3, 4.0, order_id="o1"),
    )
    assert found == [("u:a", 3, 1.0), ("u:a", 3, 7.5), ("u:a", 0, 2.0), ("u:b", 3, 4.0)]


def test_what_was_given_back_was_not_bought() -> None:
    refund: dict[str, Any] = {"type": "refund"}
    # The newest purchase before the refund; the one after it stays.
    assert orders(
        bought("a", "x", 9, 1.0),
        bought("a", "x", 7, 2.0),
        bought("a", "x", 5, 2.0, **refund),
        bought("a", "x", 0, 4.0),
    ) == [("u:a", 9, 1.0), ("u:a", 0, 4.0)]
    # Two refunds take the two purchases before them, whatever a third one finds.
    assert orders(
        bought("a", "x", 9, 1.0),
        bought("a", "x", 8, 2.0),
        bought("a", "x", 7, **refund),
        bought("a", "x", 6, **refund),
        bought("a", "x", 5, **refund),
        bought("a", "x", 0, 3.0),
    ) == [("u:a", 0, 3.0)]
    # A part of the pieces: by the refund's own value, or by that of as many pieces.
    for returned, left in ((bought("a", "x", 2, quantity=1), 4.0), (bought("a", "x", 2, 1.5), 0)):
        found = orders(bought("a", "x", 3, 2.0, quantity=3), bought("z", "x", 0), returned | refund)
        assert [worth for who, _, worth in found if who == "u:a"] == ([left] if left else [])
    assert orders(
        bought("a", "x", 3, 2.0, quantity=3), bought("a", "x", 0, 0.5, quantity=2, **refund)
    ) == [("u:a", 3, 5.0)]
    # Somebody else's, or of something else, changes nothing.
    assert orders(
        bought("a", "x", 3, 2.0), bought("b", "x", 2, 2.0, **refund), bought("a", "y", 0, **refund)
    ) == [("u:a", 3, 2.0)]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=12))
@settings(deadline=None)
def test_refunds_take_what_a_stack_takes(steps: list[tuple[bool, int]]) -> None:
    stack: list[float] = []
    events = [bought("z", "z", 0, 1.0)]
    for at, (is_refund, price) in enumerate(steps):
        days = 20 - at
        if is_refund:
            stack = stack[:-1]
            events.append(bought("a", "x", days, type="refund"))
        else:
            stack.append(float(price))
            events.append(bought("a", "x", days, float(price)))
    assert [worth for who, _, worth in orders(*events) if who == "u:a"] == stack


def test_other_currencies_have_no_value_but_are_purchases() -> None:
    known = read_purchases(
        log(
            bought("a", "x", 3, 2.0),
            bought("a", "x", 2, 2.0),
            bought("a", "x", 1, 900.0, currency="JPY"),
            bought("b", "x", 0, 5.0, currency=None),
            bought("b", "x", 0, float("inf"), order_id="broken"),
        ),
        60.0,
    )
    assert (known.currency, known.n_foreign) == ("EUR", 1)
    assert known.orders["value"].to_list() == [2.0, 2.0, 0.0, 0.0, 5.0]


def test_visitors_who_signed_in_are_the_user() -> None:
    events = log(
        {"type": "merge", "anonymous_id": "v", "user_id": "a", "timestamp": ago(2)},
        {"anonymous_id": "v", "item_id": "x", "timestamp": ago(3)},
        {"anonymous_id": "w", "item_id": "x", "timestamp": ago(3)},
        bought("a", "x", 1),
        {"type": "view", "user_id": "b", "item_id": "x", "timestamp": ago(0)},
    )
    found = documents(compute_customers(events, shelf(x=(None, []))))
    assert {who: one["rfm"]["frequency"] for who, one in found.items()} == {"u:a": 2, "a:w": 1}
    # Ages are counted from the newest event of any type.
    assert found["u:a"]["rfm"]["recency_days"] == 1
    assert found["u:a"]["as_of"] == "2026-06-30T20:00:00Z"


# --- scores and stages --------------------------------------------------------------------------


def test_quintiles_are_fifths_and_equal_values_are_equal() -> None:
    assert quintiles(np.arange(10.0)).tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert quintiles(np.array([7.0])).tolist() == [3]
    assert quintiles(np.array([1.0] * 8 + [2.0, 3.0])).tolist() == [3] * 8 + [5, 5]
    assert quintiles(np.zeros(0)).tolist() == []


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60))
@settings(deadline=None)
def test_quintiles_follow_the_order(values: list[float]) -> None:
    scores = quintiles(np.array(values))
    assert ((scores >= 1) & (scores <= 5)).all()
    order = np.argsort(values)
    assert (np.diff(scores[order]) >= 0).all()
    if len(set(values)) == len(values) >= 5:
        assert np.bincount(scores, minlength=6)[1:].max() <= len(values) // 5 + 1


def test_every_score_has_its_group() -> None:
    def group(recency: int, frequency: int) -> str:
        return GROUPS[int(group_codes(np.array([recency]), np.array([frequency]))[0])]

    every = [[group(r, f) for f in range(1, 6)] for r in range(1, 6)]
    hibernating, risk = ["hibernating"] * 2, ["at_risk"] * 2
    assert every == [
        [*hibernating, *risk, "cant_lose"],
        [*hibernating, *risk, "cant_lose"],
        ["about_to_sleep", "about_to_sleep", "need_attention", "loyal", "loyal"],
        ["promising", "potential_loyalist", "potential_loyalist", "loyal", "loyal"],
        ["new", "potential_loyalist", "potential_loyalist", "champions", "champions"],
    ]


@pytest.mark.parametrize(
    ("days", "interval", "stage"),
    [
        ([0], 10, "new"),  # bought once
        ([30], 10, "new"),
        ([31], 10, "at_risk"),  # more than three intervals ago
        ([60], 10, "at_risk"),
        ([61], 10, "lapsed"),  # more than six
        ([29, 1], 10, "new"),  # first bought in the last 30 days
        ([31, 1], 10, "active"),
        ([90, 14], 1, "active"),  # a daily customer away for two weeks
        ([90, 15], 1, "at_risk"),
        ([90, 60], 1, "at_risk"),
        ([90, 61], 1, "lapsed"),
        ([900, 365], 400, "active"),
        ([900, 366], 400, "at_risk"),
        ([900, 731], 400, "lapsed"),
    ],
)
def test_stages_follow_the_own_interval(days: list[int], interval: float, stage: str) -> None:
    lines = [bought("a", "x", day) for day in days]
    known = read_purchases(log(*lines, bought("z", "x", 0)), 60.0)
    history = histories_of(known.orders, known.as_of_day)
    codes = stage_codes(history, np.full(len(history), float(interval)))
    assert STAGES[int(codes[0])] == stage


def test_regularity_tells_habits_from_chance() -> None:
    rng = np.random.default_rng(2)

    def regularity(shape: float) -> float:
        gaps = rng.gamma(shape, 20.0 / shape, (60, 15)).cumsum(axis=1)
        lines = [bought(f"p{p}", "x", float(at)) for p, row in enumerate(gaps) for at in row]
        known = read_purchases(log(*lines, bought("z", "x", 0)), 60.0)
        return histories_of(known.orders, known.as_of_day).regularity()

    assert regularity(1.0) == pytest.approx(1.0, abs=0.25)
    assert regularity(4.0) == pytest.approx(4.0, rel=0.25)
    assert histories_of(read_purchases(log(), 60.0).orders, 0).regularity() == 1.0


# --- tastes -------------------------------------------------------------------------------------

SHOP = shelf(
    a=("Acme", ["Food > Cheese > Hard", "Food > Cheese > Soft"]),
    b=("Best", ["Food > Bread"]),
    c=(None, ["Garden"]),
    d=("Best", []),
)


def test_tastes_are_shares_of_what_was_bought_and_fade() -> None:
    lines = [bought("p", "a", 0), bought("p", "b", 0), bought("p", "c", 0), bought("p", "q", 0)]
    lines += [bought("old", "b", 60), bought("old", "c", 0), bought("none", "q", 1)]
    found = documents(compute_customers(log(*lines), SHOP))
    tastes = found["u:p"]["tastes"]
    # Two paths of an item that begin alike are one category; equal shares go by name.
    assert tastes["categories"] == ["Food > Bread", "Food > Cheese", "Garden"]
    assert tastes["category_shares"] == [0.25, 0.25, 0.25]
    assert (tastes["brands"], tastes["brand_shares"]) == (["Acme", "Best"], [0.25, 0.25])
    assert tastes["price_band"] is None
    # After the half-life of 60 days a purchase counts half.
    old = found["u:old"]["tastes"]
    assert old["categories"] == ["Garden", "Food > Bread"]
    assert old["category_shares"] == [0.667, 0.333]
    assert found["u:none"]["tastes"] == {
        "categories": [], "category_shares": [], "brands": [], "brand_shares": [],
        "price_band": None,
    }  # fmt: skip


def test_an_item_of_two_categories_is_divided_and_five_are_named() -> None:
    many = {f"i{n}": (f"b{n}", [f"C{n}", "All"]) for n in range(7)}
    lines = [bought("p", f"i{n}", 0) for n in range(7)]
    found = documents(compute_customers(log(*lines), shelf(**many)))["u:p"]["tastes"]
    assert found["categories"] == ["All", "C0", "C1", "C2", "C3"]
    assert found["category_shares"] == [0.5, 0.071, 0.071, 0.071, 0.071]
    assert found["brands"] == ["b0", "b1", "b2", "b3", "b4"]


def test_a_changed_item_counts_as_it_is_now() -> None:
    changed = SHOP.with_changes([(1, {**SHOP.frame.row(1, named=True), "brand": "Renamed"})])
    found = documents(compute_customers(log(bought("p", "b", 0)), changed))
    assert found["u:p"]["tastes"]["brands"] == ["Renamed"]


def test_price_bands_are_relative_to_the_category() -> None:
    """Cheap cars cost more than dear pens: who buys them has a low band all the same."""
    items = {f"car{n}": (None, ["Cars"]) for n in range(6)}
    items |= {f"pen{n}": (None, ["Pens"]) for n in range(6)}
    price = {f"car{n}": 9_000.0 + n for n in range(6)} | {f"pen{n}": 1.0 + n for n in range(6)}
    basket = {
        "thrifty": ["car0", "car1"] * 5,
        "fine": ["pen5", "pen4"] * 5,
        "mixed": ["car0", "pen5"] * 5,
        "rare": ["pen5"] * 4,
        "rest": [*items] * 4,
    }
    lines = [bought(who, it, 1, price[it]) for who, own in basket.items() for it in own]
    found = documents(compute_customers(log(*lines), shelf(**items)))
    bands = {who: one["tastes"]["price_band"] for who, one in found.items()}
    assert bands == {
        "u:thrifty": "low", "u:fine": "high", "u:mixed": "middle", "u:rare": None,
        "u:rest": "middle",
    }  # fmt: skip
