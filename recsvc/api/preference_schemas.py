"""What the routes of preferences answer."""

from typing import Annotated

from pydantic import Field

from feature_store.preferences import ConsentChange, Email, Purposes, Snooze
from recsvc.api.schemas import Document


class ChosenPage(Document):
    """What somebody wants on their own page."""

    modules: Annotated[
        list[str] | None, Field(description="in the order of the page; null: the site's own page")
    ]


class Profiling(Document):
    """Whether somebody's history is used and added to now, and why."""

    allowed: bool
    because: Annotated[str, Field(description="in words")]


class PreferencesDocument(Document):
    """What somebody decided, every field filled in."""

    hidden_items: list[str]
    hidden_brands: list[str]
    hidden_categories: Annotated[list[str], Field(description="all below them is hidden too")]
    snoozed: Annotated[list[Snooze], Field(description="those that are not over")]
    followed_brands: list[str]
    followed_categories: list[str]
    interests: list[str]
    page: ChosenPage
    email: Email
    personalization: bool
    consent: Annotated[Purposes, Field(description="null where they were never asked")]
    consent_changes: Annotated[list[ConsentChange], Field(description="newest last")]
    profiling: Profiling


class TasteForgotten(Document):
    """The taste is gone, the choices stay."""

    user_id: str | None
    anonymous_id: str | None
    forgotten: Annotated[int, Field(description="values that were removed")]
