"""Every Redis key: what it holds, its type, how long it lives and who writes it.

=============================  ======  ==========  =============================================
key                            type    lives       holds (written by)
=============================  ======  ==========  =============================================
``h:{sNN}:PERSON``             string  for ever    packed hot state (``append_events``, imports)
``r:{sNN}:PERSON``             string  for ever    packed rest of the state (the same)
``t:{sNN}:PERSON``             string  for ever    packed impressions (the same); goes when erased
``p:{sNN}:PERSON``             string  for ever    preferences as JSON (``people``)
``u:{sNN}:PERSON``             string  for ever    profile of a user as JSON (``people``)
``k:{sNN}:PERSON``             string  for ever    what training computed, as JSON (``people``)
``n:{sNN}``                    set     for ever    people who have one of these three (``people``)
``x:{sNN}:NAME=ID``            string  for ever    user whom an external id stands for (``people``)
``g:{sNN}``                    stream  archived    changes of profiles and preferences, as JSON
``b:{sNN}``                    hash    for ever    digest of a person → what is forgotten of them
``{forgotten}:salt``           string  for ever    salt of these digests (``forgotten``)
``{forgotten}:jobs``           hash    a job       erasures that are not finished (``erasures``)
``{forgotten}:receipts``       hash    for ever    receipts of erasures, naming nobody
``{forgotten}:folders``        hash    for ever    folder → when a worker spoke of it, its machine
``{forgotten}:cleared``        hash    a job       erasure and folder → what is gone from there
``c:{forgotten}``              stream  archived    changes of receipts, as JSON (``erasures``)
``d:{sNN}:DAY:PERSON``         hash    3 days      digest of event id → digest of body; ``ahead``
``l:{sNN}:PERSON``             string  for ever    the user that a visitor became (``merging``)
``m:{sNN}:PERSON``             hash    for ever    journal: visitor → when sealed; ``?``, ``x``
``q:{sNN}:MINUTE:PERSON``      string  2 minutes   events by public keys (``quota``)
``i:{sNN}:IMPORT``             set     7 days      persons to whom an import was added already
``e:{sNN}``                    stream  archived    accepted events, as JSON
``c:{withheld}``               stream  archived    how often what was bought unstored, of nobody
``{cat}:ids``                  hash    for ever    item id → catalogue row: the authority
``{cat}:new``                  hash    a restore   ids on their way into ``{cat}:ids``
``{cat}:log``                  list    trimmed     changes of items since the file before the last
``{cat}:start``                string  for ever    how many log entries were trimmed
``{cat}:sequence``             string  for ever    how many log entries there have ever been
``{cat}:next``                 string  for ever    the next row that will be given
``{keys}:records``             hash    for ever    API key id → record as JSON
``{keys}:version``             string  for ever    changes with every change of a key
``c:{keys}``                   stream  archived    changes of API keys, as JSON (key store)
``{site}:head``                string  for ever    number and hash of the last change of the site
``{site}:documents``           hash    for ever    rules, placements, segments, ... (``documents``)
``{site}:workers``             hash    an hour     worker → when it spoke, what it obeys
``c:{site}``                   stream  archived    changes of the site, as JSON (``documents``)
``{archive}:leader``           string  7 s         name of the process that archives
``{archive}:epoch``            string  for ever    random; another one: the server was emptied
``{archive}:rebuilding``       string  a rebuild   name of the rebuild that is not finished
=============================  ======  ==========  =============================================

PERSON is ``u:<user id>`` or ``a:<anonymous id>`` (``schema.person_of``). Each person belongs to one
of 64 fixed shards; everything of one person carries the shard's tag, so that one script touches one
slot of a cluster. The tag stands before the id: braces inside an id mean nothing.
"""

import re
import zlib
from functools import lru_cache

N_SHARDS = 64

