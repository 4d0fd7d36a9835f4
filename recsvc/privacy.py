"""What the site says about privacy: one document, ``privacy``/``site``."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from feature_store.documents import SiteDocuments
from feature_store.schema import Frozen

KIND = "privacy"
ID = "site"
MAX_NEVER_NAMED = 200


def _check_path(path: str) -> str:
    steps = path.split(" > ")
    if any(not step.strip() or step != step.strip() for step in steps):
        raise ValueError("is a category path such as 'Health > Intimate'")
    return path


class PrivacyBody(Frozen):
    """What the site says about privacy."""

    never_named: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_check_path)],],
        Field(
            max_length=MAX_NEVER_NAMED,
            description="category paths; no item in them, or below, is ever named to a customer"
            " as the reason for another",
        ),
    ] = []  # noqa: RUF012 - pydantic copies defaults, and the model is frozen


@dataclass(frozen=True, slots=True)
class Privacy:
    """The same, as the engine takes it.

    Parameters
    ----------
    never_named : frozenset of str
        Category paths; what is below them counts too.
    """

    never_named: frozenset[str] = frozenset()


NO_PRIVACY = Privacy()


def read_privacy(documents: SiteDocuments) -> Privacy:
    """Return what a site says about privacy; nothing, while it says nothing."""
    document = documents.get(KIND, ID)
    if document is None:
        return NO_PRIVACY
    return Privacy(frozenset(PrivacyBody.model_validate(document.body).never_named))
