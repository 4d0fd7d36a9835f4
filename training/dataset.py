"""From the event log to what models are fitted on: codes, times and a sparse matrix.

Items are numbered in the order of their ids, so "ties by item id" is a stable sort by number.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from feature_store.catalogue import Catalogue
from feature_store.event_log import EVENT_LOG_SCHEMA
from feature_store.facts import fact_codes
from feature_store.item_columns import stub_columns
from feature_store.merging import ROW_TYPE, merged_people
from feature_store.schema import EVENT_TYPE_CODES, ITEM_EVENTS, PURCHASE_CODE, EventType
from feature_store.signals import PUBLIC_TRUST_WEIGHT, WEIGHT_BY_CODE, interaction_weights

DAY_MS = 86_400_000
PUBLIC_EVENTS_A_DAY = 200
"""More events of one person and day by a public key, purchases aside, are a bot's."""
EVENTS_A_DAY = 2_000
"""More of them by the shop's own servers are a crawler's."""

REFUND_CODE = EVENT_TYPE_CODES[EventType.REFUND]
LIKE_CODE = EVENT_TYPE_CODES[EventType.LIKE]
DISLIKE_CODE = EVENT_TYPE_CODES[EventType.DISLIKE]
UNDOES = {
    PURCHASE_CODE: REFUND_CODE,
    EVENT_TYPE_CODES[EventType.ADD_TO_CART]: EVENT_TYPE_CODES[EventType.REMOVE_FROM_CART],
}

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Interactions:
    """What people did with items.

    Parameters
    ----------
    frame : DataFrame
        One row an event: ``person`` (u32 code), ``item`` (u32 code), ``type`` (u8 code), ``t_ms``
        (i64, since 1970), ``basket`` (u32, the order, or else the person's day; purchases of one
        basket share it), ``public`` (bool, sent with a public key: anybody can send those).
    persons : Series of str
        Key of each person's code: ``u:`` and the user id, or ``a:`` and the anonymous id.
    item_ids : Series of str
        Id of each item's code, sorted.
    """

    frame: pl.DataFrame
    persons: pl.Series
    item_ids: pl.Series

    @property
    def n_events(self) -> int:
        """How many events."""
        return self.frame.height

    @property
    def newest_ms(self) -> int:
        """Time of the newest event; 0 when there is none."""
        newest: int | None = self.frame["t_ms"].max()  # type: ignore[assignment]  # of i64
        return newest or 0

    @property
    def purchases(self) -> pl.DataFrame:
        """The events that are purchases, but for those that a refund has undone.

        Each refund undoes the newest purchase of the item by the person that is left.
        """
        bought = self.frame.filter(pl.col("type") == PURCHASE_CODE)
        refunds = self.frame.filter(pl.col("type") == REFUND_CODE)
        if refunds.is_empty():
            return bought
        key = ["person", "item"]
        undone = refunds.group_by(key).len("n_refunds")
        newest = pl.col("t_ms").rank("ordinal", descending=True).over(key)
        return (
            bought.join(undone, on=key, how="left", maintain_order="left")
            .filter(newest > pl.col("n_refunds").fill_null(0))
            .drop("n_refunds")
        )

    def before(self, end_ms: int) -> "Interactions":
        """Return the events before a time, with the same codes."""
        return Interactions(self.frame.filter(pl.col("t_ms") < end_ms), self.persons, self.item_ids)

    def since(self, start_ms: int) -> "Interactions":
        """Return the events from a time on, with the same codes."""
        frame = self.frame.filter(pl.col("t_ms") >= start_ms)
        return Interactions(frame, self.persons, self.item_ids)


