"""Every kind of key is spoken for, and what files hold of a person is found in them."""

import re
import tempfile
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store import keys
from feature_store.change_log import ChangeLog
from feature_store.holdings.files import change_rows, decision_records, reject_rows
from feature_store.holdings.server import NOT_OF_PEOPLE, SECTIONS_OF, Wanted


def kinds_of_keys() -> list[str]:
    """Return the first column of the table in ``keys``."""
    assert keys.__doc__ is not None
    return re.findall(r"^``([^`]+)``", keys.__doc__, re.MULTILINE)


def test_every_kind_of_key_is_in_the_export_or_holds_nothing_of_people() -> None:
    """Whoever adds a kind of key must say where an export shows it."""
    table = kinds_of_keys()
    assert len(table) > 30
    letters = {kind[0] for kind in table if kind[1:7] == ":{sNN}"}
    others = {kind.rpartition(":")[0] for kind in table if kind[1:7] != ":{sNN}"}
    others |= {kind for kind in table if kind.startswith("c:")}
    assert letters == set(SECTIONS_OF)
    assert others - {"c"} == set(NOT_OF_PEOPLE)


def test_the_table_names_every_key_of_a_person() -> None:
    person, shard = "u:x", keys.shard_of("u:x")
    made = [
        keys.hot(person), keys.rest(person), keys.impressions(person), keys.preferences(person),
        *(keys.document(kind, person) for kind in ("profile", "preferences", "computed")),
        keys.people(shard), keys.external_id("a", "b"), keys.person_changes(shard),
        keys.forgotten(shard), keys.deduplication(person, 1), keys.link(person),
        keys.merges(person), keys.quota(person, 1), keys.import_marker(shard, "i"),
        keys.events(shard),
    ]  # fmt: skip
    assert {name[0] for name in made} == set(SECTIONS_OF)
    assert all(keys.OURS.match(name.encode()) for name in made)


@pytest.mark.parametrize(
    ("user_id", "anonymous_id", "is_theirs"),
    [
        ("ann", None, True),
        ("ann", "v1", True),
        ("ann", "of nobody", True),
        (None, "v1", True),
        ("bob", "v1", False),
        ("bob", None, False),
        (None, "v2", False),
        (None, None, False),
    ],
)
def test_an_event_is_its_users_or_else_its_visitors(
    user_id: str | None, anonymous_id: str | None, is_theirs: bool
) -> None:
    assert Wanted.of("ann", {"v1"}).has(user_id, anonymous_id) is is_theirs


def test_a_visitor_does_not_get_what_a_user_did() -> None:
    visitor = Wanted.of(None, {"v1"})
    assert visitor.has(None, "v1")
    assert not visitor.has("ann", "v1")
    assert visitor.people == ("a:v1",)


_IDS = st.text(
    st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1, max_size=12
).filter(lambda text: text.isprintable())


@settings(deadline=None, max_examples=50)
@given(_IDS, _IDS)
def test_changes_and_decisions_are_found_by_any_id(one: str, other: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = ChangeLog(folder)
        people = [f"u:{one}", f"u:{other}", f"a:{one}"]
        bodies = [
            {"kind": "profile", "person": person, "at": "t", "by": "b", "body": {"n": at}}
            for at, person in enumerate(people)
        ]
        log.write("people", "e1", ["1-0-0", "2-0-0", "3-0-0"], bodies)
        # The same again, as a round that was killed leaves it.
        log.write("people", "e1", ["1-0-0", "2-0-0"], bodies[:2])
        found = [row["body"]["n"] for rows in change_rows(log, Wanted.of(one, ())) for row in rows]
        assert found == ([0, 1] if one == other else [0])
        live = folder / "decisions" / "live"
        live.mkdir(parents=True)
        records = [
            {"recommendation_id": f"{at}", "person": person} for at, person in enumerate(people)
        ]
        lines = b"\n".join(map(orjson.dumps, records))
        (live / "1-1.jsonl").write_bytes(lines + b'\n{"recommendation_id":"9","per')
        wanted = Wanted.of(one, ())
        shown = [row for rows in decision_records(folder / "decisions", wanted) for row in rows]
        assert [row["recommendation_id"] for row in shown] == (
            ["0", "1"] if one == other else ["0"]
        )


@pytest.mark.parametrize(
    ("detail", "is_named"),
    [
        ("'7'", True),
        ("7", True),
        ("the key '7' is another user's", True),
        ("'17'", False),
        ("a price of 7 EUR", False),
        ("7.5", False),
        ("customer-0007", True),
        ("the customer customer-0007, who", True),
        ("customer-00071", False),
        ("my-customer-0007", False),
        ("it\\'s O\\'Neill-1, or", True),
    ],
)
def test_a_refused_row_names_whole_ids_only(tmp_path: Path, detail: str, is_named: bool) -> None:
    ids = ["7", "customer-0007", "it's O'Neill-1"]
    csv_file, json_file = tmp_path / "rejects.csv", tmp_path / "a-rejects.jsonl"
    row = {"source": "f.csv", "line": 3, "reason": "bad_id", "detail": detail}
    quoted = '"' + detail.replace('"', '""') + '"'
    csv_file.write_text(f"source,line,reason,detail\nf.csv,3,bad_id,{quoted}\n")
    json_file.write_bytes(orjson.dumps(row) + b"\n")
    for path in (csv_file, json_file):
        found = [one for rows in reject_rows([path], ids) for one in rows]
        assert bool(found) is is_named
        assert all(one["detail"] == detail for one in found)
