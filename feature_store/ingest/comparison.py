"""What an import of items would change: item by item against the catalogue that is there."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
import polars as pl

from feature_store.catalogue import Catalogue
from feature_store.item_columns import COLUMNS, as_catalogue_frame

MOST_GONE_SHARE = 0.2
"""A feed after which more of the available items are not available any more is doubted."""
SHOWN_IDS = 10
_NO_FIELDS = ("item_id", "listed", "deleted")


@dataclass(slots=True)
class ItemChanges:
    """What an import of items changed, or would change.

    Parameters
    ----------
    full : bool
        Whether items that are absent count as not available any more.
    applied : bool
        Whether the catalogue has been changed.
    added, updated, unchanged : int
        Items of the files: unknown before, different from what was known, the same.
    updated_fields : dict of str to int
        In how many of the updated items each field changed, most frequent first.
    made_unavailable, absent : int
        Items that were available and no longer are; those of them that are in no file.
    back_in_stock : int
        Items that were not available and are now.
    price_up, price_down : int
        Items whose price to pay (the sale price, if there is one) rose or fell.
    available_before : int
        Available items that the catalogue held, of the kinds that the files hold.
    gone : list of str
        The first few ids of the items that are made unavailable.
    refused : str or None
        Why nothing was changed.
    """

    full: bool = False
    applied: bool = False
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    updated_fields: dict[str, int] = field(default_factory=dict)
    made_unavailable: int = 0
    absent: int = 0
    back_in_stock: int = 0
    price_up: int = 0
    price_down: int = 0
    available_before: int = 0
    gone: list[str] = field(default_factory=list)
    refused: str | None = None

    @property
    def gone_share(self) -> float:
        """Share of the available items that are made unavailable."""
        return self.made_unavailable / max(self.available_before, 1)


class Comparison:
    """Compares items, a part of them at a time, with a catalogue.

    Parameters
    ----------
    catalogue : Catalogue
        What is there.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.changes = ItemChanges()
        self._fields: Counter[str] = Counter()
        self._kinds: set[str] = set()
        frames = [catalogue.frame]
        places = pl.DataFrame({"item_id": catalogue.frame["item_id"]}).with_row_index("at")
        if catalogue.overlay:
            # Two chunks: the file's columns stay where they are mapped.
            overlay = pl.DataFrame(list(catalogue.overlay.values()), schema=COLUMNS)
            frames.append(overlay)
            changed = pl.Series(list(catalogue.overlay), dtype=pl.UInt32)
            newer = pl.DataFrame({"item_id": overlay["item_id"]}).with_row_index(
                "at", offset=catalogue.frame.height
            )
            places = pl.concat([places.filter(~pl.col("at").is_in(changed.implode())), newer])
        self._known = pl.concat(frames, rechunk=False)
        self._places = places.filter(pl.col("item_id").is_not_null())

    def changed(
        self, items: pl.DataFrame, kept: Sequence[str] = (), *, merge: bool = False
    ) -> pl.DataFrame:
        """Count what is different, and return only that.

        Parameters
        ----------
        items : DataFrame
            Distinct items, ``item_columns.COLUMNS``.
        kept : sequence of str
            Columns of which the file says nothing: a known item's stay as they are.
        merge : bool
            A known item's attributes stay too, unless the file has one of that name.
        """
        joined = items.select("item_id").join(
            self._places, on="item_id", how="left", maintain_order="left"
        )
        at = joined["at"]
        self._kinds.update(items["kind"].unique())
        # An unknown item is compared with the first one, and the outcome not looked at.
        before = self._known[at.fill_null(0)] if self._known.height else items
        known = at.is_not_null()
        listed = known & before["listed"]
        items = items.with_columns(before[name].zip_with(listed, items[name]) for name in kept)
        if merge and "attributes" not in kept:
            both = _merged(before["attributes"], items["attributes"])
            items = items.with_columns(both.zip_with(listed, items["attributes"]))
        different = {
            name: listed & _differs(items[name], before[name])
            for name in COLUMNS
            if name not in _NO_FIELDS
        }
        any_different = pl.Series([False]).new_from_index(0, len(items))
        for name, rows in different.items():
            if n_rows := int(rows.sum()):
                self._fields[name] += n_rows
                any_different |= rows
        changes = self.changes
        changes.added += int((~listed).sum())
        changes.updated += int(any_different.sum())
        changes.unchanged += int((listed & ~any_different).sum())
        changes.updated_fields = dict(self._fields.most_common())
        was, now = listed & before["available"], items["available"]
        changes.back_in_stock += int((listed & ~before["available"] & now).sum())
        self._gone(items["item_id"].filter(was & ~now))
        self._prices(items, before, listed)
        return items.filter(~listed | any_different)

    def absent(self, present: Sequence[pl.Series]) -> pl.Series:
        """Return the ids of the available items that are in no file.

        Only items of the kinds that the files hold: a feed of products says nothing about banners.

        Parameters
        ----------
        present : sequence of Series of str
            Ids that the files name.
        """
        named = pl.DataFrame({"item_id": pl.concat([pl.Series([], dtype=pl.String), *present])})
        places = self._places.join(named, on="item_id", how="anti", maintain_order="left")
        names = ["item_id", "listed", "available", "kind"]
        gone = self._known.select(names)[places["at"]].filter(self._available())["item_id"]
        self.changes.absent += len(gone)
        self._gone(gone)
        return gone

    def finish(self, *, full: bool) -> ItemChanges:
        """Return the counts."""
        self.changes.full = full
        places = self._places["at"]
        self.changes.available_before = int(
            self._known[places].select(self._available().sum()).item()
        )
        return self.changes

    def _available(self) -> pl.Expr:
        kinds = sorted(self._kinds or {"product"})
        return pl.col("listed") & pl.col("available") & pl.col("kind").is_in(kinds)

    def _gone(self, item_ids: pl.Series) -> None:
        self.changes.made_unavailable += len(item_ids)
        missing = SHOWN_IDS - len(self.changes.gone)
        self.changes.gone += item_ids.head(max(missing, 0)).to_list()

    def _prices(self, items: pl.DataFrame, before: pl.DataFrame, listed: pl.Series) -> None:
        """Count prices that rose and fell, where both are in one currency."""
        to_pay = pl.coalesce("sale_price", "price").alias("price")
        old, new = before.select(to_pay)["price"], items.select(to_pay)["price"]
        comparable = listed & (before["currency"] == items["currency"])
        self.changes.price_up += int((comparable & (new > old)).sum())
        self.changes.price_down += int((comparable & (new < old)).sum())


