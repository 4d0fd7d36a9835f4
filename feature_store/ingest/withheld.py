"""What an import leaves out: rows of who is forgotten, and of who may not be profiled."""

from collections.abc import Callable
from typing import NamedTuple

import polars as pl


class Withheld(NamedTuple):
    """Events that may be imported, and how many others there were.

    Parameters
    ----------
    events : DataFrame
        Those that may.
    forgotten : int
        How many are from before their person was forgotten.
    without_consent : int
        How many are of people who may not be profiled.
    """

    events: pl.DataFrame
    forgotten: int
    without_consent: int


Withhold = Callable[[pl.DataFrame], Withheld]
"""Leaves out of some events what may not be kept."""


def nothing_withheld(events: pl.DataFrame) -> Withheld:
    """Leave out nothing: for events that are not stored."""
    return Withheld(events, 0, 0)
