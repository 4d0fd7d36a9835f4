"""The answer as JSON: plain dicts for orjson, exactly as the contract has them."""

import secrets
from collections.abc import Mapping
from typing import Any

from feature_store.signals import FEATURES
from recsvc.engine import Response
from recsvc.explaining.explain import Reason, reasons
from recsvc.explaining.words import Words, words
from recsvc.merchandising.markets import market_of
from recsvc.ranking.filling import Chosen
from recsvc.requests import RecommendationRequest

MAX_SKIP = 0xFFFF
_NO_FIELDS: Mapping[str, Any] = {}


def new_recommendation_id(now_ms: int, shown: int) -> str:
    """Return an id that says when a list was made and how many of its items were shown.

    Parameters
    ----------
    now_ms : int
        Milliseconds since 1970.
    shown : int
        Items of the list shown so far, this answer's included.
    """
    return f"{now_ms:012x}{min(shown, MAX_SKIP):04x}{secrets.token_hex(8)}"


def read_recommendation_id(value: str) -> tuple[int, int]:
    """Return the time in seconds since 1970 and the number of items shown.

    Raises
    ------
    ValueError
        If it is not an id that :func:`new_recommendation_id` makes.
    """
    if len(value) != 32 or not value.isascii() or not value.isalnum():
        raise ValueError("is not a recommendation id")
    return int(value[:12], 16) // 1000, int(value[12:16], 16)


def answer(
    response: Response,
    request: RecommendationRequest,
    recommendation_id: str,
    degraded: list[str],
    *,
    first_rank: int = 1,
    in_words: bool = False,
) -> dict[str, Any]:
    """Write a response as the contract's document.

    Parameters
    ----------
    response : Response
        What the engine chose.
    request : RecommendationRequest
        What was asked.
    recommendation_id : str
        Name of this answer.
    degraded : list of str
        What was missing while it was made.
    first_rank : int
        Rank of the first item; above 1 in the continuation of a list.
    in_words : bool
        Whether to say the reasons in words, explained or not.
    """
    snapshot = response.snapshot
    in_words = in_words or request.explain
    why = reasons(response, in_words=in_words)
    rows = [chosen.row for chosen in response.chosen]
    rows += [row for reason in why for row in reason.rows]
    id_of = snapshot.catalogue.ids_of(rows).__getitem__
    items: list[dict[str, Any]] = []
    # Taken apart at once: looking up one field after the other of twenty items costs more.
    for (row, score, _, _, rule_ids), (source, code, named, followed, _) in zip(
        response.chosen, why, strict=True
    ):
        said: dict[str, Any] = {"code": code, "item_ids": list(map(id_of, named))}
        if followed:
            said["followed"] = list(followed)
        items.append(
            {
                "item_id": id_of(row),
                "rank": first_rank + len(items),
                "score": score,
                "source": source,
                "reason": said,
                "rule_ids": list(rule_ids),
                "item": _NO_FIELDS,
            }
        )
    if request.fields or in_words:
        _say_more(items, response, request, why, in_words=in_words)
    return {
        "recommendation_id": recommendation_id,
        "placement": response.placement.name,
        "user_id": request.user_id,
        "model_version": snapshot.model.version,
        "rules_version": snapshot.site.rules_version,
        "personalized": response.personalized,
        "degraded": degraded,
        "experiment": None,
        "items": items,
    }


def _say_more(
    items: list[dict[str, Any]],
    response: Response,
    request: RecommendationRequest,
    why: list[Reason],
    *,
    in_words: bool,
) -> None:
    """Add to each item what not everybody asks for: fields, words, its journey."""
    catalogue, market = response.snapshot.catalogue, market_of(request.context)
    spoken = words(request.context.get("language"))
    for item, chosen, reason in zip(items, response.chosen, why, strict=True):
        if request.fields:
            document = catalogue.item(chosen.row, market)
            item["item"] = {name: document[name] for name in request.fields}
        if in_words:
            item["reason"]["text"] = reason_text(response, reason, spoken)
        if request.explain:
            item["journey"] = journey(response, chosen)


def reason_text(response: Response, reason: Reason, spoken: Words) -> str:
    """Return a reason in words.

    Parameters
    ----------
    response : Response
        The answer that it belongs to.
    reason : Reason
        Why one item is in it.
    spoken : Words
        The language.
    """
    if reason.quiet:
        return spoken.text("reasons_unnamed.quiet")
    catalogue = response.snapshot.catalogue
    items = [catalogue.item(row) for row in reason.rows]
    names = [str(item["title"] or item["item_id"]) for item in items] or list(reason.followed)
    if not names:
        return spoken.text(f"reasons_unnamed.{reason.code}")
    return spoken.text(f"reasons.{reason.code}", items=spoken.titles(names))


def journey(response: Response, chosen: Chosen) -> dict[str, Any]:
    """Return how an item came to its place: the stage, and what each feature gave to its score."""
    candidates = chosen.candidates
    found: dict[str, Any] = {"stage": candidates.source, "candidates": len(candidates.rows)}
    if candidates.features is not None:
        parts = candidates.features[:, chosen.position] * response.query.weights
        found["score_parts"] = {
            name: round(float(part), 6) for name, part in zip(FEATURES, parts, strict=True)
        }
        if candidates.lifts is not None:
            found["score_parts"]["followed"] = round(float(candidates.lifts[chosen.position]), 6)
    return found
