"""Events that end the consent to mail: the same ones live, from other platforms and from files."""

import polars as pl

from feature_store.facts import person_column
from feature_store.preferences import Purpose, Saying
from feature_store.schema import Event, EventType, person_of

_PURPOSE: Purpose = "email_marketing"
MAIL = "email"
"""Channel of a complaint that is one of a mail: marked as spam."""


def refuses_mail(event: Event) -> bool:
    """Tell whether an event ends the consent to mail: an unsubscription, or a complaint of a mail.

    A complaint by any other channel is one of the shop, and says nothing of mail.
    """
    if event.type is EventType.COMPLAINT:
        return event.channel is not None and event.channel.lower() == MAIL
    return event.type is EventType.UNSUBSCRIBE


def said_by(event: Event) -> Saying:
    """Return what an event that refuses mail says."""
    person = person_of(event.user_id, event.anonymous_id)
    assert person is not None
    return Saying(person, _PURPOSE, False, event.timestamp, event.type.value)


def mail_refusals(events: pl.LazyFrame) -> list[Saying]:
    """Return what imported events say of mail: of each person the newest word of each kind.

    Parameters
    ----------
    events : LazyFrame
        Columns of ``event_log.EVENT_LOG_SCHEMA``, in any order.
    """
    is_spam = (pl.col("type") == EventType.COMPLAINT.value) & (
        pl.col("channel").str.to_lowercase() == MAIL
    )
    found = (
        events.filter((pl.col("type") == EventType.UNSUBSCRIBE.value) | is_spam)
        .group_by(person_column(), "type")
        .agg(pl.col("timestamp").max())
        .select("person", "type", "timestamp")
        .sort("person", "timestamp")
        .collect(engine="streaming")
    )
    return [Saying(person, _PURPOSE, False, at, said) for person, said, at in found.iter_rows()]
