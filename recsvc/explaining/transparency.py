"""How recommendations come about here, in plain language: made from what is in force.

Nothing is written by hand that could be untrue tomorrow: sources, weights, rules and times are read
from the snapshot that serves and from the settings.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from feature_store.signals import (
    FEATURES,
    FREE_IMPRESSIONS,
    IMPRESSION_HALF_LIFE_DAYS,
    IMPRESSIONS_TO_HALVE,
    SIGNALS,
)
from feature_store.state import HOT_ITEMS
from recsvc.customer.follows import FOLLOW_WEIGHT, HALF_LIFE
from recsvc.explaining.html import CLOSING, opening
from recsvc.explaining.words import Words
from recsvc.merchandising.placements import BUILT_IN, Placement
from recsvc.settings import Settings
from recsvc.snapshot import Snapshot

Parameter = dict[str, Any]

ACTIONS = ("pin", "boost", "bury", "exclude", "include_only", "cap", "slot")
"""Kinds of rules, in the order in which they are told."""
CONTROLS = {
    "off": "PATCH /v1/me/preferences",
    "hide": "PATCH /v1/me/preferences",
    "follow": "PATCH /v1/me/preferences",
    "profile": "GET /v1/me/profile",
    "reset": "POST /v1/me/preferences/reset",
    "export": "GET /v1/me/export",
    "erase": "DELETE /v1/me",
}
"""What customers can do, and where."""
_TOLD_ALONE = ("collaborative", "category_affinity", "popularity_recent", "growth")


def transparency(snapshot: Snapshot, settings: Settings, told: Words) -> dict[str, Any]:
    """Return the main parameters of the ranking.

    Parameters
    ----------
    snapshot : Snapshot
        What serves: model, placements, rules.
    settings : Settings
        Consent, and how long things are kept.
    told : Words
        The language.

    Returns
    -------
    dict
        ``language``, ``model_version`` (``None`` without a model), ``rules_version`` and
        ``sections``: ``id``, ``title``, ``text``, ``parameters`` (``name``, ``value``, ``text``).
    """
    site = snapshot.site
    teller = _Teller(snapshot, settings, told)
    sections = {
        "overview": teller.overview(),
        "ranking": teller.ranking(),
        "data": teller.data(),
        "placements": teller.placements(site.placements.values()),
        "rules": teller.rules(),
        "tiring": teller.tiring(),
        "following": teller.following(),
        "privacy": teller.privacy(),
        "control": teller.control(),
    }
    return {
        "language": told.language,
        "title": told.text("transparency_titles.page"),
        "model_version": snapshot.model.version or None,
        "rules_version": site.rules_version,
        "sections": [
            {
                "id": name,
                "title": told.text(f"transparency_titles.{name}"),
                "text": text,
                "parameters": parameters,
            }
            for name, (text, parameters) in sections.items()
        ],
    }


class _Teller:
    """Says each section: its text and its parameters."""

    def __init__(self, snapshot: Snapshot, settings: Settings, told: Words) -> None:
        self._snapshot, self._settings, self._told = snapshot, settings, told
        artifact = snapshot.model.artifact
        self._manifest: dict[str, Any] = artifact.manifest if artifact else {}

    def overview(self) -> tuple[str, list[Parameter]]:
        model = self._snapshot.model
        if not self._manifest:
            return self._say("overview"), [_parameter("model_version", None, self._say("no_model"))]
        created = str(self._manifest["created_at"])
        n_items = model.n_items
        return self._say("overview"), [
            _parameter("model_version", model.version, self._say("model_version")),
            _parameter("trained_at", created, self._say("trained_at", time=self._time(created))),
            _parameter("n_items", n_items, self._counted("n_items", n_items)),
        ]

    def ranking(self) -> tuple[str, list[Parameter]]:
        if not self._manifest:
            return self._say("ranking_none"), []
        blend = self._manifest.get("blend", {})
        shares = blend.get("shares")
        parts = [self._say("ranking" if shares else "ranking_unknown")]
        if blend.get("fitted"):
            parts.append(self._say("ranking_fitted", people=self._number(blend["n_users"])))
        else:
            parts.append(self._say("ranking_default"))
        if not shares:
            groups = ("repeat", *_TOLD_ALONE)
            return " ".join(parts), [
                _parameter(name, None, self._say(f"feature_{name}")) for name in groups
            ]
        by_name = dict(zip(FEATURES, shares, strict=True))
        grouped = {name: by_name.pop(name) for name in _TOLD_ALONE}
        grouped["repeat"] = sum(by_name.values())
        ordered = sorted(grouped.items(), key=lambda one: -one[1])
        return " ".join(parts), [
            _parameter(name, round(share, 4), self._share(share, self._say(f"feature_{name}")))
            for name, share in ordered
        ]

    def data(self) -> tuple[str, list[Parameter]]:
        told = [
            _parameter(
                kind.value,
                {"weight": signal.weight, "half_life_days": signal.half_life_days},
                self._say(
                    "signal",
                    what=self._say(f"signal_{kind.value}"),
                    weight=self._number(signal.weight),
                    days=self._number(signal.half_life_days),
                ),
            )
            for kind, signal in SIGNALS.items()
        ]
        return self._counted("data", HOT_ITEMS), told

    def placements(self, placements: Iterable[Placement]) -> tuple[str, list[Parameter]]:
        told = [
            _parameter(one.name, _shares(one), self._placement(one))
            for one in sorted(placements, key=lambda one: one.name)
        ]
        return self._counted("placements", len(told)), told

    def _placement(self, placement: Placement) -> str:
        shares = _shares(placement)
        sources = [
            self._say("source", share=self._percent(share), what=self._say(f"source_{name}"))
            if len(shares) > 1
            else self._say(f"source_{name}")
            for name, share in shares.items()
        ]
        return self._say(
            "placement",
            title=self._title(placement),
            sources=self._told.joined(sources),
            more=" ".join(self._more_of(placement)),
        )

    def _title(self, placement: Placement) -> str:
        """Return what a list is called: in the shop's own words, or else in the language."""
        ours, key = BUILT_IN.get(placement.name), f"modules.{placement.name}"
        if ours is not None and ours.title == placement.title and key in self._told:
            return self._told.text(key)
        return placement.title or placement.name

    def _more_of(self, placement: Placement) -> Iterator[str]:
        for name in ("diversity", "freshness"):
            value = getattr(placement, name)
            if value:
                yield self._say(name, share=self._percent(value))
        if placement.filter is not None:
            yield self._say("filtered")
        yield self._say("fallback" if placement.fallback else "no_fallback")

    def rules(self) -> tuple[str, list[Parameter]]:
        site = self._snapshot.site
        counts: Counter[str] = Counter(one.rule.action.type for one in site.rules.values())
        told = [
            _parameter(kind, counts[kind], self._counted(f"rule_{kind}", counts[kind]))
            for kind in ACTIONS
            if counts[kind]
        ]
        n_some = sum(one.when is not None for one in site.rules.values())
        if n_some:
            told.append(_parameter("for_some", n_some, self._counted("rules_for_some", n_some)))
        if site.recalls:
            n_recalls = len(site.recalls)
            told.append(_parameter("recalls", n_recalls, self._counted("recalls", n_recalls)))
        told.append(_parameter("sponsored", None, self._say("sponsored")))
        n_rules = sum(counts.values())
        return self._counted("rules", n_rules) if n_rules else self._say("no_rules"), told

    def tiring(self) -> tuple[str, list[Parameter]]:
        free, halve = self._number(FREE_IMPRESSIONS), self._number(IMPRESSIONS_TO_HALVE)
        days = self._number(IMPRESSION_HALF_LIFE_DAYS)
        return self._say("tiring"), [
            _parameter("free", FREE_IMPRESSIONS, self._say("tiring_free", times=free)),
            _parameter("to_halve", IMPRESSIONS_TO_HALVE, self._say("tiring_halve", times=halve)),
            _parameter(
                "half_life_days",
                IMPRESSION_HALF_LIFE_DAYS,
                self._say("tiring_half_life", days=days),
            ),
        ]

    def following(self) -> tuple[str, list[Parameter]]:
        times, items = self._number(FOLLOW_WEIGHT), self._number(HALF_LIFE)
        return self._say("following"), [
            _parameter("weight", FOLLOW_WEIGHT, self._say("following_weight", times=times)),
            _parameter("half_life", HALF_LIFE, self._say("following_half_life", items=items)),
        ]

    def privacy(self) -> tuple[str, list[Parameter]]:
        default, days = self._settings.profiling, self._settings.decision_days
        n_never = len(self._snapshot.site.privacy.never_named)
        told = [
            _parameter("profiling", default, self._say(default)),
            _parameter("global_privacy_control", True, self._say("gpc")),
            _parameter("decision_days", days, self._counted("decision_days", days)),
            _parameter("events", None, self._say("events_kept")),
            _parameter("withheld", None, self._say("withheld")),
            _parameter("analytics", None, self._say("analytics")),
        ]
        if n_never:
            told.append(_parameter("never_named", n_never, self._counted("never_named", n_never)))
        return self._say("privacy"), told

    def control(self) -> tuple[str, list[Parameter]]:
        return self._say("control"), [
            _parameter(name, address, self._say(f"control_{name}"))
            for name, address in CONTROLS.items()
        ]

    def _say(self, key: str, **parts: object) -> str:
        return self._told.text(f"transparency.{key}", **parts).rstrip()

    def _counted(self, key: str, n: int) -> str:
        return self._told.counted(f"transparency.{key}", n)

    def _share(self, share: float, what: str) -> str:
        return self._say("share", share=self._percent(share), what=what)

    def _percent(self, share: float) -> str:
        return self._told.text("lists.percent", value=self._number(round(100 * share)))

    def _number(self, value: float) -> str:
        return self._told.plain(value)

    def _time(self, time: str) -> str:
        return f"{self._told.day(time)}, {time[11:16]} UTC"


def _parameter(name: str, value: object, text: str) -> Parameter:
    return {"name": name, "value": value, "text": text}


def _shares(placement: Placement) -> dict[str, float]:
    """Return which part of a list each source fills."""
    total = sum(one.weight for one in placement.sources)
    return {one.name: round(one.weight / total, 4) for one in placement.sources}


def as_page(document: dict[str, Any]) -> str:
    """Return what `transparency` has made as a page for people; it loads nothing from anywhere."""
    parts = []
    for section in document["sections"]:
        parts.append(f"<section id={section['id']}><h2>{escape(section['title'])}</h2>")
        parts.append(f"<p>{escape(section['text'])}</p>")
        lines = [_line(section["id"], one) for one in section["parameters"]]
        parts.append(f"<ul>{''.join(lines)}</ul></section>" if lines else "</section>")
    return opening(document["language"], document["title"]) + "".join(parts) + CLOSING


def _line(section: str, parameter: Parameter) -> str:
    shown = escape(parameter["text"])
    # Of these the value is more than the text says.
    if section == "control" or parameter["name"] == "model_version":
        shown += f" <code>{escape(str(parameter['value'] or ''))}</code>"
    return f"<li>{shown}</li>"
