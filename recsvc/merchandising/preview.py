"""What rules would do before they do it: lists made twice, with and without the drafts.

The same function that answers pages makes both lists, from the same snapshot but for its rules; so
a preview at a time and for a person is what is then served, as long as nothing else changes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.conditions import Scope
from feature_store.impressions import NO_IMPRESSIONS, Impressions
from feature_store.preferences import Preferences, ProfilingDefault, profiling_allowed
from feature_store.state import EMPTY_STATE, UserState
from feature_store.store import UserContext
from recsvc.engine import Response, recommend
from recsvc.merchandising.needs import needs_of
from recsvc.people import document_of, scope_of
from recsvc.ranking.sources import blended
from recsvc.requests import RecommendationRequest
from recsvc.rules import CheckedRule, compile_rules
from recsvc.snapshot import Snapshot

TOP_ITEMS = 20
POOL = 500
"""Best candidates of a person that make up the predicted demand."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody for whom lists are made.

    Parameters
    ----------
    name : str
        A user id, or the name of a persona.
    state : UserState
        The person's facts.
    preferences : Preferences
        What the person decided.
    document : mapping
        The person as conditions see it (``people.document_of``).
    impressions : Impressions
        What the person was shown.
    """

    name: str
    state: UserState
    preferences: Preferences
    document: Mapping[str, Any]
    impressions: Impressions = NO_IMPRESSIONS


def viewer_of(name: str, context: UserContext) -> Viewer:
    """Return a person as a viewer, from what was read with ``documents=True``."""
    document = document_of(context) if context.person is not None else {}
    return Viewer(name, context.state, context.preferences, document, context.impressions)


def as_served(viewer: Viewer, default: ProfilingDefault) -> Viewer:
    """Return a viewer of whom nothing is used but what they hide, if they may not be profiled.

    Parameters
    ----------
    viewer : Viewer
        Somebody, or nobody.
    default : {"opt_out", "opt_in"}
        What holds for who was never asked.
    """
    said = viewer.preferences
    if profiling_allowed(said, default):
        return viewer
    said = said.model_copy(update={"personalization": False})
    return Viewer(viewer.name, EMPTY_STATE, said, {})


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """The two lists of one viewer.

    Parameters
    ----------
    viewer : Viewer
        Whose.
    before, after : Response
        Without and with the drafts.
    demand : tuple of float
        Share of the viewer's predicted demand that each list shows.
    """

    viewer: Viewer
    before: Response
    after: Response
    demand: tuple[float, float]

    @property
    def rows(self) -> tuple[list[int], list[int]]:
        """Rows of both lists."""
        before, after = (
            [one.row for one in response.chosen] for response in (self.before, self.after)
        )
        return before, after


def with_rules(snapshot: Snapshot, rules: Sequence[CheckedRule]) -> Snapshot:
    """Return a snapshot in which other rules are in force.

    Parameters
    ----------
    snapshot : Snapshot
        What serves.
    rules : sequence of CheckedRule
        All rules that shall be in force.
    """
    live = [
        one.model_copy(update={"rule": one.rule.model_copy(update={"status": "live"})})
        for one in rules
    ]
    compiled = compile_rules(live, snapshot.catalogue, snapshot.rules)
    site = replace(snapshot.site, rules={one.rule.rule_id: one for one in live})
    return replace(snapshot, rules=compiled, site=site)


def preview(
    before: Snapshot,
    after: Snapshot,
    viewer: Viewer,
    request: RecommendationRequest,
    now_s: int,
) -> Pair:
    """Make both lists of one viewer.

    Parameters
    ----------
    before, after : Snapshot
        What serves, and what would (`with_rules`).
    viewer : Viewer
        Whom for.
    request : RecommendationRequest
        The question.
    now_s : int
        Seconds since 1970; may lie in the future.
    """
    attributes = viewer.document.get("attributes", {})
    lists = [
        recommend(
            snapshot,
            viewer.state,
            viewer.preferences,
            request,
            now_s,
            impressions=viewer.impressions,
            scope=_scope(snapshot, viewer, request, now_s),
            start=snapshot.model.starts.of_person(attributes, viewer.preferences),
        )
        for snapshot in (before, after)
    ]
    return Pair(viewer, lists[0], lists[1], _demand(lists[0], lists[1]))


def _scope(snapshot: Snapshot, viewer: Viewer, request: RecommendationRequest, now_s: int) -> Scope:
    trees = [one.rule.when for one in snapshot.site.rules.values() if one.rule.when]
    document = viewer.document if viewer.preferences.personalization else {}
    return scope_of(
        request, document, snapshot.catalogue, snapshot.site.segments, needs_of(trees), now_s
    )


def _demand(before: Response, after: Response) -> tuple[float, float]:
    """Return the share of the predicted demand that each list shows.

    The blend was fitted as a softmax over a person's candidates (``training.blend``), so
    exp(score), divided by the sum over the best candidates, is how likely each is the next one.
    """
    query = before.query
    rows = [np.array([one.row for one in each.chosen], dtype=np.int64) for each in (before, after)]
    pool = before.snapshot.model.popular[:POOL].astype(np.int64)
    candidates = blended(query, np.unique(np.concatenate([*rows, pool])))
    scores = candidates.scores.astype(np.float64)
    weights = np.exp(scores - scores.max(initial=0.0))
    best = np.partition(weights, -POOL)[-POOL:] if len(weights) > POOL else weights
    total = float(best.sum()) or 1.0
    of_row = dict(zip(candidates.rows.tolist(), weights.tolist(), strict=True))
    shown = [sum(of_row.get(row, 0.0) for row in each.tolist()) / total for each in rows]
    return min(shown[0], 1.0), min(shown[1], 1.0)


def compare(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Sum up what changes for many viewers.

    Returns
    -------
    dict
        ``viewers``, ``changed_lists``, ``mean_overlap`` (share of a list's items that stay),
        ``demand_shown`` (mean of the predicted demand that lists show, ``before``, ``after``,
        ``change`` and its 95 % interval), ``gain`` and ``lose`` (items with the most additional
        and lost places: ``item_id``, ``before``, ``after``), ``rules`` (in how many lists each
        rule moved something).
    """
    shown_before: Counter[int] = Counter()
    shown_after: Counter[int] = Counter()
    acting: Counter[str] = Counter()
    changed, overlaps = 0, []
    for pair in pairs:
        before, after = pair.rows
        shown_before.update(before)
        shown_after.update(after)
        changed += before != after
        overlaps.append(len(set(before) & set(after)) / max(1, len(before)))
        acting.update({rule for one in pair.after.chosen for rule in one.rule_ids})
    moved = {row: shown_after[row] - shown_before[row] for row in shown_before.keys() | shown_after}
    order = sorted(moved, key=lambda row: (-moved[row], row))
    catalogue = pairs[0].after.snapshot.catalogue

    def listed(rows: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "item_id": catalogue.item_id(row),
                "title": catalogue.item(row)["title"],
                "before": shown_before[row],
                "after": shown_after[row],
            }
            for row in rows[:TOP_ITEMS]
        ]

    return {
        "viewers": len(pairs),
        "changed_lists": changed,
        "mean_overlap": round(float(np.mean(overlaps)), 4),
        "demand_shown": _interval(np.array([pair.demand for pair in pairs])),
        "gain": listed([row for row in order if moved[row] > 0]),
        "lose": listed([row for row in order[::-1] if moved[row] < 0]),
        "rules": dict(sorted(acting.items())),
    }


