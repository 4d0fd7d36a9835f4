"""The nodes of a checked condition, and the error for one that cannot be understood."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ConditionError(ValueError):
    """A condition that cannot be understood.

    Parameters
    ----------
    pointer : str
        JSON pointer to the part that is wrong, relative to the condition.
    detail : str
        What is wrong with it.
    """

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer or '/'}: {detail}")
        self.pointer = pointer
        self.detail = detail


class Kind(StrEnum):
    """What the values of a field are, and so which operators make sense on it."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIME = "time"
    PATHS = "paths"
    """Category paths: ``A > B`` lies under ``A``."""
    TEXTS = "texts"
    ANY = "any"
    """Any JSON value: compared with values of its own type, never equal to another."""
    CONTEXT = "context"
    """A text of the request; read as a number where it is compared with one."""
    SEGMENT = "segment"
    MOMENT = "moment"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One comparison.

    Parameters
    ----------
    field : str
        With its root, such as ``item.brand``.
    op : str
        The operator.
    value : Any
        Ready for comparing: numbers are floats where the field is a number, times are aware
        datetimes, lists are tuples, weekly windows are ``WeeklyWindow``.
    kind : Kind
        What the field's values are.
    """

    field: str
    op: str
    value: Any
    kind: Kind


@dataclass(frozen=True, slots=True)
class All:
    """True when every part is."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when a part is."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True when its part is not."""

    part: "Node"


Node = Leaf | All | AnyOf | Not
"""A node of a condition's tree."""
