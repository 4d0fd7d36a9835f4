"""Whether an answer may be personal: what the person, the visitor's browser and the site say."""

from feature_store.preferences import ProfilingDefault, profiling_allowed
from feature_store.store import UserContext
from recsvc.requests import RecommendationRequest


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
