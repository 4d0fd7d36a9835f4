"""Entries of an export as HTML, with the names of fields and the times in somebody's language."""

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from recsvc.explaining.words import Words
from recsvc.exports.exporting import Row
from recsvc.exports.sections import Section

FOLDED = frozenset({"answer", "candidates", "removed", "history", "rules"})
"""What few will read: it is there, and folded away."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_VALUED = {
    "type": "export_values",
    "purpose": "export_fields",
    "reason": "reasons_unnamed",
}
"""Fields whose values have words, and where these are."""


class Tables:
    """Writes sections.

    Parameters
    ----------
    told : Words
        The language.
    """

    def __init__(self, told: Words) -> None:
        self._told = told
        self._names: dict[str, str] = {}

    def heading(self, section: Section) -> str:
        """Return what a section is, and why it is held."""
        why = self._told.text("export.why", why=section.why(self._told))
        return (
            f'<h2 id="{section.name}">{escape(section.title(self._told))}</h2>'
            f'<p>{escape(section.what(self._told))}</p><p class="quiet">{escape(why)}</p>'
        )

    def rows(self, section: Section, entries: Sequence[Row], *, first: bool) -> str:
        """Return some entries of a section; before the `first` ones stand the table's columns."""
        columns = section.columns
        if not columns:
            return "".join(self._entry(row) for row in entries)
        begin = ""
        if first:
            names = "".join(f"<th>{self._name(name)}</th>" for name in columns)
            begin = f"<table><thead><tr>{names}<th></th></tr></thead><tbody>"
        return begin + "".join(self._line(columns, row) for row in entries)

    def end(self, section: Section, count: int) -> str:
        """Return what stands under a section of so many entries."""
        if not count:
            return f'<p class="quiet">{escape(self._told.text("export.nothing"))}</p>'
        table = "</tbody></table>" if section.columns else ""
        return f'{table}<p class="quiet">{escape(self._told.counted("export.in_all", count))}</p>'

    def _line(self, columns: Sequence[str], row: Row) -> str:
        cells = "".join(f"<td>{self._of(name, row.get(name))}</td>" for name in columns)
        # What the table has no column for is not left out.
        rest = {name: value for name, value in row.items() if name not in columns}
        return f'<tr>{cells}<td class="quiet">{self._inline(rest)}</td></tr>'

    def _entry(self, row: Row) -> str:
        lines = "".join(
            f"<tr><th>{self._name(name)}</th><td>{self._of(name, value)}</td></tr>"
            for name, value in row.items()
            if value not in (None, [], {})
        )
        return f'<table class="entry"><tbody>{lines}</tbody></table>'

    def _of(self, name: str, value: Any) -> str:
        """Return the value of a field."""
        if name in FOLDED and isinstance(value, dict | list) and value:
            said = self._told.counted("export.folded", len(value), name=self._plain(name))
            return f"<details><summary>{escape(said)}</summary>{self._value(value)}</details>"
        if name in _VALUED and isinstance(value, str):
            return escape(self._word(_VALUED[name], value))
        return self._value(value)

    def _value(self, value: Any) -> str:
        """Return a JSON value as HTML."""
        if value is None:
            return ""
        if isinstance(value, bool):
            return escape(self._told.text("export.yes" if value else "export.no"))
        if isinstance(value, dict):
            return self._inline(value)
        if isinstance(value, list):
            return self._list(value)
        if isinstance(value, str) and _TIME.fullmatch(value):
            shown = f"{self._told.day(value)}, {value[11:16]}"
            return f'<time datetime="{value}">{escape(shown)}</time>'
        if isinstance(value, float):
            return escape(f"{value:.6g}")
        return escape(str(value))

    def _inline(self, row: Row) -> str:
        return "; ".join(
            f"{self._name(name)}: {self._of(name, value)}"
            for name, value in row.items()
            if value not in (None, [], {})
        )

    def _list(self, values: list[Any]) -> str:
        if not all(isinstance(one, dict) for one in values):
            return ", ".join(self._value(one) for one in values)
        columns = [
            name
            for name in dict.fromkeys(name for one in values for name in one)
            if any(one.get(name) not in (None, [], {}) for one in values)
        ]
        names = "".join(f"<th>{self._name(name)}</th>" for name in columns)
        lines = "".join(
            "<tr>"
            + "".join(f"<td>{self._of(name, one.get(name))}</td>" for name in columns)
            + "</tr>"
            for one in values
        )
        return f"<table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table>"

    def _name(self, name: str) -> str:
        shown = self._names.get(name)
        if shown is None:
            shown = escape(self._plain(name))
            # Names of attributes are the shop's: too many to keep.
            if f"export_fields.{name}" in self._told:
                self._names[name] = shown
        return shown

    def _plain(self, name: str) -> str:
        return self._word("export_fields", name)

    def _word(self, section: str, name: str) -> str:
        key = f"{section}.{name}"
        return self._told.text(key) if key in self._told else name.replace("_", " ")
