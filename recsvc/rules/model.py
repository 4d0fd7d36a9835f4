"""A marketers' rule as it is written, checked as a whole.

``parse_rule`` is the one way in: it says everything that is wrong, each part by a JSON pointer.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from feature_store.conditions import (
    AUDIENCE,
    ITEM,
    Condition,
    ConditionError,
    Vocabulary,
    WeeklyWindow,
    parse_condition,
    parse_window,
)
from feature_store.schema import Frozen, Id, ItemIdField, Timestamp
from recsvc.checks import MAX_LIMIT, FieldError, InvalidRequestError, pointer_to

MAX_PLACEMENTS = 100
MAX_PINS = 100
EVERYWHERE = "*"
"""As the only placement of a rule: all of them."""

Status = Literal["draft", "live", "paused", "archived"]
Tree = dict[str, Any]
Position = Annotated[int, Field(ge=1, le=MAX_LIMIT, strict=True)]
Positions = Annotated[list[Position], Field(min_length=1, max_length=MAX_PINS)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]


class Pin(Frozen):
    """Items at fixed positions, the first at the first; those left over are spares."""

    type: Literal["pin"]
    item_ids: Annotated[list[ItemIdField], Field(min_length=1, max_length=MAX_PINS)]
    positions: Positions

    @model_validator(mode="after")
    def _whole(self) -> "Pin":
        if len(self.positions) > len(self.item_ids):
            raise ValueError("there are more positions than items")
        if len(set(self.positions)) < len(self.positions):
            raise ValueError("a position is named twice")
        if len(set(self.item_ids)) < len(self.item_ids):
            raise ValueError("an item is named twice")
        return self


class Boost(Frozen):
    """What matches counts as if it were `weight` times as likely to be wanted."""

    type: Literal["boost"]
    target: Tree
    weight: Annotated[float, Field(gt=1, le=1_000, strict=True)]


class Bury(Frozen):
    """What matches counts as if it were `weight` times as likely; with 0 it comes last."""

    type: Literal["bury"]
    target: Tree
    weight: Annotated[float, Field(ge=0, lt=1, strict=True)]


class Exclude(Frozen):
    """What matches is not shown."""

    type: Literal["exclude"]
    target: Tree


class IncludeOnly(Frozen):
    """Nothing is shown but what matches; of several such rules, what matches all of them."""

    type: Literal["include_only"]
    target: Tree


class Cap(Frozen):
    """At most so many items of one brand, first category or value of an attribute."""

    type: Literal["cap"]
    by: Literal["brand", "category", "attribute"]
    attribute: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    max: Annotated[int, Field(ge=1, le=MAX_LIMIT, strict=True)]

    @model_validator(mode="after")
    def _whole(self) -> "Cap":
        if (self.by == "attribute") is not (self.attribute is not None):
            raise ValueError("'attribute' names the attribute when, and only when, by is that")
        return self


class Slot(Frozen):
    """The best item that matches stands at each of these positions."""

    type: Literal["slot"]
    target: Tree
    positions: Positions

    @model_validator(mode="after")
    def _whole(self) -> "Slot":
        if len(set(self.positions)) < len(self.positions):
            raise ValueError("a position is named twice")
        return self


Action = Annotated[
    Pin | Boost | Bury | Exclude | IncludeOnly | Cap | Slot, Field(discriminator="type")
]


class Rule(Frozen):
    """One rule, as the contract has it; ``when`` and targets are checked by `parse_rule`."""

    rule_id: Id
    revision: Annotated[int, Field(ge=0)] = 0
    name: Annotated[str, Field(max_length=200)] = ""
    status: Status = "draft"
    placements: Annotated[
        list[Name | Literal["*"]], Field(min_length=1, max_length=MAX_PLACEMENTS)
    ] = ["home"]  # noqa: RUF012 - pydantic copies defaults, and the model is frozen
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000, strict=True)] = 0
    starts_at: Timestamp | None = None
    ends_at: Annotated[Timestamp | None, Field(description="exclusive")] = None
    schedule: dict[str, Any] | None = None
    when: Tree | None = None
    allow_sensitive: bool = False
    action: Action

    @model_validator(mode="after")
    def _whole(self) -> "Rule":
        if self.starts_at and self.ends_at and self.starts_at >= self.ends_at:
            raise ValueError("ends_at is not after starts_at")
        return self

    @property
    def target_tree(self) -> Tree | None:
        """The action's condition over items, or ``None`` for a pin or a cap."""
        found: Tree | None = getattr(self.action, "target", None)
        return found


class CheckedRule(Frozen, arbitrary_types_allowed=True):
    """A rule with its conditions and its weekly window understood."""

    rule: Rule
    when: Condition | None = None
    target: Condition | None = None
    window: WeeklyWindow | None = None


def parse_rule(
    document: object, vocabulary: Vocabulary = ITEM, placements: Mapping[str, Any] | None = None
) -> CheckedRule:
    """Check a rule as JSON has it.

    Parameters
    ----------
    document : object
        The rule, ``rule_id`` included.
    vocabulary : Vocabulary
        What is known of attributes and segments; its roots do not matter.
    placements : mapping or None
        The placements that there are, by name; ``None``: any name.

    Raises
    ------
    InvalidRequestError
        Naming every part that is wrong by its pointer.
    """
    try:
        rule = Rule.model_validate(document)
    except ValidationError as error:
        raise InvalidRequestError(*map(_field_error, error.errors())) from error
    errors: list[FieldError] = []
    for at, name in enumerate(rule.placements):
        if placements is not None and name != EVERYWHERE and name not in placements:
            known = ", ".join(placements)
            detail = f"there is no placement {name!r}; there are: {known}"
            errors.append(FieldError(pointer_to("placements", str(at)), detail))
    vocabulary = vocabulary.with_sensitive(allowed=rule.allow_sensitive)
    when = _condition(rule.when, vocabulary.with_roots(*AUDIENCE.roots), ("when",), errors)
    target = _condition(
        rule.target_tree, vocabulary.with_roots(*ITEM.roots), ("action", "target"), errors
    )
    window = None
    if rule.schedule is not None:
        try:
            window = parse_window(rule.schedule, "")
        except ConditionError as wrong:
            errors.append(FieldError(pointer_to("schedule") + wrong.pointer, wrong.detail))
    if errors:
        raise InvalidRequestError(*errors)
    return CheckedRule(rule=rule, when=when, target=target, window=window)


def _condition(
    tree: Tree | None, vocabulary: Vocabulary, place: tuple[str, ...], errors: list[FieldError]
) -> Condition | None:
    if tree is None:
        return None
    try:
        return parse_condition(tree, vocabulary)
    except ConditionError as wrong:
        errors.append(FieldError(pointer_to(*place) + wrong.pointer, wrong.detail))
        return None


_TAGS = frozenset({"pin", "boost", "bury", "exclude", "include_only", "cap", "slot"})


def _field_error(error: Any) -> FieldError:
    parts = [str(part) for part in error["loc"]]
    # pydantic names the member of the union between "action" and its field.
    if len(parts) > 1 and parts[0] == "action" and parts[1] in _TAGS:
        del parts[1]
    return FieldError(pointer_to(*parts), str(error["msg"]).removeprefix("Value error, "))