CATALOGUE_IDS = "{cat}:ids"
CATALOGUE_NEW_IDS = "{cat}:new"
CATALOGUE_LOG = "{cat}:log"
CATALOGUE_START = "{cat}:start"
CATALOGUE_SEQUENCE = "{cat}:sequence"
CATALOGUE_NEXT_ROW = "{cat}:next"
KEY_RECORDS = "{keys}:records"
KEY_VERSION = "{keys}:version"
KEY_CHANGES = "c:{keys}"
SITE_HEAD = "{site}:head"
SITE_DOCUMENTS = "{site}:documents"
SITE_CHANGES = "c:{site}"
SITE_WORKERS = "{site}:workers"
SITE_CHANNEL = "{site}:changed"
FORGOTTEN_SALT = "{forgotten}:salt"
ERASURE_JOBS = "{forgotten}:jobs"
ERASURE_RECEIPTS = "{forgotten}:receipts"
ERASURE_FOLDERS = "{forgotten}:folders"
ERASURE_CLEARED = "{forgotten}:cleared"
FORGOTTEN_CHANGES = "c:{forgotten}"
WITHHELD = "c:{withheld}"
CHANGE_STREAMS = (KEY_CHANGES, SITE_CHANGES, FORGOTTEN_CHANGES, WITHHELD)
"""Streams of what changes without being an event; archived like the events."""
ARCHIVER = "{archive}:leader"
EPOCH = "{archive}:epoch"
REBUILDING = "{archive}:rebuilding"

DEDUPLICATION_TTL_S = 3 * 86_400
IMPORT_MARKER_TTL_S = 7 * 86_400


@lru_cache(maxsize=65_536)
def shard_of(person: str) -> str:
    """Return the tag of a person's shard, such as ``{s07}``."""
    return f"{{s{zlib.crc32(person.encode('utf-8', 'surrogatepass')) % N_SHARDS:02d}}}"


def shards() -> list[str]:
    """Return the tags of all shards."""
    return [f"{{s{number:02d}}}" for number in range(N_SHARDS)]


def hot(person: str) -> str:
    """Key of the packed state that pages read."""
    return f"h:{shard_of(person)}:{person}"


def rest(person: str) -> str:
    """Key of the packed state that only writes read."""
    return f"r:{shard_of(person)}:{person}"


def impressions(person: str) -> str:
    """Key of the packed impressions: what a person was shown."""
    return f"t:{shard_of(person)}:{person}"


def preferences(person: str) -> str:
    """Key of what a person decided."""
    return f"p:{shard_of(person)}:{person}"


def read_by_pages(person: str) -> tuple[str, str, str]:
    """Keys of the state, of the preferences and of the impressions, which every page reads."""
    whose = f"{shard_of(person)}:{person}"
    return f"h:{whose}", f"p:{whose}", f"t:{whose}"


_DOCUMENTS = {"profile": "u", "preferences": "p", "computed": "k"}


def document(kind: str, person: str) -> str:
    """Key of a document of a person: ``profile``, ``preferences`` or ``computed``."""
    return f"{_DOCUMENTS[kind]}:{shard_of(person)}:{person}"


def people(shard: str) -> str:
    """Key of the people of a shard who have a document."""
    return f"n:{shard}"


def external_id(name: str, value: str) -> str:
    """Key of the user whom an id of another system stands for."""
    return f"x:{shard_of(f'{name}={value}')}:{name}={value}"


def person_changes(shard: str) -> str:
    """Key of a shard's stream of changed documents."""
    return f"g:{shard}"


def forgotten(shard: str) -> str:
    """Key of what is forgotten of a shard's people, who are named by digests alone."""
    return f"b:{shard}"


def deduplication(person: str, day: int) -> str:
    """Key of the event ids that arrived on a day (days since 1970)."""
    return f"d:{shard_of(person)}:{day}:{person}"


def link(person: str) -> str:
    """Key of the user that a visitor became."""
    return f"l:{shard_of(person)}:{person}"


def merges(person: str) -> str:
    """Key of the visitors whose history a user has taken over."""
    return f"m:{shard_of(person)}:{person}"


def quota(person: str, minute: int) -> str:
    """Key of how many events a visitor sent in a minute (minutes since 1970)."""
    return f"q:{shard_of(person)}:{minute}:{person}"


def import_marker(shard: str, import_id: str) -> str:
    """Key of the persons of a shard to whom an import was added."""
    return f"i:{shard}:{import_id}"


def events(shard: str) -> str:
    """Key of a shard's stream of accepted events."""
    return f"e:{shard}"


OURS = re.compile(rb"([bcdeghiklmnpqrtux]:)?\{(s\d\d|cat|keys|site|archive|forgotten|withheld)\}")
"""What every key of ours begins with; whatever else a server holds is somebody else's."""
