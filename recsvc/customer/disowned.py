"""What says nothing of a person any more, because they said that it does not describe them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.catalogue import Catalogue
from feature_store.preferences import Disowned, Preferences, is_under
from feature_store.state import UserState
from recsvc.customer.named import Name, bits_of, covered

Disownings = Mapping[str, frozenset[str]]
"""Names of what says nothing of a person, by kind (``Disowned.kind``); empty for nothing."""


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


def disowned_names(preferences: Preferences) -> Disownings:
    """Return by kind what a person says does not describe them."""
    return _by_kind((one.kind, one.name) for one in preferences.disowned)


def disowned_in(document: Mapping[str, Any] | None) -> Disownings:
    """Return what `disowned_names` does, of preferences as the store keeps them."""
    entries = document.get("disowned", ()) if document else ()
    return _by_kind((one["kind"], one["name"]) for one in entries)


def _by_kind(names: Iterable[tuple[str, str]]) -> Disownings:
    found: dict[str, frozenset[str]] = {}
    for kind, name in names:
        found[kind] = found.get(kind, frozenset()) | {name}
    return found


def owned_values(computed: Mapping[str, Any], disowned: Disownings) -> Mapping[str, Any]:
    """Return what training computed without the tastes that do not describe the person.

    Training looks at all purchases, so a taste stays out, whatever comes later, until the removal
    is taken back.

    Parameters
    ----------
    computed : mapping
        As the store keeps it; unchanged, and the result if nothing of it was disowned.
    disowned : Disownings
        By kind; of a category also what is below it.
    """
    tastes = computed.get("tastes")
    if not disowned or not tastes:
        return computed
    hidden, brands = (disowned.get(kind, frozenset()) for kind in ("category", "brand"))
    kept = dict(tastes)
    for names, shares, gone in (
        ("categories", "category_shares", lambda name: is_under(hidden, name)),
        ("brands", "brand_shares", brands.__contains__),
    ):
        places = [at for at, name in enumerate(tastes.get(names) or ()) if not gone(name)]
        for field in (names, shares):
            if tastes.get(field) is not None:
                kept[field] = [tastes[field][at] for at in places]
    return {**computed, "tastes": kept}


def _about(
    catalogue: Catalogue, one: Disowned, rows: npt.NDArray[np.uint32]
) -> npt.NDArray[np.bool_]:
    if one.kind == "item":
        row = catalogue.row(one.name)
        return np.equal(rows, -1 if row is None else row)
    assert one.kind != "segment"
    return covered(bits_of(catalogue, Name(one.kind, one.name)), rows)
