"""Personas: made-up customers, for whom marketers see lists before anybody is shown them."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import numpy as np
import orjson
from pydantic import AfterValidator, Field

from feature_store.catalogue import Catalogue
from feature_store.conditions import USER_FIELDS
from feature_store.conditions.values import values_in
from feature_store.preferences import NO_PREFERENCES, Preferences
from feature_store.profile import Attributes, Loyalty
from feature_store.schema import (
    EVENT_TYPE_CODES,
    ITEM_EVENTS,
    EventType,
    Frozen,
    ItemIdField,
)
from feature_store.state import EMPTY_STATE, UserState, fold, split
from recsvc.checks import BadValueError, check_context
from recsvc.customer.disowned import disowned_names
from recsvc.people import consent_of, person_document

KIND = "persona"
MAX_PERSONAS = 500
MAX_HISTORY = 1_000
MAX_FACTS_BYTES = 16_384
DAY_S = 86_400


MadeUp = tuple[UserState, dict[str, Any], Preferences]
"""State, document and preferences of a persona."""


def _check_type(value: EventType) -> EventType:
    if value not in ITEM_EVENTS:
        known = ", ".join(sorted(kind.value for kind in ITEM_EVENTS))
        raise ValueError(f"a persona's history is about items: {known}")
    return value


def _facts_check(root: str) -> AfterValidator:
    """Return a check of a document under ``user.*``: what conditions know must be of its type."""

    def check(value: dict[str, Any]) -> dict[str, Any]:
        if len(orjson.dumps(value)) > MAX_FACTS_BYTES:
            raise ValueError(f"may have {MAX_FACTS_BYTES} bytes as JSON")
        for name, found in _leaves(value, f"user.{root}"):
            kind = USER_FIELDS.get(name)
            if kind is not None and found is not None and not values_in(found, kind):
                raise ValueError(f"{name} is a {kind.value}")
        return value

    return AfterValidator(check)


def _leaves(value: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for part, one in value.items():
        inner = f"{name}.{part}"
        yield inner, one
        if isinstance(one, Mapping):
            yield from _leaves(one, inner)


def _check_request_context(value: dict[str, Any]) -> dict[str, str]:
    try:
        return check_context(value)
    except BadValueError as error:
        raise ValueError(f"{error.pointer or 'it'} {error.detail}") from error


class PersonaEvent(Frozen):
    """One thing that a made-up customer did."""

    type: Annotated[EventType, AfterValidator(_check_type)]
    item_id: ItemIdField
    days_ago: Annotated[float, Field(ge=0, le=3_650, description="0 is now")]


class PersonaBody(Frozen):
    """A made-up customer."""

    name: Annotated[str, Field(min_length=1, max_length=200, examples=["Young family"])]
    description: Annotated[str, Field(max_length=2000)] = ""
    attributes: Annotated[Attributes, Field(default_factory=dict)]
    loyalty: Loyalty = Loyalty()
    computed: Annotated[
        dict[str, Any],
        Field(
            default_factory=dict,
            description="what training would have computed",
            examples=[{"stage": "active"}],
        ),
        _facts_check("computed"),
    ]
    feedback: Annotated[
        dict[str, Any],
        Field(
            default_factory=dict,
            description="what they said",
            examples=[{"nps": {"score": 9}}],
        ),
        _facts_check("feedback"),
    ]
    history: Annotated[
        list[PersonaEvent],
        Field(
            default_factory=list,
            max_length=MAX_HISTORY,
            description="what they did, in any order; items that the catalogue lacks do not count",
        ),
    ]
    preferences: Annotated[Preferences | None, Field(description="what they decided")] = None
    context: Annotated[
        dict[str, Any],
        Field(
            default_factory=dict,
            description="attributes of their requests",
            examples=[{"country": "DE"}],
        ),
        AfterValidator(_check_request_context),
    ]


def persona_state(persona: PersonaBody, catalogue: Catalogue, now_s: int) -> MadeUp:
    """Return a persona as the engine and conditions see a customer.

    Parameters
    ----------
    persona : PersonaBody
        The persona.
    catalogue : Catalogue
        Says which row an item has; without one, an event does not count.
    now_s : int
        Seconds since 1970; what happened lies so many days before.

    Returns
    -------
    state : UserState
        The `hot` part, which is what pages read.
    user : dict
        The document of ``user.*`` (``people.person_document``).
    preferences : Preferences
        What they decided.
    """
    rows = catalogue.rows([event.item_id for event in persona.history])
    codes = [EVENT_TYPE_CODES[event.type] for event in persona.history]
    times_s = [max(0.0, now_s - event.days_ago * DAY_S) for event in persona.history]
    known = rows >= 0
    state = fold(
        EMPTY_STATE,
        rows[known].astype(np.uint32),
        np.array(codes, dtype=np.uint8)[known],
        np.array(times_s, dtype=np.uint32)[known],
    )
    preferences = persona.preferences or NO_PREFERENCES
    user = person_document(
        {
            "attributes": persona.attributes,
            "loyalty": persona.loyalty.model_dump(exclude_none=True),
        },
        persona.computed,
        persona.feedback,
        consent_of(preferences),
        disowned_names(preferences),
    )
    return split(state)[0], user, preferences
