"""An export as bytes: one JSON document, or one page that needs nothing from elsewhere."""

from collections.abc import AsyncIterator
from html import escape
from typing import Any

import orjson

from recsvc.exports.exporting import PersonExport, Row
from recsvc.exports.sections import BY_NAME, Section

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;"
    "color:#1b1b1b;background:#fff}h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem;"
    "border-bottom:1px solid #ccc}p{margin:.3rem 0;max-width:48rem}.why,.none{color:#555}"
    "table{border-collapse:collapse;width:100%;margin:.8rem 0;font-size:13px}"
    "th,td{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0;"
    "border-bottom:1px solid #e4e4e4;overflow-wrap:anywhere}th{font-weight:600}"
    "td.name{width:14rem;color:#555}ul.contents{columns:3;padding-left:1.2rem}"
    "table.entry{border-top:2px solid #bbb}ol,ul.list{margin:0;padding-left:1.1rem}"
)


async def as_json(export: PersonExport) -> AsyncIterator[bytes]:
    """Yield the JSON document in parts; cut off, it is no JSON."""
    yield orjson.dumps(export.head)[:-1] + b',"sections":{'
    current, count = "", 0
    async for name, entries in export.parts():
        if name != current:
            if current:
                yield b'],"count":%d},' % count
            current, count = name, 0
            section = BY_NAME[name]
            about = {"title": section.title, "what": section.what, "why": section.why}
            yield orjson.dumps(name) + b":" + orjson.dumps(about)[:-1] + b',"entries":['
        if entries:
            comma = b"," if count else b""
            yield comma + b",".join(map(orjson.dumps, entries))
            count += len(entries)
    yield b'],"count":%d}}}\n' % count


async def as_html(export: PersonExport) -> AsyncIterator[bytes]:
    """Yield a page of the same."""
    head = export.head
    whose = head["user_id"] or head["anonymous_id"]
    sections = "".join(
        f'<li><a href="#{name}">{escape(one.title)}</a></li>' for name, one in BY_NAME.items()
    )
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>What is held of {escape(whose)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>What is held of {escape(whose)}</h1><p>Made at {head['made_at']}.</p>"
        f'<ul class="contents">{sections}</ul>'
    ).encode()
    current: Section | None = None
    count = 0
    async for name, entries in export.parts():
        if current is None or name != current.name:
            yield _end(current, count).encode()
            current, count = BY_NAME[name], 0
            yield _heading(current).encode()
        if entries:
            yield _shown(current, entries, first=count == 0).encode()
            count += len(entries)
    yield f"{_end(current, count)}</body></html>\n".encode()


def _heading(section: Section) -> str:
    return (
        f'<h2 id="{section.name}">{escape(section.title)}</h2><p>{escape(section.what)}</p>'
        f'<p class="why">Why: {escape(section.why)}</p>'
    )


def _end(section: Section | None, count: int) -> str:
    if section is None:
        return ""
    if not count:
        return '<p class="none">Nothing.</p>'
    table = "</tbody></table>" if section.columns else ""
    return f'{table}<p class="none">{count:,} in all.</p>'


def _shown(section: Section, entries: list[Row], *, first: bool) -> str:
    if not section.columns:
        return "".join(_entry(row) for row in entries)
    columns = section.columns
    head = ""
    if first:
        names = "".join(f"<th>{escape(_words(name))}</th>" for name in columns)
        head = f"<table><thead><tr>{names}<th></th></tr></thead><tbody>"
    return head + "".join(
        "<tr>"
        + "".join(f"<td>{_value(row.get(name))}</td>" for name in columns)
        # What the table has no column for is not left out.
        + f"<td>{_rest({name: one for name, one in row.items() if name not in columns})}</td></tr>"
        for row in entries
    )


def _rest(row: Row) -> str:
    return "; ".join(f"{escape(_words(name))}: {_value(value)}" for name, value in row.items())


def _entry(row: Row) -> str:
    lines = "".join(
        f'<tr><td class="name">{escape(_words(name))}</td><td>{_value(value)}</td></tr>'
        for name, value in row.items()
    )
    return f'<table class="entry"><tbody>{lines}</tbody></table>'


def _value(value: Any) -> str:
    """Return a JSON value as HTML."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{escape(_words(name))}: {_value(one)}" for name, one in value.items())
    if isinstance(value, list):
        if all(not isinstance(one, dict | list) for one in value):
            return escape(", ".join(map(str, value)))
        return "<ol>" + "".join(f"<li>{_value(one)}</li>" for one in value) + "</ol>"
    return escape(str(value))


def _words(name: str) -> str:
    return name.replace("_", " ")