def read_interactions(events: pl.LazyFrame) -> Interactions:
    """Read the events that say something about a person and an item.

    Parameters
    ----------
    events : LazyFrame
        Columns of ``event_log.EVENT_LOG_SCHEMA``, in any order.

    Returns
    -------
    Interactions
        Sorted by time, person and item.
    """
    kinds = [kind.value for kind in sorted(ITEM_EVENTS)]
    if not events.filter(pl.col("type") == ROW_TYPE).head(1).collect().is_empty():
        events = merged_people(events)
    person = pl.coalesce("u:" + pl.col("user_id"), "a:" + pl.col("anonymous_id"))
    frame = (
        events.filter(pl.col("type").is_in(kinds) & pl.col("item_id").is_not_null())
        .select(
            person.alias("person"),
            "item_id",
            fact_codes(list(EVENT_LOG_SCHEMA)),
            pl.col("timestamp").dt.epoch("ms").alias("t_ms"),
            "order_id",
            (pl.col("trust") == "public").fill_null(False).alias("public"),
        )
        .filter(pl.col("person").is_not_null())
        .collect()
    )
    frame = _without_floods(frame)
    persons, person_codes = _encode(frame["person"])
    item_ids, item_codes = _encode(frame["item_id"])
    coded = frame.select("type", "t_ms", "order_id", "public").with_columns(
        person=person_codes, item=item_codes
    )
    coded = _with_baskets(coded).select("person", "item", "type", "t_ms", "basket", "public")
    return Interactions(coded.sort("t_ms", "person", "item", "type"), persons, item_ids)


def _without_floods(frame: pl.DataFrame) -> pl.DataFrame:
    """Leave out what one person sent beyond a human day; purchases are never left out."""
    loose = frame.select(pl.col("type") != PURCHASE_CODE).to_series()
    if not loose.any():
        return frame
    limit = pl.when("public").then(PUBLIC_EVENTS_A_DAY).otherwise(EVENTS_A_DAY)
    day = pl.col("t_ms") // DAY_MS
    nth = pl.col("t_ms").rank("ordinal").over("person", day, "public")
    kept = frame.filter(loose).filter(nth <= limit)
    if kept.height == int(loose.sum()):
        return frame
    return pl.concat([frame.filter(~loose), kept])


