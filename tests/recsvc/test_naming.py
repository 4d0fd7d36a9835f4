"""What is never named: paths, what is below them, and what is unknown."""

import pytest

from recsvc.explaining.naming import Naming
from tests.recsvc.shop import item_ids, make_catalogue

PATHS: tuple[list[str], ...] = (
    ["Health > Intimate"],
    ["Health > Intimate > Tests"],
    ["Health"],
    ["Food", "health > INTIMATE"],
    [],
)


@pytest.fixture
def naming() -> Naming:
    catalogue = make_catalogue(
        item_ids(6), categories=[*PATHS, ["Food"]], deleted=[False] * 5 + [True]
    )
    return Naming(catalogue, ["Health > Intimate"])


def test_what_is_in_a_marked_category_or_below_is_not_named(naming: Naming) -> None:
    assert [naming.may_name(row) for row in range(5)] == [False, False, True, False, True]


def test_of_a_deleted_item_nothing_is_known_so_it_is_not_named(naming: Naming) -> None:
    assert not naming.may_name(5)


def test_without_marks_everything_may_be_named() -> None:
    nothing = Naming(make_catalogue(item_ids(2), deleted=[False, True]), ())
    assert not nothing
    assert all(nothing.may_name(row) for row in range(2))
    assert nothing.may_name_category("Health > Intimate")


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("Health > Intimate", False),
        ("health > intimate > tests", False),
        ("Intimate", False),
        ("Health", True),
        ("Health > Intimates", True),
        ("Food > Health", True),
    ],
)
def test_categories_by_path_and_by_step(naming: Naming, path: str, *, may: bool) -> None:
    assert naming.may_name_category(path) == may
