"""Everything that is known of one user, as ``GET /v1/users/{user_id}`` shows it."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from feature_store.catalogue import Catalogue
from feature_store.errors import NotFoundError
from feature_store.feedback import read_feedback
from feature_store.people import KINDS
from feature_store.schema import EVENT_TYPE_CODES, format_time, person_of
from feature_store.state import UserState, items_of
from recsvc.customer.disowned import disowned_in
from recsvc.merchandising.segments import segments_of
from recsvc.people import may_profile_by, person_document
from recsvc.serving.worker import Worker

TYPES = {code: kind.value for kind, code in EVENT_TYPE_CODES.items()}
COMPUTED = ("stage", "rfm", "clv", "churn_risk", "next_purchase_at")
"""What an answer has under ``computed`` in any case; null until training has computed it."""


async def known_user(worker: Worker, user_id: str) -> dict[str, Any]:
    """Return what is known of a user, by events, by the shop, by training, by themselves.

    Parameters
    ----------
    worker : Worker
        Whose store is asked.
    user_id : str
        Who.

    Raises
    ------
    NotFoundError
        If nothing at all is known.
    StoreUnavailableError
        If the store does not answer.
    """
    person = person_of(user_id, None)
    assert person is not None
    state = await worker.store.load_state(person)
    documents = await worker.store.people.get_all(KINDS, person)
    if len(state.rows) == 0 and not any(one is not None for one in documents.values()):
        raise NotFoundError(f"nothing is known of the user {user_id!r}")
    # Asked after the state, so that the catalogue knows every item in it.
    await worker.context(None)
    current = worker.holder.current
    profile, computed = documents["profile"] or {}, documents["computed"] or {}
    consent = (documents["preferences"] or {}).get("consent") or {}
    feedback = read_feedback(state)
    disowned = disowned_in(documents["preferences"])
    user = person_document(profile, computed, feedback, consent, disowned)
    # Who is not profiled is in no segment, and what was computed before is not used.
    if may_profile_by(documents["preferences"], worker.settings.profiling):
        segments = sorted(segments_of(current.site.segments, user))
    else:
        segments, user = [], {"computed": {}}
    return {
        "user_id": user_id,
        "attributes": profile.get("attributes", {}),
        "loyalty": profile.get("loyalty", {}),
        "external_ids": profile.get("external_ids", {}),
        "computed": {**dict.fromkeys(COMPUTED), **user["computed"], "segments": segments},
        "feedback": feedback,
        **summary(items_of(state), current.catalogue),
    }


def summary(state: UserState, catalogue: Catalogue) -> dict[str, Any]:
    """Describe the facts of a person.

    Parameters
    ----------
    state : UserState
        Those about items.
    catalogue : Catalogue
        Says which item a row is.
    """
    counts = np.bincount(state.types, weights=state.counts).astype(int)
    seen = len(state.rows) > 0
    return {
        "counts": {TYPES[code]: int(count) for code, count in enumerate(counts) if count},
        "n_items": len(np.unique(state.rows)),
        "first_seen_at": _time(int(state.first_s.min())) if seen else None,
        "last_seen_at": _time(int(state.last_s.max())) if seen else None,
        "recent": [
            {"type": TYPES[kind], "item_id": catalogue.item_id(row), "at": _time(at_s)}
            for row, kind, at_s in zip(
                state.session_rows.tolist(),
                state.session_types.tolist(),
                state.session_s.tolist(),
                strict=True,
            )
            if catalogue.item_id(row) is not None
        ],
    }


def _time(seconds: int) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))
