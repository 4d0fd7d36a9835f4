"""The sections of an export of what is held of a person: what each is, and why it is held."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of thing that is held of a person.

    Parameters
    ----------
    name : str
        Its name in the JSON document.
    title : str
        Its heading.
    what : str
        What it is, in a sentence.
    why : str
        Why it is held, in a sentence.
    columns : tuple of str
        Columns of its table on a page; empty where entries differ too much for one.
    """

    name: str
    title: str
    what: str
    why: str
    columns: tuple[str, ...] = ()


SECTIONS = (
    Section(
        "profile",
        "Profile",
        "What the shop says of the person: attributes and loyalty programme.",
        "The shop's rules and segments look at it to decide what is shown.",
    ),
    Section(
        "external_ids",
        "Ids in other systems",
        "Ids under which other systems of the shop, such as its mail tool, know the person.",
        "So that those systems can ask for recommendations by their own id.",
        ("system", "id", "in_the_profile"),
    ),
    Section(
        "preferences",
        "Preferences and consent",
        "What the person decided: what is hidden, followed or wanted, and what is allowed, with"
        " the last fifty changes of consent; all others are in the change history.",
        "To obey it, and to be able to show when and by whom a consent was given or taken back.",
    ),
    Section(
        "computed",
        "Computed values",
        "What the last training computed from the purchases: stage, frequency, value, risk of"
        " leaving, expected next purchase.",
        "The shop's rules and segments look at it; the next training computes it again.",
    ),
    Section(
        "segments",
        "Segments",
        "Groups of customers to which the person belongs at this moment, by the shop's conditions.",
        "Computed for this document and stored nowhere; rules use them to decide what is shown.",
        ("segment_id", "name", "description"),
    ),
    Section(
        "facts",
        "Interactions by item",
        "For each item, how often the person did what with it, when first and when last.",
        "Recommendations are computed from it at the moment when they are asked for.",
        ("item_id", "title", "type", "count", "first_at", "last_at"),
    ),
    Section(
        "session",
        "Last interactions",
        "The last fifty things that the person did with items, one by one.",
        "What somebody looked at a moment ago says most about what they want now.",
        ("at", "type", "item_id", "title"),
    ),
    Section(
        "feedback",
        "Feedback",
        "Answers to surveys, ratings and complaints: how often each was given, when first and when"
        " last.",
        "The shop's reports and segments look at it.",
        ("instrument", "score", "count", "first_at", "last_at"),
    ),
    Section(
        "impressions",
        "What was shown",
        "How often each item was shown to the person in which hour; the newest 512 of these.",
        "So that what was shown often and never wanted is shown less.",
        ("item_id", "title", "hour", "count"),
    ),
    Section(
        "events",
        "Events",
        "Every event that was reported of the person, as it is kept in the event log, and those"
        " that still wait to be written there.",
        "The log is what everything else is computed and rebuilt from, and what models learn from.",
        ("timestamp", "type", "item_id", "quantity", "unit_price", "order_id", "stored_in"),
    ),
    Section(
        "merges",
        "Visits before signing in",
        "Visitors who turned out to be this person when they signed in.",
        "So that what was done before signing in belongs to the same person afterwards.",
        ("anonymous_id", "user_id", "at", "complete"),
    ),
    Section(
        "changes",
        "Change history",
        "Every change of profile and preferences with time and author, and the document as it was"
        " from then on.",
        "So that a lost server can be rebuilt, and that it can be shown who decided what and when.",
    ),
    Section(
        "decisions",
        "Recommendations",
        "What was recommended to the person, when, from which source and because of what.",
        "So that every recommendation can be explained; kept for some days, then removed.",
    ),
    Section(
        "rejects",
        "Refused rows of imports",
        "Rows of imported files that could not be read and whose message names the person.",
        "So that the shop can correct its files.",
        ("file", "source", "line", "reason", "detail"),
    ),
    Section(
        "technical",
        "Technical memory",
        "Counters and digests: how many ids of recent events are remembered (as digests, from which"
        " the ids cannot be read), how many events a browser sent this minute, which imports were"
        " added, and whether an index or the demo's list of examples names the person.",
        "So that an event that is sent twice counts once, and nobody floods the shop with events.",
        ("kind", "of", "name", "count"),
    ),
    Section(
        "forgotten",
        "Earlier erasures",
        "Whether something of the person was erased before: only a digest of the id and a time,"
        " before which events are refused. Receipts of erasures name nobody, so none is here.",
        "So that no late delivery, backup or replay brings back what was erased.",
        ("of", "events_before", "documents_before"),
    ),
    Section(
        "delivered",
        "Files given outside",
        "Files with data of many people, this one perhaps among them, that were written for use"
        " outside of the service: exports, backups, lists of refused rows.",
        "So that they can be found, and named when the person is erased.",
        ("path", "kind", "at"),
    ),
)
"""In the order of the document."""

BY_NAME = {section.name: section for section in SECTIONS}
