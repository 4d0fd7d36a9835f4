"""The one parser of recommendation requests: laws and refusals."""

import contextlib
import json
from dataclasses import fields
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.schema import Consent
from recsvc.checks import (
    FIELDS,
    FieldError,
    InvalidRequestError,
    UnparsableRequestError,
)
from recsvc.requests import (
    RecommendationRequest,
    decode_query,
    parse_body,
    parse_query,
)

printable = st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" /:{}%+&=?#;,.~\\\"'")
ids = st.text(printable, min_size=1, max_size=20).filter(lambda one: one not in (".", ".."))
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
conditions = st.builds(
    lambda value: {"all": [{"field": "item.brand", "op": "in", "value": value}]},
    st.lists(ids, min_size=1, max_size=3),
)
documents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "placement": names,
        "user_id": ids,
        "anonymous_id": ids,
        "limit": st.integers(1, 100),
        "item_ids": st.lists(ids, min_size=1, max_size=50),
        "exclude_item_ids": st.lists(ids, min_size=1, max_size=60),
        "filter": conditions,
        "context": st.dictionaries(names, st.text(printable, max_size=20), min_size=1, max_size=5),
        "consent": st.dictionaries(
            st.sampled_from(["profiling", "analytics"]), st.booleans(), min_size=1
        ),
        "after": st.from_regex(r"[A-Za-z0-9_.~-]{1,64}", fullmatch=True),
        "fields": st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=5),
        "explain": st.booleans(),
        "external_id": st.dictionaries(names, ids, min_size=1, max_size=1),
    },
).map(lambda one: one if "external_id" not in one else {**one, "user_id": None})


def as_pairs(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Write a body's document as a caller writes a query."""
    pairs = []
    for name, value in document.items():
        if value is None:
            continue
        if name in ("context", "consent", "external_id"):
            pairs += [(f"{name}.{part}", text(one)) for part, one in value.items()]
        elif name == "filter":
            pairs.append((name, json.dumps(value)))
        elif isinstance(value, list):
            pairs += [(name, one) for one in value]
        else:
            pairs.append((name, text(value)))
    return pairs


def text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@given(documents, st.sampled_from([quote, quote_plus]), st.sampled_from(["", "/:,", "~()*'!@$"]))
def test_a_query_and_a_body_of_the_same_content_are_equal(
    document: dict[str, Any], quote_via: Any, safe: str
) -> None:
    query = urlencode(as_pairs(document), quote_via=quote_via, safe=safe)
    assert parse_query(query.encode()) == parse_body(json.dumps(document).encode())


@given(st.lists(st.tuples(st.text(printable, max_size=9), st.text(printable, max_size=9))))
def test_splitting_agrees_with_the_standard_library(pairs: list[tuple[str, str]]) -> None:
    query = urlencode(pairs)
    errors: list[FieldError] = []
    assert decode_query(query.encode(), errors) == pairs
    assert not errors


@given(st.text(st.sampled_from("ab=&+%2F0Céx;"), max_size=40))
def test_any_query_is_read_as_the_standard_library_reads_it_or_refused(query: str) -> None:
    errors: list[FieldError] = []
    found = decode_query(query.encode(), errors)
    if errors:
        broken = query.count("%")
        assert broken
        return
    # parse_qsl leaves a broken escape as it stands; we do not accept one.
    reference = parse_qsl(query, keep_blank_values=True, errors="strict", separator="&")
    assert found == reference


@given(st.binary(max_size=60))
def test_bytes_never_do_worse_than_a_refusal(data: bytes) -> None:
    for parse in (parse_query, parse_body):
        with contextlib.suppress(InvalidRequestError, UnparsableRequestError):
            assert isinstance(parse(data), RecommendationRequest)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
field_names = st.sampled_from([field.name for field in fields(RecommendationRequest)] + ["other"])


@given(st.dictionaries(field_names, json_values))
def test_any_body_is_read_or_refused_with_a_pointer(document: dict[str, Any]) -> None:
    errors: tuple[FieldError, ...] = ()
    try:
        parse_body(json.dumps(document).encode())
    except InvalidRequestError as error:
        errors = error.errors
    except UnparsableRequestError:
        pass  # integers beyond 64 bits, lone surrogates
    assert all(one.pointer.startswith("#/") and one.detail for one in errors)


def refused(query: str) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        parse_query(query.encode())
    return dict(caught.value.errors)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "#/limit"),
        ("limit=101", "#/limit"),
        ("limit=+5", "#/limit"),
        ("limit=1_0", "#/limit"),
        ("limit=%D9%A5", "#/limit"),
        ("limit=", "#/limit"),
        ("limit=5&limit=6", "#/limit"),
        ("user_id=", "#/user_id"),
        ("user_id=.", "#/user_id"),
        ("user_id=a%00b", "#/user_id"),
        ("user_id=a%0Ab", "#/user_id"),
        ("user_id=%FF", "#/user_id"),
        ("user_id=50%", "#/user_id"),
        ("user_id=%zz", "#/user_id"),
        ("user_id=" + "x" * 129, "#/user_id"),
        ("item_ids=a&item_ids=", "#/item_ids/1"),
        ("item_ids=a&item_ids=..", "#/item_ids/1"),
        ("&".join(["item_ids=a"] * 51), "#/item_ids"),
        ("&".join(["exclude_item_ids=a"] * 501), "#/exclude_item_ids"),
        ("filter=%7B", "#/filter"),
        ("filter=%7B%22all%22%3A%5B%5D%7D", "#/filter/all"),
        ("filter=%7B%22field%22%3A%22item.colour%22%7D", "#/filter/field"),
        ("context=DE", "#/context"),
        ("context.=DE", "#/context/"),
        ("context.a=1&context.a=2", "#/context/a"),
        ("consent.profiling=yes", "#/consent/profiling"),
        ("consent.other=true", "#/consent/other"),
        ("explain=1", "#/explain"),
        ("external_id=1", "#/external_id"),
        ("external_id.a=1&external_id.b=2", "#/external_id"),
        ("external_id.a=1&external_id.a=2", "#/external_id/a"),
        ("external_id.a%20b=1", "#/external_id/a b"),
        ("external_id.a=..", "#/external_id/a"),
        ("external_id.a=1&user_id=x", "#/external_id"),
        ("fields=colour", "#/fields/0"),
        ("placement=a%20b", "#/placement"),
        ("after=%2F", "#/after"),
        ("user=1", "#/user"),
        ("a%2Fb~=1", "#/a~1b~0"),
    ],
)
def test_a_bad_parameter_is_named(query: str, pointer: str) -> None:
    assert list(refused(query)) == [pointer]


