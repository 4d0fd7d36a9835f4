"""Whether an answer may be personal: what the person, the visitor's browser and the site say."""

from feature_store.preferences import (
    NO_PREFERENCES,
    Preferences,
    ProfilingDefault,
    profiling_allowed,
)
from feature_store.store import UserContext
from recsvc.requests import RecommendationRequest

REMEMBERED = 100_000


class Remembered:
    """What a worker saw last of what people decided, for answers while the store is down."""

    def __init__(self) -> None:
        self._preferences: dict[str, Preferences] = {}

    def note(self, person: str, preferences: Preferences) -> None:
        """Keep what somebody decided; of too many the oldest is forgotten."""
        if preferences is NO_PREFERENCES:
            if self._preferences:
                self._preferences.pop(person, None)
            return
        if len(self._preferences) >= REMEMBERED:
            self._preferences.pop(next(iter(self._preferences)))
        self._preferences[person] = preferences

    def of(self, person: str | None) -> Preferences:
        """Return what somebody decided, as far as it is known here."""
        return self._preferences.get(person or "", NO_PREFERENCES)


def may_profile(
    context: UserContext,
    request: RecommendationRequest,
    default: ProfilingDefault,
    *,
    opted_out: bool,
) -> bool:
    """Tell whether what is known of a person may be used for an answer.

    A refusal counts wherever it stands. What a request says of the consent of a visitor is newer
    than what was stored of them; of a user, also of a visitor who has become one, it counts only
    where nothing is stored.

    Parameters
    ----------
    context : UserContext
        What is stored.
    request : RecommendationRequest
        The question, with the consent that it may carry.
    default : {"opt_out", "opt_in"}
        What holds for who was never asked.
    opted_out : bool
        Whether the request says ``Sec-GPC: 1``.
    """
    asked = request.consent.profiling if request.consent is not None else None
    if opted_out or asked is False:
        return False
    preferences = context.preferences
    if asked and preferences.personalization:
        is_visitor = context.person is not None and context.person.startswith("a:")
        if is_visitor or preferences.consent.profiling is None:
            return True
    return profiling_allowed(preferences, default)
