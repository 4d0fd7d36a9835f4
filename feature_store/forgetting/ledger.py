"""Who is forgotten, and up to when: known by a keyed hash, so that the list names nobody.

A *cut* of a person says which of their events are dropped for good, wherever they turn up: late, in
a file that is imported again, in the archive, in a backup. The server has the cuts of a shard's
people in one hash; each of them also stands among the changes of people (``changes/people``), from
which training and a rebuild read them.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import orjson
import polars as pl

from feature_store.change_log import Change, ChangeLog
from feature_store.links import ROW_TYPE

KIND = "forgotten"
"""``kind`` of these entries among the changes of people; their ``person`` is a digest."""
_PEOPLE = "people"
_MARK = b'"kind":"forgotten"'


class Cut(NamedTuple):
    """What is forgotten of a person, in milliseconds since 1970; 0 for nothing.

    Events with a time before `before_ms` are dropped for good; documents written before `erased_ms`
    are, and merges sealed before it.
    """

    before_ms: int = 0
    erased_ms: int = 0

    def later(self, other: "Cut") -> "Cut":
        """Return what both forget."""
        return Cut(max(self.before_ms, other.before_ms), max(self.erased_ms, other.erased_ms))

    @property
    def value(self) -> bytes:
        """What the server holds."""
        return b"%d %d" % self


NO_CUT = Cut()


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure removed from the server.

    Parameters
    ----------
    people : tuple of str
        The person, and the visitors who became the person (``schema.person_of``).
    at_ms : int
        When, in milliseconds since 1970: what comes later is somebody new's.
    counts : dict of str to int
        How many of each kind of value there were, such as ``state`` or ``profile``.
    """

    people: tuple[str, ...]
    at_ms: int
    counts: dict[str, int] = field(default_factory=dict)


def read_cut(value: bytes | None) -> Cut:
    """Read a cut as the server holds it."""
    if not value:
        return NO_CUT
    before_ms, _, erased_ms = value.partition(b" ")
    return Cut(int(before_ms), int(erased_ms))


def epoch_ms(at: datetime) -> int:
    """Return a time in whole milliseconds since 1970, as streams and log have it."""
    return int(at.timestamp()) * 1000 + at.microsecond // 1000


def digest_of(salt: bytes, person: str) -> str:
    """Return by what a person is known in the list.

    Parameters
    ----------
    salt : bytes
        Of the site.
    person : str
        ``schema.person_of``.
    """
    name = person.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(name, key=salt, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Ledger:
    """Everybody who is forgotten.

    Parameters
    ----------
    salts : tuple of bytes
        Keys of the digests: one, or several after a server was lost and began anew.
    cuts : mapping of str to Cut
        What is forgotten of whom.
    """

    salts: tuple[bytes, ...] = ()
    cuts: Mapping[str, Cut] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.cuts)

    def digests(self, person: str) -> tuple[str, ...]:
        """Return by what a person may be known here."""
        return tuple(digest_of(salt, person) for salt in self.salts)

    def cut_of(self, person: str) -> Cut:
        """Return what is forgotten of a person (``schema.person_of``)."""
        cut = NO_CUT
        if self.cuts:
            for digest in self.digests(person):
                cut = cut.later(self.cuts.get(digest, NO_CUT))
        return cut

    def kept(self, events: pl.DataFrame) -> pl.DataFrame:
        """Leave out the events that are forgotten.

        Parameters
        ----------
        events : DataFrame
            ``user_id``, ``anonymous_id``, ``timestamp`` and, where merges may be among them,
            ``type``; a row is its user's, or else its visitor's, before merges are repeated.

        Returns
        -------
        DataFrame
            Without rows that are older than their person's `Cut.before_ms`, and without merges
            that are older than `Cut.erased_ms` of one of the two.
        """
        return self.kept_of(events.lazy()).collect() if self.cuts else events

    def kept_of(self, log: pl.LazyFrame) -> pl.LazyFrame:
        """Leave out the events of a whole log that are forgotten, as `kept` does.

        The people of the log are read at once, its rows when the result is.
        """
        return self.keeping(log)(log)

    def keeping(self, log: pl.LazyFrame) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
        """Return what leaves out forgotten events of a log, or of parts of it.

        Parameters
        ----------
        log : LazyFrame
            Names everybody whose events will be asked for; its people are read now, once.
        """
        if not self.cuts:
            return _as_it_is
        log = _with_text_ids(log)
        users, visitors = (
            self._table(log.select(pl.col(name).unique()).collect(engine="streaming"), prefix)
            for name, prefix in (("user_id", "u:"), ("anonymous_id", "a:"))
        )
        if users.is_empty() and visitors.is_empty():
            return _as_it_is
        user, anonymous = users.rename(_named("user")), visitors.rename(_named("anonymous"))

        def keep(part: pl.LazyFrame) -> pl.LazyFrame:
            names = part.collect_schema().names()
            joined = (
                _with_text_ids(part)
                .join(user.lazy(), on="user_id", how="left", maintain_order="left")
                .join(anonymous.lazy(), on="anonymous_id", how="left", maintain_order="left")
            )
            own = pl.when(pl.col("user_id").is_not_null()).then("_before_user")
            before = own.otherwise("_before_anonymous").fill_null(0)
            if "type" in names:
                erased = pl.max_horizontal("_erased_user", "_erased_anonymous").fill_null(0)
                before = pl.when(pl.col("type") == ROW_TYPE).then(erased).otherwise(before)
            return joined.filter(pl.col("timestamp").dt.epoch("ms") >= before).select(names)

        return keep

    def _table(self, ids: pl.DataFrame, prefix: str) -> pl.DataFrame:
        """Return the forgotten of some ids: ``id``, ``before`` and ``erased`` in milliseconds."""
        rows = [
            (one, *cut)
            for one in ids.to_series().drop_nulls().to_list()
            if (cut := self.cut_of(prefix + one)) != NO_CUT
        ]
        schema = {"id": pl.String, "before": pl.Int64, "erased": pl.Int64}
        return pl.DataFrame(rows, schema, orient="row")

    @property
    def salt(self) -> bytes:
        """The salt of new entries; empty when nobody was ever forgotten."""
        return self.salts[0] if self.salts else b""


