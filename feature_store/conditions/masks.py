"""Many conditions over the same items: fields are encoded once, each comparison is one lookup.

Polars answers one comparison with a text column of 100,000 items in 100 microseconds, with a list
of categories in 1.7 ms and with an attribute in 50 ms. A thousand rules ask a thousand times. Here
a field becomes codes and distinct values: a comparison tests the values, and takes the answers by
code, in 60 microseconds whatever the field.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from feature_store.conditions.columns import expression
from feature_store.conditions.condition import Condition
from feature_store.conditions.meaning import OPPOSITES, value_test
from feature_store.conditions.parsing import leaves_of
from feature_store.conditions.tree import All, Kind, Leaf, Node, Not
from feature_store.conditions.values import values_in

Mask = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]

_ATTRIBUTE = "item.attributes."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, eq=False)
class Coded:
    """A column as codes of distinct lists of distinct values.

    Parameters
    ----------
    codes : ndarray of int32, shape (n,)
        Which list each row has; -1 for none.
    values : list
        The distinct values.
    flat, starts : ndarray of int32
        Values of list `c` are ``values[flat[starts[c] : starts[c + 1]]]``; no list is empty.
    """

    codes: I32
    values: list[Any]
    flat: I32
    starts: npt.NDArray[np.int64]

    @classmethod
    def of_lists(cls, codes: I32, lists: Iterable[Sequence[Any]]) -> "Coded":
        """Encode the values of distinct lists; codes of empty ones become -1."""
        known: dict[Any, int] = {}  # by type too, for True, 1 and 1.0 are equal for a dict
        values: list[Any] = []
        flat: list[int] = []
        starts: list[int] = []
        renamed: list[int] = []
        for parts in lists:
            renamed.append(len(starts) if parts else -1)
            if parts:
                starts.append(len(flat))
            for part in parts:
                key = (part.__class__, part) if part.__class__ in _HASHED else orjson.dumps(part)
                at = known.get(key)
                if at is None:
                    at = known[key] = len(values)
                    values.append(part)
                flat.append(at)
        names = np.array([*renamed, -1], dtype=np.int32)
        return cls(names[codes], values, np.array(flat, np.int32), np.array(starts, np.int64))

    @cached_property
    def index(self) -> dict[str, int]:
        """Where each text stands among the values."""
        return {value: at for at, value in enumerate(self.values) if isinstance(value, str)}

    def mask(self, leaf: Leaf) -> Mask:
        """Return where a comparison, taken without its negation, holds."""
        holds = np.zeros(len(self.starts) + 1, dtype=bool)  # the last one is for -1
        if leaf.op == "exists":
            holds[:-1] = True
        elif len(self.starts):
            found = self._holding(leaf)
            if found.any():
                holds[:-1] = np.logical_or.reduceat(found[self.flat], self.starts)
        return holds.take(self.codes)

    def _holding(self, leaf: Leaf) -> Mask:
        """Return which distinct values fulfil the comparison."""
        found = np.zeros(len(self.values), dtype=bool)
        wanted = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
        op = OPPOSITES.get(leaf.op, leaf.op)
        by_name = op in ("eq", "in") or (op == "contains" and leaf.kind is not Kind.TEXT)
        if by_name and all(isinstance(value, str) for value in wanted):
            for value in wanted:
                at = self.index.get(value)
                if at is not None:
                    found[at] = True
        else:
            test = value_test(leaf)
            found[:] = [test(value) for value in self.values]
        return found


_HASHED = frozenset({str, int, float, bool})


class ItemTable:
    """Items, ready for the evaluation of many conditions; not changed after it is made.

    Parameters
    ----------
    frame : DataFrame
        ``item_columns.COLUMNS``, one row an item; a null ``item_id`` is a hole.
    rows_of : callable or None
        Returns the row of each id, -1 where it has none; rows beyond the frame are passed over.
        ``None``: the ids of the frame are looked through.
    """

    def __init__(
        self, frame: pl.DataFrame, rows_of: Callable[[Sequence[str]], I32] | None = None
    ) -> None:
        self.frame = frame
        self._rows_of = rows_of or self._find
        self._coded: dict[tuple[str, Kind], Coded] = {}
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def mask(self, condition: Condition) -> Mask:
        """Return which items fulfil a condition.

        Returns
        -------
        ndarray of bool, shape (n,)
            Holes and deleted items are false.
        """
        return self._node(condition.root) & self._present

    def prepare(self, conditions: Iterable[Condition]) -> None:
        """Encode the attributes that conditions speak of in one pass over the items."""
        keys = {
            (leaf.field, leaf.kind)
            for condition in conditions
            for leaf in leaves_of(condition.root)
            if leaf.field.startswith(_ATTRIBUTE)
        }
        if missing := keys - self._coded.keys():
            self._encode_attributes(sorted(missing))

    @cached_property
    def _present(self) -> Mask:
        deleted = self.frame["deleted"].fill_null(value=False)
        there: Mask = (self.frame["item_id"].is_not_null() & ~deleted).to_numpy()
        return there

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {item_id: at for at, item_id in enumerate(self.frame["item_id"].to_list())}

    def _find(self, item_ids: Sequence[str]) -> I32:
        return np.array([self._positions.get(one, -1) for one in item_ids], dtype=np.int32)

    # --- evaluation -------------------------------------------------------------------------------

    def _node(self, node: Node) -> Mask:
        if isinstance(node, Leaf):
            mask = self._leaf(node)
            no = node.op in OPPOSITES or (node.op == "exists" and not node.value)
            return ~mask if no else mask
        if isinstance(node, Not):
            return ~self._node(node.part)
        result = self._node(node.parts[0])
        for part in node.parts[1:]:
            if isinstance(node, All):
                result &= self._node(part)
            else:
                result |= self._node(part)
        return result

    def _leaf(self, leaf: Leaf) -> Mask:
        """Return where a comparison holds, taken without its negation; a new array."""
        name = leaf.field.removeprefix("item.")
        op = OPPOSITES.get(leaf.op, leaf.op)
        if name in ("brand", "kind", "categories") or name.startswith("attributes."):
            return self._coded_field(leaf).mask(leaf)
        if name == "item_id" and op in ("eq", "in"):
            return self._named(leaf.value if op == "in" else (leaf.value,))
        if leaf.kind is Kind.NUMBER:
            return self._numbers(name, op, leaf.value)
        if leaf.kind is Kind.TIME:
            return self._times(name, op, leaf.value)
        positive = Leaf(leaf.field, op, True if op == "exists" else leaf.value, leaf.kind)
        mask: Mask = self.frame.select(expression(positive).alias("mask"))["mask"].to_numpy()
        return mask.copy()

    def _named(self, item_ids: Sequence[str]) -> Mask:
        mask = np.zeros(self.frame.height, dtype=bool)
        rows = self._rows_of(item_ids)
        mask[rows[(rows >= 0) & (rows < len(mask))]] = True
        return mask

    def _numbers(self, name: str, op: str, value: Any) -> Mask:
        column = self._arrays.get(name)
        if column is None:
            column = self.frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
            self._arrays[name] = column
        if op == "exists":
            there: Mask = ~np.isnan(column)
            return there
        return _compared(column, op, value)

    def _times(self, name: str, op: str, value: Any) -> Mask:
        """Compare in whole microseconds; what is missing lies outside all of them."""
        column = self._arrays.get(name)
        if column is None:
            series = self.frame[name].cast(pl.Datetime("us", "UTC")).to_physical()
            column = self._arrays[name] = series.fill_null(_MISSING_US).to_numpy()
        there: Mask = column != _MISSING_US
        if op == "exists":
            return there
        if isinstance(value, tuple):
            value = tuple((moment - _EPOCH) // _MICROSECOND for moment in value)
        else:
            value = (value - _EPOCH) // _MICROSECOND
        return there & _compared(column, op, value)

    # --- encoding ---------------------------------------------------------------------------------

    def _coded_field(self, leaf: Leaf) -> Coded:
        key = (leaf.field, leaf.kind)
        known = self._coded.get(key)
        if known is None:
            if leaf.field.startswith(_ATTRIBUTE):
                self._encode_attributes([key])
            else:
                codes, values = _dictionary(self.frame[leaf.field.removeprefix("item.")])
                lists = (values_in(value, leaf.kind) for value in values)
                self._coded[key] = Coded.of_lists(codes, lists)
            known = self._coded[key]
        return known

    def _encode_attributes(self, keys: list[tuple[str, Kind]]) -> None:
        """Read each distinct text once; a value that was seen before costs one lookup."""
        codes, texts = _dictionary(self.frame["attributes"])
        names = [field.removeprefix(_ATTRIBUTE) for field, _ in keys]
        known: list[dict[Any, int]] = [{} for _ in keys]
        raw: list[list[Any]] = [[] for _ in keys]
        found = np.full((len(keys), len(texts) + 1), -1, dtype=np.int32)
        for at, text in enumerate(texts):
            document = orjson.loads(text)
            for place, name in enumerate(names):
                value = document.get(name)
                if value is None:
                    continue
                kind = value.__class__
                # True, 1 and 1.0 are equal for a dict, but not for JSON.
                name_of = value if kind is str else (kind, orjson.dumps(value))
                code = known[place].get(name_of)
                if code is None:
                    code = known[place][name_of] = len(raw[place])
                    raw[place].append(value)
                found[place, at] = code
        for key, values, row in zip(keys, raw, found, strict=True):
            lists = [values_in(value, key[1]) for value in values]
            self._coded[key] = Coded.of_lists(row[codes], lists)


_MISSING_US = np.iinfo(np.int64).min


def _compared(column: npt.NDArray[Any], op: str, value: Any) -> Mask:
    table: dict[str, Callable[[], Mask]] = {
        "in": lambda: np.isin(column, value),
        "between": lambda: (column >= value[0]) & (column <= value[1]),
        "eq": lambda: column == value,
        "lt": lambda: column < value,
        "lte": lambda: column <= value,
        "gt": lambda: column > value,
        "gte": lambda: column >= value,
    }
    return table[op]()


def _dictionary(column: pl.Series) -> tuple[I32, list[Any]]:
    """Return codes (-1 for null) and the distinct values of a column of texts or lists."""
    named = pl.DataFrame({"value": column}).with_row_index("at").filter(column.is_not_null())
    groups = named.group_by("value").agg("at")
    codes = np.full(len(column), -1, dtype=np.int32)
    if len(groups):
        sizes = groups["at"].list.len().to_numpy()
        every = np.arange(len(groups), dtype=np.int32)
        codes[groups["at"].explode(empty_as_null=True).to_numpy()] = np.repeat(every, sizes)
    return codes, groups["value"].to_list()
