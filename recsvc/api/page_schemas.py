"""Pages as OpenAPI describes them; answers are never built from these."""

from typing import Annotated, Any

from pydantic import Field

from recsvc.api.recommendations import EXAMPLE as LIST
from recsvc.api.schemas import Document, RecommendationAnswer
from recsvc.merchandising.page_documents import PageBody


class PageModule(RecommendationAnswer):
    """One module of a page: its title, and the answer of its placement."""

    module: Annotated[str, Field(description="its name on the page", examples=["for_you"])]
    title: Annotated[str, Field(description="what to write above it", examples=["For you"])]


class PageAnswer(Document):
    """A page, filled."""

    page: str
    title: str
    user_id: str | None
    model_version: Annotated[str, Field(description="empty while there is no model")]
    rules_version: int
    personalized: Annotated[bool, Field(description="whether any module is personal")]
    degraded: Annotated[list[str], Field(description="what was missing, such as `store`")]
    because: Annotated[
        str,
        Field(
            description="why these modules: `chosen` by the customer (page `me`), `stage:NAME` of"
            " the customer, or `default`",
            pattern="^(chosen|default|stage:[a-z_]+)$",
        ),
    ]
    missing: Annotated[
        list[str],
        Field(description="modules that would stand here, but are not offered any more"),
    ]
    empty: Annotated[list[str], Field(description="modules left out: there was nothing to show")]
    modules: Annotated[
        list[PageModule],
        Field(description="from the top; no item stands in two, nor a variant of it"),
    ]


class Choice(Document):
    """A module that customers may have on their own page."""

    module: str
    title: str
    chosen: bool


class MyPageAnswer(PageAnswer):
    """The customer's own page, filled, and what else may stand on it."""

    choosable: Annotated[
        list[Choice],
        Field(description="for `preferences.page.modules`, as the site lists them"),
    ]


class PageDocument(PageBody):
    """What stands on a page."""

    name: str
    built_in: bool
    changed: bool
    revision: int
    updated_at: str | None
    updated_by: str | None


class PageList(Document):
    """All pages, by name."""

    pages: list[PageDocument]


class PageDeleted(Document):
    """What became of the page."""

    name: str
    restored: Annotated[bool, Field(description="whether the built-in one is there again")]


_HEAD: dict[str, Any] = {
    "page": "home",
    "title": "Home",
    "user_id": "2375",
    "model_version": LIST["model_version"],
    "rules_version": 0,
    "personalized": True,
    "degraded": [],
    "because": "default",
    "missing": [],
    "empty": ["buy_again"],
    "modules": [{"module": "for_you", "title": "For you", **LIST}],
}
_ITEM: dict[str, Any] = LIST["items"][0]
ANSWER: dict[str, Any] = _HEAD
MY_ANSWER: dict[str, Any] = {
    **_HEAD,
    "page": "me",
    "title": "Your page",
    "because": "chosen",
    "empty": [],
    "modules": [
        {
            "module": "for_you",
            "title": "For you",
            **LIST,
            "items": [{**_ITEM, "reason": {**_ITEM["reason"], "text": "Because you bought MILK"}}],
        }
    ],
    "choosable": [
        {"module": "for_you", "title": "For you", "chosen": True},
        {"module": "trending", "title": "Trending now", "chosen": False},
    ],
}
BODY: dict[str, Any] = {
    "title": "Home",
    "modules": [
        {"module": "for_you", "placement": "home", "limit": 12},
        {"module": "buy_again", "placement": "buy_again", "title": "Again?", "fallback": "none"},
        {"module": "trending", "placement": "trending", "choosable": False},
    ],
    "defaults": {"lapsed": ["trending", "for_you"]},
}
DEFINITION: dict[str, Any] = {
    "name": "home",
    "title": "Home",
    "modules": [
        {
            "module": one["module"],
            "placement": one["placement"],
            "title": one.get("title", ""),
            "limit": one.get("limit"),
            "choosable": one.get("choosable", True),
            "fallback": one.get("fallback", "popular"),
        }
        for one in BODY["modules"]
    ],
    "defaults": {
        **dict.fromkeys(("new", "active", "at_risk", "unknown")),
        "lapsed": ["trending", "for_you"],
    },
    "built_in": True,
    "changed": True,
    "revision": 2,
    "updated_at": "2026-11-22T09:00:00Z",
    "updated_by": "key:console",
}
