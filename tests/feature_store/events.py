"""Events and columns of facts for the tests of states."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

import numpy as np

from feature_store.schema import Event, EventType
from feature_store.state import U8, U32

_numbers = count()


def said(kind: str, at_s: int, user_id: str = "ann", **fields: Any) -> Event:
    """Return an event with an id of its own."""
    return Event(
        event_id=f"event-{next(_numbers)}",
        type=EventType(kind),
        user_id=user_id,
        timestamp=datetime.fromtimestamp(at_s, UTC),
        **fields,
    )


def columns_of(facts: Sequence[tuple[int, int, int]]) -> tuple[U32, U8, U32]:
    """Return rows, types and times of facts as arrays."""
    rows, types, times_s = zip(*facts, strict=True) if facts else ((), (), ())
    return (
        np.array(rows, dtype=np.uint32),
        np.array(types, dtype=np.uint8),
        np.array(times_s, dtype=np.uint32),
    )