def test_every_bad_parameter_is_named_at_once() -> None:
    named = refused("limit=0&explain=x&user=1&user_id=%C3")
    assert set(named) == {"#/explain", "#/user_id", "#/limit", "#/user"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ("[]", "#"),
        ("3", "#"),
        ('{"limit": true}', "#/limit"),
        ('{"limit": 5.0}', "#/limit"),
        ('{"limit": "5"}', "#/limit"),
        ('{"user_id": 5}', "#/user_id"),
        ('{"item_ids": "a"}', "#/item_ids"),
        ('{"item_ids": ["a", 1]}', "#/item_ids/1"),
        ('{"item_ids": ["a", null]}', "#/item_ids/1"),
        ('{"context": {"a": []}}', "#/context/a"),
        ('{"context": {"a": null}}', "#/context/a"),
        ('{"external_id": {}}', "#/external_id"),
        ('{"external_id": "a"}', "#/external_id"),
        ('{"external_id": {"crm": 5}}', "#/external_id/crm"),
        ('{"filter": []}', "#/filter"),
        ('{"fields": "title"}', "#/fields"),
        ('{"other": null}', "#/other"),
    ],
)
def test_a_bad_field_is_named(body: str, pointer: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_body(body.encode())
    assert [error.pointer for error in caught.value.errors] == [pointer]


@pytest.mark.parametrize("body", ["", "{", "{'a': 1}", '{"a": NaN}', '"\\ud800"', "\ufeff{}"])
def test_a_body_that_is_not_json_is_unparsable(body: str) -> None:
    with pytest.raises(UnparsableRequestError, match="not JSON"):
        parse_body(body.encode())


def test_what_is_not_given_has_its_default() -> None:
    assert parse_query(b"") == parse_body(b"{}") == RecommendationRequest()
    assert parse_body(b'{"user_id": null, "item_ids": null}') == RecommendationRequest()
    assert parse_body(b'{"item_ids": [], "context": {}}') == RecommendationRequest()


def test_numbers_of_a_body_mean_the_text_of_a_query() -> None:
    body = parse_body(b'{"context": {"total": 12.5, "first": true, "n": 3}}')
    assert body == parse_query(b"context.total=12.5&context.first=true&context.n=3")


def test_an_object_may_be_written_as_openapi_writes_it() -> None:
    request = parse_query(b"context[country]=DE&context%5Bchannel%5D=web&consent[profiling]=true")
    assert request == parse_query(b"context.country=DE&context.channel=web&consent.profiling=true")
    assert list(refused("context[a]=1&context.a=2")) == ["#/context/a"]
    assert list(refused("item_ids[]=1")) == ["#/item_ids[]"]


def test_everything_arrives() -> None:
    request = parse_query(
        b"placement=cart&user_id=a%2Fb&anonymous_id=x+y&limit=7&item_ids=%C3%A9&item_ids=%25"
        b"&exclude_item_ids=1&context.country=DE&consent.profiling=false&explain=true&fields=title"
    )
    assert request == RecommendationRequest(
        placement="cart",
        user_id="a/b",
        anonymous_id="x y",
        limit=7,
        item_ids=("é", "%"),  # type: ignore[arg-type]
        exclude_item_ids=("1",),  # type: ignore[arg-type]
        context={"country": "DE"},
        consent=Consent(profiling=False),
        explain=True,
        fields=("title",),
    )
    assert request.person == "u:a/b"
    assert RecommendationRequest().person is None
