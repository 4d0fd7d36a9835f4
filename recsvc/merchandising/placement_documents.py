"""Placements as marketers make and tune them: documents of the site over the built-in ones."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from feature_store.conditions import ITEM, Condition, parse_condition
from feature_store.documents import SiteDocuments
from feature_store.schema import Frozen
from recsvc.merchandising.placements import BUILT_IN, Placement, Source

KIND = "placement"
MAX_PLACEMENTS = 200

SourceName = Literal[
    "personal", "similar", "together", "complement", "due", "trending", "new", "popular"
]


class SourceBody(Frozen):
    """One source of items and its share of the list."""

    source: SourceName
    weight: Annotated[float, Field(gt=0, le=1000, description="relative to the other sources")] = 1


class PlacementBody(Frozen):
    """How one slot is filled."""

    title: Annotated[str, Field(max_length=200, description="what a page may write above it")] = ""
    sources: Annotated[
        list[SourceBody],
        Field(min_length=1, max_length=8, description="in turn, by their weights"),
    ]
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    kinds: Annotated[
        list[Literal["product", "content", "offer"]], Field(min_length=1, max_length=3)
    ] = ["product"]  # noqa: RUF012 - pydantic copies defaults, and the model is frozen
    diversity: Annotated[
        float, Field(ge=0, le=1, description="0: the likeliest items; 1: only variety counts")
    ] = 0.0
    freshness: Annotated[
        float, Field(ge=0, le=1, description="0: age does not matter; 1: what is new comes first")
    ] = 0.0
    filter: Annotated[
        dict[str, Any] | None, Field(description="a condition over `item.*`: only what matches")
    ] = None
    fallback: Annotated[
        Literal["popular", "none"],
        Field(description="what fills the list when its sources have too few items"),
    ] = "popular"

    @model_validator(mode="after")
    def _whole(self) -> "PlacementBody":
        names = [one.source for one in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("a source is named twice")
        return self

    def condition(self) -> Condition | None:
        """Return the checked filter.

        Raises
        ------
        ConditionError
            If it cannot be understood.
        """
        return None if self.filter is None else parse_condition(self.filter, ITEM)


def placement_of(name: str, body: PlacementBody) -> Placement:
    """Return a placement as the engine takes it."""
    return Placement(
        name,
        body.title,
        tuple(Source(one.source, one.weight) for one in body.sources),
        limit=body.limit,
        kinds=frozenset(body.kinds),
        diversity=body.diversity,
        freshness=body.freshness,
        filter=body.condition(),
        fallback=body.fallback == "popular",
    )


def body_of_placement(placement: Placement) -> PlacementBody:
    """Return a placement as a marketer would write it."""
    return PlacementBody.model_validate(
        {
            "title": placement.title,
            "sources": [{"source": one.name, "weight": one.weight} for one in placement.sources],
            "limit": placement.limit,
            "kinds": sorted(placement.kinds),
            "diversity": placement.diversity,
            "freshness": placement.freshness,
            "filter": None if placement.filter is None else placement.filter.tree,
            "fallback": "popular" if placement.fallback else "none",
        }
    )


def read_placements(documents: SiteDocuments) -> Mapping[str, Placement]:
    """Return every placement of a site: the built-in ones, and what was made of them."""
    made = {
        one.id: placement_of(one.id, PlacementBody.model_validate(one.body))
        for one in documents.of_kind(KIND)
    }
    return {**BUILT_IN, **made}
