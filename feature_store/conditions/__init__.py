"""Conditions: a typed tree, checked where it enters, evaluated over columns and over documents.

``parse_condition`` checks JSON against a ``Vocabulary``; a ``Condition`` over items has an
``expression`` for polars; ``compile_predicate`` makes a function of any condition that looks at a
``Scope`` of plain documents. Both agree on items, by a law of the tests.
"""

from feature_store.conditions.analysis import fields_of, split_equalities
from feature_store.conditions.condition import Condition
from feature_store.conditions.masks import ItemTable
from feature_store.conditions.parsing import MAX_DEPTH, MAX_LEAVES, MAX_VALUES, parse_condition
from feature_store.conditions.predicates import Predicate, Scope, compile_predicate
from feature_store.conditions.tree import ConditionError
from feature_store.conditions.vocabulary import (
    AUDIENCE,
    ITEM,
    ITEM_FIELDS,
    PAGE_FIELDS,
    PEOPLE,
    USER_FIELDS,
    Vocabulary,
)
from feature_store.conditions.windows import WeeklyWindow, parse_window

__all__ = [
    "AUDIENCE",
    "ITEM",
    "ITEM_FIELDS",
    "MAX_DEPTH",
    "MAX_LEAVES",
    "MAX_VALUES",
    "PAGE_FIELDS",
    "PEOPLE",
    "USER_FIELDS",
    "Condition",
    "ConditionError",
    "ItemTable",
    "Predicate",
    "Scope",
    "Vocabulary",
    "WeeklyWindow",
    "compile_predicate",
    "fields_of",
    "parse_condition",
    "parse_window",
    "split_equalities",
]
