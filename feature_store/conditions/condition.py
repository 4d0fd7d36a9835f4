"""A checked condition: as it was written, and as a typed tree."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson
import polars as pl

from feature_store.conditions.columns import expression
from feature_store.conditions.tree import Node


@dataclass(frozen=True)
class Condition:
    """A checked condition; ``parse_condition`` makes it.

    Parameters
    ----------
    tree : dict
        The condition as it was written.
    root : Node
        The same, typed.
    """

    tree: dict[str, Any]
    root: Node = field(compare=False, repr=False)

    @cached_property
    def key(self) -> str:
        """Name of the condition: equal trees have equal names."""
        return orjson.dumps(self.tree, option=orjson.OPT_SORT_KEYS).decode()

    def expression(self) -> pl.Expr:
        """Return the condition over the columns of ``item_columns.COLUMNS``.

        Raises
        ------
        ValueError
            If it speaks of anything but ``item.*``.
        """
        return expression(self.root)

    def __hash__(self) -> int:
        return hash(self.key)
