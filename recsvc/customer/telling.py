"""What is thought of a person, and whether anything may be, in words."""

from typing import Any

from feature_store.preferences import UNREADABLE, Preferences, ProfilingDefault
from recsvc.customer.consenting import GPC
from recsvc.customer.portrait import Point, Portrait, Signal
from recsvc.explaining.words import Words


class Teller:
    """Says a portrait in words.

    Parameters
    ----------
    portrait : Portrait
        What is said.
    words : Words
        Of some language.
    """

    def __init__(self, portrait: Portrait, words: Words) -> None:
        self._portrait = portrait
        self.words = words
        self._text = words.text

    def title(self, row: int) -> str:
        """Return what an item is called."""
        columns = self._portrait.catalogue.columns_at(row) or {}
        return str(columns.get("title") or columns.get("item_id") or "")

    def point(self, point: Point) -> str:
        """Return a point as a sentence."""
        if point.kind in ("category", "brand"):
            how = "bought" if point.bought else "seen"
            # Variants often share a title.
            titles = dict.fromkeys(self.title(row) for row in point.because)
            items = self.words.titles([*titles])
            return self._text(f"profile.{point.kind}_{how}", name=point.name, items=items)
        if point.kind == "segment":
            return self._segment(point.name)
        if point.kind == "computed":
            return self._computed(point.name, self._portrait.computed[point.name])
        return self._text(f"profile.{point.kind}", name=self.shown_name(point.kind, point.name))

    def shown_name(self, kind: str, name: str) -> str:
        """Return what a point is about, as people call it."""
        if kind.endswith("item"):
            row = self._portrait.catalogue.row(name)
            return name if row is None else self.title(row)
        segment = self._portrait.snapshot.site.segments.get(name) if kind == "segment" else None
        if segment is None:
            return name
        return self._text(f"profile.name_{name}") if segment.built_in else segment.body.name

    def _segment(self, segment_id: str) -> str:
        segment = self._portrait.snapshot.site.segments[segment_id]
        if segment.built_in:
            return self._text(f"profile.{segment_id}")
        name, description = segment.body.name, segment.body.description
        if not description:
            return self._text("profile.segment", name=name)
        return self._text("profile.segment_described", name=name, description=description)

    def _computed(self, name: str, value: Any) -> str:
        if name == "rfm":
            return self._text("profile.rfm", days=value["recency_days"], orders=value["frequency"])
        if name == "clv":
            amount, days = self.words.number(float(value["amount"]), 2), value["horizon_days"]
            return self._text("profile.clv", days=days, amount=amount, currency=value["currency"])
        if name == "churn_risk":
            return self._text("profile.churn_risk", percent=round(100 * value))
        return self._text("profile.next_purchase_at", date=self.words.day(str(value)))

    def whole(self) -> str:
        """Return what the profile is, in a sentence."""
        if self._portrait.preferences is UNREADABLE:
            return self._text("profile.unread")
        return self._text("profile.known" if self._portrait.profiled else "profile.off")

    def consent(self, purpose: str, allowed: bool | None) -> str:
        """Return where a consent stands."""
        said = {True: "allowed", False: "refused", None: "unasked"}[allowed]
        return self._text(f"profile.{said}", purpose=self._text(f"profile.consent_{purpose}"))

    def mail(self) -> str:
        """Return what was said of mail."""
        email = self._portrait.preferences.email
        if email.paused_until is not None and email.paused_until.timestamp() > self._portrait.now_s:
            paused = self.words.day(email.paused_until.isoformat())
            return self._text("profile.mail_paused", date=paused)
        if email.frequency_days is None:
            return self._text("profile.mail_any")
        return self._text("profile.mail_often", n=email.frequency_days)

    def signal(self, signal: Signal) -> str:
        """Return what somebody did as a sentence."""
        return self._text(f"profile.did_{signal.type}", item=self.title(signal.row))


def why_profiled(preferences: Preferences, default: ProfilingDefault, words: Words) -> str:
    """Say why a person's history is used and added to now, or why not.

    Parameters
    ----------
    preferences : Preferences
        What the person decided.
    default : {"opt_out", "opt_in"}
        What holds for who was never asked.
    words : Words
        Of some language.
    """
    if not preferences.personalization:
        return words.text("profiling.off")
    said = preferences.consent.profiling
    if said is None:
        return words.text(f"profiling.unasked_{default}")
    changes = [one for one in preferences.consent_changes if one.purpose == "profiling"]
    code = "agreed" if said else "refused"
    if not changes:
        return words.text(f"profiling.{code}")
    if not said and changes[-1].source == GPC:
        code = "objected"
    return words.text(f"profiling.{code}_on", date=f"{changes[-1].at:%Y-%m-%d}")
