"""Whether somebody may be profiled, and why, in every language."""

from datetime import UTC, datetime

import pytest

from feature_store.preferences import (
    NO_PREFERENCES,
    ConsentChange,
    Preferences,
    ProfilingDefault,
    Purposes,
)
from recsvc.customer.telling import why_profiled
from recsvc.explaining.words import words


def said(*answers: tuple[bool, str]) -> Preferences:
    """Return preferences after some answers about profiling, one a day."""
    changes = [
        ConsentChange(
            purpose="profiling",
            allowed=allowed,
            at=datetime(2026, 11, day, 12, tzinfo=UTC),
            source=source,
        )
        for day, (allowed, source) in enumerate(answers, 1)
    ]
    consent = Purposes(profiling=answers[-1][0])
    return Preferences(consent=consent, consent_changes=tuple(changes))


CASES: list[tuple[Preferences, ProfilingDefault, str, str]] = [
    (
        NO_PREFERENCES,
        "opt_out",
        "You were not asked yet, and this shop personalizes until you object.",
        "Sie wurden noch nicht gefragt, und dieser Shop personalisiert, bis Sie widersprechen.",
    ),
    (
        NO_PREFERENCES,
        "opt_in",
        "You were not asked yet, and this shop personalizes only if you agree.",
        "Sie wurden noch nicht gefragt, und dieser Shop personalisiert nur, wenn Sie zustimmen.",
    ),
    (
        said((False, "customer"), (True, "customer")),
        "opt_in",
        "You agreed on 2026-11-02.",
        "Sie haben am 2026-11-02 zugestimmt.",
    ),
    (
        said((True, "customer"), (False, "request")),
        "opt_out",
        "You refused on 2026-11-02.",
        "Sie haben am 2026-11-02 abgelehnt.",
    ),
    (
        said((False, "gpc")),
        "opt_out",
        "Your browser objected on 2026-11-01, by Global Privacy Control.",
        "Ihr Browser hat am 2026-11-01 widersprochen, durch Global Privacy Control.",
    ),
    (
        said((True, "customer")).model_copy(update={"personalization": False}),
        "opt_out",
        "Personalization is switched off.",
        "Die Personalisierung ist abgeschaltet.",
    ),
    (
        Preferences(consent=Purposes(profiling=True)),
        "opt_out",
        "You agreed.",
        "Sie haben zugestimmt.",
    ),
    (
        Preferences(consent=Purposes(profiling=False)),
        "opt_out",
        "You refused.",
        "Sie haben abgelehnt.",
    ),
]


@pytest.mark.parametrize(("preferences", "default", "english", "german"), CASES)
def test_why_somebody_is_profiled(
    preferences: Preferences, default: ProfilingDefault, english: str, german: str
) -> None:
    assert why_profiled(preferences, default, words("en")) == english
    assert why_profiled(preferences, default, words("de")) == german