def completed(items: pl.DataFrame) -> pl.DataFrame:
    """Return items with all columns: what a file does not say has its default."""
    return as_catalogue_frame(items)


def _merged(old: pl.Series, new: pl.Series) -> pl.Series:
    """Return attributes to which newer ones are added."""
    documents = [
        orjson.dumps(orjson.loads(before or "{}") | orjson.loads(after or "{}")).decode()
        for before, after in zip(old.to_list(), new.to_list(), strict=True)
    ]
    return pl.Series(new.name, documents, dtype=pl.String)


def _differs(new: pl.Series, old: pl.Series) -> pl.Series:
    if new.dtype == pl.List(pl.String):
        # No list and an empty one are the same; a separator that no text holds.
        new, old = (values.list.join("\x1f").fill_null("") for values in (new, old))
    elif new.dtype.is_nested():
        pairs = zip(new.to_list(), old.to_list(), strict=True)
        return pl.Series([(a or []) != (b or []) for a, b in pairs], dtype=pl.Boolean)
    found = new.ne_missing(old)
    if new.name == "attributes" and found.any():
        documents = pl.DataFrame({"new": new.filter(found), "old": old.filter(found)}).rows()
        # The same object may be written in another order.
        real = [orjson.loads(a or "{}") != orjson.loads(b or "{}") for a, b in documents]
        found = found.scatter(found.arg_true(), real)
    return found
