"""From files to profiles of users, on a real server."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.embedded import EmbeddedServer
from feature_store.errors import UserError
from feature_store.ingest.mapping import USER_FIELDS, parse_map
from feature_store.ingest.source import find_sources
from feature_store.ingest.user_rows import ColumnTypes, user_mapping
from feature_store.ingest.users import UserOptions, UserSummary, import_users, put_profiles
from feature_store.store import Store

Profiles = dict[str, dict[str, Any]]


class People:
    """The profiles on a server, and the import into them."""

    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self.url = server.url
        self.folder = folder

    def bring(
        self, content: str, columns: str = "", *, name: str = "users.csv", **how: Any
    ) -> UserSummary:
        (self.folder / name).write_text(content, encoding="utf-8")
        return self.bring_file(self.folder / name, columns, **how)

    def bring_file(self, path: Path, columns: str = "", **how: Any) -> UserSummary:
        return import_users(
            find_sources(str(path)),
            parse_map(columns, USER_FIELDS),
            UserOptions(**how),
            put=put_profiles(self.url, datetime.now(UTC)),
            rejects_file=self.folder / "rejects.csv",
        )

    def all(self) -> Profiles:
        async def read() -> Profiles:
            store = await Store.open(self.url, read_timeout_s=5.0)
            found = {
                person: dict(documents["profile"] or {})
                async for people in store.people.scan(["profile"])
                for person, documents in people
            }
            await store.close()
            return found

        return asyncio.run(read())

    def resolve(self, name: str, value: str) -> str | None:
        async def read() -> str | None:
            store = await Store.open(self.url, read_timeout_s=5.0)
            try:
                return await store.people.resolve(name, value)
            finally:
                await store.close()

        return asyncio.run(read())

    def refused(self) -> Mapping[int, str]:
        return dict(pl.read_csv(self.folder / "rejects.csv").select("line", "reason").rows())


@pytest.fixture
def people(server: EmbeddedServer, tmp_path: Path) -> People:
    async def empty() -> None:
        store = await Store.open(server.url, read_timeout_s=5.0)
        await store._redis.flushall()
        await store.close()

    asyncio.run(empty())
    return People(server, tmp_path)


def test_every_field_and_every_other_column(people: People) -> None:
    summary = people.bring(
        "Customer ID,Date of birth,plz,age,height,newsletter,tier,program,points,"
        "external_ids.subscriber_key,attributes.likes\n"
        '7,1990-01-01,01234,33,1.8,TRUE,gold,club,12.5,S-7,"[""tea"",""cups""]"\n'
        "8,,10115,,2.0,false,,,3,,\n"
    )
    assert (summary.accepted, summary.changed, summary.rejected) == (2, 2, {})
    assert people.all() == {
        "u:7": {
            "attributes": {
                "Date_of_birth": "1990-01-01",
                "plz": "01234",
                "age": 33,
                "height": 1.8,
                "newsletter": True,
                "likes": ["tea", "cups"],
            },
            "loyalty": {"tier": "gold", "program": "club", "points": 12.5},
            "external_ids": {"subscriber_key": "S-7"},
        },
        "u:8": {
            "attributes": {"plz": "10115", "height": 2, "newsletter": False},
            "loyalty": {"points": 3},
        },
    }
    assert summary.types["plz"] == "text", "a leading zero is no number"
    assert (summary.types["age"], summary.types["newsletter"]) == ("number", "boolean")
    assert people.resolve("subscriber_key", "S-7") == "7"


def test_the_same_file_twice_changes_nothing(people: People) -> None:
    text = "user_id,city,external_ids.crm\na,x,1\nb,y,2\na,z,1\n"
    first = people.bring(text)
    assert (first.rows_read, first.accepted, first.duplicates, first.changed) == (3, 2, 1, 2)
    assert people.all()["u:a"]["attributes"] == {"city": "z"}, "the last row counts"
    again = people.bring(text)
    assert (again.changed, again.unchanged) == (0, 2)


def test_a_whole_column_decides_what_an_attribute_is(people: People) -> None:
    assert people.bring("user_id,a,b\n1,1,1\n2,x,2\n").types == {"a": "text", "b": "number"}
    assert people.all()["u:1"]["attributes"] == {"a": "1", "b": 1}
    assert people.bring("user_id,b\n1,1\n", text=frozenset({"b"})).types == {"b": "text"}
    types = ColumnTypes()
    types.look("n", pl.Series(["1", "2.5", None]))
    types.look("n", pl.Series(["-3", "1e5"]))
    assert types.of("n") == "text", "every batch of every file counts"


def test_a_profile_is_replaced_or_added_to(people: People) -> None:
    people.bring("user_id,city,tier\na,Rome,gold\n")
    people.bring("user_id,points\na,7\nb,8\n", partial=True)
    found = people.all()
    assert found["u:a"] == {
        "attributes": {"city": "Rome"},
        "loyalty": {"tier": "gold", "points": 7},
    }
    assert found["u:b"] == {"loyalty": {"points": 8}}
    assert people.bring("user_id,points\na,7\n", partial=True).unchanged == 1
    people.bring("user_id,points\na,7\n")
    assert people.all()["u:a"] == {"loyalty": {"points": 7}}


def test_together_there_may_be_no_more_than_the_limit(people: People) -> None:
    header = ",".join(f"a{n}" for n in range(90))
    people.bring(f"user_id,{header}\nx,{','.join('1' * 90)}\n")
    before = people.all()
    header = ",".join(f"b{n}" for n in range(20))
    summary = people.bring(f"user_id,{header}\nx,{','.join('1' * 20)}\n", partial=True)
    assert (summary.accepted, summary.rejected) == (0, {"too_much_together": 1})
    assert people.all() == before


def test_bad_rows_are_named(people: People) -> None:
    people.bring("user_id,external_ids.crm\nowner,taken\n")
    long = "x" * 1_001
    summary = people.bring(
        "user_id,points,note,external_ids.crm\n"
        ",1,,\n..,1,,\na,ten,,\n"
        f"b,1,{long},\n"
        "c,1,,taken\n"
        "d,nan,,\n"
        f"e,1,,{'i' * 129}\n"
        "f,1,fine\ng,1,fine,new\n"
    )
    assert (summary.accepted, summary.changed) == (1, 1)
    assert people.refused() == {
        2: "missing_user_id",
        3: "bad_user_id",
        4: "bad_points",
        5: "bad_attributes",
        6: "external_id_taken",
        7: "bad_points",
        8: "bad_external_ids",
        9: "broken_line",
    }
    assert set(people.all()) == {"u:owner", "u:g"}
    assert people.resolve("crm", "taken") == "owner"


def test_documents_keep_their_types(people: People) -> None:
    lines: list[dict[str, Any]] = [
        {"user_id": "1", "attributes": {"n": 1.5, "t": "007", "l": ["a"], "b": False}},
        {"user_id": 2, "loyalty": {"points": 5}, "external_ids": {"crm": "x/y:{1}"}},
        {"user_id": "3", "attributes": {"o": {"nested": 1}}},
        {"user_id": "4", "attributes": [1], "loyalty": {}, "external_ids": {}},
        {"user_id": "5", "loyalty": {}, "external_ids": {}, "computed": {"stage": "new"}},
    ]
    summary = people.bring(
        "".join(orjson.dumps(line).decode() + "\n" for line in lines), name="users.jsonl"
    )
    assert summary.rejected == {"bad_attributes": 2}
    assert people.all()["u:1"] == {"attributes": lines[0]["attributes"]}
    assert people.all()["u:2"] == {"loyalty": {"points": 5}, "external_ids": {"crm": "x/y:{1}"}}
    assert people.all()["u:5"] == {}


def test_parquet_has_types_of_its_own(people: People) -> None:
    frame = pl.DataFrame(
        {
            "id": [1, 2],
            "weight": [1.5, None],
            "visits": [3, 4],
            "vip": [True, None],
            "tags": [["a", "b"], None],
            "since": ["2024-03-01T10:00:00", None],
            "code": ["7", "8"],
        }
    ).with_columns(pl.col("since").str.to_datetime(time_zone="Europe/Berlin"))
    frame.write_parquet(people.folder / "users.parquet")
    assert people.bring_file(people.folder / "users.parquet", "attributes.number=code").changed == 2
    assert people.all()["u:1"]["attributes"] == {
        "weight": 1.5,
        "visits": 3,
        "vip": True,
        "tags": ["a", "b"],
        "since": "2024-03-01T09:00:00Z",
        "number": 7,
    }
    assert people.all()["u:2"]["attributes"] == {"visits": 4, "number": 8}


def test_names_that_cannot_be(people: People) -> None:
    with pytest.raises(UserError, match=r"which column .* is the user_id"):
        people.bring("city\nRome\n")
    with pytest.raises(UserError, match=r"two columns that would be attributes\.a_b"):
        people.bring("user_id,a b,a_b\n1,2,3\n")
    with pytest.raises(UserError, match="the column 'c' cannot be 'a b'"):
        people.bring("user_id,c\n1,2\n", "attributes.a b=c")
    with pytest.raises(UserError, match=r"attributes.NAME and external_ids.NAME"):
        people.bring("user_id,c\n1,2\n", "tear=c")
    assert user_mapping({}, ["id", "Größe", "äöü"], "f") == {
        "user_id": "id",
        "attributes.Gr_e": "Größe",
    }


def test_thousands_are_written_in_chunks(people: People) -> None:
    lines = [f"c{n},{n % 7},k{n}" for n in range(3_210)]
    text = "user_id,points,external_ids.crm\n" + "\n".join(lines) + "\n"
    assert people.bring(text).changed == 3_210
    assert people.bring(text.replace("c5,5", "c5,6")).changed == 1
    assert len(people.all()) == 3_210


values = st.one_of(
    st.integers(-(2**53), 2**53),
    st.booleans(),
    st.text(min_size=1, max_size=20),
    st.lists(st.text(max_size=5), min_size=1, max_size=3),
)
user_ids = st.text(
    st.characters(codec="utf-8", categories=["L", "M", "N", "P", "S"]), min_size=1, max_size=9
).filter(lambda text: text not in (".", ".."))


@settings(max_examples=25, deadline=None)
@given(
    wanted=st.dictionaries(
        user_ids,
        st.dictionaries(st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True), values, max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_any_profile_comes_through(
    wanted: dict[str, dict[str, Any]],
    server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    people = People(server, tmp_path_factory.mktemp("users"))
    text = "".join(
        orjson.dumps({"user_id": user, "attributes": attributes}).decode() + "\n"
        for user, attributes in wanted.items()
    )
    assert people.bring(text, name="users.jsonl").rejected == {}
    found = people.all()
    for user, attributes in wanted.items():
        assert found[f"u:{user}"] == ({"attributes": attributes} if attributes else {})
