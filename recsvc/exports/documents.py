"""An export as bytes: one JSON document, or one page that needs nothing from elsewhere."""

from collections.abc import AsyncIterator
from html import escape

import orjson

from recsvc.explaining.html import CLOSING, opening
from recsvc.explaining.words import Words
from recsvc.exports.exporting import PersonExport
from recsvc.exports.sections import BY_NAME
from recsvc.exports.tables import Tables


async def as_json(export: PersonExport, told: Words) -> AsyncIterator[bytes]:
    """Yield the JSON document in parts; cut off, it is no JSON."""
    yield orjson.dumps(export.head)[:-1] + b',"sections":{'
    current, count = "", 0
    async for name, entries in export.parts():
        if name != current:
            if current:
                yield b'],"count":%d},' % count
            current, count = name, 0
            section = BY_NAME[name]
            about = {
                "title": section.title(told),
                "what": section.what(told),
                "why": section.why(told),
            }
            yield orjson.dumps(name) + b":" + orjson.dumps(about)[:-1] + b',"entries":['
        if entries:
            comma = b"," if count else b""
            yield comma + b",".join(map(orjson.dumps, entries))
            count += len(entries)
    yield b'],"count":%d}}}\n' % count


async def as_html(export: PersonExport, told: Words) -> AsyncIterator[bytes]:
    """Yield a page of the same."""
    head, tables = export.head, Tables(told)
    title = told.text("export.page", whose=head["user_id"] or head["anonymous_id"])
    made = told.text("export.made", day=told.day(head["made_at"]), time=head["made_at"][11:16])
    contents = "".join(
        f'<li><a href="#{one.name}">{escape(one.title(told))}</a></li>' for one in BY_NAME.values()
    )
    yield (
        f"{opening(told.language, title, wide=True)}<p>{escape(made)}</p>"
        f"<p>{escape(told.text('export.intro'))}</p>"
        f'<ul class="contents">{contents}</ul>'
    ).encode()
    current, count = "", 0
    async for name, entries in export.parts():
        if name != current:
            if current:
                yield tables.end(BY_NAME[current], count).encode()
            current, count = name, 0
            yield tables.heading(BY_NAME[name]).encode()
        if entries:
            yield tables.rows(BY_NAME[name], entries, first=count == 0).encode()
            count += len(entries)
    # Whoever sees no such line has a page that was cut off.
    ending = f'<p class="quiet">{escape(told.text("export.end"))}</p>'
    yield (tables.end(BY_NAME[current], count) + ending + CLOSING).encode()
