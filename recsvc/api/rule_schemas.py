"""What the routes of rules take and answer."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from recsvc.api.schemas import Document
from recsvc.rules.model import Rule, Status


class RuleBody(Rule):
    """A rule as its author writes it; the address, or the answer, names it."""

    rule_id: Annotated[
        str | None, Field(min_length=1, max_length=128, description="left out: one is made")
    ] = None  # type: ignore[assignment]  # the contract lets an author leave it to us


class RuleDocument(Rule):
    """A rule as it was written last, and whether that is in force."""

    status: Annotated[
        Status,
        Field(description="`live`: a revision of it is in force, `live_revision`"),
    ]
    live_revision: Annotated[
        int | None, Field(description="what is in force; null while nothing of it is")
    ]
    updated_at: str
    updated_by: str


class RuleList(Document):
    """Rules, by priority and id, as they apply."""

    rules: list[RuleDocument]
    rules_version: int


class RuleDeleted(Document):
    """The rule is no more; its history stays."""

    rule_id: str
    deleted: bool


class PublishBody(Document):
    """Which rules come into force, or, being paused or archived, go out of it."""

    rule_ids: Annotated[list[str], Field(min_length=1, max_length=1000)]
    note: Annotated[str, Field(max_length=500, description="why; for the audit")] = ""


class RevertBody(Document):
    """The revision that a rule goes back to."""

    revision: Annotated[int, Field(ge=1)]
    note: Annotated[str, Field(max_length=500)] = ""


class RollbackBody(Document):
    """The publication whose rules shall be in force again."""

    rules_version: Annotated[int, Field(ge=0, description="0: no rules at all")]
    note: Annotated[str, Field(max_length=500)] = ""


class Publication(Document):
    """What is in force now."""

    rules_version: int
    rules: Annotated[dict[str, int], Field(description="rule id to revision, all that are live")]
    changed: Annotated[list[str], Field(description="rules that came in, went out or changed")]


class AuditEntry(Document):
    """One document in one change."""

    sequence: Annotated[int, Field(description="number of the change of the site")]
    at: str
    by: str
    note: str
    kind: str
    id: str
    revision: int
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    hash: Annotated[str, Field(description="SHA-256 of the change, the one before it included")]


class Audit(Document):
    """Who changed what, when, before and after; newest first."""

    entries: list[AuditEntry]
    verified: Annotated[int, Field(description="changes whose chain of hashes was checked")]
    next_before: Annotated[int | None, Field(description="`before` of the next page")]


class AuditQuery(BaseModel):
    """The parameters of a question for the audit."""

    model_config = ConfigDict(extra="forbid")

    rule_id: Annotated[str | None, Field(max_length=128, description="of one rule alone")] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="documents of a page")] = 100
    before: Annotated[int | None, Field(ge=1, description="only changes with a lower number")] = (
        None
    )


class RulesQuery(BaseModel):
    """The parameters of a list of rules."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[Status | None, Field(description="only rules that are so")] = None
    placement: Annotated[
        str | None, Field(max_length=64, description="only rules that act there")
    ] = None