def _interval(demand: npt.NDArray[np.float64]) -> dict[str, Any]:
    change = demand[:, 1] - demand[:, 0]
    error = 1.96 * float(change.std(ddof=1)) / len(change) ** 0.5 if len(change) > 1 else 0.0
    mean = float(change.mean())
    return {
        "before": round(float(demand[:, 0].mean()), 5),
        "after": round(float(demand[:, 1].mean()), 5),
        "change": round(mean, 5),
        "change_ci95": [round(mean - error, 5), round(mean + error, 5)],
    }


def as_lists(pair: Pair) -> dict[str, Any]:
    """Return the two lists of a viewer with the moves marked.

    Returns
    -------
    dict
        ``viewer``, ``changed``, ``before`` and ``after`` (``item_id``, ``title``, ``rank``,
        ``source``, ``rule_ids``; in ``after`` also ``moved``: ``in`` for what was not there, else
        by how many ranks it went up), ``out`` (what is not there any more, and by which rules).
    """
    before, after = pair.rows
    was = {row: rank for rank, row in enumerate(before, 1)}
    lists: dict[str, Any] = {"viewer": pair.viewer.name, "changed": before != after}
    for name, response in (("before", pair.before), ("after", pair.after)):
        catalogue = response.snapshot.catalogue
        lists[name] = [
            {
                "item_id": catalogue.item_id(one.row),
                "title": catalogue.item(one.row)["title"],
                "rank": rank,
                "source": one.candidates.source,
                "rule_ids": list(one.rule_ids),
            }
            for rank, one in enumerate(response.chosen, 1)
        ]
    for rank, (entry, row) in enumerate(zip(lists["after"], after, strict=True), 1):
        entry["moved"] = was[row] - rank if row in was else "in"
    catalogue, left = pair.before.snapshot.catalogue, set(after)
    lists["out"] = [
        {
            "item_id": catalogue.item_id(row),
            "title": catalogue.item(row)["title"],
            "rule_ids": pair.after.rules.removed_by(row),
        }
        for row in before
        if row not in left
    ]
    return lists