def _encode(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return the distinct values, sorted, and the position of each value among them."""
    distinct = values.unique().sort()
    table = pl.DataFrame({"value": distinct}).with_row_index("code")
    codes = pl.DataFrame({"value": values}).join(
        table, on="value", how="left", maintain_order="left"
    )
    return distinct, codes["code"]


def _with_baskets(frame: pl.DataFrame) -> pl.DataFrame:
    """Give baskets numbers: one for each person and order, or day where no order is named."""
    order = pl.coalesce(pl.col("order_id"), (pl.col("t_ms") // DAY_MS).cast(pl.String))
    keys = frame.select("person", order.alias("order"), pl.col("order_id").is_null().alias("day"))
    distinct = keys.unique(maintain_order=True).with_row_index("basket")
    joined = keys.join(distinct, on=["person", "order", "day"], how="left", maintain_order="left")
    return frame.with_columns(joined["basket"])


def taste_facts(interactions: Interactions, now_ms: int) -> pl.DataFrame:
    """Sum up how much each person likes each item.

    Parameters
    ----------
    interactions : Interactions
        Events.
    now_ms : int
        The moment from which ages are counted.

    Returns
    -------
    DataFrame
        ``person``, ``item``, ``weight`` (f32, above 0: the sum over event types of
        ``signals.interaction_weights``); sorted by person and item.
    """
    facts = (
        interactions.frame.lazy()
        .filter(pl.col("type").is_in(np.flatnonzero(WEIGHT_BY_CODE).tolist()))
        .group_by("person", "item", "type")
        .agg(
            (pl.len() - (1.0 - PUBLIC_TRUST_WEIGHT) * pl.col("public").sum()).alias("count"),
            pl.col("t_ms").max().alias("last_ms"),
        )
        .collect()
    )
    facts = _effective(interactions, facts)
    types = facts["type"].to_numpy()
    # Whole seconds, as a state keeps them: training and serving see the same ages.
    age_s = np.maximum(now_ms // 1_000 - facts["last_ms"].to_numpy() // 1_000, 0)
    weights = interaction_weights(
        types, facts["count"].to_numpy().astype(np.float32), age_s.astype(np.float32)
    )
    return (
        facts.select("person", "item", pl.Series("weight", weights))
        .group_by("person", "item")
        .agg(pl.col("weight").sum())
        .filter(pl.col("weight") > 0)
        .sort("person", "item")
    )


def _effective(interactions: Interactions, facts: pl.DataFrame) -> pl.DataFrame:
    """Undo what was undone, as serving does.

    A refund takes a purchase back, a removal from the cart an addition; what was disliked and not
    liked or bought since has no weight.
    """
    key = ["person", "item"]
    events = interactions.frame.filter(pl.col("type").is_in([*UNDOES.values(), DISLIKE_CODE]))
    if events.is_empty():
        return facts
    for undone, undoing in UNDOES.items():
        taken = events.filter(pl.col("type") == undoing).group_by(key).len("taken")
        less = pl.when(pl.col("type") == undone).then(pl.col("taken").fill_null(0)).otherwise(0)
        facts = facts.join(taken, on=key, how="left").with_columns(
            pl.max_horizontal(pl.col("count") - less, 0.0).alias("count")
        )
        facts = facts.drop("taken")
    disliked = events.filter(pl.col("type") == DISLIKE_CODE).group_by(key)
    liked = pl.when(pl.col("type").is_in([LIKE_CODE, PURCHASE_CODE])).then(pl.col("last_ms"))
    # Whole seconds, as a state keeps them; -1 is never.
    liked_s = liked.max().over(key).fill_null(-1) // 1_000
    disliked_s = pl.col("disliked_ms").fill_null(-1) // 1_000
    return (
        facts.join(disliked.agg(pl.col("t_ms").max().alias("disliked_ms")), on=key, how="left")
        .filter(disliked_s <= liked_s)
        .drop("disliked_ms")
    )


def weight_matrix(facts: pl.DataFrame, items: npt.NDArray[np.uint32]) -> sp.csr_matrix:
    """Put taste weights into a sparse matrix.

    Parameters
    ----------
    facts : DataFrame
        Result of `taste_facts`.
    items : ndarray of uint32, shape (n,)
        Sorted item codes: the columns.

    Returns
    -------
    csr_matrix of float32, shape (people, n)
        One row for each person who has a weight, in the order of their codes.
    """
    person = facts["person"].to_numpy()
    _, rows = np.unique(person, return_inverse=True)
    columns = np.searchsorted(items, facts["item"].to_numpy())
    n_rows = int(rows.max(initial=-1)) + 1
    return sp.csr_matrix(
        (facts["weight"].to_numpy(), (rows, columns)),
        shape=(n_rows, len(items)),
        dtype=np.float32,
    )


def model_items(interactions: Interactions) -> npt.NDArray[np.uint32]:
    """Return the codes of the items that a model learns about, sorted.

    They are those with an event that has a taste weight; a mere impression teaches nothing.
    """
    weighted = pl.col("type").is_in(np.flatnonzero(WEIGHT_BY_CODE).tolist())
    codes = interactions.frame.filter(weighted)["item"].unique().sort()
    result: npt.NDArray[np.uint32] = codes.to_numpy()
    return result


def with_unknown_items(catalogue: Catalogue, interactions: Interactions) -> tuple[Catalogue, I32]:
    """Give a row to every item of the events, for the time of one training run.

    Items that only events have named may have no row in the catalogue's file yet.

    Parameters
    ----------
    catalogue : Catalogue
        What is known.
    interactions : Interactions
        Events.

    Returns
    -------
    catalogue : Catalogue
        With stubs of the missing items.
    rows : ndarray of int32
        Catalogue row of each item code.
    """
    item_ids = interactions.item_ids.to_list()
    rows = catalogue.rows(item_ids)
    missing = np.flatnonzero(rows < 0)
    if len(missing) == 0:
        return catalogue, rows
    rows = rows.copy()
    rows[missing] = catalogue.n_rows + np.arange(len(missing), dtype=np.int32)
    changes = [(int(rows[code]), stub_columns(item_ids[code])) for code in missing]
    return catalogue.with_changes(changes), rows