def _as_it_is(log: pl.LazyFrame) -> pl.LazyFrame:
    return log


def _with_text_ids(log: pl.LazyFrame) -> pl.LazyFrame:
    # A frame of which no row has one says nothing of its type.
    return log.with_columns(pl.col("user_id", "anonymous_id").cast(pl.String))


def _named(kind: str) -> dict[str, str]:
    return {"id": f"{kind}_id", "before": f"_before_{kind}", "erased": f"_erased_{kind}"}


def ledger_of(entries: Iterable[Mapping[str, Any]]) -> Ledger:
    """Put entries together; the later of two cuts of a person counts.

    Parameters
    ----------
    entries : iterable of mapping
        Changes of people; those of another kind are passed over.
    """
    salts: dict[bytes, None] = {}
    cuts: dict[str, Cut] = {}
    for entry in entries:
        if entry["kind"] == KIND:
            body = entry["body"]
            salts[bytes.fromhex(body["salt"])] = None
            cut = Cut(body["before_ms"], body["erased_ms"])
            cuts[entry["person"]] = cut.later(cuts.get(entry["person"], NO_CUT))
    return Ledger(tuple(reversed(salts)), cuts)


def read_ledger(changes: ChangeLog) -> Ledger:
    """Read who is forgotten from the archive alone.

    Parameters
    ----------
    changes : ChangeLog
        Of the data directory.
    """
    return ledger_of(_entries(changes))


def _entries(changes: ChangeLog) -> Iterator[dict[str, Any]]:
    for path in changes.files(_PEOPLE):
        for line in path.read_bytes().splitlines():
            # Most lines are profiles, which need not be parsed.
            if _MARK in line:
                yield orjson.loads(line)


def kept_changes(changes: Sequence[Change]) -> list[Change]:
    """Leave out the documents of people that were written before the people were erased.

    What counts is the place, which is the order in which the server wrote, and not the time that a
    document names.

    Parameters
    ----------
    changes : sequence of Change
        All changes of people, in their order (``ChangeLog.read``).

    Returns
    -------
    list of Change
        Entries of the kind ``forgotten`` stay.
    """
    ledger = ledger_of(change.body for change in changes)
    if not ledger:
        return list(changes)
    last: dict[str, int] = {}
    erased_ms: dict[str, int] = {}
    for at, change in enumerate(changes):
        body = change.body
        # A reset of the taste repeats when its person was erased: that is no erasure.
        if body["kind"] == KIND and body["body"]["erased_ms"] > erased_ms.get(body["person"], 0):
            erased_ms[body["person"]] = body["body"]["erased_ms"]
            last[body["person"]] = at
    digests: dict[str, tuple[str, ...]] = {}
    kept = []
    for at, change in enumerate(changes):
        person = change.body["person"]
        if change.body["kind"] != KIND and last:
            if person not in digests:
                digests[person] = ledger.digests(person)
            if any(at < last.get(digest, -1) for digest in digests[person]):
                continue
        kept.append(change)
    return kept
