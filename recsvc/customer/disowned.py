"""What says nothing of a person any more, because they said that it does not describe them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.catalogue import Catalogue
from feature_store.preferences import Disowned, Preferences
from feature_store.state import UserState
from recsvc.customer.named import Name, bits_of, covered


def owned(state: UserState, preferences: Preferences, catalogue: Catalogue) -> UserState:
    """Return a state without what its person disowned.

    A fact, and an event of the session, goes when it was last at or before the time at which its
    item, the item's brand or a category was disowned; what came later counts again.

    Parameters
    ----------
    state : UserState
        What is known of the person; unchanged, and the result if nothing was disowned.
    preferences : Preferences
        What the person decided.
    catalogue : Catalogue
        Says what belongs to a brand and to a category.
    """
    if not preferences.disowned or len(state.rows) == 0:
        return state
    facts = np.ones(len(state.rows), dtype=bool)
    session = np.ones(len(state.session_rows), dtype=bool)
    for one in preferences.disowned:
        if one.kind == "segment":
            continue
        until_s = one.at.timestamp()
        for kept, rows, times_s in (
            (facts, state.rows, state.last_s),
            (session, state.session_rows, state.session_s),
        ):
            # Before the items, which cost more to look up: most of a history is older, or none is.
            old = np.flatnonzero(kept & (times_s <= until_s) & (rows < catalogue.n_rows))
            if len(old):
                kept[old[_about(catalogue, one, rows[old])]] = False
    if facts.all() and session.all():
        return state
    return UserState(
        state.rows[facts],
        state.types[facts],
        state.counts[facts],
        state.first_s[facts],
        state.last_s[facts],
        state.session_rows[session],
        state.session_types[session],
        state.session_s[session],
    )


def disowned_segments(preferences: Preferences) -> frozenset[str]:
    """Return the segments of which a person says that they are no member."""
    return frozenset(one.name for one in preferences.disowned if one.kind == "segment")


def disowned_in(document: Mapping[str, Any] | None) -> frozenset[str]:
    """Return what `disowned_segments` does, of preferences as the store keeps them."""
    entries = document.get("disowned", ()) if document else ()
    return frozenset(one["name"] for one in entries if one["kind"] == "segment")


def _about(
    catalogue: Catalogue, one: Disowned, rows: npt.NDArray[np.uint32]
) -> npt.NDArray[np.bool_]:
    if one.kind == "item":
        row = catalogue.row(one.name)
        return np.equal(rows, -1 if row is None else row)
    assert one.kind != "segment"
    return covered(bits_of(catalogue, Name(one.kind, one.name)), rows)
