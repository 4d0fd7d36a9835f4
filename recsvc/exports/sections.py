"""The sections of an export of what is held of a person; what each is, the texts say."""

from dataclasses import dataclass

from recsvc.explaining.words import Words


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of thing that is held of a person.

    Parameters
    ----------
    name : str
        Its name in the JSON document, and among the texts.
    columns : tuple of str
        Columns of its table on a page; empty where entries differ too much for one.
    """

    name: str
    columns: tuple[str, ...] = ()

    def title(self, told: Words) -> str:
        """Return its heading."""
        return told.text(f"export_titles.{self.name}")

    def what(self, told: Words) -> str:
        """Return what it is, in a sentence."""
        return told.text(f"export_what.{self.name}")

    def why(self, told: Words) -> str:
        """Return why it is held, in a sentence."""
        return told.text(f"export_why.{self.name}")


SECTIONS = (
    Section("profile"),
    Section("external_ids", ("system", "id", "in_the_profile")),
    Section("preferences"),
    Section("computed"),
    Section("segments", ("segment_id", "name", "description")),
    Section("facts", ("title", "type", "count", "first_at", "last_at", "item_id")),
    Section("session", ("at", "type", "title", "item_id")),
    Section("feedback", ("instrument", "score", "count", "first_at", "last_at")),
    Section("impressions", ("title", "hour", "count", "item_id")),
    Section(
        "events",
        ("timestamp", "type", "title", "quantity", "unit_price", "currency", "order_id", "item_id"),
    ),
    Section("merges", ("anonymous_id", "user_id", "at", "complete")),
    Section("changes"),
    Section("decisions"),
    Section("rejects", ("file", "source", "line", "reason", "detail")),
    Section("technical", ("kind", "of", "name", "count")),
    Section("forgotten", ("of", "events_before", "documents_before")),
    Section("delivered", ("path", "kind", "at")),
)
"""In the order of the document."""

BY_NAME = {section.name: section for section in SECTIONS}
