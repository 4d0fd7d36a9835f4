"""The entries of a product feed in XML (RSS 2.0, Atom, RSS 1.0), read safely and as a stream.

A feed comes from outside. Entities and external references need a document type declaration, so
one is refused before anything in it is read (https://docs.python.org/3/library/xml.html, "XML
vulnerabilities"); what is kept of one entry, and of one tag, is limited.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol
from xml.parsers.expat import errors as expat_errors

from defusedxml.common import DefusedXmlException, DTDForbidden
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from feature_store.errors import UserError
from feature_store.ingest.table import EmptyFileError

GOOGLE = ("http://base.google.com/ns/1.0", "http://base.google.com/cns/1.0")
"""Namespaces of Google's attributes, and of a merchant's own ones."""

CHUNK_BYTES = 1 << 18
MAX_ENTRY_CHARACTERS = 1 << 20
MAX_ENTRY_ELEMENTS = 2_000
MAX_DEPTH = 8
MAX_TAG_BYTES = 4 << 20
"""The parser looks at an unfinished tag again with each chunk: a long one would cost its square."""

Raw = dict[str, Any]
"""What an entry says: text, an object of nested elements, or a list where a name is repeated."""


class _Expat(Protocol):
    CurrentLineNumber: int
    CurrentByteIndex: int


@dataclass(slots=True)
class Entry:
    """An ``item`` or ``entry`` of a feed.

    Parameters
    ----------
    line : int
        Where it begins, from 1.
    values : dict
        Its elements by their local names; Google's come before others of the same name.
    too_big : bool
        Whether it exceeds `MAX_ENTRY_CHARACTERS` or `MAX_ENTRY_ELEMENTS`; then values are missing.
    """

    line: int
    values: Raw = field(default_factory=dict)
    too_big: bool = False


class BrokenFeedError(Exception):
    """The feed breaks off, or is not well-formed from a line on."""

    def __init__(self, line: int, detail: str) -> None:
        super().__init__(detail)
        self.line = line


class _Node:
    __slots__ = ("children", "google", "name", "text")

    def __init__(self, name: str, *, google: bool) -> None:
        self.name = name
        self.google = google
        self.text: list[str] = []
        self.children: Raw = {}


class _Entries:
    """What the parser tells: begins, ends and text of elements become entries."""

    def __init__(self) -> None:
        self.parser: _Expat | None = None
        self.root: str | None = None
        self.done: list[Entry] = []
        self._entry: Entry | None = None
        self._google: Raw = {}
        self._nodes: list[_Node] = []
        self._skipped = self._size = self._elements = 0
        self._names: dict[str, tuple[str, bool]] = {}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name, google = self._names.get(tag) or self._name(tag)
        if self._entry is None:
            self.root = self.root or name
            if name in ("item", "entry") and self.parser is not None:
                self._entry = Entry(self.parser.CurrentLineNumber)
                self._google, self._size, self._elements = {}, 0, 0
            return
        self._elements += 1
        if self._skipped or len(self._nodes) >= MAX_DEPTH or self._elements > MAX_ENTRY_ELEMENTS:
            self._entry.too_big |= self._elements > MAX_ENTRY_ELEMENTS
            self._skipped += 1
            return
        node = _Node(name, google=google)
        self._nodes.append(node)
        # Atom: <link rel="alternate" href="..."/>; other relations are no page of the product.
        if name == "link" and "href" in attributes:
            if attributes.get("rel", "alternate") == "alternate":
                node.text.append(attributes["href"])
            else:
                node.name = f"link_{attributes['rel']}"

    def data(self, text: str) -> None:
        if self._nodes and not self._skipped:
            self._size += len(text)
            if self._size <= MAX_ENTRY_CHARACTERS:
                self._nodes[-1].text.append(text)

    def end(self, tag: str) -> None:  # noqa: ARG002 - the parser says which
        if self._entry is None:
            return
        if self._skipped:
            self._skipped -= 1
        elif self._nodes:
            self._close(self._nodes.pop())
        else:
            entry, self._entry = self._entry, None
            entry.values |= self._google
            entry.too_big |= self._size > MAX_ENTRY_CHARACTERS
            self.done.append(entry)

    def close(self) -> None:
        """Take part in the protocol of the parser's targets."""

    def _close(self, node: _Node) -> None:
        value: Any = node.children or "".join(node.text).strip()
        if not value or self._entry is None:
            return
        if self._nodes:
            into = self._nodes[-1].children
        else:
            into = self._google if node.google else self._entry.values
        before = into.get(node.name)
        if before is None:
            into[node.name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            into[node.name] = [before, value]

    def _name(self, tag: str) -> tuple[str, bool]:
        space, _, name = tag.removeprefix("{").rpartition("}")
        known = name, space in GOOGLE
        # Names that a feed makes up without end must not fill the memory.
        if len(self._names) < MAX_ENTRY_ELEMENTS:
            self._names[tag] = known
        return known


def read_entries(
    file: BinaryIO, name: str, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[tuple[list[Entry], int]]:
    """Read a feed chunk by chunk.

    Parameters
    ----------
    file : binary file
        Read once, front to back; in the encoding that it declares.
    name : str
        What messages call it.
    chunk_bytes : int
        How much is read at a time.

    Yields
    ------
    tuple of (list of Entry, int)
        The entries that end in a chunk, and how many bytes it has.

    Raises
    ------
    BrokenFeedError
        Where the feed breaks off; the entries before it have been yielded.
    UserError
        If it declares a document type, or is no feed at all.
    """
    entries = _Entries()
    parser = DefusedXMLParser(target=entries, forbid_dtd=True)
    expat: _Expat = parser.parser
    entries.parser = expat
    chunk = file.read(chunk_bytes)
    if not chunk.strip():
        raise EmptyFileError(f"{name} is empty")
    # Many feeds have a blank line in front, which XML does not allow.
    chunk = chunk.lstrip() if chunk[:1] in b" \t\r\n" else chunk
    n_bytes = 0
    try:
        while chunk:
            parser.feed(chunk)
            n_bytes += len(chunk)
            if n_bytes - expat.CurrentByteIndex > MAX_TAG_BYTES:
                raise UserError(
                    f"{name} has a tag or a comment of over {MAX_TAG_BYTES >> 20} MB in line "
                    f"{expat.CurrentLineNumber}: no feed has that"
                )
            yield _taken(entries), len(chunk)
            chunk = file.read(chunk_bytes)
        parser.close()
    except ParseError as error:
        yield _taken(entries), len(chunk)
        _refuse_if_no_feed(entries.root, name, str(error))
        raise BrokenFeedError(error.position[0], _said(error)) from None
    except DefusedXmlException as error:
        raise _refused(error, name) from None
    except (LookupError, ValueError) as error:
        raise UserError(f"{name} cannot be read as XML: {error}") from None
    yield _taken(entries), 0
    _refuse_if_no_feed(entries.root, name, "")


def _taken(entries: _Entries) -> list[Entry]:
    done, entries.done = entries.done, []
    return done


def _said(error: ParseError) -> str:
    if error.code == expat_errors.codes[expat_errors.XML_ERROR_NO_ELEMENTS]:
        return "the feed breaks off before its end"
    return f"not well-formed: {error}"


def _refuse_if_no_feed(root: str | None, name: str, detail: str) -> None:
    if root is None:
        raise UserError(f"{name} is not XML{f': {detail}' if detail else ''}")
    if root.lower() not in ("rss", "feed", "rdf", "channel", "items", "products"):
        raise UserError(f"{name} is not a product feed: its outermost element is <{root}>")


def _refused(error: DefusedXmlException, name: str) -> UserError:
    if isinstance(error, DTDForbidden) and str(error.name).lower() == "html":
        return UserError(f"{name} is a web page, not a product feed")
    return UserError(
        f"{name} declares a document type (<!DOCTYPE ...>), which can hold entities and external "
        "references: it is refused; a product feed needs none"
    )
