"""Recalls: what must be gone from everything, whatever anybody else says.

A recall is a document of the site that stands outside the rules: no publication and no roll-back of
rules touches it. It names items, groups of variants, or a condition over items, which follows the
catalogue: an item that comes to match is recalled too.
"""

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, ValidationInfo, field_validator, model_validator

from feature_store.catalogue import Catalogue
from feature_store.conditions import ITEM, Condition, ConditionError, parse_condition
from feature_store.documents import SiteDocuments
from feature_store.schema import Frozen, Id, ItemIdField

KIND = "recall"
MAX_ITEMS = 10_000

Mask = npt.NDArray[np.bool_]


class Recall(Frozen):
    """What is recalled, and why."""

    item_ids: Annotated[list[ItemIdField], Field(min_length=1, max_length=MAX_ITEMS)] | None = None
    group_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_ITEMS)] | None = None
    target: Annotated[dict[str, Any] | None, Field(description="a condition over `item.*`")] = None
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    url: Annotated[str | None, Field(max_length=2000)] = None

    @field_validator("target")
    @classmethod
    def _is_condition(cls, value: dict[str, Any] | None, _: ValidationInfo) -> Any:
        if value is not None:
            try:
                parse_condition(value, ITEM)
            except ConditionError as error:
                raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _names_one(self) -> "Recall":
        if sum(one is not None for one in (self.item_ids, self.group_ids, self.target)) != 1:
            raise ValueError("name one of item_ids, group_ids and target")
        return self

    def condition(self) -> Condition | None:
        """Return the checked target."""
        return None if self.target is None else parse_condition(self.target, ITEM)


def recalls_of(documents: SiteDocuments) -> list[Recall]:
    """Return the recalls that stand."""
    return [Recall.model_validate(one.body) for one in documents.of_kind(KIND)]


def recalled_mask(recalls: Iterable[Recall], catalogue: Catalogue) -> Mask | None:
    """Return which rows are recalled.

    Parameters
    ----------
    recalls : iterable of Recall
        Those that stand.
    catalogue : Catalogue
        The items.

    Returns
    -------
    ndarray of bool, shape (n_rows,), or None
        ``None`` if there is no recall.
    """
    mask: Mask | None = None
    for recall in recalls:
        if mask is None:
            mask = np.zeros(catalogue.n_rows, dtype=bool)
        mask |= _mask_of(recall, catalogue)
    return mask


def _mask_of(recall: Recall, catalogue: Catalogue) -> Mask:
    mask = np.zeros(catalogue.n_rows, dtype=bool)
    if recall.item_ids is not None:
        rows = catalogue.rows(recall.item_ids)
        mask[rows[rows >= 0]] = True
        return mask
    if recall.group_ids is not None:
        names = sorted(recall.group_ids)
        return catalogue.mask(f"groups:{names}", pl.col("group_id").is_in(names))
    condition = recall.condition()
    assert condition is not None
    return catalogue.mask(condition.key, condition.expression())
