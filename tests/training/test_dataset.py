import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.catalogue import Catalogue
from feature_store.schema import EventType
from feature_store.signals import SIGNALS
from feature_store.state import fold_frame
from tests.training.shop import DAY_MS, END_MS, Line, as_events, bare_catalogue, interactions_of
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


@given(LINES, st.sampled_from(["purchase", "view", "dislike"]))
def test_training_weighs_a_history_as_serving_does(lines: list[Line], kind: str) -> None:
    events = pl.concat([as_events(lines), as_events(lines[::2], kind)])
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
