"""The OpenAPI document: valid, complete, and the same as what is served."""

import re
from dataclasses import fields
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from feature_store.schema import Event
from recsvc.access.auth import SCOPES
from recsvc.api.problems import KINDS
from recsvc.api.schemas import RecommendationBody
from recsvc.requests import RecommendationRequest
from tests.recsvc.api.service import Service, event

METHODS = {"get", "post", "put", "patch", "delete"}
PUBLIC = {"/livez", "/readyz", "/metrics", "/v1/transparency"}


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    response = client.get("/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that finds the document's components."""
    return {**schema, "components": document["components"]}


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "recsvc"
    assert {"paths", "components", "tags"} <= set(document)


def test_it_is_valid_by_the_validator_if_there_is_one(document: dict[str, Any]) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(document)


def test_every_schema_is_valid_and_every_reference_leads_somewhere(
    document: dict[str, Any],
) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    references = re.findall(r"#/components/schemas/([A-Za-z0-9_]+)", str(document))
    assert set(references) == set(schemas)


def test_operation_ids_are_verbs_and_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    verbs = {
        "get", "post", "list", "record", "promote", "rollback", "hold", "resume", "check",
        "merge", "put", "patch", "delete", "create", "publish", "revert", "roll", "preview",
        "lint", "audit", "end", "reset",
    }  # fmt: skip
    assert {one.partition("_")[0] for one in ids} <= verbs
    assert all(re.fullmatch(r"[a-z]+_[a-z_]+", one) for one in ids)


def test_every_operation_is_described_with_examples_and_errors(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["tags"], where
        assert operation["description"], where
        success = [code for code in operation["responses"] if code.startswith("2")]
        assert len(success) == 1, where
        for content in operation["responses"][success[0]]["content"].values():
            assert "example" in content, where
        if "requestBody" in operation:
            assert "example" in operation["requestBody"]["content"]["application/json"], where
        for parameter in operation.get("parameters", []):
            assert parameter["description"], where
        errors = {code for code in operation["responses"] if code.startswith(("4", "5"))}
        assert "500" in errors, where
        if path not in PUBLIC:
            assert {"401", "403", "503"} <= errors, where
            assert set(operation["x-scopes"]) <= set(SCOPES), where
            assert operation["security"], where
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= errors, where
        if "{" in path:
            assert {"404", "422"} <= errors, where
        for code in errors - ({"503"} if path == "/readyz" else set()):
            (media_type, content) = next(iter(operation["responses"][code]["content"].items()))
            assert media_type == "application/problem+json", where
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, where
            assert int(code) in KINDS


def test_examples_fit_their_schemas(document: dict[str, Any]) -> None:
    checked = 0
    for path, method, operation in operations(document):
        contents = [
            content
            for response in operation["responses"].values()
            for content in response.get("content", {}).values()
        ]
        contents += operation.get("requestBody", {}).get("content", {}).values()
        for content in contents:
            if "schema" in content and "example" in content:
                schema = resolved(document, content["schema"])
                errors = list(Draft202012Validator(schema).iter_errors(content["example"]))
                assert not errors, (method, path, errors)
                checked += 1
    assert checked > 50


def test_the_documented_request_is_the_parsed_one(document: dict[str, Any]) -> None:
    names = {one.name for one in fields(RecommendationRequest)}
    route = document["paths"]["/v1/recommendations"]
    assert {one["name"] for one in route["get"]["parameters"]} == names
    assert set(RecommendationBody.model_fields) == names
    body = document["components"]["schemas"]["RecommendationBody"]
    assert set(body["properties"]) == names
    assert set(document["components"]["schemas"]["Event"]["properties"]) == set(Event.model_fields)


def test_what_is_served_fits_what_is_documented(
    document: dict[str, Any], client: httpx.Client, service: Service
) -> None:
    client.post("/v1/events", json=event("documented", "i00001"))
    asked = {
        "/v1/recommendations": "user_id=documented&explain=true&fields=title",
        "/v1/items": "limit=5",
        "/v1/items/{item_id}": "",
        "/v1/users/{user_id}": "",
        "/v1/models": "",
        "/livez": "",
        "/readyz": "",
    }
    for template, query in asked.items():
        path = template.format(item_id="i00001", user_id="documented")
        response = client.get(f"{path}?{query}" if query else path)
        assert response.status_code == 200
        content = document["paths"][template]["get"]["responses"]["200"]["content"]
        schema = resolved(document, content["application/json"]["schema"])
        Draft202012Validator(schema).validate(response.json())
        wrong = client.get(path, headers={"Authorization": "Bearer wrong"})
        if template not in PUBLIC:
            schema = resolved(document, {"$ref": "#/components/schemas/Problem"})
            Draft202012Validator(schema).validate(wrong.json())


ROUTES = {
    ("get", "/v1/recommendations"),
    ("post", "/v1/recommendations"),
    ("post", "/v1/events"),
    ("post", "/v1/events/ga4"),
    ("post", "/v1/events/retail"),
    ("post", "/v1/events/segment"),
    ("post", "/v1/orders"),
    ("post", "/v1/users/{user_id}/merge"),
    ("post", "/v1/me/merge"),
    ("get", "/v1/me/profile"),
    ("delete", "/v1/me/profile/{point_id}"),
    ("post", "/v1/me/profile/{point_id}/restore"),
    ("get", "/v1/users/{user_id}/profile"),
    ("get", "/v1/me/questions"),
    ("post", "/v1/me/questions/{question_id}"),
    ("get", "/v1/items"),
    ("post", "/v1/items"),
    ("get", "/v1/items/{item_id}"),
    ("put", "/v1/items/{item_id}"),
    ("patch", "/v1/items/{item_id}"),
    ("delete", "/v1/items/{item_id}"),
    ("get", "/v1/users/{user_id}"),
    ("put", "/v1/users/{user_id}"),
    ("patch", "/v1/users/{user_id}"),
    ("get", "/v1/users"),
    ("post", "/v1/users"),
    ("get", "/v1/users/{user_id}/export"),
    ("get", "/v1/me/export"),
    ("delete", "/v1/users/{user_id}"),
    ("delete", "/v1/me"),
    ("get", "/v1/erasures/{erasure_id}"),
    ("get", "/v1/me/erasures/{erasure_id}"),
    ("get", "/v1/me/preferences"),
    ("patch", "/v1/me/preferences"),
    ("get", "/v1/users/{user_id}/preferences"),
    ("patch", "/v1/users/{user_id}/preferences"),
    ("post", "/v1/me/preferences/reset"),
    ("post", "/v1/users/{user_id}/preferences/reset"),
    ("get", "/v1/personas"),
    ("get", "/v1/personas/{persona_id}"),
    ("put", "/v1/personas/{persona_id}"),
    ("delete", "/v1/personas/{persona_id}"),
    ("get", "/v1/recommendations/{recommendation_id}"),
    ("get", "/v1/rules"),
    ("post", "/v1/rules"),
    ("get", "/v1/rules/{rule_id}"),
    ("put", "/v1/rules/{rule_id}"),
    ("delete", "/v1/rules/{rule_id}"),
    ("post", "/v1/rules/preview"),
    ("get", "/v1/rules/lint"),
    ("post", "/v1/rules/publish"),
    ("post", "/v1/rules/{rule_id}/revert"),
    ("post", "/v1/rules/rollback"),
    ("get", "/v1/rules/audit"),
    ("get", "/v1/placements"),
    ("get", "/v1/placements/{name}"),
    ("put", "/v1/placements/{name}"),
    ("delete", "/v1/placements/{name}"),
    ("get", "/v1/pages"),
    ("get", "/v1/pages/{page}"),
    ("put", "/v1/pages/{page}"),
    ("delete", "/v1/pages/{page}"),
    ("get", "/v1/pages/{page}/definition"),
    ("get", "/v1/me/page"),
    ("get", "/v1/recalls"),
    ("get", "/v1/recalls/{recall_id}"),
    ("put", "/v1/recalls/{recall_id}"),
    ("delete", "/v1/recalls/{recall_id}"),
    ("get", "/v1/recalls/{recall_id}/customers"),
    ("get", "/v1/segments"),
    ("get", "/v1/segments/{segment_id}"),
    ("put", "/v1/segments/{segment_id}"),
    ("delete", "/v1/segments/{segment_id}"),
    ("get", "/v1/segments/{segment_id}/members"),
    ("get", "/v1/privacy"),
    ("put", "/v1/privacy"),
    ("get", "/v1/transparency"),
    ("get", "/v1/reports/feedback"),
    ("get", "/v1/models"),
    ("post", "/v1/models/{version}/promote"),
    ("post", "/v1/models/rollback"),
    ("post", "/v1/models/hold"),
    ("post", "/v1/models/resume"),
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}


def test_every_route_of_the_contract_so_far_is_there(document: dict[str, Any]) -> None:
    assert {(method, path) for path, method, _ in operations(document)} == ROUTES
