"""Pages for people: one file, no scripts, nothing from elsewhere; light or dark as they like it."""

from html import escape

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
MEDIA_TYPE = "text/html"

_STYLE = """
:root { color-scheme: light dark; --line: #8884;
  --quiet: color-mix(in srgb, currentColor 70%, #888); }
body { font: 1rem/1.6 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 44rem; }
body.wide { max-width: 72rem; }
h1 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .25rem; font-size: 1.2rem; }
p { margin: .3rem 0; max-width: 44rem; }
li { margin: .35rem 0; }
code { font-size: .85rem; color: var(--quiet); overflow-wrap: anywhere; }
.quiet { color: var(--quiet); }
ul.contents { columns: 15rem; padding-left: 1.2rem; }
ul.contents li { margin: 0; }
table { border-collapse: collapse; width: 100%; margin: .8rem 0; font-size: .85rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
td:last-child { overflow-wrap: anywhere; }
time { white-space: nowrap; }
thead th { position: sticky; top: 0; background: Canvas; }
table table { margin: 0; }
table table thead th { position: static; }
table.entry { border-top: 2px solid var(--line); margin-top: 1.2rem; }
table.entry > tbody > tr > th { width: 13rem; font-weight: normal; color: var(--quiet); }
summary { cursor: pointer; }
@media print { details:not([open]) { display: none; } thead th { position: static; } }
"""
CLOSING = "</main></body></html>\n"


def opening(language: str, title: str, *, wide: bool = False) -> str:
    """Return the beginning of a page up to its heading.

    Parameters
    ----------
    language : str
        Tag of the language.
    title : str
        Its heading, and what the browser calls it.
    wide : bool
        Whether there are tables.
    """
    name = escape(title)
    return (
        f'<!doctype html><html lang="{escape(language)}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{_STYLE}</style></head>"
        f"<body{' class=wide' if wide else ''}><main><h1>{name}</h1>"
    )
