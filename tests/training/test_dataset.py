import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.catalogue import Catalogue
from feature_store.schema import EVENT_TYPE_CODES, EventType
from feature_store.signals import PUBLIC_TRUST_WEIGHT, SIGNALS, interaction_weights
from feature_store.state import fold_frame
from tests.training.shop import (
    DAY_MS,
    END_MS,
    Line,
    as_events,
    bare_catalogue,
    habits,
    interactions_of,
)
from training.dataset import (
    model_items,
    read_interactions,
    taste_facts,
    weight_matrix,
    with_unknown_items,
)
from training.people import states_of, tastes_of
from training.split import split_at, window_start_ms


def test_codes_are_in_the_order_of_ids() -> None:
    known = interactions_of([("b", "z/1", 3), ("a", "ä {x}", 2), ("b", "B", 1)])
    assert known.persons.to_list() == ["u:a", "u:b"]
    assert known.item_ids.to_list() == sorted(["z/1", "ä {x}", "B"])
    assert known.frame["t_ms"].is_sorted()
    assert known.newest_ms == END_MS - DAY_MS


def test_a_visitor_and_a_user_of_one_name_are_two_people() -> None:
    user = as_events([("x", "i", 1)])
    visitor = user.with_columns(user_id=pl.lit(None, pl.String), anonymous_id=pl.lit("x"))
    nobody = user.with_columns(user_id=pl.lit(None, pl.String))
    known = read_interactions(pl.concat([user, visitor, nobody]).lazy())
    assert known.persons.to_list() == ["a:x", "u:x"]
    assert known.n_events == 2


def test_baskets_are_orders_or_else_days() -> None:
    lines: list[Line] = [("a", "i", 3), ("a", "j", 3), ("a", "k", 1), ("b", "i", 3)]
    by_day = interactions_of(lines).frame
    assert by_day["basket"].n_unique() == 3
    events = as_events(lines).with_columns(order_id=pl.Series(["1", "2", "1", "1"]))
    by_order = read_interactions(events.lazy()).frame
    assert by_order["basket"].n_unique() == 3
    assert by_order.filter(pl.col("person") == 0)["basket"].n_unique() == 2


def test_weights_count_and_fade() -> None:
    half_life = SIGNALS[EventType.PURCHASE].half_life_days
    known = interactions_of([("a", "i", half_life), ("a", "i", 2 * half_life), ("a", "j", 0)])
    facts = taste_facts(known, END_MS)
    assert facts["weight"].to_list() == pytest.approx([1.0, 1.0])
    matrix = weight_matrix(facts, model_items(known))
    assert matrix.shape == (1, 2)
    impressions = interactions_of([("a", "i", 1)], "impression")
    assert len(model_items(impressions)) == 0
    assert weight_matrix(taste_facts(impressions, END_MS), model_items(impressions)).nnz == 0


LINES = st.lists(
    st.tuples(st.sampled_from(["p", "q", "r"]), st.sampled_from("abcdef"), st.floats(0, 300)),
    min_size=1,
    max_size=40,
)


KINDS = ["view", "dislike", "refund", "like", "add_to_cart", "remove_from_cart"]


