"""What a public key, which anybody can read in a page's source, may say and ask of a visitor."""

from feature_store.schema import Event, EventType
from recsvc.checks import FieldError
from recsvc.requests import RecommendationRequest

MIN_VISITOR_ID_LENGTH = 22
"""Characters of base64 that hold 122 random bits: an id that nobody can guess."""

PUBLIC_TYPES = frozenset(
    {
        EventType.VIEW,
        EventType.ADD_TO_CART,
        EventType.REMOVE_FROM_CART,
        EventType.IMPRESSION,
        EventType.CLICK,
        EventType.LIKE,
        EventType.DISLIKE,
        EventType.RATING,
        EventType.SEARCH,
        EventType.SURVEY,
    }
)
"""What a browser may report. What costs or pays something is for the shop's backend to say."""


PUBLIC_FIELDS = frozenset(
    {"title", "url", "image_url", "price", "sale_price", "brand", "categories"}
)
"""Fields of an item that a page shows anyway; attributes may hold what is not for everybody."""


def check_visitor_id(anonymous_id: str) -> FieldError | None:
    """Say what is wrong with a visitor's id, if anything."""
    if len(anonymous_id) >= MIN_VISITOR_ID_LENGTH:
        return None
    said = f"with a public key has at least {MIN_VISITOR_ID_LENGTH} characters, all random"
    return FieldError("#/anonymous_id", said)


def check_public(event: Event) -> list[FieldError]:
    """Say why an event cannot come by a public key; nothing if it can."""
    errors = []
    if event.user_id is not None:
        errors.append(FieldError("#/user_id", "cannot be sent with a public key"))
    elif event.anonymous_id is not None and (bad := check_visitor_id(event.anonymous_id)):
        errors.append(bad)
    if event.type not in PUBLIC_TYPES:
        said = f"a public key cannot report a {event.type.value}; the backend does, with its own"
        errors.append(FieldError("#/type", said))
    if event.order_id is not None:
        errors.append(FieldError("#/order_id", "cannot be sent with a public key"))
    return errors


def check_question(question: RecommendationRequest) -> list[FieldError]:
    """Say why a question cannot be asked with a public key; nothing if it can."""
    errors = []
    if question.user_id is not None:
        errors.append(FieldError("#/user_id", "cannot be asked for with a public key"))
    elif question.anonymous_id is not None and (bad := check_visitor_id(question.anonymous_id)):
        errors.append(bad)
    if question.explain:
        errors.append(FieldError("#/explain", "is not for public keys"))
    if hidden := sorted(set(question.fields) - PUBLIC_FIELDS):
        allowed = ", ".join(sorted(PUBLIC_FIELDS))
        said = f"{', '.join(hidden)}: a public key sees {allowed}"
        errors.append(FieldError("#/fields", said))
    return errors
