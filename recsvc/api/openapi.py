"""The OpenAPI document: what FastAPI cannot know because hot requests are read by hand."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from recsvc.api.problems import KINDS, MEDIA_TYPE
from recsvc.api.schemas import Problem

REFERENCE = "#/components/schemas/{model}"
_READ_BY_HAND: dict[str, type[BaseModel]] = {}
# FastAPI leaves out every null, also those inside examples: they are put in at the end.
_EXAMPLES: list[Any] = []

DESCRIPTIONS = {
    304: "What the caller has is still right",
    400: "The body cannot be parsed",
    401: "No key, or one that is not known",
    403: "The key lacks the scope",
    404: "There is no such thing",
    405: "The address does not answer this method",
    409: "It conflicts with the state of things",
    412: "Somebody else changed it first",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "Understood but not allowed; every part that is wrong is named",
    429: "Too many requests",
    500: "The service failed",
    503: "Not now; Retry-After says when",
}

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "the key as password"},
    "public_key": {
        "type": "apiKey",
        "in": "query",
        "name": "key",
        "description": "a public key, pk_..., which a header may carry too",
    },
    "customer_token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "signed by the shop's backend: sub, aud, exp, kid",
    },
}

TAGS = [
    {"name": "recommendations", "description": "What to show to whom"},
    {"name": "events", "description": "What customers did"},
    {"name": "items", "description": "The catalogue"},
    {"name": "users", "description": "What is known of a person"},
    {"name": "segments", "description": "Named conditions over people"},
    {"name": "personas", "description": "Made-up customers for preview"},
    {"name": "rules", "description": "The marketers' overrides"},
    {"name": "placements", "description": "Slots, and what fills them"},
    {"name": "pages", "description": "Several slots in one call, no item twice"},
    {"name": "recalls", "description": "What must be gone from everything"},
    {"name": "privacy", "description": "What must not be named; how the ranking works"},
    {"name": "reports", "description": "What customers said, summed up"},
    {"name": "me", "description": "What customers do for themselves, with a customer token"},
    {"name": "models", "description": "Which model serves"},
    {"name": "operation", "description": "For orchestrators and monitoring; no key needed"},
]

_HEADERS = {
    "X-Request-ID": {
        "description": "names this request in the log; a good one of the caller's is kept",
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "phases in milliseconds",
        "schema": {"type": "string"},
    },
}


def responses(
    model: type[BaseModel], example: Any, *errors: int, status: int = 200
) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route: its success with an example, and its errors.

    Parameters
    ----------
    model : type of BaseModel
        What a success carries.
    example : object
        One such document.
    *errors : int
        Statuses of the errors.
    status : int
        Status of a success.
    """
    found: dict[int | str, dict[str, Any]] = {
        status: {
            "model": model,
            "description": (model.__doc__ or "").splitlines()[0],
            "headers": _HEADERS,
            "content": {"application/json": {"example": len(_EXAMPLES)}},
        }
    }
    _EXAMPLES.append(example)
    return found | problems(*errors)


def problems(*errors: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route for its errors."""
    return {
        code: {
            "description": DESCRIPTIONS[code],
            "headers": _HEADERS,
            "content": {MEDIA_TYPE: {"schema": _reference(Problem), "example": _problem(code)}},
        }
        for code in errors
    }


def lines_of(description: str, example: str) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that answers one JSON object a line.

    Parameters
    ----------
    description : str
        What a line is.
    example : str
        One such line.
    """
    content = {"schema": {"type": "string"}, "example": f"{example}\n"}
    return {
        200: {
            "description": description,
            "headers": _HEADERS,
            "content": {"application/x-ndjson": content},
        }
    }


def _problem(code: int) -> dict[str, Any]:
    example: dict[str, Any] = {
        "type": f"urn:recsvc:problem:{KINDS[code]}",
        "title": DESCRIPTIONS[code].partition(";")[0],
        "status": code,
        "detail": "what went wrong this time, and what to do",
        "instance": "/v1/recommendations",
        "request_id": "5f3c9a1be2d04f67",
    }
    if code == 422:
        example["errors"] = [{"pointer": "#/limit", "detail": "must be an integer from 1 to 100"}]
    return example


def _reference(model: type[BaseModel]) -> dict[str, str]:
    _READ_BY_HAND[model.__name__] = model
    return {"$ref": REFERENCE.format(model=model.__name__)}


def body_of(
    model: type[BaseModel], example: Any, *, many: int = 0, more: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the ``requestBody`` of a route that reads its body by hand.

    Parameters
    ----------
    model : type of BaseModel
        What it may carry.
    example : object
        One such document.
    many : int
        How many may come as an array; 0 for one object only.
    more : dict or None
        Other media types, with what OpenAPI says of them.
    """
    schema: dict[str, Any] = _reference(model)
    if many:
        several = {"type": "array", "items": schema, "minItems": 1, "maxItems": many}
        schema = {"oneOf": [schema, several]}
    content = {"application/json": {"schema": schema, "example": example}, **(more or {})}
    return {"requestBody": {"required": True, "content": content}}


def any_body(description: str, example: Any) -> dict[str, Any]:
    """Return the ``requestBody`` of a route that reads another platform's documents.

    Parameters
    ----------
    description : str
        What they are; the platform's own documentation says the rest.
    example : object
        One such document.
    """
    schema = {"type": ["object", "array"], "description": description}
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def parameters_of(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the query parameters of a route that reads its query by hand."""
    whole = model.model_json_schema(ref_template=REFERENCE)
    _READ_BY_HAND[model.__name__] = model
    parameters = []
    for name, schema in whole["properties"].items():
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": False}
        parameter["description"] = schema.pop("description", "")
        examples = schema.pop("examples", None)
        if schema.get("type") == "array":
            parameter |= {"style": "form", "explode": True, "schema": schema}
        elif name == "filter":
            parameter["content"] = {"application/json": {"schema": schema}}
        elif name in ("context", "consent", "external_id"):
            parameter |= {"style": "deepObject", "explode": True, "schema": schema}
        else:
            parameter["schema"] = _not_null(schema)
        if examples and "schema" in parameter:
            parameter["example"] = examples[0]
        parameters.append(parameter)
    return parameters


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter: one that is not given is not there, rather than null."""
    options = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    if len(options) != 1:
        return schema
    return {**options[0], **{key: schema[key] for key in ("title",) if key in schema}}


def install(app: FastAPI) -> None:
    """Give an app its OpenAPI document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version="3.1.0",
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    components = document.setdefault("components", {})
    _, by_hand = models_json_schema(
        [(model, "validation") for model in _READ_BY_HAND.values()], ref_template=REFERENCE
    )
    schemas = {**by_hand["$defs"], **components.get("schemas", {})}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["schemas"] = dict(sorted(schemas.items()))
    components["securitySchemes"] = SECURITY_SCHEMES
    for item in document["paths"].values():
        for operation in item.values():
            for response in operation["responses"].values():
                for content in response.get("content", {}).values():
                    if isinstance(content.get("example"), int):
                        content["example"] = _EXAMPLES[content["example"]]
    return document
