"""What the routes of recalls answer."""

from typing import Annotated

from pydantic import Field

from recsvc.api.schemas import Document
from recsvc.merchandising.recalls import Recall


class RecallDocument(Recall):
    """One recall that stands."""

    recall_id: str
    n_items: Annotated[int, Field(description="items of the catalogue that it hides now")]
    updated_at: str
    updated_by: str


class RecallList(Document):
    """Every recall that stands."""

    recalls: list[RecallDocument]


class RecallReceipt(Document):
    """Which workers show the items no more."""

    recall_id: str
    n_items: Annotated[int, Field(description="items of the catalogue that it hides now")]
    workers: Annotated[int, Field(description="workers that are alive")]
    confirmed: int
    fenced: Annotated[list[str], Field(description="workers that did not confirm in time")]
    done_at_the_latest_in_s: Annotated[
        float | None,
        Field(
            description="when a worker that is cut off refuses every answer; 0 when all have"
            " confirmed; null if `recall_lease_s` is 0, so that it never does"
        ),
    ]


class RecallEnded(Document):
    """The recall does not stand any more."""

    recall_id: str
    ended: bool
