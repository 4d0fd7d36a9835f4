"""Records that are frozen for mypy alone compare as frozen ones do."""

from dataclasses import replace

from feature_store.values import value_class


@value_class(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0


@value_class(frozen=True, slots=True, eq=False)
class Thing:
    x: int


def test_what_compares_by_value_is_a_key() -> None:
    assert {Point(1): "one"}[Point(1, 0)] == "one"
    assert replace(Point(1), y=2) == Point(1, 2)


def test_what_compares_by_identity_is_a_key_too() -> None:
    one = Thing(1)
    assert {one: "one"}[one] == "one"
    assert Thing(1) != Thing(1)