@given(LINES, LINES, st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_training_weighs_a_history_as_serving_does(
    lines: list[Line], others: list[Line], kind: str, second: str
) -> None:
    events = pl.concat([as_events(lines), as_events(lines[::2], kind), as_events(others, second)])
    known = read_interactions(events.lazy())
    persons = known.frame["person"].unique().sort().to_numpy()
    rows = np.arange(len(known.item_ids), dtype=np.int32)
    states = states_of(known, persons, rows)
    facts = taste_facts(known, END_MS)
    for person, state in zip(persons, states, strict=True):
        mine = facts.filter(pl.col("person") == person)
        items, weights = tastes_of(state, END_MS // 1_000)
        assert items.tolist() == mine["item"].to_list()
        assert weights == pytest.approx(mine["weight"].to_numpy(), rel=1e-4)


def test_states_come_in_the_order_of_people() -> None:
    lines: list[Line] = [(f"p{n}", f"i{n}", 1.0) for n in range(25)]
    known = interactions_of(lines)
    rows = np.arange(25, dtype=np.int32)[::-1].copy()
    chosen = np.array([2, 9, 10, 24], dtype=np.uint32)
    states = states_of(known, chosen, rows)
    items = known.frame.sort("person")["item"].to_numpy()
    assert [int(state.rows[0]) for state in states] == [int(rows[items[n]]) for n in chosen]
    names = [name for name, _ in fold_frame(pl.DataFrame(schema=_STATE_SCHEMA))]
    assert names == []


_STATE_SCHEMA = {"person": pl.String, "row": pl.UInt32, "type": pl.UInt8, "t_s": pl.UInt32}


def test_newest_items_first_when_a_history_is_shortened() -> None:
    known = interactions_of([("a", "i", 5), ("a", "j", 1), ("a", "k", 3)])
    state = states_of(known, np.array([0], dtype=np.uint32), np.arange(3, dtype=np.int32))[0]
    assert tastes_of(state, END_MS // 1_000, 2)[0].tolist() == [1, 2]


def test_items_that_the_catalogue_lacks_get_rows_of_their_own() -> None:
    known = interactions_of([("a", "i", 1), ("a", "j", 1), ("b", "k", 1)])
    catalogue, rows = with_unknown_items(Catalogue.from_item_ids(["x", "j"]), known)
    assert rows.tolist() == [2, 1, 3]
    assert [catalogue.row(item) for item in ("x", "j", "i", "k")] == [0, 1, 2, 3]
    whole = bare_catalogue(known)
    assert with_unknown_items(whole, known)[0] is whole


def test_the_protocol_exactly() -> None:
    lines: list[Line] = [
        ("a", "i", 40),
        ("a", "j", 40),
        ("a", "j", 28),  # the first moment of the window belongs to it
        ("a", "j", 3),  # bought twice: wanted once
        ("a", "k", 2),  # known from b: new to a
        ("a", "late", 1),  # nobody bought it before: no candidate
        ("b", "k", 28.0001),
        ("b", "late", 0),  # nothing that was a candidate: no truth
        ("c", "i", 0),  # nothing before: not tested
        ("d", "i", 50),  # nothing in the window: not tested
    ]
    known = interactions_of(lines)
    split = split_at(known, window_start_ms(known, 28))
    names = known.item_ids.gather(split.candidates).to_list()
    assert names == ["i", "j", "k"]
    assert known.persons.gather(split.persons).to_list() == ["u:a"]
    assert [truth.tolist() for truth in split.truths] == [[1, 2]]
    assert [truth.tolist() for truth in split.new_truths()] == [[2]]
    assert [items.tolist() for items in split.history] == [[0, 1]]
    assert split.n_train_people == 3
    assert split.buyers.tolist() == [2, 1, 1]
    assert split.now_s == END_MS // 1_000 - 28 * 86_400


def test_a_window_before_the_last_one() -> None:
    known = interactions_of([("a", "i", 60), ("a", "i", 40), ("a", "i", 0)])
    end_ms = window_start_ms(known, 28)
    split = split_at(known, end_ms - 28 * DAY_MS, end_ms)
    assert [truth.tolist() for truth in split.truths] == [[0]]
    assert split.train.n_events == 1


def test_views_are_no_truth_and_make_no_candidate() -> None:
    views = as_events([("a", "i", 40), ("a", "v", 40), ("a", "v", 1)], "view")
    bought = as_events([("a", "i", 41), ("a", "i", 0)])
    known = read_interactions(pl.concat([views, bought]).lazy())
    split = split_at(known, window_start_ms(known, 28))
    assert known.item_ids.gather(split.candidates).to_list() == ["i"]
    assert [truth.tolist() for truth in split.truths] == [[0]]


def as_public(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(trust=pl.lit("public"))


def test_a_refund_takes_the_newest_purchase_back() -> None:
    bought = as_events([("a", "i", 9), ("a", "i", 5), ("a", "j", 5), ("b", "i", 5)])
    refunds = as_events([("a", "i", 4), ("a", "j", 1), ("a", "j", 1)], "refund")
    known = read_interactions(pl.concat([bought, refunds]).lazy())
    left = [(row[0], row[1], row[3]) for row in known.purchases.iter_rows()]
    assert left == [(0, 0, END_MS - 9 * DAY_MS), (1, 0, END_MS - 5 * DAY_MS)]
    assert taste_facts(known, END_MS).select("person", "item").rows() == [(0, 0), (1, 0)]


def test_what_anybody_can_send_counts_less() -> None:
    views = as_events([("a", "i", 0), ("a", "i", 0)], "view")
    likes = as_events([("b", "i", 0)], "like")
    trusted = taste_facts(read_interactions(pl.concat([views, likes]).lazy()), END_MS)
    mixed = pl.concat([as_public(views), likes])
    public = taste_facts(read_interactions(mixed.lazy()), END_MS)
    ratio = (public["weight"] / trusted["weight"]).to_list()
    assert ratio == pytest.approx([PUBLIC_TRUST_WEIGHT, 1.0])


def test_a_flood_is_capped_and_purchases_are_not() -> None:
    flood = as_public(as_events([("bot", f"i{n}", 0.5) for n in range(1_000)], "view"))
    human = as_public(as_events([("human", "i1", 0.5)] * 20, "view"))
    crawler = as_events([("crawler", "i1", 0.5)] * 3_000, "click")
    shop = as_events([("shop", "i1", 0.5)] * 3_000)
    known = read_interactions(pl.concat([flood, human, crawler, shop]).lazy())
    counts = dict(known.frame.group_by("person").len().iter_rows())
    by_name = {known.persons[code]: count for code, count in counts.items()}
    assert by_name == {"u:bot": 200, "u:human": 20, "u:crawler": 2_000, "u:shop": 3_000}


def test_a_visitor_who_signed_in_is_one_person_with_the_user() -> None:
    visits = as_events([("v", "i", 3)], "view").with_columns(
        anonymous_id=pl.col("user_id"), user_id=pl.lit(None, pl.String)
    )
    merge = as_events([("a", "i", 2)], "merge").with_columns(
        anonymous_id=pl.lit("v"), item_id=pl.lit(None, pl.String)
    )
    bought = as_events([("a", "j", 1)])
    known = read_interactions(pl.concat([visits, merge, bought]).lazy())
    assert known.persons.to_list() == ["u:a"]
    assert known.n_events == 2


def test_stars_are_a_like_or_a_dislike() -> None:
    stars = as_events([("a", "i", 1), ("a", "j", 1), ("a", "k", 1)], "rating").with_columns(
        extra=pl.Series(['{"value":5}', '{"value":1}', None])
    )
    known = read_interactions(stars.lazy())
    kinds = [EventType.LIKE, EventType.DISLIKE, EventType.RATING]
    codes = dict(known.frame.select("item", "type").iter_rows())
    assert [codes[item] for item in range(3)] == [EVENT_TYPE_CODES[kind] for kind in kinds]


def test_purchases_alone_are_weighed_as_ever() -> None:
    """Counts are whole numbers, to the last bit: the model of a shop of purchases is the same."""
    known = interactions_of(habits())
    facts = taste_facts(known, END_MS)
    frame = known.frame.group_by("person", "item").agg(
        pl.len().alias("count"), pl.col("t_ms").max().alias("last_ms")
    )
    age_s = (END_MS // 1_000 - frame["last_ms"] // 1_000).to_numpy().astype(np.float32)
    counts = frame["count"].to_numpy().astype(np.float32)
    types = np.zeros(len(frame), dtype=np.uint8)
    plain = frame.with_columns(weight=interaction_weights(types, counts, age_s))
    assert facts.equals(plain.select("person", "item", "weight").sort("person", "item"))
    assert known.purchases.equals(known.frame)
